# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Where work runs: any `concurrent.futures` executor, chosen by name."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

from neptune_exporter.errors import ExporterError, MissingExtraError, TargetError, UsageError
from neptune_exporter.secrets import mask_tracebacks


def default_workers() -> int:
    """One worker per core, at most eight."""
    return min(8, os.cpu_count() or 1)


@contextmanager
def open_executor(spec: str, workers: int) -> Iterator[Executor]:
    """An executor for the length of a with block.

    On an exception, Ctrl-C included, what has not started is cancelled and worker processes are ended:
    a half-done run never looks complete, so nothing has to be waited for.

    Args:
        spec: `threads`, `processes` (spawned) or `dask:ADDRESS`.
        workers: how many at once; a Dask cluster has its own number.

    Raises:
        UsageError: the spec is none of these, or what follows `dask:` is no address.
        MissingExtraError: Dask is not installed.
        TargetError: no Dask scheduler answers there.
        ExporterError: a worker process was ended from outside.
    """
    if workers < 1:
        raise UsageError("--workers must be at least 1.")
    if spec == "threads":
        opened = _pool(ThreadPoolExecutor(workers))
    elif spec == "processes":
        context = multiprocessing.get_context("spawn")
        opened = _pool(ProcessPoolExecutor(workers, mp_context=context, initializer=ignore_interrupt))
    elif spec.startswith("dask:"):
        opened = _dask(spec.removeprefix("dask:"))
    else:
        raise UsageError(f"Unknown executor {spec!r}.", "Use threads, processes or dask:ADDRESS.")
    with opened as executor:
        yield executor


@contextmanager
def _pool(executor: Executor) -> Iterator[Executor]:
    try:
        yield executor
    except BaseException as error:
        for process in list((getattr(executor, "_processes", None) or {}).values()):
            process.kill()
        executor.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenExecutor):
            raise ExporterError(
                "A worker process was ended from outside, most likely for lack of memory.",
                "Run the same command again with fewer --workers: it goes on where this one stopped.",
            ) from error
        raise
    executor.shutdown(wait=True)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtraError("dask", "distributed") from None
    if not address:  # Dask would start a cluster of its own
        raise UsageError("dask: needs the address of a scheduler.", "For example: --executor dask:tcp://host:8786")
    try:
        client = Client(address, timeout=10)
    except ValueError as error:
        raise UsageError(f"{address!r} is not the address of a Dask scheduler: {error}.") from None
    except OSError as error:
        raise TargetError(
            f"No Dask scheduler answers at {address}: {error}.", "Start one with: dask scheduler"
        ) from None
    with client:
        executor: Executor = client.get_executor()
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False)  # this executor cancels what has not started, and takes no other argument
            raise
        executor.shutdown(wait=True)


def ignore_interrupt() -> None:
    """Run first in a worker process: Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask_tracebacks()
