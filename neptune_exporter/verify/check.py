# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `verify`: every run on its own, all findings of all runs in one go."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from neptune_exporter import export, load, load_models, plugins
from neptune_exporter.concurrency import is_cluster, open_executor, slots
from neptune_exporter.errors import ExporterError, StagingError, UsageError
from neptune_exporter.exporters.exporter import SourceRun
from neptune_exporter.loaders.loader import LoadOptions, TargetState
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import each
from neptune_exporter.progress import NoProgress, Progress
from neptune_exporter.selection import Selection
from neptune_exporter.shared_folders import anchored, folders_of
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import ProjectFolder, Staging
from neptune_exporter.summary import KINDS, nothing_in
from neptune_exporter.verify.finding import Checked, Finding, Where, failure, finding_of
from neptune_exporter.verify.source import SourceCheck
from neptune_exporter.verify.staging import StagedCheck
from neptune_exporter.verify.target import TargetCheck

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Which exporter to compare with: its name and options."""

    name: str
    options: Any


@dataclass(frozen=True, slots=True)
class Target:
    """Which loader to compare with: its name, its options and those of all loaders."""

    name: str
    options: Any
    common: LoadOptions = field(default_factory=LoadOptions)


@dataclass(frozen=True, slots=True)
class Depth:
    """How thoroughly to check; picklable.

    Attributes:
        selection: which runs and attributes.
        read_data: read every row and file, not only footers and sizes.
        write_manifests: give a manifest to every run of another tool.
        source: compare with this source.
        target: compare with this target.
        models: models and model versions alone, and the target's model registry; else only runs are compared with it.
    """

    selection: Selection = field(default_factory=Selection)
    read_data: bool = False
    write_manifests: bool = False
    source: Source | None = None
    target: Target | None = None
    models: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One run to check; picklable.

    Attributes:
        folder: where it lies.
        ref: the run.
        depth: how thoroughly.
        unproven: the run itself, if it has no manifest.
        source_run: how its source lists it, None if it does not.
        state: what the target says of it, None if it does not know it.
        points: how many rows its manifest says it has.
    """

    folder: ProjectFolder
    ref: RunRef
    depth: Depth
    unproven: StagedRun | None = None
    source_run: SourceRun | None = None
    state: TargetState | None = None
    points: int = 0


def verify(
    staging: Staging,
    depth: Depth,
    *,
    workers: int = 4,
    executor: str = "threads",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Iterator[Checked]:
    """Checks all selected runs, and yields what was found of each as soon as it is known.

    Args:
        staging: what to check.
        depth: how thoroughly, and against what.
        workers: how many runs at once.
        executor: see `concurrency.open_executor`.
        dry_run: only say which runs would be checked.
        progress: counts runs and points.

    Raises:
        ExporterError: the area does not exist or holds nothing that was asked for; the source or the target
            cannot be reached or refuses our credentials.
    """
    progress = progress or NoProgress()
    if is_cluster(executor):
        staging, depth = anchored(staging), _anchored(depth)
    try:
        listing = _Listing(staging, depth)
        yield from listing.checked
        if dry_run:
            yield from (Checked(task.ref, "planned", points=task.points) for task in listing.tasks)
            return
        runs, points = progress.counter("runs", "runs"), progress.counter("points", "points", scale=True)
        runs.start(len(listing.tasks))
        points.start(sum(task.points for task in listing.tasks) or None)
        if is_cluster(executor) and not _reachable(depth):
            executor = "threads"
        with open_executor(executor, workers, folders_of(staging)) as pool:
            window = 2 * slots(pool, workers)
            for checked in each(pool, check_run, listing.tasks, ref_of=lambda task: task.ref, window=window):
                runs.add()
                points.add(checked.points)
                yield checked
        points.done()
        runs.done()
    finally:
        _close(depth)


def _reachable(depth: Depth) -> bool:
    """Whether other machines can read the target: a database in a file they cannot."""
    target = depth.target
    return target is None or load.connected(target.name, target.options, target.common).limits.writers != 1


def _anchored(depth: Depth) -> Depth:
    """With options that mean the same on other machines."""
    source = depth.source and replace(depth.source, options=plugins.anchored(depth.source.options))
    target = depth.target and replace(depth.target, options=plugins.anchored(depth.target.options))
    return replace(depth, source=source, target=target)


def _close(depth: Depth) -> None:
    if depth.source is not None:
        export.connected(depth.source.name, depth.source.options).close()
        export.connected.cache_clear()
    if depth.target is not None:
        load.connected(depth.target.name, depth.target.options, depth.target.common).close()
        load.connected.cache_clear()


def check_run(task: Task) -> Checked:
    """Checks one run; in a worker."""
    try:
        run = task.unproven or task.folder.run(task.ref.run_id)
    except ExporterError as error:
        return Checked(task.ref, findings=(failure(task.ref, error),))
    if run is None:
        return Checked(task.ref, findings=(finding_of(task.ref, "lost", "The run is gone."),))
    staged = StagedCheck(run, task.folder.data, read_data=task.depth.read_data)
    checks: list[tuple[Where, Iterator[Finding]]] = [("staging", staged.findings()), *_comparisons(run, task)]
    findings: list[Finding] = []
    for where, found in checks:
        try:
            for finding in found:
                findings.append(finding)  # noqa: PERF402 - what was found before a failure counts
        except ExporterError as error:
            if error.fatal:
                raise
            findings.append(failure(task.ref, error, where=where))
        except Exception as error:
            logger.exception("%s cannot be checked", task.ref)
            findings.append(finding_of(task.ref, "unreadable", f"{type(error).__name__}: {error}", where=where))
    status = run.status
    if any(finding.kind == "adopted" for finding in findings):
        status = "adopted"
        findings = [finding for finding in findings if finding.kind != "unproven"]
    compared = frozenset(where for where, _ in checks)
    return Checked(task.ref, status, tuple(dict.fromkeys(findings)), staged.points, compared)


def _comparisons(run: StagedRun, task: Task) -> Iterator[tuple[Where, Iterator[Finding]]]:
    depth = task.depth
    if depth.write_manifests and run.manifest is None:
        yield "staging", _adopted(run, task.folder)
    if depth.source is not None and task.source_run is not None:
        exporter = export.connected(depth.source.name, depth.source.options)
        yield "source", SourceCheck(run, task.source_run, exporter, depth.selection).findings()
    if depth.target is not None:
        loader = load.connected(depth.target.name, depth.target.options, depth.target.common)
        yield "target", TargetCheck(run, task.state, loader, depth.selection).findings()


def _adopted(run: StagedRun, folder: ProjectFolder) -> Iterator[Finding]:
    folder.adopt(run)
    yield finding_of(run.ref, "adopted", "Has a manifest from now on: what it holds today can be proven later.")


class _Listing:
    """What there is to check, and what is found while listing it."""

    def __init__(self, staging: Staging, depth: Depth) -> None:
        self._depth = depth
        self.checked: list[Checked] = []
        self.tasks: list[Task] = []
        folders = [
            folder
            for kind in (load_models.KINDS if depth.models else KINDS)
            for folder in staging.projects(kind, self._failed)
            if depth.selection.wants_project(folder.project_id)
        ]
        if not folders and not self.checked:
            raise nothing_in(staging, depth.selection)
        kinds = tuple(dict.fromkeys(folder.kind for folder in folders))
        sources = self._source_runs(replace(depth.selection, kinds=kinds)) if depth.source is not None else {}
        for folder in folders:
            self._add(folder, sources)
        if depth.models and depth.target is not None:
            for project_id in dict.fromkeys(folder.project_id for folder in folders):
                self._compare_registry(staging, project_id)
        self._missing_of_source(sources)

    def _found(self, finding: Finding) -> None:
        self.checked.append(Checked(None, findings=(finding,)))

    def _failed(self, error: StagingError) -> None:
        self._found(failure(None, error))

    def _add(self, folder: ProjectFolder, sources: Mapping[RunRef, SourceRun]) -> None:
        states = self._states(folder.project_id) if self._depth.models or folder.kind == "run" else None
        try:
            runs = [*folder.runs(self._failed), *self._strays(folder)]
            lost = folder.lost_runs()
        except StagingError as error:
            self._failed(error)
            return
        for loss in lost:
            self._found(Finding(folder.project_id, "", None, "lost", loss.message))
        for run in runs:
            if self._depth.selection.wants_run(run.ref.run_id):
                self._add_run(folder, run, sources.get(run.ref), states)
        if self._depth.selection.run_ids or states is None:
            return
        known = {run.ref for run in runs}
        for ref in sorted(ref for ref in states if ref.kind == folder.kind and ref not in known):
            message = "The target holds this run, the staging area does not."
            self._found(finding_of(ref, "unstaged", message, where="target"))

    def _add_run(
        self,
        folder: ProjectFolder,
        run: StagedRun,
        source_run: SourceRun | None,
        states: Mapping[RunRef, TargetState] | None,
    ) -> None:
        depth = self._depth
        if depth.source is not None and source_run is None:
            exporter = export.connected(depth.source.name, depth.source.options)
            if (exporter.name, exporter.source) in {source.name for source in run.sources}:
                message = f"It was exported from {exporter.source}, which does not list it now."
                self._found(finding_of(run.ref, "unlisted", message, where="source"))
        if states is None:  # not asked for, or said already of the whole project
            depth = replace(depth, target=None)
        state = states.get(run.ref) if states else None
        points = run.manifest.points if run.manifest else 0
        unproven = run if run.manifest is None else None
        self.tasks.append(Task(folder, run.ref, depth, unproven, source_run, state, points))

    def _strays(self, folder: ProjectFolder) -> Iterator[StagedRun]:
        for stem in folder.strays():
            try:
                yield folder.stray(stem)
            except StagingError as error:
                self._failed(error)

    # --- the other side

    def _source_runs(self, selection: Selection) -> dict[RunRef, SourceRun]:
        assert self._depth.source is not None
        exporter = export.connected(self._depth.source.name, self._depth.source.options)
        found: dict[RunRef, SourceRun] = {}
        for project_id in exporter.projects(selection):
            try:
                found.update((run.info.ref, run) for run in exporter.runs(project_id, selection))
            except ExporterError as error:
                if error.fatal:
                    raise
                self._found(failure(RunRef(project_id, ""), error, where="source"))
        for problem in getattr(exporter, "unreadable", ()):
            self._found(Finding("", "", None, "unreadable", problem.message, "source"))
        return found

    def _missing_of_source(self, sources: Mapping[RunRef, SourceRun]) -> None:
        staged = {task.ref for task in self.tasks}
        for ref in sorted(sources.keys() - staged):
            message = "The source has this run, the staging area has not: export it."
            self._found(finding_of(ref, "absent", message, where="source"))

    def _states(self, project_id: str) -> Mapping[RunRef, TargetState] | None:
        """What the target holds of a project; None if it need not, or cannot, be asked."""
        target = self._depth.target
        if target is None:
            return None
        loader = load.connected(target.name, target.options, target.common)
        if not callable(getattr(loader, "read", None)):
            raise UsageError(f"What {target.name} holds cannot be read back, so it cannot be verified.")
        try:
            return loader.states(project_id).runs
        except ExporterError as error:
            if error.fatal:
                raise
            self._found(failure(RunRef(project_id, ""), error, where="target"))
            return None

    def _compare_registry(self, staging: Staging, project_id: str) -> None:
        """What the target's model registry holds, beside the runs that its versions are."""
        target = self._depth.target
        states = self._states(project_id)
        if target is None or states is None:
            return
        loader = load.connected(target.name, target.options, target.common)
        try:
            for found in load_models.differences(loader, staging, project_id, states, self._depth.selection):
                self._found(finding_of(found.ref, found.kind, found.message, where="target"))
        except ExporterError as error:
            if error.fatal:
                raise
            self._found(failure(RunRef(project_id, "", "model"), error, where="target"))
