# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Executors: the work is done where it should be, an exception ends everything, errors come through whole."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from neptune_exporter.concurrency import default_workers, open_executor
from neptune_exporter.errors import AccessError, ExporterError, MissingExtraError, TargetError, UsageError
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Outcome, each

LOCAL = ["threads", "processes"]


def ref(number: int) -> RunRef:
    return RunRef("ws/p", str(number))


def who(number: int) -> Outcome:
    return Outcome(ref(number), "done", reason=f"{os.getpid()} {threading.get_ident()}", rows=number**2)


def refused(number: int) -> Outcome:
    raise AccessError(f"{number} is refused.", "Renew the token.")


def not_installed(number: int) -> Outcome:
    raise MissingExtraError("mlflow", "mlflow")


def dies(number: int) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return who(number)


def start_method(_: int) -> str:
    return str(multiprocessing.get_start_method(allow_none=True)) + multiprocessing.current_process().name


def ignores_interrupt() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def waits_for_ever() -> None:
    threading.Event().wait()


@pytest.mark.parametrize("spec", LOCAL)
def test_the_work_is_done(spec):
    with open_executor(spec, 2) as executor:
        outcomes = list(each(executor, who, range(40), ref_of=ref))
    assert {o.ref: o.rows for o in outcomes} == {ref(i): i * i for i in range(40)}
    processes = {o.reason.split()[0] for o in outcomes}
    assert (processes == {str(os.getpid())}) == (spec == "threads")
    assert len({o.reason for o in outcomes}) <= 2


@pytest.mark.parametrize("spec", LOCAL)
@pytest.mark.parametrize(
    ("work", "kind", "message", "hint"),
    [
        (refused, AccessError, r"\d is refused.", "Renew the token."),
        (not_installed, MissingExtraError, "mlflow is not installed.", "Install it with"),
    ],
)
def test_errors_come_through_whole(spec, work, kind, message, hint):
    with pytest.raises(kind) as caught, open_executor(spec, 1) as executor:
        list(each(executor, work, range(100), ref_of=ref))
    assert re.fullmatch(message, caught.value.message)
    assert hint in caught.value.hint


def test_processes_are_spawned_and_leave_interrupts_to_the_parent():
    with open_executor("processes", 1) as executor:
        assert "spawn" in executor.submit(start_method, 0).result().lower()
        assert executor.submit(ignores_interrupt).result()


def test_an_exception_cancels_what_has_not_started():
    """With one worker that is busy, nothing of the queue may start any more."""
    started, release, ran = threading.Event(), threading.Event(), []

    def first():
        started.set()
        release.wait()

    class Interrupted(BaseException):
        pass

    def command():
        with open_executor("threads", 1) as executor:
            futures.extend([executor.submit(first), *(executor.submit(ran.append, i) for i in range(100))])
            futures[1].add_done_callback(lambda _: release.set())  # cancelled: only now may the busy one end
            started.wait()
            raise Interrupted

    futures: list[Future] = []
    with pytest.raises(Interrupted):
        command()
    assert ran == []
    assert futures[0].done()
    assert all(future.cancelled() for future in futures[1:])


def test_an_exception_ends_busy_worker_processes():
    def command():
        with open_executor("processes", 2) as executor:
            futures.extend(executor.submit(waits_for_ever) for _ in range(50))
            workers.extend(executor._processes.values())
            raise KeyboardInterrupt

    futures: list[Future] = []
    workers: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        command()
    assert workers
    assert not any(worker.is_alive() for worker in workers)
    assert all(future.done() and (future.cancelled() or future.exception()) for future in futures)


def test_a_worker_that_was_killed_is_an_error_with_a_hint():
    with pytest.raises(ExporterError, match="ended from outside") as caught, open_executor("processes", 1) as executor:
        list(each(executor, dies, range(3), ref_of=ref))
    assert "--workers" in caught.value.hint


@pytest.mark.parametrize("spec", LOCAL)
def test_leaving_the_block_waits_for_the_work(spec):
    with open_executor(spec, 2) as executor:
        futures = [executor.submit(who, i) for i in range(10)]
    assert [future.result(timeout=0).rows for future in futures] == [i * i for i in range(10)]


@pytest.mark.parametrize(
    ("spec", "workers"), [("threads", 0), ("processes", -1), ("thread", 1), ("", 1), ("dask:", 1), ("dask:x://y", 1)]
)
def test_what_makes_no_sense_is_refused(spec, workers):
    with pytest.raises(UsageError), open_executor(spec, workers):
        raise AssertionError("must not be reached")


def test_default_workers():
    assert 1 <= default_workers() <= 8


@pytest.fixture(scope="module")
def dask_address():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


def test_a_dask_cluster_does_the_work(dask_address):
    with open_executor(f"dask:{dask_address}", 1) as executor:
        outcomes = list(each(executor, who, range(20), ref_of=ref))
    assert {o.ref: o.rows for o in outcomes} == {ref(i): i * i for i in range(20)}


def test_errors_come_through_a_dask_cluster(dask_address):
    with pytest.raises(AccessError, match="is refused") as caught, open_executor(f"dask:{dask_address}", 1) as executor:
        list(each(executor, refused, range(20), ref_of=ref))
    assert caught.value.hint == "Renew the token."


def test_no_dask_scheduler(monkeypatch):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        import distributed

        real = distributed.Client
        monkeypatch.setattr(distributed, "Client", lambda address, timeout, **how: real(address, timeout=1, **how))
        with pytest.raises(TargetError, match="No Dask scheduler"), open_executor(f"dask:tcp://127.0.0.1:{port}", 1):
            raise AssertionError("must not be reached")


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match="distributed is not installed") as caught:  # noqa: SIM117
        with open_executor("dask:tcp://127.0.0.1:1", 1):
            raise AssertionError("must not be reached")
    assert "neptune-exporter[dask]" in caught.value.hint
