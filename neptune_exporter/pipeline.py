# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One verb: pump batches from a source into a sink. One unit of work: a run.

Export and load share the loop here: skip or do, collect what came of it, parents before forks.
"""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from neptune_exporter import free_space
from neptune_exporter.errors import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    ClaimedError,
    ExporterError,
    InterruptedRunError,
    Problem,
)
from neptune_exporter.secrets import masked

if TYPE_CHECKING:
    import pyarrow as pa

    from neptune_exporter.model import RunRef

logger = logging.getLogger(__name__)

Status = Literal["done", "skipped", "planned", "partial", "failed"]
T = TypeVar("T")
R = TypeVar("R")


class Sink(Protocol):
    """Takes the rows of one run: a staging writer, a run in a tracker, a fingerprint."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes a batch in the fixed schema, rows in any order unless the sink's maker says otherwise."""

    def commit(self) -> None:
        """Makes it count. Only from here on does the run exist."""

    def abort(self) -> None:
        """Leaves nothing that looks complete. May follow any call, also a failed commit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run.

    Attributes:
        ref: the run.
        status: `partial` means that it counts, but something is listed as a problem.
        reason: why it was skipped or failed, in a sentence.
        rows: rows written.
        problems: what could not be carried over.
    """

    ref: RunRef
    status: Status
    reason: str = ""
    rows: int = 0
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", masked(self.reason))


@dataclass
class Report:
    """All outcomes of a command.

    Attributes:
        outcomes: one per run.
        errors: what failed as a whole, a project for instance.
        notes: what the user should know of what was chosen, in sentences.
        after: what to do next, for humans.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    errors: list[ExporterError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    after: str = ""

    def count(self, status: Status) -> int:
        """How many runs ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def rows(self) -> int:
        """Rows written in all."""
        return sum(outcome.rows for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0 if everything is done or was done before, 1 if nothing but errors came of it, else 3."""
        if self.errors and not self.outcomes:
            return self.errors[0].exit_code
        unfinished = self.errors or any(o.status in ("partial", "failed") for o in self.outcomes)
        return EXIT_INCOMPLETE if unfinished else EXIT_OK


def pump(
    batches: Iterable[pa.RecordBatch],
    sink: Sink,
    *,
    on_rows: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> int:
    """Writes all batches into the sink; does not commit.

    Args:
        batches: rows of one run.
        sink: where they go.
        on_rows: told the number of rows after each batch.
        stop: asked before each batch.

    Returns:
        The number of rows.

    Raises:
        InterruptedRunError: `stop` said so.
        NoSpaceError: the disk for temporary files is almost full.
    """
    rows = 0
    for batch in batches:
        if stop is not None and stop():
            raise InterruptedRunError
        free_space.check(Path(tempfile.gettempdir()))
        sink.write(batch)
        rows += batch.num_rows
        if on_rows is not None:
            on_rows(batch.num_rows)
    return rows


def attempt(ref: RunRef, work: Callable[[], Outcome]) -> Outcome:
    """Does the work of one run and turns its failure into an outcome, so that other runs go on.

    Raises:
        ExporterError: one that is `fatal`, such as a refused token, or an interruption.
    """
    try:
        return work()
    except InterruptedRunError:
        raise
    except ClaimedError as error:
        return Outcome(ref, "skipped", error.message)
    except ExporterError as error:
        if error.fatal:
            raise
        logger.info("%s failed: %s", ref, error.message)
        reason = f"{error.message} {error.hint}".strip()
        return Outcome(ref, "failed", reason)
    except Exception as error:
        logger.exception("%s failed", ref)
        return Outcome(ref, "failed", f"{type(error).__name__}: {error}")


def each(
    executor: Executor,
    work: Callable[[T], R],
    tasks: Sequence[T],
    *,
    ref_of: Callable[[T], RunRef],
    after: Mapping[RunRef, RunRef] | None = None,
    window: int = 32,
) -> Iterator[R]:
    """Runs `work` on every task and yields what it returns, in the order in which tasks end.

    Args:
        executor: where the work runs; `work` and tasks must be picklable for processes.
        work: what it raises ends everything.
        tasks: one per run; of several for the same run only the last is done.
        ref_of: the run of a task.
        after: runs that must wait for another run of these tasks (a fork for its parent).
        window: how many tasks are handed over at a time.
    """
    by_ref = {ref_of(task): task for task in tasks}
    order = _ordered(by_ref, after or {})
    pending: dict[Future[R], Any] = {}
    ready: deque[Any] = deque()
    while order.is_active():
        ready.extend(order.get_ready())
        while ready and len(pending) < window:
            ref = ready.popleft()
            pending[executor.submit(work, by_ref[ref])] = ref
        finished, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in sorted(finished, key=lambda f: f.exception() is not None):  # outcomes before what ends it all
            ref = pending.pop(future)
            yield future.result()
            order.done(ref)


def _ordered(by_ref: Mapping[Any, Any], after: Mapping[Any, Any]) -> TopologicalSorter[Any]:
    waits = {ref: _predecessors(ref, by_ref, after) for ref in by_ref}
    while True:
        order = TopologicalSorter(waits)
        try:
            order.prepare()
        except CycleError as error:  # runs that claim to be forks of each other: no order among them is right
            waits.update(dict.fromkeys(error.args[1], ()))
        else:
            return order


def _predecessors(ref: Any, by_ref: Mapping[Any, Any], after: Mapping[Any, Any]) -> tuple[Any, ...]:
    parent = after.get(ref)
    return (parent,) if parent in by_ref and parent != ref else ()
