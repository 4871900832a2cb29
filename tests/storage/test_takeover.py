# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A worker that only seemed dead goes on after another has taken its run: nothing doubled, nothing mixed, nothing lost.

Two writers of one run in one process, interleaved step by step: one that the scheduler has given up, and its heir.
"""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from contracts.rows import assert_same, batch_of, curve, rows_on_disk, single, snapshot, write_run

from neptune_exporter.assignment import Assignment, assigned
from neptune_exporter.errors import ClaimedError, StagingError
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage import claims, commit, disk, names
from neptune_exporter.storage.manifest import SourceRecord

REF = RunRef("team/takeover", "run-1")
SOURCE = SourceRecord("memory", "here")
LATE = Assignment(command="c1", task="t")
HEIR = Assignment(command="c1", task="t", again=True)


def rows(seed: int, points: int = 300) -> list:
    """What one of them finds at the source: the source may have changed in between."""
    return [
        *curve("loss", points, seed=seed),
        *curve("other", points, seed=seed),
        single("model", b"%d" % seed * 100),
        single("plot", b"%d" % -seed * 50),
        single("seed", seed),
    ]


class Worker:
    """A writer under its own assignment."""

    def __init__(self, staging, given, seed, base=None):
        self.given, self.rows = given, rows(seed)
        with assigned(given):
            self.writer = staging.writer(RunInfo(REF), SOURCE, base)
        self.steps = [
            lambda: self._write(slice(0, 200)),
            lambda: self._write(slice(200, 601)),
            lambda: self._write(slice(601, None)),
            self.writer.commit,
        ]

    def _write(self, part):
        self.writer.write(batch_of(REF, self.rows[part], self.writer.files))

    def go(self, first, last=None):
        with assigned(self.given):
            for step in self.steps[first:last]:
                step()


def notices(worker, done):
    """The late one goes on from where it was stopped, and gives up as export does."""
    try:
        with pytest.raises(ClaimedError, match="taken over"):
            worker.go(done)
    finally:
        worker.writer.abort()


def assert_only(staging, expected):
    """The run is what the heir wrote, every byte of it as its manifest says, and nothing else lies around."""
    assert_same(expected, rows_on_disk(staging, REF))
    folder, run = staging.folder(REF.project_id), staging.run(REF)
    for entry in run.manifest.files:
        assert run.files.hash_content(entry.path) == entry.sha256
    named = {part.path for part in run.manifest.parts} | {file.path for file in run.manifest.files}
    stem = names.stem(REF.run_id)
    named |= {f"_manifest/{stem}.json", f"_manifest/{stem}.parquet", "_manifest/area.json"}
    found = {name for name in (*snapshot(folder.data), *snapshot(folder.files)) if not name.endswith(".lock")}
    assert found == named


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("stopped", [0, 1, 2, 3])
@pytest.mark.parametrize("resumed", [0, 1, 2, 3, 4])
def test_who_was_stopped_anywhere_notices(staging, small_pieces, stopped, resumed, generation):
    """It is stopped after so many steps, and goes on when its heir has done so many."""
    base = write_run(staging, REF, rows(0)) if generation == 2 else None
    late = Worker(staging, LATE, 1, base)
    late.go(0, stopped)
    heir = Worker(staging, HEIR, 2, base)
    heir.go(0, resumed)
    notices(late, stopped)
    heir.go(resumed)
    assert_only(staging, heir.rows)
    assert staging.run(REF).generation == generation


def test_both_write_at_the_same_time(staging, small_pieces):
    late = Worker(staging, LATE, 1)
    heir = Worker(staging, HEIR, 2)
    for step in range(3):
        late.go(step, step + 1)
        heir.go(step, step + 1)
    notices(late, 3)
    heir.go(3)
    assert_only(staging, heir.rows)


def test_another_host_takes_over_when_the_claim_has_expired(staging, small_pieces):
    """Without a scheduler: the first one is on another host and was not heard of for long."""
    late = Worker(staging, Assignment(), 1)
    late.go(0, 2)
    path = staging.folder(REF.project_id).data / "_manifest" / f"{names.stem(REF.run_id)}.claim"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "another-host"}))
    with pytest.raises(ClaimedError, match="another-host"):
        Worker(staging, Assignment(), 2)
    os.utime(path, (time.time() - claims.DEAD_SECONDS - 1,) * 2)
    heir = Worker(staging, Assignment(), 2)
    heir.go(0, 2)
    notices(late, 2)
    heir.go(2)
    assert_only(staging, heir.rows)


def test_another_command_does_not_inherit(staging):
    late = Worker(staging, LATE, 1)
    with pytest.raises(ClaimedError, match="being worked on"):
        Worker(staging, Assignment(command="c2", task="t", again=True), 2)
    late.go(0)
    assert_only(staging, late.rows)


@pytest.mark.parametrize("moment", range(1, 12))
def test_who_is_stopped_in_its_commit_has_committed(staging, small_pieces, monkeypatch, moment):
    """No claim changes hands in the middle of a commit: the heir waits, and finds the run done."""
    stopped, go_on = threading.Event(), threading.Event()
    late = Worker(staging, LATE, 1)
    late.go(0, 3)
    changes = 0

    def stops(real):
        def change(*arguments):
            nonlocal changes
            if threading.current_thread().name == "late" and commit_begun.is_set():
                changes += 1
                if changes == moment:
                    stopped.set()
                    assert go_on.wait(60)
            return real(*arguments)

        return change

    commit_begun = threading.Event()
    real_commit = commit.commit

    def begins(*arguments):
        commit_begun.set()
        real_commit(*arguments)
        stopped.set()

    monkeypatch.setattr(commit, "commit", begins)
    for name in ("write_json", "replace", "remove", "sync_folder"):
        monkeypatch.setattr(disk, name, stops(getattr(disk, name)))
    thread = threading.Thread(target=late.go, args=(3,), name="late")
    thread.start()
    assert stopped.wait(60)
    outcome = []

    def inherit():
        try:
            outcome.append(Worker(staging, HEIR, 2))
        except StagingError as error:
            outcome.append(error)

    heir = threading.Thread(target=inherit)
    heir.start()
    go_on.set()
    thread.join(60)
    heir.join(60)
    assert isinstance(outcome[0], ClaimedError)
    assert "just exported" in outcome[0].message
    assert_only(staging, late.rows)
