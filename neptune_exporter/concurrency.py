# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Where work runs: any `concurrent.futures` executor, chosen by name."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from neptune_exporter import free_space
from neptune_exporter.assignment import share_with
from neptune_exporter.errors import ExporterError, UsageError
from neptune_exporter.secrets import mask_tracebacks

_DASK = "dask:"


def default_workers() -> int:
    """One worker per core, at most eight."""
    return min(8, os.cpu_count() or 1)


def is_cluster(spec: str) -> bool:
    """Whether an executor's workers may be on other machines, which know nothing of this one's current folder."""
    return spec.startswith(_DASK)


def slots(executor: Executor, workers: int) -> int:
    """How many tasks an executor does at once."""
    return getattr(executor, "slots", workers)


@contextmanager
def open_executor(spec: str, workers: int, folders: Sequence[Path] = ()) -> Iterator[Executor]:
    """An executor for the length of a with block.

    On an exception, Ctrl-C included, what has not started is cancelled and worker processes are ended:
    a half-done run never looks complete, so nothing has to be waited for.

    Args:
        spec: `threads`, `processes` (spawned) or `dask:ADDRESS`.
        workers: how many at once; a Dask cluster has its own number.
        folders: existing folders that the workers of a cluster must see as this machine does.

    Raises:
        UsageError: the spec is none of these, or what follows `dask:` is no address.
        MissingExtraError: Dask is not installed.
        TargetError: no Dask scheduler answers there, it has no workers, or it has gone.
        ExporterError: a worker process was ended from outside, or cannot do what it is to do.
    """
    if workers < 1:
        raise UsageError("--workers must be at least 1.")
    if spec == "threads":
        opened = _pool(ThreadPoolExecutor(workers))
    elif spec == "processes":
        context = multiprocessing.get_context("spawn")
        opened = _pool(ProcessPoolExecutor(workers, context, begin_worker, (workers, free_space.reserve())))
    elif is_cluster(spec):
        from neptune_exporter.cluster import open_cluster

        opened = open_cluster(spec.removeprefix(_DASK), [folder.absolute() for folder in folders])
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


def begin_worker(processes: int, reserve: int) -> None:
    """Run first in a worker process: Ctrl-C is the parent's to handle.

    Args:
        processes: how many there are, to share what the command may take of a server.
        reserve: bytes that are to stay free on every disk.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask_tracebacks()
    share_with(processes)
    free_space.set_reserve(reserve)
