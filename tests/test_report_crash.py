# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Reports of `summary` and `verify`: whatever breaks while one is written, there is the old or the new one, whole."""

from __future__ import annotations

import re

import pytest
from areas import PROJECT, floats, stage
from contracts.disk_faults import Faults, run_broken

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunRef

COMMANDS = (["summary"], ["verify", "--read-data"])


@pytest.fixture(params=COMMANDS, ids=lambda command: command[0])
def report(request, tmp_path):
    """The command that writes `out/report.html`, and how many changes on disk that takes."""
    stage(tmp_path, "RUN-1", floats(RunRef(PROJECT, "RUN-1"), "loss", [n / 7 for n in range(300)]))
    out = tmp_path / "out"
    out.mkdir()
    places = ("--data-path", str(tmp_path / "data"), "--files-path", str(tmp_path / "files"))

    def write() -> int:
        return main([*request.param, *places, "--html", str(out / "report.html")])

    with Faults(out).active() as faults:
        assert write() == 0
    assert "RUN-1" in (out / "report.html").read_text()
    assert len(faults.log) >= 3
    return write, out, len(faults.log)


@pytest.mark.parametrize("mode", ["error", "kill"])
@pytest.mark.parametrize("old", [None, "the old report"])
def test_any_change_may_break(report, old, mode, capsys):
    write, out, changes = report
    page = out / "report.html"
    new = page.read_text()
    size = len(new)
    for number in range(1, changes + 1):
        page.unlink()
        if old is not None:
            page.write_text(old)
        run_broken(write, out, mode, number)
        left = page.read_text() if page.exists() else None
        assert left == old or (left is not None and left.endswith(new[-20:]) and abs(len(left) - size) < 100)
        if mode == "error":
            shown = capsys.readouterr()
            assert re.search(r"Error: Cannot .*report\.html", shown.err), shown.err
            assert "Traceback" not in shown.err
            assert {path.name for path in out.iterdir()} <= {"report.html"}
        assert write() == 0
        assert page.read_text().endswith(new[-20:])
