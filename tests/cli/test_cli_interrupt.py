# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and kill -9 in mid-export of a real process: nothing looks complete, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

# The real program, in which the rows of every run but `digits-0` take for ever.
SLOW = """
import sys, time
from neptune_exporter.storage.writer import RunWriter
write = RunWriter.write

def slow_write(self, batch):
    write(self, batch)
    if self._info.ref.run_id != "digits-0":
        print("writing", file=sys.stderr, flush=True)
        while not self._stop():
            time.sleep(0.01)

RunWriter.write = slow_write
from neptune_exporter.cli.main import run
run()
"""


def interrupted(sample, places, number):
    """Starts an export, waits until it hangs in a run, sends the signal; gives exit code and stderr."""
    arguments = ["export", "--exporter", "offline", "--offline-path", sample / ".neptune", *places, "--workers", "2"]
    command = [sys.executable, "-c", SLOW, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        while sum(line == "writing\n" for line in lines) < 2:  # both workers: digits-0 is done
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, "".join(lines).replace("writing\n", "") + err.replace("writing\n", "")


@pytest.fixture
def new(sample):
    """A place for a new staging area, as options."""
    return ["--data-path", sample / "new", "--files-path", sample / "newfiles"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_export_goes_on_where_it_was(sample, new, call, number):
    code, out, err = interrupted(sample, new, number)
    assert "Traceback" not in err
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert out == ""
        error, hint = err.strip().splitlines()
        assert error == "Error: Interrupted. What was finished is kept."
        assert hint.startswith("Hint: Run the same command again")
        assert str(sample / ".neptune") in hint

    # What was finished counts, the rest does not exist.
    manifests = [path.name for path in (sample / "new").rglob("*.json") if path.name != "area.json"]
    assert len(manifests) <= 1
    assert all(name.startswith("digits-0-") for name in manifests)
    parts = [path.name for path in (sample / "new").rglob("*_part_*.parquet")]
    assert len(parts) == len(manifests)

    again = call("export", "--exporter", "offline", "--offline-path", sample / ".neptune", *new)
    assert again.code == 0
    assert f"{4 - len(manifests)} done" in again.out
    proof = call("verify", "--read-data", "--exporter", "offline", "--offline-path", sample / ".neptune", *new)
    assert proof.code == 0, proof.out
    assert not [path for path in (sample / "new").rglob("*") if path.name.endswith((".tmp", ".claim", ".next.json"))]


def test_the_hint_is_the_command_to_type(sample, new):
    _, _, err = interrupted(sample, new, signal.SIGINT)
    hint = err.strip().splitlines()[-1]
    assert hint.endswith(f"--data-path {sample / 'new'} --files-path {sample / 'newfiles'} --workers 2")
