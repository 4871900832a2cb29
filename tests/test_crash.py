# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever breaks at whatever moment: a reader finds the old state or the new one, whole, and a re-run finishes.

Every change on disk of an export is broken in turn: by an error, by a disk that stays full, by a sudden death, by a
write cut in half. The truth is what the source in memory holds.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts import memory
from contracts.disk_faults import Faults, Mode, in_child
from contracts.memory import MemoryRun, World
from contracts.rows import OFFICIAL, START, batch_of, curve, point, read_rows, single, snapshot
from truth import Content, HistogramValue, Row, exact, rows_in

from neptune_exporter.errors import Problem, StagingError
from neptune_exporter.export import export
from neptune_exporter.fingerprint import Fingerprint
from neptune_exporter.model import OutsideValue, RunInfo, RunRef
from neptune_exporter.pipeline import Report
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage import names, parquet, sort
from neptune_exporter.storage.claims import living_holder
from neptune_exporter.storage.staging import Staging

REF = RunRef("team/crash", "run-1")
OTHER = RunRef("team/crash", "other")


@contextmanager
def small_pieces() -> Iterator[None]:
    """Parts, chunks and blocks so small that a run of some hundred rows has several of each."""
    with (
        patch.multiple(parquet, PART_BYTES=2000, GROUP_ROWS=70),
        patch.multiple(sort, CHUNK_ROWS=120, BLOCK_ROWS=80),
    ):
        yield


def old_rows() -> list[Row]:
    return [
        single("name", "old"),
        single("sys/tags", frozenset({"old"})),
        single("model", b"old weights" * 30),
        single("config", b"old config"),
        *curve("loss", 90),
        *(point("log", step, f"old {step}", step) for step in range(40)),
        *(point("images", step, b"image %d" % step, step) for step in range(2)),
    ]


def new_rows() -> list[Row]:
    return [
        single("name", "new"),
        single("sys/tags", frozenset({"new"})),
        single("model", b"new weights" * 30),
        *curve("loss", 95),
        *(point("log", step, f"old {step}", step) for step in range(41)),
        point("weights", 1, HistogramValue("COUNTING", (0.0, 1.0), (3.0,)), 1),
        *(point("images", step, b"image %d" % step, step) for step in range(3)),
    ]


OUTSIDE = OutsideValue("far", "float_series", "a step of 1e12", "0.5", "1000000000000", None)


@dataclass
class Scenario:
    """An export over a state.

    Attributes:
        before: brings a folder into the old state.
        source: the run as the source has it, for the export that is broken.
        name: under which name it is a source.
        old: the rows before, None if the run does not exist.
        new: the rows after.
    """

    before: Callable[[Staging], None]
    source: MemoryRun
    old: list[Row] | None
    new: list[Row]
    name: str = "here"


def run_export(staging: Staging, run: MemoryRun, name: str = "here") -> Report:
    """The command, as a user gives it."""
    folder = staging.data_path.parent
    options = replace(World([run]).save(folder.with_suffix(".world")), source=name)
    with small_pieces():
        return export("memory", options, staging, EVERYTHING, workers=1)


def fresh(rows: list[Row], version: int = 1, **more) -> MemoryRun:
    return MemoryRun(RunInfo(REF, name="the run"), rows, version, outside=[OUTSIDE], **more)


def exported(*runs: tuple[MemoryRun, str]) -> Callable[[Staging], None]:
    def before(staging: Staging) -> None:
        for run, name in runs:
            run_export(staging, run, name)

    return before


def official(staging: Staging) -> None:
    """The old rows as the official exporter leaves them, in two parts, with files under names of its own."""
    folder = staging.folder(REF.project_id)
    folder.data.mkdir(parents=True)
    rows = old_rows()
    paths = {row: f"run-1/{row.path}/{row.step}.bin" for row in rows if isinstance(row.value, bytes)}
    for row, path in paths.items():
        (folder.files / path).parent.mkdir(parents=True, exist_ok=True)
        (folder.files / path).write_bytes(row.value)
    for number, part in enumerate((rows[:50], rows[50:])):
        table = pa.Table.from_batches([batch_of(REF, part, paths=paths)], schema=OFFICIAL)
        pq.write_table(table, folder.data / f"{names.stem(REF.run_id)}_part_{number}.parquet", compression="snappy")


def union_of(first: list[Row], second: list[Row]) -> list[Row]:
    """Points of both, single values of the second, tags of both."""
    paths = {row.path for row in second if row.step is None}
    rows = [row for row in first if row.step is not None or row.path not in paths]
    rows += [row for row in second if row.step is None or row not in rows]
    tags = frozenset[str]().union(*(row.value for row in [*first, *second] if row.path == "sys/tags"))
    return [replace(row, value=tags) if row.path == "sys/tags" else row for row in rows]


def scenarios() -> dict[str, Scenario]:
    refused = {"loss": Problem("timed out", "loss", "retry")}
    later, earlier = START + timedelta(days=1), START
    without_loss = [row for row in old_rows() if row.path != "loss"]
    return {
        "first": Scenario(lambda _: None, fresh(new_rows()), None, new_rows()),
        "replace": Scenario(exported((fresh(old_rows()), "here")), fresh(new_rows(), 2), old_rows(), new_rows()),
        "extend": Scenario(
            exported((fresh(old_rows(), refused=refused), "here")), fresh(old_rows()), without_loss, old_rows()
        ),
        "union": Scenario(
            exported((fresh(old_rows(), as_of=earlier), "there")),
            fresh(new_rows(), as_of=later),
            old_rows(),
            union_of(old_rows(), new_rows()),
        ),
        "foreign": Scenario(official, fresh(new_rows(), as_of=later), old_rows(), union_of(old_rows(), new_rows())),
    }


SCENARIOS = list(scenarios())


def keys(rows: list[Row]) -> list[tuple]:
    keyed = (
        (row.path, row.type, row.step and int(row.step * 10**6), row.time and row.time.timestamp(), exact(row.value))
        for row in rows
    )
    return sorted(keyed, key=repr)


def state(staging: Staging) -> list[tuple] | None:
    """What an ordinary reader finds of the run; everything it says of itself must be true."""
    run = staging.run(REF)
    if run is None:
        return None
    rows: list[Row] = []
    fingerprint = Fingerprint(run.files.hash_content)
    content = Content(staging.folder(REF.project_id).files)
    for batch in run.read():
        fingerprint.write(batch)
        rows += rows_in(batch, content)
    assert [a for a in run.attributes() if a.rows] == fingerprint.attributes()
    if run.manifest is not None:
        assert {e.path: (staging.folder(REF.project_id).files / e.path).stat().st_size for e in run.manifest.files} == {
            e.path: e.bytes for e in run.manifest.files
        }
        assert run.extra() == (json.dumps(_outside(), ensure_ascii=True) + "\n").encode()
    return keys(rows)


def _outside() -> dict[str, str | None]:
    return {name: getattr(OUTSIDE, name) for name in OUTSIDE.__slots__}


def tree(root: Path) -> dict[str, bytes]:
    """All files with their content, without the times at which something was exported."""
    moment = re.compile(rb'"(exported|created)": "[^"]*"')
    return {
        name: moment.sub(b"", content) if name.endswith(".json") else content
        for name, content in snapshot(root).items()
        if not name.endswith(".lock") and not (name.endswith(".claim") and living_holder(root / name) is None)
    }


class Bench:
    """One scenario, prepared: the old state, the expected new state, and a copy to break for each try."""

    def __init__(self, scenario: Scenario, root: Path) -> None:
        self.scenario = scenario
        self._root = root
        self._old = root / "old"
        self._old.mkdir()
        scenario.before(self.at(self._old))
        self.copy = root / "copy"
        self.old = None if scenario.old is None else keys(scenario.old)
        self.new = keys(scenario.new)
        whole = self.fresh_copy()
        assert state(whole) == self.old
        with Faults(self.copy).active() as faults:
            report = run_export(whole, scenario.source, scenario.name)
        assert report.exit_code == 3  # the value outside the schema is named
        self.log = faults.log
        self.changes = len(faults.log)
        assert state(whole) == self.new
        with small_pieces():
            assert keys(read_rows(whole.run(REF), whole, "step")) == self.new
        self.final = tree(self.copy)

    def at(self, root: Path) -> Staging:
        return Staging(root / "data", root / "files")

    def fresh_copy(self) -> Staging:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self._old, self.copy)
        return self.at(self.copy)

    def broken(self, mode: Mode, number: int) -> Staging:
        """The state after an export of which the change with this number was broken."""
        staging = self.fresh_copy()

        def work() -> None:
            with Faults(self.copy, mode, number).active():
                report = run_export(staging, self.scenario.source, self.scenario.name)
            for outcome in report.outcomes:
                assert outcome.status in ("partial", "failed")
                assert outcome.status == "partial" or outcome.reason.startswith("Cannot "), outcome.reason

        if mode in ("kill", "torn"):
            assert in_child(work) == signal.SIGKILL
        else:
            work()
        return staging

    def check(self, staging: Staging, *, again: bool = True) -> None:
        """The old state or the new one; and then the same command again gives the uninterrupted result."""
        self.check_for_others(staging)
        found = state(staging)
        assert found in (self.old, self.new)
        if again:
            assert run_export(staging, self.scenario.source, self.scenario.name).exit_code == 3
            assert tree(self.copy) == self.final

    def check_for_others(self, staging: Staging) -> None:
        """Other readers of this layout: where the first part is, all are, and each can be read."""
        folder = staging.folder(REF.project_id)
        parts = sorted(folder.data.glob(f"{names.stem(REF.run_id)}_part_*.parquet"))
        for part in parts:
            pq.read_table(part, schema=OFFICIAL)
        if self.old is None and (folder.data / names.part_name(names.stem(REF.run_id), 0)).exists():
            assert len(parts) == sum(name.endswith(".parquet") and "_part_" in name for name in self.final)


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    memory.install(tmp_path / "site", monkeypatch)
    yield
    memory.forget_plugins()


@pytest.fixture
def bench(scenario, tmp_path):
    root = tmp_path / "bench"
    root.mkdir()
    return Bench(scenarios()[scenario], root)


@pytest.mark.parametrize("shard", range(2))
@pytest.mark.parametrize("mode", ["error", "kill"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_change_may_break(bench, mode, shard):
    assert bench.changes > 30
    for number in range(1 + shard, bench.changes + 1, 2):
        bench.check(bench.broken(mode, number), again=mode == "kill" or number % 3 == 0)


@pytest.mark.parametrize("mode", ["full", "torn"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_disk_may_stay_full_and_writes_may_be_cut(bench, mode):
    for number in range(2, bench.changes + 1, 9):
        bench.check(bench.broken(mode, number))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["full", "torn"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_disk_may_be_full_at_any_change_and_any_write_may_be_cut(bench, mode):
    for number in range(1, bench.changes + 1):
        bench.check(bench.broken(mode, number))


@pytest.mark.parametrize("mode", ["error", "kill"])
@pytest.mark.parametrize("scenario", ["first", "union", "foreign"])
def test_who_finishes_a_commit_may_break_too(bench, mode):
    certain = next(n for n, (what, path) in enumerate(bench.log, 1) if what == "rename" and "next.json" in path)
    staging = bench.broken("kill", certain + 1)
    begun = bench.copy.with_name("begun")
    bench.copy.rename(begun)

    def again() -> None:
        shutil.rmtree(bench.copy, ignore_errors=True)
        shutil.copytree(begun, bench.copy)

    again()
    with Faults(bench.copy).active() as faults:
        assert state(staging) == bench.new
    assert len(faults.log) > 10
    for number in range(1, len(faults.log) + 1):
        again()
        reading = Faults(bench.copy, mode, number)

        def read(reading: Faults = reading) -> None:
            with reading.active(), suppress(StagingError):
                assert state(staging) == bench.new

        if mode == "kill":
            assert in_child(read) == signal.SIGKILL
        else:
            read()
        bench.check(staging, again=number % 3 == 0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_is_on_disk_before_it_counts_and_the_old_goes_last(bench):
    """A power cut loses what was not synced: all that the commit names is synced before the commit is written down."""
    manifests = bench.at(bench.copy).folder(REF.project_id).data / "_manifest"
    stem = names.stem(REF.run_id)
    certain = bench.log.index(("rename", str(manifests / f"{stem}.next.json")))
    counts = bench.log.index(("rename", str(manifests / f"{stem}.json")))
    before = bench.log[:certain]
    content = {
        path for what, path in before if what == "write" and (".part_" in path or ".index" in path or "/files/" in path)
    }
    assert sum(".part_" in path for path in content) > 1
    for path in content:
        assert _last(before, ("fsync", path)) > _last(before, ("write", path))
    for what, path in before:
        parent = str(Path(path).parent)
        if (what in ("rename", "mkdir") or path in content) and "sort.tmp" not in path and parent != str(bench.copy):
            assert _last(before, ("fsync", parent)) > _last(before, (what, path)), path
    removed = [n for n, (what, path) in enumerate(bench.log) if what == "unlink" and _counted(path, bench)]
    assert all(n > counts for n in removed)
    assert removed or bench.old is None or bench.scenario.name == "here"


def _last(log: list[tuple[str, str]], change: tuple[str, str]) -> int:
    return max((n for n, known in enumerate(log) if known == change), default=-1)


def _counted(path: str, bench: Bench) -> bool:
    """Whether the old generation had this file."""
    return (bench.copy.with_name("old") / Path(path).relative_to(bench.copy)).exists() and ".tmp" not in path


@pytest.mark.parametrize("mode", ["error", "kill"])
def test_a_vanished_run_is_removed_whole_or_not_at_all(tmp_path, mode):
    """Also beside it nothing is touched."""
    old, copy = tmp_path / "old", tmp_path / "copy"
    staging = Staging(copy / "data", copy / "files")
    other = MemoryRun(RunInfo(OTHER), curve("loss", 3))
    gone = MemoryRun(RunInfo(REF), old_rows())
    both, one = World([gone, other]).save(tmp_path / "both"), World([other]).save(tmp_path / "one")
    with small_pieces():
        export("memory", both, Staging(old / "data", old / "files"), EVERYTHING)

    def overwrite() -> None:
        with small_pieces():
            export("memory", one, staging, EVERYTHING, overwrite=True, workers=1)

    shutil.copytree(old, copy)
    with Faults(copy).active() as faults:
        overwrite()
    assert staging.run(REF) is None
    assert not [name for name in snapshot(copy) if "run-1" in name]
    for number in range(1, len(faults.log) + 1):
        shutil.rmtree(copy)
        shutil.copytree(old, copy)
        breaking = Faults(copy, mode, number)

        def broken(breaking: Faults = breaking) -> None:
            with breaking.active():
                overwrite()

        if mode == "kill":
            assert in_child(broken) == signal.SIGKILL
        else:
            broken()
        run = staging.run(REF)
        assert run is None or keys(read_rows(run, staging)) == keys(old_rows())
        survivor = staging.run(OTHER)
        assert survivor is not None
        assert keys(read_rows(survivor, staging)) == keys(other.rows)
        overwrite()
        assert staging.run(REF) is None
