# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""An offline load into W&B: whatever breaks on disk, `wandb sync` finds a whole log or none, and a re-run finishes."""

from __future__ import annotations

import json
import shutil

import pytest
from areas import PROJECT, floats, stage, tags, text
from contracts.disk_faults import Faults, run_broken
from wandb_seen import seen_in_log

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunRef

REF = RunRef(PROJECT, "RUN-1")
POINTS = 300


def whole_logs(out) -> int:
    """How many logs there are, each with all its rows and its record."""
    logs = list(out.glob("wandb/offline-run-*/*.wandb"))
    for log in logs:
        seen = seen_in_log(log)
        assert [int(row["_step"]) for row in seen.history] == list(range(POINTS))
        assert seen.config["params/name"] == "adam"
        assert json.loads((log.parent / "neptune.json").read_text())
    return len(logs)


@pytest.mark.parametrize("mode", ["error", "kill"])
def test_any_change_may_break(tmp_path, monkeypatch, mode, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    rows = floats(REF, "loss", [n / 7 for n in range(POINTS)])
    stage(tmp_path, "RUN-1", rows, text(REF, "params/name", "adam"), tags(REF, ["a"]))
    out = tmp_path / "out"
    places = ("--data-path", str(tmp_path / "data"), "--files-path", str(tmp_path / "files"), "--wandb-dir", str(out))

    def load() -> int:
        target = ("--loader", "wandb", "--wandb-mode", "offline", "--wandb-entity", "team", "--workers", "1")
        return main(["load", *target, *places])

    out.mkdir()
    with Faults(out).active() as faults:
        assert load() == 0
    assert whole_logs(out) == 1
    changes = len(faults.log)
    assert changes > 5
    for number in range(1, changes + 1):
        shutil.rmtree(out)
        out.mkdir()
        run_broken(load, out, mode, number)
        assert whole_logs(out) <= 1
        if mode == "error":
            shown = capsys.readouterr()
            assert "Traceback" not in shown.err
            assert "Input/output error" in shown.err + shown.out
        assert load() == 0
        assert whole_logs(out) == 1
