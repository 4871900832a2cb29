# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""kill -9, Ctrl-C and SIGTERM at any request of an export: nothing unfinished looks complete, the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from collect3 import PROJECT, Home, put, serving, system_rows
from contracts.rows import assert_same, everything
from servers.http import Fault

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

# At which of about 45 requests.
MOMENTS = [(signal.SIGKILL, moment) for moment in (1, 3, 8, 14, 21, 33)]
MOMENTS += [(signal.SIGINT, 1), (signal.SIGINT, 14), (signal.SIGTERM, 3), (signal.SIGTERM, 21)]


def fill(server) -> dict[str, list]:
    expected = {}
    for number in range(4):
        run = server.store.add_run(PROJECT, f"run-{number}")
        own = [row for row in everything() if not row.path.startswith("sys/")]
        put(server, run, own)
        expected[f"run-{number}"] = own + system_rows(run)
    return expected


class Gate:
    """Holds one request of a server back until the test lets it through."""

    def __init__(self, server, number: int) -> None:
        self._handle, self._number, self._seen = server.http._handle, number, 0
        self._lock = threading.Lock()
        self.reached, self.open = threading.Event(), threading.Event()
        server.http._handle = self

    def __call__(self, request):
        with self._lock:
            self._seen += 1
            mine = self._seen == self._number
        if mine:
            self.reached.set()
            assert self.open.wait(60)
        return self._handle(request)


def begin(home: Home, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "neptune_exporter", "export", "-p", PROJECT, *home.places, "--workers", "2"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "moment"), MOMENTS)
def test_loss_02_an_interrupted_export_marks_nothing_complete_and_goes_on(tmp_path, number, moment):
    home = Home(tmp_path)
    with serving() as server:
        expected = fill(server)
        gate = Gate(server, moment)
        with begin(home) as process:
            assert gate.reached.wait(60)
            process.send_signal(number)
            gate.open.set()
            out, err = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130, out + err
            assert "Traceback" not in err
            assert "Hint: Run the same command again" in err
        if (home.root / "data").exists():
            for run_id in home.runs():
                assert_same(expected[run_id], home.rows(run_id))
                assert home.staged(run_id).status == "complete"
        server.http.log.clear()
        assert home.export() == 0
        for run_id, rows in expected.items():
            assert_same(rows, home.rows(run_id))
        assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_loss_02_a_re_export_that_is_killed_leaves_what_there_was(tmp_path):
    home = Home(tmp_path)
    with serving() as server:
        expected = fill(server)
        assert home.export() == 0
        for run in server.store.projects[PROJECT].values():
            server.store.touch(run)
        gate = Gate(server, 12)
        with begin(home) as process:
            assert gate.reached.wait(60)
            process.kill()
            gate.open.set()
            process.communicate(timeout=60)
        for run_id, rows in expected.items():
            found = home.rows(run_id)
            changed = ("sys/modification_time",)
            assert_same([r for r in rows if r.path not in changed], [r for r in found if r.path not in changed])
        assert home.export() == 0


def test_ctrl_c_does_not_wait_for_a_server_that_is_away(tmp_path):
    home = Home(tmp_path)
    with serving() as server:
        fill(server)
        server.http.faults.append(Fault("series/float", status=503, times=None))
        gate = Gate(server, 12)
        with begin(home, "--retry-timeout", "3600") as process:
            assert gate.reached.wait(60)
            gate.open.set()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
