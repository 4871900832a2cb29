# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Claims: one command works on a run at a time, and the dead hold nothing."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from contracts.rows import curve, write_run

from neptune_exporter.assignment import Assignment, assigned
from neptune_exporter.errors import ClaimedError
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage import claims, names
from neptune_exporter.storage.claims import Claim, living_holder, process_start
from neptune_exporter.storage.manifest import SourceRecord

REF = RunRef("team/claims", "run-1")

HOLD = """
import sys
from pathlib import Path
from neptune_exporter.storage.claims import Claim
with Claim(Path(sys.argv[1]), "the run"):
    print("held", flush=True)
    sys.stdin.read()
"""

RACE = """
import sys
from pathlib import Path
from neptune_exporter.assignment import Assignment, assigned
from neptune_exporter.errors import ClaimedError
from neptune_exporter.storage.claims import Claim
print("ready", flush=True)
sys.stdin.readline()
got = []
for number in range(30):
    claim = Claim(Path(sys.argv[1]) / f"{number}.claim", "the run")
    try:
        claim.__enter__()
        got.append(number)
    except ClaimedError:
        pass
print(*got, flush=True)
sys.stdin.read()
"""


def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_claim_ends_with_its_block(tmp_path):
    path = tmp_path / "run.claim"
    with Claim(path, "the run"):
        assert living_holder(path)["pid"] == os.getpid()
    assert not path.exists()
    with Claim(path, "the run"):
        pass


def test_a_living_process_holds_its_claim(tmp_path):
    path = tmp_path / "run.claim"
    process = holder(path)
    with pytest.raises(ClaimedError, match=rf"the run is being worked on by process {process.pid} on ") as raised:
        Claim(path, "the run").__enter__()
    assert "run the same command again" in raised.value.hint
    process.communicate()
    assert not path.exists()


def test_a_dead_process_holds_nothing(tmp_path):
    path = tmp_path / "run.claim"
    process = holder(path)
    process.kill()
    process.communicate()
    assert path.exists()
    assert living_holder(path) is None
    with Claim(path, "the run"):
        assert living_holder(path)["pid"] == os.getpid()


def test_another_process_with_the_same_number_holds_nothing(tmp_path):
    path = tmp_path / "run.claim"
    content = {"host": socket.gethostname(), "pid": os.getppid(), "started": "long ago", "token": "x"}
    path.write_text(json.dumps(content))
    assert living_holder(path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": 1}', '{"pid": "x"}', "\x00"])
def test_a_claim_that_was_not_written_whole_holds_nothing(tmp_path, content):
    path = tmp_path / "run.claim"
    path.write_text(content.replace("1", json.dumps(socket.gethostname())))
    assert living_holder(path) is None
    with Claim(path, "the run"):
        pass


@pytest.mark.parametrize(
    ("age", "alive"), [(0, True), (claims.DEAD_SECONDS - 20, True), (claims.DEAD_SECONDS + 20, False)]
)
def test_on_another_host_the_heartbeat_decides(tmp_path, age, alive):
    path = tmp_path / "run.claim"
    path.write_text(json.dumps({"host": "another-host", "pid": 1, "started": "1", "token": "x"}))
    os.utime(path, (time.time() - age,) * 2)
    assert (living_holder(path) is not None) == alive
    if alive:
        with pytest.raises(ClaimedError, match="process 1 on another-host"):
            Claim(path, "the run").__enter__()
    else:
        with Claim(path, "the run"):
            pass


def test_claims_are_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(claims, "held", claims._Held())
    path = tmp_path / "run.claim"
    with Claim(path, "the run"):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert path.stat().st_mtime > 1
    claims.held._wake.set()


def test_who_was_taken_over_notices(tmp_path):
    path = tmp_path / "run.claim"
    with Claim(path, "the run") as claim:
        claim.check()
        path.write_text(json.dumps({"host": "another-host", "pid": 1, "token": "theirs"}))
        with pytest.raises(ClaimedError, match="taken over the run"):
            claim.check()
    assert json.loads(path.read_text())["token"] == "theirs"  # and leaves the other's claim alone


def test_a_claim_that_could_not_be_removed_is_not_held_by_its_own_process(tmp_path):
    path = tmp_path / "run.claim"
    with Claim(path, "the run"):
        content = path.read_text()
    path.write_text(content)
    assert living_holder(path) is None


def test_of_racing_processes_each_claim_goes_to_one(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [racer.stdout.readline().split() for racer in racers]
    for racer in racers:
        racer.communicate()
    assert sorted(number for numbers in won for number in numbers) == sorted(map(str, range(30)))


def test_of_racing_threads_each_claim_goes_to_one(tmp_path):
    won, barrier = [], threading.Barrier(4)

    def race():
        barrier.wait()
        for number in range(30):
            try:
                Claim(tmp_path / f"{number}.claim", "the run").__enter__()
                won.append(number)
            except ClaimedError:
                pass

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(30))


def test_a_writer_holds_its_run(staging):
    first = staging.writer(RunInfo(REF), SourceRecord("memory", "here"))
    with pytest.raises(ClaimedError):
        staging.writer(RunInfo(REF), SourceRecord("memory", "here"))
    other = staging.writer(RunInfo(RunRef(REF.project_id, "run-2")), SourceRecord("memory", "here"))
    other.abort()
    first.abort()
    staging.writer(RunInfo(REF), SourceRecord("memory", "here")).abort()


def test_a_writer_that_was_taken_over_does_not_commit(staging):
    write_run(staging, REF, curve("loss", 3))
    writer = staging.writer(RunInfo(REF), SourceRecord("memory", "here"), staging.run(REF))
    path = staging.folder(REF.project_id).data / "_manifest" / f"{names.stem(REF.run_id)}.claim"
    path.write_text(json.dumps({"host": "another-host", "pid": 1, "token": "theirs"}))
    with pytest.raises(ClaimedError, match="taken over"):
        writer.commit()
    writer.abort()
    assert staging.run(REF).generation == 1
    path.unlink()


def test_a_writer_notices_what_came_meanwhile(staging):
    base = write_run(staging, REF, curve("loss", 3))
    write_run(staging, REF, curve("loss", 4))
    with pytest.raises(ClaimedError, match="just exported"):
        staging.writer(RunInfo(REF), SourceRecord("memory", "here"), base)
    with pytest.raises(ClaimedError, match="just exported"):
        staging.writer(RunInfo(REF), SourceRecord("memory", "here"), None)


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(_file, _operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with Claim(tmp_path / "run.claim", "the run"):
        assert living_holder(tmp_path / "run.claim")["pid"] == os.getpid()


def test_workers_of_one_command_do_not_take_from_each_other_what_nobody_gave_them(tmp_path):
    """A scheduler gives out runs; that a folder becomes ours is nobody's task."""
    path = tmp_path / "area.claim"
    parent = os.getppid()
    holder = {
        "host": socket.gethostname(),
        "pid": parent,
        "started": process_start(parent),
        "token": "t",
        "command": "c",
    }
    path.write_text(json.dumps(holder))
    with assigned(Assignment(command="c", task="t")):
        with pytest.raises(ClaimedError), Claim(path, "the area", assigned=False):
            pass
        with Claim(path, "a run"):
            pass
