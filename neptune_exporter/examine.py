# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What must be known of every run before the first one is loaded.

For a run with a manifest that is a look at its index. A run without one has to be read as a whole: that is done once,
by the workers, and what came of it waits in a scratch folder for the one who loads the run.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neptune_exporter.concurrency import open_executor, slots
from neptune_exporter.errors import ExporterError
from neptune_exporter.fingerprint import Attribute, run_digest
from neptune_exporter.loaders.steps import deciding
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Outcome, each
from neptune_exporter.selection import Selection
from neptune_exporter.storage.folder import ProjectFolder
from neptune_exporter.storage.run import StagedRun


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a run; small, whatever the run is.

    Attributes:
        ref: the run.
        parent: the run that it was forked from.
        digest: the digest over what is selected of it.
        rows: how many rows that is.
        partial: whether its export could not carry everything over.
        steps: the attributes that decide on the step multiplier.
        kept: where the run is kept with what reading it has told; None if its index tells it.
    """

    ref: RunRef
    parent: RunRef | None
    digest: str
    rows: int
    partial: bool
    steps: tuple[Attribute, ...]
    kept: Path | None = None


def chosen(run: StagedRun, selection: Selection) -> tuple[list[Attribute], str]:
    """The attributes of a run that are selected, and the digest over just them.

    A load that leaves something out has another digest, so that it never counts as complete for the rest.
    """
    return _chosen(run, run.attributes(), selection)


def _chosen(run: StagedRun, attributes: list[Attribute], selection: Selection) -> tuple[list[Attribute], str]:
    if selection.whole_runs:
        return attributes, run.digest
    attributes = [a for a in attributes if selection.wants(a.path, a.type)]
    return attributes, run_digest(attributes, "selected")


def examined(
    runs: Iterable[StagedRun],
    selection: Selection,
    step_types: Collection[str],
    scratch: Path,
    *,
    workers: int,
    executor: str,
    folders: Sequence[Path] = (),
) -> Iterator[Examined | Outcome]:
    """Examines runs; those with a manifest first.

    Args:
        runs: the runs.
        selection: which attributes.
        step_types: the attribute types that share a step multiplier.
        scratch: an existing folder for what reading a run has told.
        workers: how many runs to read at once.
        executor: see `concurrency.open_executor`.
        folders: likewise.

    Yields:
        What is known of a run, or how examining it failed.
    """
    unproven = []
    for run in runs:
        if run.manifest is None:
            unproven.append(run)
        else:
            yield _attempt(run, selection, step_types, None)
    if not unproven:
        return
    own = Path(tempfile.mkdtemp(dir=scratch))
    tasks = [(run, own / str(number)) for number, run in enumerate(unproven)]
    workers = min(workers, len(tasks))
    work = partial(_read, selection=selection, step_types=frozenset(step_types))
    with open_executor("threads" if workers == 1 else executor, workers, folders) as pool:
        yield from each(pool, work, tasks, ref_of=lambda task: task[0].ref, window=2 * slots(pool, workers))


def kept_run(folder: ProjectFolder, ref: RunRef, kept: Path | None) -> StagedRun | None:
    """A run of a folder as `examined` has kept it; None if it has not, or on another machine."""
    if kept is None or not kept.exists():
        return None
    run = StagedRun.recalled(folder, json.loads(kept.read_bytes()))
    if run.ref != ref:
        raise ValueError(f"{kept} holds {run.ref} and not {ref}")
    return run


def _read(task: tuple[StagedRun, Path], selection: Selection, step_types: Collection[str]) -> Examined | Outcome:
    """In a worker."""
    return _attempt(copy.copy(task[0]), selection, step_types, task[1])  # what it learns goes with the copy


def _attempt(
    run: StagedRun, selection: Selection, step_types: Collection[str], keep: Path | None
) -> Examined | Outcome:
    try:
        return _examine(run, selection, step_types, keep)
    except ExporterError as error:
        return Outcome(run.ref, "failed", f"{error.message} {error.hint}".strip())


def _examine(run: StagedRun, selection: Selection, step_types: Collection[str], keep: Path | None) -> Examined:
    everything = run.attributes()
    attributes, digest = _chosen(run, everything, selection)
    if keep is not None:
        try:
            keep.write_text(json.dumps(run.remembered()))
        except FileNotFoundError:  # on another machine: the one who loads it reads it again
            keep = None
    rows, steps = sum(a.rows for a in attributes), deciding(everything, step_types)
    return Examined(run.ref, run.info.parent, digest, rows, bool(run.problems), steps, keep)
