# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `load`: the staging area into a target, run by run, parents before forks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from neptune_exporter import plugins
from neptune_exporter.concurrency import open_executor
from neptune_exporter.errors import ExporterError, StagingError, StartAgainError, UsageError
from neptune_exporter.fingerprint import Attribute, run_digest
from neptune_exporter.loaders.loader import Loader, LoadOptions, RunToLoad, TargetProject
from neptune_exporter.loaders.steps import auto_multiplier, check_multiplier
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Outcome, Report, attempt, each, pump
from neptune_exporter.progress import NoProgress, Progress
from neptune_exporter.selection import Selection
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import ProjectFolder, Staging

logger = logging.getLogger(__name__)

LOAD_ATTEMPTS = 5  # of a run, where a target lost count of what it took


@dataclass(frozen=True, slots=True)
class Task:
    """One run to load; picklable."""

    loader: str
    options: Any
    common: LoadOptions
    data_path: Path
    files_path: Path
    ref: RunRef
    parent: RunRef | None
    selection: Selection
    multiplier: int
    rows: int


@lru_cache(maxsize=8)
def connected(name: str, options: Any, common: LoadOptions) -> Loader:
    """The loader of that name, one per process and set of options."""
    loader: Loader = plugins.find(plugins.LOADERS, name).make(options, common)
    return loader


def load(
    name: str,
    options: Any,
    common: LoadOptions,
    staging: Staging,
    selection: Selection,
    *,
    step_multiplier: int | None = None,
    workers: int = 4,
    executor: str = "processes",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Loads all selected runs that the target does not hold complete, as they are now.

    Args:
        name: the loader.
        options: its options.
        common: what is asked of every loader.
        staging: where from.
        selection: which runs and attributes.
        step_multiplier: what steps are multiplied with to become whole, None to choose it per project.
        workers: how many runs at once, where the target stands it.
        executor: see `concurrency.open_executor`.
        dry_run: only say what would be done.
        progress: counts runs and rows.

    Raises:
        ExporterError: the target does not answer, or an option cannot be what it is.
    """
    loader = connected(name, options, common)
    progress = progress or NoProgress()
    report = Report()
    task = partial(Task, name, options, common, staging.data_path, staging.files_path)
    try:
        tasks: list[Task] = []
        for folder in _chosen_folders(staging, selection):
            try:
                ready, skipped = _project_tasks(loader, folder, selection, step_multiplier, task)
                if ready and not dry_run:
                    loader.prepare(folder.project_id, ready[0].multiplier)
            except ExporterError as error:
                if error.fatal or isinstance(error, UsageError):
                    raise
                report.errors.append(error)
                continue
            tasks += ready
            report.outcomes += skipped
        if dry_run:
            report.outcomes += [Outcome(task.ref, "planned", rows=task.rows) for task in tasks]
        elif tasks:
            limit = loader.limits.writers
            report.after = loader.describe()
            _run(tasks, report, min(workers, limit or workers, len(tasks)), executor, progress)
    finally:
        loader.close()
        connected.cache_clear()
    return report


def _run(tasks: Sequence[Task], report: Report, workers: int, executor: str, progress: Progress) -> None:
    runs, rows = progress.counter("runs", "runs"), progress.counter("rows", "rows", scale=True)
    runs.start(len(tasks))
    rows.start(sum(task.rows for task in tasks))
    if workers == 1 and executor == "processes":
        executor = "threads"  # a process of its own would only have to import everything again
    here = executor == "threads"
    stop = threading.Event()
    work = partial(load_run, on_rows=rows.add, stop=stop.is_set) if here else load_run
    after = {task.ref: task.parent for task in tasks if task.parent is not None}
    with open_executor(executor, workers) as pool:
        try:
            for outcome in each(pool, work, tasks, ref_of=lambda task: task.ref, after=after, window=2 * workers):
                report.outcomes.append(outcome)
                runs.add()
                if not here:
                    rows.add(outcome.rows)
        except BaseException:
            stop.set()
            raise
    rows.done()
    runs.done()


def _chosen_folders(staging: Staging, selection: Selection) -> list[ProjectFolder]:
    folders = [f for f in staging.projects() if selection.wants_project(f.project_id)]
    if not folders:
        asked = f" {', '.join(selection.projects)}" if selection.projects else " any project"
        raise StagingError(
            f"{staging.data_path} does not hold{asked}.", "See what it holds with: neptune-exporter summary"
        )
    return folders


def _project_tasks(
    loader: Loader,
    folder: ProjectFolder,
    selection: Selection,
    step_multiplier: int | None,
    make_task: Callable[..., Task],
) -> tuple[list[Task], list[Outcome]]:
    everything = list(folder.runs())
    runs = [run for run in everything if selection.wants_run(run.ref.run_id)]
    target = loader.states(folder.project_id)
    multiplier = _multiplier(loader, folder.project_id, target, everything, step_multiplier)
    tasks, skipped = [], []
    for run in runs:
        state = target.runs.get(run.ref)
        if state is not None and state.live:
            skipped.append(Outcome(run.ref, "skipped", "it is being logged right now (dual logging)"))
            continue
        attributes, digest = chosen(run, selection)
        if state is not None and state.complete and state.digest == digest:
            reason = "loaded before" + (", from a partial export" if run.problems else "")
            skipped.append(Outcome(run.ref, "skipped", reason))
            continue
        rows = sum(attribute.rows for attribute in attributes)
        tasks.append(make_task(run.ref, run.info.parent, selection, multiplier, rows))
    return tasks, skipped


def chosen(run: StagedRun, selection: Selection) -> tuple[list[Attribute], str]:
    """The attributes of a run that are selected, and the digest over just them.

    A load that leaves something out has another digest, so that it never counts as complete for the rest.
    """
    attributes = run.attributes()
    if selection.whole_runs:
        return attributes, run.digest
    attributes = [a for a in attributes if selection.wants(a.path, a.type)]
    return attributes, run_digest(attributes, "selected")


def _multiplier(
    loader: Loader, project_id: str, target: TargetProject, runs: Sequence[StagedRun], wanted: int | None
) -> int:
    """The step multiplier of a project: as recorded on the target, as asked for, or the smallest that is exact."""
    types = loader.limits.integer_steps
    attributes = [attribute for run in runs for attribute in run.attributes() if attribute.type in types]
    recorded = target.step_multiplier
    if wanted is not None:
        check_multiplier(wanted, attributes, types)
        if recorded not in (None, wanted):
            raise UsageError(
                f"{project_id} was loaded with --step-multiplier {recorded}; {wanted} would not line up with it.",
                f"Use --step-multiplier {recorded}, or load into a new place with --name-prefix.",
            )
        return wanted
    needed = auto_multiplier(attributes, types)
    if recorded is None:
        return needed
    if recorded % needed:
        raise UsageError(
            f"{project_id} was loaded with the step multiplier {recorded}, but now has steps that need {needed}.",
            f"Load it anew: neptune-exporter load -p {project_id} --step-multiplier {needed} --name-prefix NEW-",
        )
    return recorded


def load_run(
    task: Task, on_rows: Callable[[int], None] | None = None, stop: Callable[[], bool] | None = None
) -> Outcome:
    """Loads one run; in a worker."""
    loader = connected(task.loader, task.options, task.common)
    staging = Staging(task.data_path, task.files_path)
    return attempt(task.ref, lambda: _load(loader, staging, task, on_rows, stop))


def _load(
    loader: Loader,
    staging: Staging,
    task: Task,
    on_rows: Callable[[int], None] | None,
    stop: Callable[[], bool] | None,
) -> Outcome:
    run = staging.run(task.ref)
    if run is None:
        raise StagingError(f"{task.ref} is gone from {task.data_path}.", "Run the same command again.")
    for left in reversed(range(LOAD_ATTEMPTS)):
        sink = loader.start(to_load(run, task.selection), task.multiplier)
        try:
            rows = pump(_rows(run, loader, task.selection), sink, on_rows=on_rows, stop=stop)
            sink.commit()
        except StartAgainError as error:
            sink.abort()
            if not left:
                raise
            logger.info("%s is loaded anew: %s", run.ref, error.message)
        except BaseException:
            sink.abort()
            raise
        else:
            return Outcome(run.ref, "partial" if run.problems else "done", rows=rows, problems=run.problems)
    raise AssertionError  # the last attempt returns or raises


def to_load(run: StagedRun, selection: Selection) -> RunToLoad:
    """The run as a loader sees it."""
    attributes, digest = chosen(run, selection)
    origin = ", ".join(f"{source.exporter} {source.source}" for source in run.sources) or "unknown"
    return RunToLoad(run.info, digest, attributes, run.files, run.problems, run.extra(), origin)


def _rows(run: StagedRun, loader: Loader, selection: Selection) -> Iterator[pa.RecordBatch]:
    return run.read(loader.limits.order, None if selection.whole_runs else selection.wants)
