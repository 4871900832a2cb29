# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Stores that are alive, killed, truncated, overwritten or half gone: what can be saved is, and the rest is counted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from collect import EVERYTHING, collect, collect_all, offline
from truth import PROJECT, START, Logger, differences

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.offline_scale import copy as copying
from neptune_exporter.exporters.offline_scale import database

WRITER = """
import sys
from datetime import UTC, datetime
from neptune_scale import Run
run = Run(project="team/truth", run_id="live", mode="offline", log_directory=sys.argv[1],
          enable_console_log_capture=False, source_tracking_config=None)
step = 0
while True:
    run.log_metrics({"step": step, "other": -step}, step=step, timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    step += 1
    if step >= int(sys.argv[2]):
        print(step, flush=True)
        if sys.argv[3] == "wait":
            sys.stdin.read()
"""


@contextmanager
def writer(folder: Path, count: int, then: str):
    """The real client in another process: says when it has logged `count` steps, then waits or goes on."""
    command = [sys.executable, "-c", WRITER, str(folder), str(count), then]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A closed store of 4,000 narrow operations, and what was logged."""
    folder = tmp_path_factory.mktemp("logged")
    log = Logger(folder, "run", experiment_name="x")
    log.run._operations_repo._connection.execute("PRAGMA synchronous = OFF")  # only to be quick
    for step in range(4000):
        log.metrics({"loss": 1 / (step + 1)}, str(step), START)
    return folder, log.close()


@pytest.fixture
def store(logged, tmp_path):
    """A copy of it to damage."""
    shutil.copytree(logged[0], tmp_path / "neptune")
    return next((tmp_path / "neptune").glob("*/*.sqlite3"))


def export_damaged(store: Path, truth, tmp_path: Path) -> int:
    """Exports a damaged store; everything found must have been logged, every loss be counted. Returns the loss."""
    found = collect_all(offline(store), tmp_path / "files")["run"]
    missing, extra = differences([row for row in truth.rows if row.path == "loss"], found.rows)
    assert [row for row in extra if not row.path.startswith("sys/")] == []
    assert sum(problem.count for problem in found.problems) == len(missing)
    for problem in found.problems:
        assert problem.kind == "permanent"
        assert str(store) in problem.message
    return len(missing)


def test_a_killed_writer_loses_nothing(tmp_path):
    with writer(tmp_path / "neptune", 700, "wait") as process:
        assert process.stdout.readline() == "700\n"
    wal = next((tmp_path / "neptune").glob("*/*-wal"))
    assert wal.stat().st_size > 0
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["live"]
    assert sorted(found.values("step")) == [float(step) for step in range(700)]
    assert found.problems == []


def test_a_live_writer_is_read_as_of_one_moment(tmp_path):
    with writer(tmp_path / "neptune", 300, "go on") as process:
        process.stdout.readline()
        logged = 300
        for attempt in range(5):
            found = collect_all(offline(tmp_path / "neptune"), tmp_path / str(attempt))["live"]
            steps = sorted(found.values("step"))
            assert steps == [float(step) for step in range(len(steps))]
            assert len(steps) >= logged
            assert found.problems == []
            while logged <= len(steps):
                logged = int(process.stdout.readline())


@pytest.mark.parametrize("part", [0.9, 0.6, 0.3])
def test_a_truncated_database_gives_its_beginning(store, logged, tmp_path, part):
    os.truncate(store, int(store.stat().st_size * part))
    lost = export_damaged(store, logged[1], tmp_path)
    assert 0 < lost < 4000 * (1.3 - part)


@pytest.mark.parametrize("seed", range(6))
def test_an_overwritten_page_costs_only_what_was_on_it(store, logged, tmp_path, seed):
    number = random.Random(seed).randrange(8, store.stat().st_size // 4096)
    with store.open("r+b") as file:
        file.seek(4096 * number)
        file.write(random.Random(seed).randbytes(4096))
    assert export_damaged(store, logged[1], tmp_path) < 200


@pytest.mark.parametrize("block_bytes", [1, 2**21])
def test_a_hole_in_the_log_is_counted(store, logged, tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(database, "BLOCK_BYTES", block_bytes)
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM run_operations WHERE sequence_id BETWEEN 100 AND 149")
    connection.close()
    assert export_damaged(store, logged[1], tmp_path) == 50


def test_operations_that_cannot_be_decoded_are_counted(store, logged, tmp_path):
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE run_operations SET operation = x'ffffffff' WHERE sequence_id BETWEEN 7 AND 9")
        connection.execute("UPDATE run_operations SET operation = x'' WHERE sequence_id = 0")
    connection.close()
    found = collect_all(offline(store), tmp_path / "files")["run"]
    assert len(found.values("loss")) == 3997
    assert [(problem.count, problem.kind) for problem in found.problems] == [(3, "permanent")]


def test_an_emptied_database_is_restored_from_its_write_ahead_log(tmp_path):
    with writer(tmp_path / "neptune", 100, "wait") as process:
        process.stdout.readline()
    os.truncate(next((tmp_path / "neptune").glob("*/*.sqlite3")), 0)
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["live"]
    assert sorted(found.values("step")) == [float(step) for step in range(100)]


def test_a_damaged_write_ahead_log_is_a_named_loss(tmp_path):
    with writer(tmp_path / "neptune", 300, "wait") as process:
        process.stdout.readline()
    wal = next((tmp_path / "neptune").glob("*/*-wal"))
    with wal.open("r+b") as file:
        file.seek(wal.stat().st_size * 2 // 3)
        file.write(b"damage")
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["live"]
    steps = sorted(found.values("step"))
    assert steps == [float(step) for step in range(len(steps))]
    assert 0 < len(steps) < 300
    assert [problem.kind for problem in found.problems] == ["permanent"]
    assert "write-ahead log" in found.problems[0].message
    assert found.problems[0].count == 300 - len(steps)


def test_a_torn_last_write_is_no_loss(tmp_path):
    """What was being written when the machine stopped was never logged: the call had not returned."""
    with writer(tmp_path / "neptune", 100, "wait") as process:
        process.stdout.readline()
    wal = next((tmp_path / "neptune").glob("*/*-wal"))
    os.truncate(wal, wal.stat().st_size - 100)
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["live"]
    assert sorted(found.values("step")) == [float(step) for step in range(99)]
    assert found.problems == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"garbage" * 1000, "not a database"), (b"SQLite format 3\0" + bytes(5000), "")],
)
def test_what_cannot_be_read_is_named(store, tmp_path, content, says):
    bad = store.parent.parent / "team_bad_1" / "run_operations.sqlite3"
    bad.parent.mkdir()
    bad.write_bytes(content)
    exporter = offline(store.parent.parent)
    assert set(collect_all(exporter, tmp_path / "files")) == {"run"}
    (problem,) = exporter.unreadable
    assert str(bad) in problem.message
    assert says in problem.message
    with pytest.raises(SourceError, match="can be read") as caught:
        list(offline(bad.parent).projects(EVERYTHING))
    assert str(bad) in caught.value.message


def test_a_store_without_its_identity_is_named(store, tmp_path):
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM metadata")
    connection.close()
    with pytest.raises(SourceError, match="does not say which run"):
        list(offline(store).projects(EVERYTHING))


def test_a_full_temporary_disk_is_said_so(store, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SourceError, match="not enough room") as caught:
        list(offline(store).projects(EVERYTHING))
    assert "TMPDIR" in caught.value.message + caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_without_permission_is_named(store):
    store.chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        list(offline(store).projects(EVERYTHING))


def test_a_sync_at_the_same_time_is_noticed(store, tmp_path):
    exporter = offline(store)
    (run,) = exporter.runs(PROJECT, EVERYTHING)
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM run_operations WHERE sequence_id <= 10")
    connection.close()
    with pytest.raises(SourceError, match="being synced"):
        collect(exporter, run, tmp_path / "files")


def test_temporary_copies_are_removed(store, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    collect_all(offline(store), tmp_path / "files")
    (run,) = offline(store).runs(PROJECT, EVERYTHING)
    batches = offline(store).batches(run, EVERYTHING, None, None)
    next(batches)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    batches.close()
    assert list((tmp_path / "temporary").iterdir()) == []
