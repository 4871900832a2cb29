# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Several transfers at once, with a bar: all of them, or an error and no more."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from neptune_exporter.errors import InterruptedRunError
from neptune_exporter.progress import Bars, Counter, NoProgress, Progress

OnBytes = Callable[[int], None]
Transfer = Callable[[OnBytes], None]


def progress_for(wanted: bool | None) -> Progress:
    """A bar if it is wanted, or if nobody said so and somebody can see it."""
    return Bars() if wanted or (wanted is None and sys.stderr.isatty()) else NoProgress()


def transfer_all(
    transfers: Sequence[Transfer], *, name: str, sizes: Iterable[int | None], threads: int, progress: Progress
) -> None:
    """Does all transfers. The first that fails ends the others, and is raised.

    Args:
        transfers: each is told where to report bytes; that call raises when the transfer is to stop.
        name: what the bar says.
        sizes: bytes of each, None where unknown.
        threads: how many at once.
        progress: shows the bytes.
    """
    known = list(sizes)
    counter: Counter = progress.counter(name, "B", scale=True)
    counter.start(None if None in known else sum(size or 0 for size in known))
    stop = threading.Event()

    def report(count: int) -> None:
        if stop.is_set():
            raise InterruptedRunError
        counter.add(count)

    pool = ThreadPoolExecutor(max(1, min(threads, len(transfers))), thread_name_prefix="registry")
    futures = [pool.submit(transfer, report) for transfer in transfers]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        counter.done()
