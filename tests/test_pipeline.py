# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The loop that export and load share: order, windows, what a failure costs, and the exit code."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.errors import (
    AccessError,
    ExporterError,
    InterruptedRunError,
    Problem,
    SourceError,
    StagingError,
    TargetAccessError,
    UsageError,
)
from neptune_exporter.model import RunRef, rows_batch
from neptune_exporter.pipeline import Outcome, Report, attempt, each, pump

REF = RunRef("ws/p", "RUN-1")


def ref(name: object) -> RunRef:
    return RunRef("ws/p", str(name))


def done(name: object) -> Outcome:
    return Outcome(ref(name), "done")


class AtOnce(Executor):
    """Does everything when it is submitted, and remembers the order."""

    def __init__(self) -> None:
        self.submitted: list[object] = []

    def submit(self, fn, /, *args, **kwargs):
        self.submitted.append(args[0])
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # as the real ones do
            future.set_exception(error)
        return future


# --- the exit code


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("others", [(), ("done",), ("skipped", "done")])
def test_a_failed_run_never_ends_in_exit_code_0(count, others):
    outcomes = [Outcome(ref(i), "failed", "because") for i in range(count)] + [Outcome(ref(s), s) for s in others]
    assert Report(outcomes).exit_code == 3


@given(
    st.lists(st.sampled_from(["done", "skipped", "partial", "failed"])),
    st.lists(st.sampled_from([SourceError("x"), UsageError("x"), AccessError("x")]), max_size=2),
)
def test_exit_code_0_means_that_all_is_done(statuses, problems):
    report = Report([Outcome(ref(i), status) for i, status in enumerate(statuses)], list(problems))
    assert (report.exit_code == 0) == (set(statuses) <= {"done", "skipped"} and not problems)
    assert report.exit_code in {0, 1, 2, 3}
    for status in ("done", "skipped", "partial", "failed"):
        assert report.count(status) == statuses.count(status)


def test_nothing_but_errors_is_an_error():
    assert Report(errors=[SourceError("no such project")]).exit_code == 1
    assert Report(errors=[UsageError("what?")]).exit_code == 2
    assert Report([done(1)], [SourceError("one project of two")]).exit_code == 3


def test_rows_add_up():
    assert Report([Outcome(ref(1), "done", rows=3), Outcome(ref(2), "partial", rows=4)]).rows == 7


# --- one run


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceError("It is gone.", "Try again."), "It is gone. Try again."),
        (StagingError("The disk is full."), "The disk is full."),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: "),
        (pa.ArrowInvalid("overflow"), "ArrowInvalid: overflow"),
    ],
)
def test_a_failure_costs_its_run_only(error, reason):
    def work():
        raise error

    assert attempt(REF, work) == Outcome(REF, "failed", reason)


@pytest.mark.parametrize(
    "error",
    [AccessError("401"), TargetAccessError("403"), InterruptedRunError(), KeyboardInterrupt(), SystemExit(1)],
)
def test_refused_credentials_and_interruptions_end_everything(error):
    def work():
        raise error

    with pytest.raises(type(error)) as caught:
        attempt(REF, work)
    assert caught.value is error


def test_success_is_passed_on():
    outcome = Outcome(REF, "partial", rows=5, problems=(Problem("x"),))
    assert attempt(REF, lambda: outcome) is outcome


class Collected:
    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.committed = False

    def write(self, batch):
        self.batches.append(batch)

    def commit(self):
        self.committed = True

    def abort(self):
        self.batches.clear()


def batches(*sizes: int) -> list[pa.RecordBatch]:
    return [rows_batch(REF, "p", "int", int_value=pa.array(np.arange(n))) for n in sizes]


def test_pump_writes_everything_and_does_not_commit():
    sink, counted = Collected(), []
    given_batches = batches(3, 0, 4)
    assert pump(iter(given_batches), sink, on_rows=counted.append) == 7
    assert sink.batches == given_batches
    assert counted == [3, 0, 4]
    assert not sink.committed


def test_pump_stops_when_asked():
    sink, answers = Collected(), iter([False, True])
    with pytest.raises(InterruptedRunError):
        pump(batches(1, 2, 3), sink, stop=lambda: next(answers))
    assert [b.num_rows for b in sink.batches] == [1]
    assert not sink.committed


def test_pump_passes_on_what_the_source_raises():
    def source():
        yield from batches(1)
        raise SourceError("the connection broke")

    sink = Collected()
    with pytest.raises(SourceError):
        pump(source(), sink)
    assert not sink.committed


# --- all runs


def test_every_run_is_done_once():
    with ThreadPoolExecutor(4) as executor:
        outcomes = list(each(executor, done, range(500), ref_of=ref))
    assert sorted(o.ref for o in outcomes) == sorted(map(ref, range(500)))


def test_no_runs():
    assert list(each(AtOnce(), done, [], ref_of=ref)) == []


@given(st.dictionaries(st.integers(0, 30), st.integers(0, 30)), st.integers(1, 5), st.randoms(use_true_random=False))
def test_parents_first_whatever_the_family(parent_of, window, rng):
    """Each run may name any run as its parent: itself, one that is not there, or one that names it in turn."""
    tasks = list(range(25))
    rng.shuffle(tasks)
    executor = AtOnce()
    outcomes = list(
        each(
            executor,
            done,
            tasks,
            ref_of=ref,
            after={ref(child): ref(parent) for child, parent in parent_of.items()},
            window=window,
        )
    )
    assert sorted(o.ref for o in outcomes) == sorted(map(ref, tasks))
    order = {task: i for i, task in enumerate(executor.submitted)}
    for child, parent in parent_of.items():
        in_circle = child in ancestors(child, parent_of)
        if child in order and parent in order and not in_circle:
            assert order[parent] < order[child]


def ancestors(run: int, parent_of: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while (parent := parent_of.get(run)) is not None and parent not in found and parent < 25:
        found.add(parent)
        run = parent
    return found


def test_a_fork_waits_until_its_parent_has_ended():
    ended: list[str] = []

    def work(name):
        if name == "child":
            assert "parent" in ended
        ended.append(name)
        return done(name)

    with ThreadPoolExecutor(4) as executor:
        list(each(executor, work, ["child", "parent"], ref_of=ref, after={ref("child"): ref("parent")}))
    assert ended == ["parent", "child"]


def test_a_fork_is_done_although_its_parent_failed():
    def work(name):
        return Outcome(ref(name), "failed" if name == "parent" else "done")

    outcomes = list(each(AtOnce(), work, ["child", "parent"], ref_of=ref, after={ref("child"): ref("parent")}))
    assert [(o.ref.run_id, o.status) for o in outcomes] == [("parent", "failed"), ("child", "done")]


def test_a_long_line_of_forks():
    count = 3000
    after = {ref(i): ref(i + 1) for i in range(count - 1)}
    outcomes = list(each(AtOnce(), done, range(count), ref_of=ref, after=after))
    assert [o.ref for o in outcomes] == [ref(i) for i in reversed(range(count))]


class Held(Executor):
    """Finishes a task only when told to, and knows how many were handed over at once."""

    def __init__(self) -> None:
        self.open: list[tuple[Future, object]] = []
        self.most = 0
        self.lock = threading.Lock()

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        with self.lock:
            self.open.append((future, args[0]))
            self.most = max(self.most, len(self.open))
            if len(self.open) >= 3:  # a full window: one ends
                first, task = self.open.pop(0)
                first.set_result(fn(task))
        return future


def test_no_more_than_a_window_is_handed_over():
    executor = Held()
    outcomes = list(itertools.islice(each(executor, done, range(100), ref_of=ref, window=3), 50))
    assert len(outcomes) == 50
    assert executor.most == 3
    assert len(executor.open) <= 3


@pytest.mark.parametrize("error", [AccessError("401"), RuntimeError("a bug"), InterruptedRunError()])
def test_what_work_raises_ends_everything(error):
    def work(name):
        if name == 7:
            raise error
        return done(name)

    executor, seen = AtOnce(), []
    with pytest.raises(type(error)):
        seen.extend(each(executor, work, range(1000), ref_of=ref, window=4))
    assert len(executor.submitted) <= 12


def test_outcomes_that_came_with_a_fatal_error_are_not_lost():
    def work(name):
        if name == 0:
            raise AccessError("401")
        return done(name)

    seen = []
    with pytest.raises(AccessError):
        seen.extend(each(AtOnce(), work, range(20), ref_of=ref, window=20))
    assert {o.ref for o in seen} == {ref(i) for i in range(1, 20)}


def test_attempts_keep_the_others_going():
    def work(name):
        def fails():
            raise ExporterError(f"{name} is odd") if name % 2 else ValueError(name)

        return attempt(ref(name), fails)

    report = Report(list(each(AtOnce(), work, range(10), ref_of=ref)))
    assert report.count("failed") == 10
    assert report.exit_code == 3
    assert min(o.reason for o in report.outcomes) == "1 is odd"
