# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `summary`: what a staging area holds, from manifests and Parquet footers.

Only runs without a manifest are read, and of those no more than it takes to count their rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from neptune_exporter.errors import EXIT_INCOMPLETE, EXIT_OK, DamagedDataError, StagingError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import Kind, step_text, utc
from neptune_exporter.progress import NoProgress, Progress
from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.storage.counting import Counted
from neptune_exporter.storage.manifest import Totals
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import ProjectFolder, Staging

KINDS: tuple[Kind, ...] = ("run", "model", "model_version")
BIGGEST = 5


@dataclass(frozen=True, slots=True)
class RunSize:
    """How big one run is.

    Attributes:
        run: its id.
        points: rows that hold a value.
        bytes: its parts on disk.
        files: how many files it has.
        file_bytes: their size.
    """

    run: str
    points: int
    bytes: int
    files: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """What the staging area holds of one kind of one project.

    Attributes:
        project: the project id.
        kind: run, model or model_version.
        runs: how many are complete, partial, unproven (no manifest) or strays (added by another tool since).
        attributes: by type, how many attributes there are, each run counted for itself.
        points: by type, how many rows hold a value.
        first_step: smallest step as exact decimal text, None without steps.
        last_step: largest step.
        first_time: earliest time, ISO 8601 in UTC, None without times.
        last_time: latest time.
        parts: how many Parquet parts there are.
        part_bytes: their size on disk.
        files: how many files the runs have.
        file_bytes: their size.
        forks: how many runs are forks of another one.
        sources: how many runs came from which source.
        problems: how many values could not be carried over.
        biggest: the biggest runs.
    """

    project: str
    kind: Kind
    runs: Mapping[str, int]
    attributes: Mapping[str, int]
    points: Mapping[str, int]
    first_step: str | None
    last_step: str | None
    first_time: str | None
    last_time: str | None
    parts: int
    part_bytes: int
    files: int
    file_bytes: int
    forks: int
    sources: Mapping[str, int]
    problems: int
    biggest: tuple[RunSize, ...]

    def to_json(self) -> dict[str, Any]:
        """The project as a JSON object."""
        return asdict(self)


@dataclass
class Summary:
    """What a staging area holds.

    Attributes:
        projects: by kind and name.
        damaged: what could not be read, each in a sentence that names it.
    """

    projects: list[ProjectSummary] = field(default_factory=list)
    damaged: list[StagingError] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 if something could not be read."""
        return EXIT_INCOMPLETE if self.damaged else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return {
            "exit_code": self.exit_code,
            "projects": [project.to_json() for project in self.projects],
            "damaged": [{"message": error.message, "hint": error.hint} for error in self.damaged],
        }


def summary(staging: Staging, selection: Selection = EVERYTHING, *, progress: Progress | None = None) -> Summary:
    """What a staging area holds of the selected projects and runs.

    Raises:
        StagingError: the area does not exist, or holds nothing that was asked for.
    """
    found = Summary()
    runs = (progress or NoProgress()).counter("runs", "runs")
    for kind in KINDS:
        for folder in staging.projects(kind, found.damaged.append):
            if selection.wants_project(folder.project_id):
                tally = _Tally(folder)
                for run in tally.runs(found.damaged, selection):
                    tally.try_add(run, found.damaged)
                    runs.add()
                found.projects.append(tally.summary())
    runs.done()
    if not found.projects and not found.damaged:
        raise nothing_in(staging, selection)
    return found


def nothing_in(staging: Staging, selection: Selection) -> StagingError:
    """What is said of an area that holds nothing that was asked for."""
    asked = " or ".join(selection.projects) or "any Neptune project"
    return StagingError(
        f"{staging.data_path} does not hold {asked}.",
        "Run neptune-exporter export first, or name another folder with --data-path."
        if not selection.projects
        else f"See what it holds with: neptune-exporter summary --data-path {staging.data_path}",
    )


class _Tally:
    """Adds up the runs of one folder."""

    def __init__(self, folder: ProjectFolder) -> None:
        self._folder = folder
        self._strays: set[str] = set()
        self._statuses: Counter[str] = Counter()
        self._attributes: Counter[str] = Counter()
        self._points: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._range = Attribute("", "")
        self._sizes: list[RunSize] = []
        self._parts = self._forks = self._problems = 0

    def runs(self, damaged: list[StagingError], selection: Selection) -> list[StagedRun]:
        """All runs that are selected, strays included; what is damaged or lost is added to `damaged`."""
        folder = self._folder
        try:
            runs = list(folder.runs(damaged.append))
            damaged += [
                DamagedDataError(f"{folder.data / stem}: {reason}", "Export it again, or restore it from a backup.")
                for stem, reason in folder.lost().items()
            ]
            strays = folder.strays()
        except StagingError as error:
            damaged.append(error)
            return []
        for stem in strays:
            try:
                runs.append(folder.stray(stem))
                self._strays.add(runs[-1].ref.run_id)
            except StagingError as error:
                damaged.append(error)
        return [run for run in runs if selection.wants_run(run.ref.run_id)]

    def try_add(self, run: StagedRun, damaged: list[StagingError]) -> None:
        """Adds a run, or what is wrong with it to `damaged`."""
        try:
            self._add(run)
        except StagingError as error:
            damaged.append(error)

    def _add(self, run: StagedRun) -> None:
        sizes = [_size(path) for path in run.part_paths()]
        if run.manifest is not None:
            totals, file_sizes = run.manifest.totals, [file.bytes for file in run.manifest.files]
            self._forks += run.info.parent is not None
            self._problems += sum(problem.count for problem in run.problems)
        else:
            counted = Counted(run)
            totals, file_sizes = counted.totals, self._file_sizes(run, counted)
            self._forks += counted.is_fork
        self._statuses["stray" if run.ref.run_id in self._strays else run.status] += 1
        self._add_totals(totals)
        self._sources.update(
            {s.source if s.source.startswith(s.exporter) else f"{s.exporter} {s.source}" for s in run.sources}
            or {"unknown"}
        )
        self._parts += len(sizes)
        points = sum(rows for _, rows in totals.types.values())
        self._sizes.append(RunSize(run.ref.run_id, points, sum(sizes), len(file_sizes), sum(file_sizes)))

    def _file_sizes(self, run: StagedRun, counted: Counted) -> list[int]:
        sizes = []
        for path in counted.files:
            try:
                sizes.append(run.files.size(path))
            except DamagedDataError:
                self._problems += 1
        return sizes

    def _add_totals(self, totals: Totals) -> None:
        for attribute_type, (count, rows) in totals.types.items():
            self._attributes[attribute_type] += count
            self._points[attribute_type] += rows
        here = Attribute("", "", 0, 0, totals.first_step, totals.last_step, 0, totals.first_time, totals.last_time)
        self._range = self._range.joined(here)

    def summary(self) -> ProjectSummary:
        """All of it."""
        known = self._range
        return ProjectSummary(
            project=self._folder.project_id,
            kind=self._folder.kind,
            runs=dict(sorted(self._statuses.items())),
            attributes=dict(sorted(self._attributes.items())),
            points=dict(sorted(self._points.items())),
            first_step=None if known.first_step is None else step_text(known.first_step),
            last_step=None if known.last_step is None else step_text(known.last_step),
            first_time=_time(known.first_time),
            last_time=_time(known.last_time),
            parts=self._parts,
            part_bytes=sum(size.bytes for size in self._sizes),
            files=sum(size.files for size in self._sizes),
            file_bytes=sum(size.file_bytes for size in self._sizes),
            forks=self._forks,
            sources=dict(sorted(self._sources.items())),
            problems=self._problems,
            biggest=tuple(sorted(self._sizes, key=lambda size: (-size.points, size.run))[:BIGGEST]),
        )


def _size(part: Any) -> int:
    try:
        return int(part.stat().st_size)
    except FileNotFoundError:
        raise DamagedDataError(f"{part} is missing.", "Restore it from a backup, or export the run again.") from None
    except OSError as error:
        raise StagingError(f"Cannot read {part}: {error.strerror}.", "Check its permissions.") from error


def _time(millis: int | None) -> str | None:
    if millis is None:
        return None
    try:
        return utc(millis).isoformat(timespec="milliseconds")
    except OverflowError:  # beyond the years that Python knows
        return f"{millis} ms after 1970"
