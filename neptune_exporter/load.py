# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `load`: the staging area into a target, run by run, parents before forks."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from neptune_exporter import free_space, plugins
from neptune_exporter.assignment import Connections, assignment
from neptune_exporter.concurrency import is_cluster, open_executor, slots
from neptune_exporter.errors import DamagedDataError, ExporterError, StagingError, StartAgainError, UsageError
from neptune_exporter.examine import Examined, chosen, examined, kept_run
from neptune_exporter.loaders.loader import Loader, LoadOptions, RunToLoad, TargetProject
from neptune_exporter.loaders.steps import auto_multiplier, check_multiplier
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Outcome, Report, attempt, each, pump
from neptune_exporter.progress import NoProgress, Progress
from neptune_exporter.selection import Selection
from neptune_exporter.shared_folders import anchored, folders_of
from neptune_exporter.storage.manifest import NOT_OURS
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import ProjectFolder, Staging

__all__ = ["Task", "chosen", "connected", "load", "load_run", "to_load"]

logger = logging.getLogger(__name__)

LOAD_ATTEMPTS = 5  # of a run, where a target lost count of what it took


@dataclass(frozen=True, slots=True)
class Task:
    """One run to load; picklable."""

    loader: str
    options: Any
    common: LoadOptions
    data_path: Place
    files_path: Place
    ref: RunRef
    parent: RunRef | None
    selection: Selection
    multiplier: int
    rows: int
    kept: Path | None = None


def _connect(name: str, options: Any, common: LoadOptions) -> Loader:
    loader: Loader = plugins.find(plugins.LOADERS, name).make(options, common)
    return loader


connected = Connections(_connect)  # the loader of a name and its options


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
    if is_cluster(executor):
        staging, options = anchored(staging), plugins.anchored(options)
    loader = connected(name, options, common)
    progress = progress or NoProgress()
    report = Report()
    task = partial(Task, name, options, common, staging.data_path, staging.files_path)
    try:
        for folder in (Path(tempfile.gettempdir()), *getattr(loader, "folders", ())):
            free_space.check(folder)
        with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as scratch:
            tasks: list[Task] = []
            folders = folders_of(staging)
            look = partial(examined, workers=workers, executor=executor, scratch=Path(scratch), folders=folders)
            for chosen_folders in _chosen_folders(staging, selection, report):
                project_id = chosen_folders[0].project_id
                try:
                    runs = _examined_runs(chosen_folders, selection, loader.limits.integer_steps, look, report)
                    ready, skipped = _project_tasks(loader, project_id, runs, selection, step_multiplier, task)
                    if ready and not dry_run:
                        loader.prepare(project_id, ready[0].multiplier)
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
                report.after = loader.describe()
                if loader.limits.writers == 1 and is_cluster(executor):
                    report.notes.append("The target takes one writer at a time: it was loaded from this machine.")
                _run(tasks, report, workers, loader.limits.writers, executor, progress, staging)
    finally:
        loader.close()
        connected.cache_clear()
    return report


def _run(
    tasks: Sequence[Task],
    report: Report,
    workers: int,
    writers: int | None,
    executor: str,
    progress: Progress,
    staging: Staging,
) -> None:
    runs, rows = progress.counter("runs", "runs"), progress.counter("rows", "rows", scale=True)
    runs.start(len(tasks))
    rows.start(sum(task.rows for task in tasks))
    workers = min(workers, writers or workers, len(tasks))
    if writers == 1 or (workers == 1 and executor == "processes"):
        executor = "threads"  # a process of its own would only have to import everything again
    here = executor == "threads"
    stop = threading.Event()
    work = partial(load_run, on_rows=rows.add, stop=stop.is_set) if here else load_run
    after = {task.ref: task.parent for task in tasks if task.parent is not None}
    with open_executor(executor, workers, folders_of(staging)) as pool:
        window = min(2 * slots(pool, workers), writers or len(tasks))
        try:
            for outcome in each(pool, work, tasks, ref_of=lambda task: task.ref, after=after, window=window):
                report.outcomes.append(outcome)
                runs.add()
                if not here:
                    rows.add(outcome.rows)
        except BaseException:
            stop.set()
            raise
    rows.done()
    runs.done()


def _chosen_folders(staging: Staging, selection: Selection, report: Report) -> list[list[ProjectFolder]]:
    """The folders of each selected project, one for each kind of thing that is wanted."""
    by_project: dict[str, list[ProjectFolder]] = {}
    for kind in selection.kinds:
        for folder in staging.projects(kind, report.errors.append):  # type: ignore[arg-type]
            if selection.wants_project(folder.project_id):
                by_project.setdefault(folder.project_id, []).append(folder)
    if not by_project:
        asked = f" {', '.join(selection.projects)}" if selection.projects else " any project"
        what = "" if "run" in selection.kinds else " with models"
        absent = StagingError(
            f"{staging.data_path} does not hold{asked}{what}.", "See what it holds with: neptune-exporter summary"
        )
        if not report.errors:
            raise absent
        report.errors.append(absent)  # or it is what is damaged
    return list(by_project.values())


def _examined_runs(
    folders: Sequence[ProjectFolder],
    selection: Selection,
    step_types: Collection[str],
    look: Callable[..., Iterator[Examined | Outcome]],
    report: Report,
) -> list[Examined]:
    """All runs of a project, also those that are not loaded now: their steps count for the multiplier."""
    everything = (run for folder in folders for run in folder.runs(report.errors.append))
    if not selection.run_ids and not selection.run_patterns:
        report.errors += [error for folder in folders for error in folder.lost_runs()]
    runs = []
    for found in look(everything, selection, step_types):
        if isinstance(found, Examined):
            runs.append(found)
        elif selection.wants_run(found.ref.run_id):
            report.outcomes.append(found)
        else:
            logger.warning("%s: %s", found.ref, found.reason)
    return runs


def _project_tasks(
    loader: Loader,
    project_id: str,
    runs: Sequence[Examined],
    selection: Selection,
    step_multiplier: int | None,
    make_task: Callable[..., Task],
) -> tuple[list[Task], list[Outcome]]:
    target = loader.states(project_id)
    multiplier = _multiplier(loader, project_id, target, runs, step_multiplier)
    tasks, skipped = [], []
    for run in runs:
        if not selection.wants_run(run.ref.run_id):
            continue
        state = target.runs.get(run.ref)
        if state is not None and state.live:
            skipped.append(Outcome(run.ref, "skipped", "it is being logged right now (dual logging)"))
        elif state is not None and state.complete and state.digest == run.digest:
            reason = "loaded before" + (", from a partial export" if run.partial else "")
            skipped.append(Outcome(run.ref, "skipped", reason))
        else:
            tasks.append(make_task(run.ref, run.parent, selection, multiplier, run.rows, run.kept))
    return tasks, skipped


def _multiplier(
    loader: Loader, project_id: str, target: TargetProject, runs: Sequence[Examined], wanted: int | None
) -> int:
    """The step multiplier of a project: as recorded on the target, as asked for, or the smallest that is exact."""
    types = loader.limits.integer_steps
    attributes = [attribute for run in runs for attribute in run.steps]
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
    given = assignment()
    return attempt(task.ref, lambda: _load(loader, staging, task, on_rows, stop or (lambda: given.stopped)))


def _load(
    loader: Loader,
    staging: Staging,
    task: Task,
    on_rows: Callable[[int], None] | None,
    stop: Callable[[], bool],
) -> Outcome:
    given = assignment()
    folder = staging.folder(task.ref.project_id, task.ref.kind)
    run = kept_run(folder, task.ref, task.kept) or staging.run(task.ref)
    if run is None:
        raise StagingError(f"{task.ref} is gone from {task.data_path}.", "Run the same command again.")
    if given.again and _is_loaded(loader, run, task.selection):  # by a worker that died before it could say so
        return Outcome(run.ref, "partial" if run.problems else "done", rows=task.rows, problems=run.problems)
    with closing(run.files):  # what was fetched from an object store goes again
        return _load_opened(loader, run, task, on_rows, stop)


def _load_opened(
    loader: Loader, run: StagedRun, task: Task, on_rows: Callable[[int], None] | None, stop: Callable[[], bool]
) -> Outcome:
    for left in reversed(range(LOAD_ATTEMPTS)):
        whole = to_load(run, task.selection)
        sink = loader.start(whole, task.multiplier)
        try:
            rows = pump(_rows(run, loader, task.selection), sink, on_rows=on_rows, stop=stop)
            _check_count(whole, rows)
            assignment().confirm()
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


def _check_count(run: RunToLoad, rows: int) -> None:
    """Whatever the reason may be: what is loaded is never less than what was exported."""
    promised = sum(attribute.rows for attribute in run.attributes)
    if rows != promised:
        raise DamagedDataError(
            f"{run.info.ref} has {rows:,} rows that can be read, and {promised:,} by its index.",
            "neptune-exporter verify --read-data says where; restore the run from a backup, or export it again with "
            "--overwrite.",
        )


def _is_loaded(loader: Loader, run: StagedRun, selection: Selection) -> bool:
    state = loader.states(run.ref.project_id).runs.get(run.ref)
    return state is not None and state.complete and state.digest == chosen(run, selection)[1]


def to_load(run: StagedRun, selection: Selection) -> RunToLoad:
    """The run as a loader sees it."""
    attributes, digest = chosen(run, selection)
    origin = ", ".join(source.text for source in run.sources) or NOT_OURS
    return RunToLoad(run.info, digest, attributes, run.files, run.problems, run.extra(), origin)


def _rows(run: StagedRun, loader: Loader, selection: Selection) -> Iterator[pa.RecordBatch]:
    folders = getattr(loader, "folders", ())
    for batch in run.read(loader.limits.order, None if selection.whole_runs else selection.wants):
        for folder in folders:
            free_space.check(folder)
        yield batch
