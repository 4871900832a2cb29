# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `summary`: what a staging area holds, from manifests and Parquet footers.

Only runs without a manifest are read, and of those no more than it takes to count their rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC
from heapq import nsmallest
from itertools import islice
from typing import Any

from neptune_exporter.errors import EXIT_INCOMPLETE, EXIT_OK, DamagedDataError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.lineage import ForkNode, fork_trees
from neptune_exporter.model import Kind, RunInfo, step_text, utc
from neptune_exporter.progress import NoProgress, Progress
from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.storage.counting import Counted
from neptune_exporter.storage.manifest import NOT_OURS, Totals
from neptune_exporter.storage.parquet import bytes_by_column
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import ProjectFolder, Staging

KINDS: tuple[Kind, ...] = ("run", "model", "model_version")
LISTED = 1000  # runs, forks and problems of a project that are named; all are counted

# What the bytes of a column are said to be: the types of the values in it.
_HELD_IN = {
    **dict.fromkeys(("project_id", "run_id", "attribute_path", "attribute_type"), "names"),
    **dict.fromkeys(("step", "timestamp"), "steps and times"),
    "int_value": "int",
    "bool_value": "bool",
    "datetime_value": "datetime",
    "string_set_value": "string_set",
    "file_value": "file references",
    "float_value": "float, float_series",
    "string_value": "string, string_series",
    "histogram_value": "histogram_series",
}


@dataclass(frozen=True, slots=True)
class RunSize:
    """How big one run is.

    Attributes:
        run: its id.
        points: rows that hold a value.
        bytes: its parts on disk.
        files: how many files it has.
        file_bytes: their size.
        name: its name, where it has one.
        status: complete, partial, unproven or stray.
        begun: when it was created, else its earliest time, ISO 8601 in UTC; None where nothing says it.
        problems: how many of its values could not be carried over.
    """

    run: str
    points: int
    bytes: int
    files: int
    file_bytes: int
    name: str | None = None
    status: str = ""
    begun: str | None = None
    problems: int = 0


@dataclass(frozen=True, slots=True)
class RunProblem:
    """One thing of a run that could not be carried over; see `errors.Problem`."""

    run: str
    attribute: str | None
    kind: str
    message: str
    count: int


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
        biggest: the biggest runs, at most `LISTED`.
        begun: how many runs were begun on which day (ISO 8601, UTC), "" for those of which nobody knows.
        bytes: what the bytes on disk are, where that was asked for: by types of values, "footers", and "files".
        fork_trees: the runs that are forks or have forks, tree by tree, at most `LISTED`.
        in_trees: how many there are.
        problem_kinds: how many values could not be carried over, by kind of problem (retry, permanent).
        problem_list: what could not be carried over, at most `LISTED`.
        problem_entries: how many entries that list would have as a whole.
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
    begun: Mapping[str, int]
    bytes: Mapping[str, int]
    fork_trees: tuple[ForkNode, ...]
    in_trees: int
    problem_kinds: Mapping[str, int]
    problem_list: tuple[RunProblem, ...]
    problem_entries: int

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


def summary(
    staging: Staging, selection: Selection = EVERYTHING, *, footers: bool = False, progress: Progress | None = None
) -> Summary:
    """What a staging area holds of the selected projects and runs.

    Args:
        staging: the area.
        selection: which projects and runs.
        footers: open the footer of every part to say what its bytes are.
        progress: counts runs.

    Raises:
        StagingError: the area does not exist, or holds nothing that was asked for.
    """
    found = Summary()
    runs = (progress or NoProgress()).counter("runs", "runs")
    for kind in KINDS:
        for folder in staging.projects(kind, found.damaged.append):
            if selection.wants_project(folder.project_id):
                tally = _Tally(folder, footers=footers)
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

    def __init__(self, folder: ProjectFolder, *, footers: bool) -> None:
        self._folder = folder
        self._footers = footers
        self._strays: set[str] = set()
        self._statuses: Counter[str] = Counter()
        self._attributes: Counter[str] = Counter()
        self._points: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._problem_kinds: Counter[str] = Counter()
        self._problems: list[RunProblem] = []
        self._range = Attribute("", "")
        self._sizes: list[RunSize] = []
        self._parents: dict[str, tuple[str, str | None]] = {}
        self._parts = self._problem_entries = 0

    def runs(self, damaged: list[StagingError], selection: Selection) -> list[StagedRun]:
        """All runs that are selected, strays included; what is damaged or lost is added to `damaged`."""
        folder = self._folder
        try:
            runs = list(folder.runs(damaged.append))
            damaged += folder.lost_runs()
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
        paths = run.part_paths()
        sizes = [_size(run, path) for path in paths]
        held = [bytes_by_column(path) for path in paths] if self._footers else []
        problems = run.problems if run.manifest is not None else ()
        if run.manifest is not None:
            info, totals, file_sizes = run.info, run.manifest.totals, [file.bytes for file in run.manifest.files]
        else:
            counted = Counted(run)
            info, totals = counted.info, counted.totals
            file_sizes, missing = _file_sizes(run, counted)
            problems = (*missing, *counted.problems)
        if info.parent is not None:
            step = None if info.fork_step is None else f"{info.fork_step.normalize():f}"
            self._parents[run.ref.run_id] = info.parent.run_id, step
        status = "stray" if run.ref.run_id in self._strays else run.status
        self._statuses[status] += 1
        self._add_totals(totals)
        self._add_problems(run.ref.run_id, problems)
        self._sources.update({source.text for source in run.sources} or {NOT_OURS})
        self._parts += len(sizes)
        for column_bytes, size in zip(held, sizes, strict=False):
            self._add_bytes(column_bytes, size)
        points = sum(rows for _, rows in totals.types.values())
        files = (len(file_sizes), sum(file_sizes))
        lost = sum(problem.count for problem in problems)
        begun = _begun(info, totals)
        self._sizes.append(RunSize(run.ref.run_id, points, sum(sizes), *files, info.name, status, begun, lost))

    def _add_problems(self, run_id: str, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._problem_entries += 1
            self._problem_kinds[problem.kind] += problem.count
            if len(self._problems) < LISTED:
                self._problems.append(
                    RunProblem(run_id, problem.attribute, problem.kind, problem.message, problem.count)
                )

    def _add_bytes(self, by_column: Mapping[str, int], size: int) -> None:
        for column, held in by_column.items():
            self._bytes[_HELD_IN.get(column, "other columns")] += held
        self._bytes["footers"] += size - sum(by_column.values())

    def _add_totals(self, totals: Totals) -> None:
        for attribute_type, (count, rows) in totals.types.items():
            self._attributes[attribute_type] += count
            self._points[attribute_type] += rows
        here = Attribute("", "", 0, 0, totals.first_step, totals.last_step, 0, totals.first_time, totals.last_time)
        self._range = self._range.joined(here)

    def summary(self) -> ProjectSummary:
        """All of it."""
        known = self._range
        trees = fork_trees(self._parents, frozenset(size.run for size in self._sizes))
        listed = tuple(islice(trees, LISTED))
        file_bytes = sum(size.file_bytes for size in self._sizes)
        if self._footers and file_bytes:
            self._bytes["files"] = file_bytes
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
            file_bytes=file_bytes,
            forks=len(self._parents),
            sources=dict(sorted(self._sources.items())),
            problems=sum(self._problem_kinds.values()),
            biggest=tuple(nsmallest(LISTED, self._sizes, key=lambda size: (-size.points, size.run))),
            begun=dict(sorted(Counter(_day(size.begun) for size in self._sizes).items())),
            bytes=dict(sorted(self._bytes.items())),
            fork_trees=listed,
            in_trees=len(listed) + sum(1 for _ in trees),
            problem_kinds=dict(sorted(self._problem_kinds.items())),
            problem_list=tuple(self._problems),
            problem_entries=self._problem_entries,
        )


def _file_sizes(run: StagedRun, counted: Counted) -> tuple[list[int], tuple[Problem, ...]]:
    """The sizes of the files of a run without a manifest, and those that are missing as problems."""
    sizes, problems = [], []
    for path, attribute in counted.files.items():
        try:
            sizes.append(run.files.size(path))
        except DamagedDataError as error:
            problems.append(Problem(error.message, attribute))
    return sizes, tuple(problems)


def _begun(info: RunInfo, totals: Totals) -> str | None:
    if info.created is None:
        return _time(totals.first_time)
    return info.created.astimezone(UTC).isoformat(timespec="milliseconds")


def _day(time: str | None) -> str:
    return "" if time is None or " " in time else time[:10]


def _size(run: StagedRun, part: Any) -> int:
    try:
        return run.part_size(part.name)
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
