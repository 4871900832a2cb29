# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `export`: a source into the staging area, run by run."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from neptune_exporter import free_space, plugins
from neptune_exporter.assignment import Connections, assignment
from neptune_exporter.concurrency import is_cluster, open_executor, slots
from neptune_exporter.errors import ClaimedError, DamagedDataError, ExporterError, Problem
from neptune_exporter.exporters.exporter import Exporter, Findings, SourceRun
from neptune_exporter.model import OutsideValue, normalize
from neptune_exporter.pipeline import Outcome, Report, attempt, each, pump
from neptune_exporter.progress import NoProgress, Progress
from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.shared_folders import anchored, made
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.run import StagedRun, rows_of
from neptune_exporter.storage.staging import Staging
from neptune_exporter.storage.writer import Policy, RunWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for one run.

    Attributes:
        selections: what to fetch, one after the other; nothing if the run is to be skipped.
        policy: what becomes of what the staging area holds of it.
        claims: what the manifest may say was selected, afterwards.
        standing: problems of earlier exports from this source that are not tried again.
        reason: why it is skipped.
    """

    selections: tuple[Selection, ...]
    policy: Policy = "replace"
    claims: Selection = EVERYTHING
    standing: tuple[Problem, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One run to export; picklable."""

    exporter: str
    options: Any
    data_path: Place
    files_path: Place
    run: SourceRun
    selection: Selection
    overwrite: bool
    retry_failed: bool


def _connect(name: str, options: Any) -> Exporter:
    exporter: Exporter = plugins.find(plugins.EXPORTERS, name).make(options)
    return exporter


connected = Connections(_connect)  # the exporter of a name and its options


def export(
    name: str,
    options: Any,
    staging: Staging,
    selection: Selection,
    *,
    workers: int = 4,
    executor: str = "threads",
    overwrite: bool = False,
    retry_failed: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Exports all selected runs that are absent, unfinished, changed or asked for with a wider selection.

    Args:
        name: the exporter.
        options: its options.
        staging: where to.
        selection: what.
        workers: how many runs at once.
        executor: see `concurrency.open_executor`.
        overwrite: export again what this exporter has exported, each run replaced atomically.
        retry_failed: also try again what failed for good.
        dry_run: only say what would be done.
        progress: counts projects, runs and rows.

    Raises:
        ExporterError: nothing could be listed, or going on would only leave holes.
    """
    if is_cluster(executor):
        staging, options = anchored(staging), plugins.anchored(options)
    exporter = connected(name, options)
    progress = progress or NoProgress()
    report = Report()
    stop = threading.Event()
    try:
        tasks = [
            Task(name, options, staging.data_path, staging.files_path, run, selection, overwrite, retry_failed)
            for run in _listed(exporter, selection, report)
        ]
        if dry_run:
            report.outcomes += [attempt(task.run.info.ref, partial(planned, exporter, staging, task)) for task in tasks]
            return report
        runs, rows = progress.counter("runs", "runs"), progress.counter("points", "points", scale=True)
        runs.start(len(tasks))
        rows.start(sum(task.run.estimated_rows for task in tasks) or None)
        for place in (staging.data_path, staging.files_path):
            if isinstance(place, Path):
                free_space.check(place)
        folders = made(staging) if is_cluster(executor) else []
        here = executor == "threads"
        work = partial(export_run, on_rows=rows.add, stop=stop.is_set) if here else export_run
        with open_executor(executor, min(workers, max(len(tasks), 1)), folders) as pool:
            window = 2 * slots(pool, workers)
            try:
                for outcome in each(pool, work, tasks, ref_of=lambda task: task.run.info.ref, window=window):
                    report.outcomes.append(outcome)
                    runs.add()
                    if not here:
                        rows.add(outcome.rows)
            except BaseException:
                stop.set()
                getattr(exporter, "interrupt", lambda: None)()  # workers that wait for a server wait no longer
                raise
        rows.done()
        runs.done()
        if overwrite and not report.errors:
            _remove_vanished(exporter, staging, selection, tasks, report)
    finally:
        exporter.close()
        connected.cache_clear()
    return report


def _listed(exporter: Exporter, selection: Selection, report: Report) -> Iterator[SourceRun]:
    """All selected runs of all projects; a project that cannot be listed costs only itself."""
    for project_id in exporter.projects(selection):
        try:
            yield from exporter.runs(project_id, selection)
        except ExporterError as error:
            if error.fatal:
                raise
            logger.info("%s: %s", project_id, error)
            report.errors.append(error)
    report.errors.extend(getattr(exporter, "unreadable", ()))
    report.notes.extend(getattr(exporter, "notes", ()))


def planned(exporter: Exporter, staging: Staging, task: Task) -> Outcome:
    """What would be done for a run."""
    ref = task.run.info.ref
    base = _staged(staging, task)
    plan = plan_for(exporter, base, task)
    if not plan.selections:
        problems = base.problems if base is not None else ()
        return Outcome(ref, "partial" if problems else "skipped", plan.reason, problems=problems)
    return Outcome(ref, "planned", rows=task.run.estimated_rows)


def export_run(
    task: Task, on_rows: Callable[[int], None] | None = None, stop: Callable[[], bool] | None = None
) -> Outcome:
    """Exports one run; in a worker."""
    exporter = connected(task.exporter, task.options)
    staging = Staging(task.data_path, task.files_path)
    given = assignment()

    def work() -> Outcome:
        return _export(exporter, staging, task, on_rows, stop or (lambda: given.stopped))

    def work_again() -> Outcome:
        try:
            return work()
        except ClaimedError:  # who had the run before has committed it at the last moment
            return work()

    return attempt(task.run.info.ref, work_again if given.again else work)


def _export(
    exporter: Exporter,
    staging: Staging,
    task: Task,
    on_rows: Callable[[int], None] | None,
    stop: Callable[[], bool],
) -> Outcome:
    run = task.run
    base = _staged(staging, task)
    plan = plan_for(exporter, base, task)
    if not plan.selections:
        problems = base.problems if base is not None else ()
        rows = base.manifest.points if base is not None and base.manifest else 0
        if assignment().again and rows:  # by a worker that died before it could say so
            return Outcome(run.info.ref, "partial" if problems else "done", rows=rows, problems=problems)
        return Outcome(run.info.ref, "partial" if problems else "skipped", plan.reason, problems=problems)
    source = SourceRecord(exporter.name, exporter.source, run.state, run.as_of, plan.claims, plan.standing)
    writer = staging.writer(run.info, source, base, plan.policy, stop)
    try:
        rows = pump(_batches(exporter, run, plan.selections, writer), writer, on_rows=on_rows, stop=stop)
        writer.commit()
    except BaseException:
        writer.abort()
        raise
    problems = writer.problems
    return Outcome(run.info.ref, "partial" if problems else "done", rows=rows, problems=problems)


def _staged(staging: Staging, task: Task) -> StagedRun | None:
    """What the staging area holds of a run. One that is too damaged to be opened gives way to a whole new export."""
    try:
        return staging.run(task.run.info.ref)
    except DamagedDataError:
        if not (task.overwrite and task.selection.whole_runs):
            raise
        return None


def _batches(
    exporter: Exporter, run: SourceRun, selections: Sequence[Selection], writer: RunWriter
) -> Iterator[pa.RecordBatch]:
    """The rows of several selections, what an earlier one has given left out of the later ones."""
    for number, selection in enumerate(selections):
        before = selections[:number]

        def is_new(path: str, kind: str, before: Sequence[Selection] = before) -> bool:
            return not any(earlier.wants(path, kind) for earlier in before)

        findings = _NewFindings(writer, is_new) if before else writer
        for batch in exporter.batches(run, selection, writer.files, findings):
            yield rows_of(normalize(batch), is_new) if before else batch


class _NewFindings:
    """Findings of a selection, without what an earlier one has found of the same attributes."""

    def __init__(self, findings: Findings, is_new: Callable[[str, str], bool]) -> None:
        self._findings = findings
        self._is_new = is_new

    def problem(self, problem: Problem) -> None:
        self._findings.problem(problem)  # names no type: rather twice than never

    def outside(self, value: OutsideValue) -> None:
        if self._is_new(value.attribute, value.type):
            self._findings.outside(value)

    def empty(self, path: str, attribute_type: str) -> None:
        if self._is_new(path, attribute_type):
            self._findings.empty(path, attribute_type)


def plan_for(exporter: Exporter, staged: StagedRun | None, task: Task) -> Plan:
    """What is to be done for a run, given what the staging area holds of it."""
    selection = task.selection
    if staged is None:
        return Plan((selection,), "replace", selection)
    record = next((r for r in staged.sources if r.name == (exporter.name, exporter.source)), None)
    if record is None:  # another source, or one that nobody knows: never skipped, never replaced
        return Plan((selection,), "union", selection)
    claims = selection.joined(record.selection)
    whole = (claims,) if claims.covers(selection) and claims.covers(record.selection) else (record.selection, selection)
    relation = exporter.compare(record.state, task.run.state)
    alone = len(staged.sources) == 1  # otherwise what is here may be another source's
    wider, retried = selection.beyond(record.selection), _to_retry(record.problems, retry_failed=task.retry_failed)
    if task.overwrite or relation != "same" or None in retried:
        return Plan(whole, "replace" if alone and relation != "apart" else "union", claims)
    selections = [wider] if wider.classes else []
    if retried:
        selections.append(_exactly(sorted(path for path in retried if path is not None)))
    if selections:
        standing = tuple(problem for problem in record.problems if problem.attribute not in retried)
        return Plan(tuple(selections), "extend" if alone else "union", claims, standing)
    failed = sum(problem.count for problem in staged.problems)
    again = f"exported before, with {failed} problems; --retry-failed tries them again"
    return Plan((), reason=again if failed else "exported before")


def _to_retry(problems: Sequence[Problem], *, retry_failed: bool) -> set[str | None]:
    return {problem.attribute for problem in problems if retry_failed or problem.kind == "retry"}


def _exactly(paths: Sequence[str]) -> Selection:
    """A selection of just these attributes."""
    return Selection(attributes=tuple(paths) if len(paths) > 1 else (f"^{re.escape(paths[0])}$",))


def _remove_vanished(
    exporter: Exporter, staging: Staging, selection: Selection, tasks: Sequence[Task], report: Report
) -> None:
    """Removes runs that this source has no more, if it was asked for all it has and has said so."""
    unfiltered = selection.whole_runs and not selection.run_ids and not selection.run_patterns
    if not unfiltered or not exporter.lists_all:
        return
    listed = {task.run.info.ref for task in tasks}
    own = (exporter.name, exporter.source)
    for project_id, kind in sorted({(ref.project_id, ref.kind) for ref in listed}):
        folder = staging.folder(project_id, kind)
        for run in list(folder.runs(report.errors.append)):
            if run.ref not in listed and run.sources and all(record.name == own for record in run.sources):
                logger.info("%s is gone from the source and is removed", run.ref)
                try:
                    folder.remove(run)
                except ExporterError as error:
                    report.errors.append(error)
