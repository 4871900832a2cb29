# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Exporters, sinks and loaders in memory that implement the real protocols, and some that fail on purpose."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from truth import Row

from contracts.rows import batch_of
from neptune_exporter import plugins
from neptune_exporter.errors import Problem, TargetError
from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.loaders.loader import Limits, LoadOptions, RunToLoad, TargetProject, TargetRun, TargetState
from neptune_exporter.model import OutsideValue, RunInfo, RunRef
from neptune_exporter.plugins import Plugin, option
from neptune_exporter.selection import Selection


@dataclass
class MemoryRun:
    """A run of a source in memory.

    Attributes:
        refused: attributes that cannot be fetched now, with the problem that is reported of them.
        failure: raised after the first batch.
        lineage: two states of different lineage are `apart`.
        endless: gives its rows again and again.
    """

    info: RunInfo
    rows: list[Row] = field(default_factory=list)
    version: int = 1
    lineage: str = ""
    as_of: datetime | None = None
    refused: dict[str, Problem] = field(default_factory=dict)
    outside: list[OutsideValue] = field(default_factory=list)
    empty: list[tuple[str, str]] = field(default_factory=list)
    failure: BaseException | None = None
    endless: bool = False

    @property
    def ref(self) -> RunRef:
        return self.info.ref


@dataclass
class World:
    """Everything that a source in memory has. Pickled to a file, so that worker processes see it too."""

    runs: list[MemoryRun] = field(default_factory=list)
    unlistable: dict[str, Exception] = field(default_factory=dict)
    lists_all: bool = True
    batch_rows: int = 50

    def save(self, path: Path) -> MemoryOptions:
        path.write_bytes(pickle.dumps(self))
        return MemoryOptions(world=str(path))


@dataclass(frozen=True)
class MemoryOptions:
    """Which world, and under which name it is a source."""

    world: str = option("", "A pickled world.")
    source: str = option("here", "Names the source.")


class MemoryExporter:
    """Exports a `World`; does what its runs say, failures included."""

    name = "memory"
    asked: ClassVar[list[tuple[str, Selection]]] = []

    def __init__(self, options: MemoryOptions) -> None:
        self.world: World = pickle.loads(Path(options.world).read_bytes())
        self.source = options.source
        self.lists_all = self.world.lists_all

    def projects(self, selection: Selection) -> Iterator[str]:
        known = dict.fromkeys([run.ref.project_id for run in self.world.runs] + list(self.world.unlistable))
        yield from filter(selection.wants_project, known)

    def runs(self, project_id: str, selection: Selection) -> Iterator[SourceRun]:
        if project_id in self.world.unlistable:
            raise self.world.unlistable[project_id]
        for run in self.world.runs:
            if run.ref.project_id == project_id and selection.wants_run(run.ref.run_id):
                state = {"version": run.version, "lineage": run.lineage}
                yield SourceRun(run.info, state, run.as_of, len(run.rows))

    def batches(
        self, run: SourceRun, selection: Selection, files: Files, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        self.asked.append((run.info.ref.run_id, selection))
        here = next(r for r in self.world.runs if r.ref == run.info.ref)
        for path, problem in here.refused.items():
            if selection.wants_attribute(path):
                findings.problem(problem)
        for value in here.outside:
            if selection.wants(value.attribute, value.type):
                findings.outside(value)
        for path, kind in here.empty:
            if selection.wants(path, kind):
                findings.empty(path, kind)
        rows = [row for row in here.rows if selection.wants(row.path, row.type) and row.path not in here.refused]
        for start in range(0, len(rows), self.world.batch_rows):
            yield batch_of(here.ref, rows[start : start + self.world.batch_rows], files)
            if here.failure is not None:
                raise here.failure
        while here.endless:
            yield batch_of(here.ref, rows, files)

    def compare(self, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
        if recorded["lineage"] != current["lineage"]:
            return "apart"
        return "same" if recorded["version"] == current["version"] else "newer"

    def close(self) -> None:
        pass


class MemorySink:
    """Keeps what it was given; it counts from `commit` on."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self.committed: list[pa.RecordBatch] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)

    def commit(self) -> None:
        self.committed = list(self._batches)

    def abort(self) -> None:
        self._batches.clear()


class FailingSink(MemorySink):
    """Fails at the so-many-th call of `write` or `commit`, counted from 1."""

    def __init__(self, at: int, error: BaseException | None = None) -> None:
        super().__init__()
        self._left = at
        self._error = error or TargetError("The target has gone away.", "Try again.")

    def _tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise self._error

    def write(self, batch: pa.RecordBatch) -> None:
        self._tick()
        super().write(batch)

    def commit(self) -> None:
        self._tick()
        super().commit()


@dataclass
class LoadedRun:
    """A run in a target in memory."""

    target_id: str
    run: RunToLoad
    batches: list[pa.RecordBatch]
    files: dict[str, bytes]
    complete: bool = False


class MemoryTarget:
    """What a target in memory holds; shared by all loaders that are made with its name."""

    by_name: ClassVar[dict[str, MemoryTarget]] = {}

    def __init__(self) -> None:
        self.runs: dict[RunRef, LoadedRun] = {}
        self.multipliers: dict[str, int] = {}
        self.fail_after: dict[str, int] = {}

    @classmethod
    def named(cls, name: str) -> MemoryTarget:
        return cls.by_name.setdefault(name, cls())


@dataclass(frozen=True)
class MemoryTargetOptions:
    """Which target."""

    target: str = option("here", "Names the target.")


class MemoryLoader:
    """Loads into a `MemoryTarget`; exact, so that whatever is missing there was lost on the way."""

    name = "memory"
    limits = Limits(integer_steps=frozenset())

    def __init__(self, options: MemoryTargetOptions, common: LoadOptions) -> None:
        self.target = MemoryTarget.named(options.target)
        self.common = common

    def states(self, project_id: str) -> TargetProject:
        runs = {
            ref: TargetState(run.target_id, run.complete, run.run.digest if run.complete else "")
            for ref, run in self.target.runs.items()
            if ref.project_id == project_id
        }
        return TargetProject(runs, self.target.multipliers.get(project_id))

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        self.target.multipliers[project_id] = step_multiplier

    def start(self, run: RunToLoad, step_multiplier: int) -> MemoryRunSink:
        return MemoryRunSink(self.target, run)

    def read(self, ref: RunRef) -> TargetRun:
        if ref not in self.target.runs:
            raise TargetError(f"{ref} is not there.")
        loaded = self.target.runs[ref]
        attributes: list[Attribute] = list(loaded.run.attributes)
        return TargetRun(iter(loaded.batches), loaded.run.files.sha256, [(a.path, a.type) for a in attributes])

    def close(self) -> None:
        pass

    def describe(self) -> str:
        return "memory"


class MemoryRunSink(FailingSink):
    """One run on its way into a `MemoryTarget`: half-loaded until it is committed."""

    def __init__(self, target: MemoryTarget, run: RunToLoad) -> None:
        super().__init__(target.fail_after.get(run.info.ref.run_id, sys.maxsize))
        self._target = target
        before = target.runs.get(run.info.ref)
        if before is None or not before.complete:
            target.runs[run.info.ref] = LoadedRun(f"id-{len(target.runs)}", run, [], {})
        self._run = run

    def commit(self) -> None:
        super().commit()
        number = len(self._target.runs)
        self._target.runs[self._run.info.ref] = LoadedRun(f"id-{number}", self._run, self.committed or [], {}, True)


exporter_plugin = Plugin("memory", "A source in memory.", MemoryOptions, "contracts.memory:MemoryExporter")
loader_plugin = Plugin("memory", "A target in memory.", MemoryTargetOptions, "contracts.memory:MemoryLoader")


def install(folder: Path, monkeypatch: Any) -> None:
    """Makes `--exporter memory` and `--loader memory` exist, the way a stranger's package would."""
    info = folder / "memory_tracker-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-tracker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[neptune_exporter.exporters]\nmemory = contracts.memory:exporter_plugin\n"
        "[neptune_exporter.loaders]\nmemory = contracts.memory:loader_plugin\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    forget_plugins()


def forget_plugins() -> None:
    """Makes the next look-up read the entry points anew."""
    plugins._entry_points.cache_clear()
    plugins.find.cache_clear()
