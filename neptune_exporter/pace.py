# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""How many requests a server gets: a second, as the user says, and at a time, as the server shows that it can take.

The rate holds for the command: each of its processes takes an equal share of it. How many requests are under way is
halved when the server says that it has too many (429), and grows again by one for each round of answers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from neptune_exporter.assignment import processes
from neptune_exporter.errors import UsageError

_GROWTH = 1.0  # requests more at a time, after as many answers as are under way


def check_rate(per_second: float) -> None:
    """Raises `UsageError` unless a rate is a positive number, or 0 for no limit."""
    if not (per_second == 0 or 0 < per_second < math.inf):  # nan is neither
        raise UsageError(
            f"--max-requests-per-second must be a positive number, or 0 for no limit: not {per_second:g}.",
            "For example: --max-requests-per-second 20",
        )


class Pace:
    """What the threads of a process may ask of one server together.

    Args:
        per_second: requests a second of the whole command, 0 for no limit.
        clock: seconds.

    Raises:
        UsageError: the rate is none; see `check_rate`.
    """

    def __init__(self, per_second: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        check_rate(per_second)
        self._interval = processes() / per_second if per_second else 0.0
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._next = 0.0
        self._running = 0
        self._limit: float | None = None
        self._eased = 0.0

    @property
    def limit(self) -> float | None:
        """How many requests may be under way; None while the server has not complained."""
        return self._limit

    def end(self) -> None:
        """Nobody waits any longer."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def take(self) -> None:
        """Waits until the rate allows for one more request."""
        if not self._interval:
            return
        with self._changed:
            now = self._clock()
            turn = max(self._next, now)
            self._next = turn + self._interval
        self._closed.wait(turn - now)

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Holds one of the places of requests under way. Gives the time at which it began, for `eased`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or self._limit is None or self._running < self._limit)
            self._running += 1
        try:
            yield self._clock()
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    def complained(self, began: float) -> None:
        """The server has answered 429: half as many at a time from now on.

        Args:
            began: when the request did. What was under way at the last halving does not halve again.
        """
        with self._changed:
            if began < self._eased:
                return
            under_way = self._running if self._limit is None else min(self._limit, self._running)
            self._limit = max(1.0, under_way / 2)
            self._eased = self._clock()

    def answered(self) -> None:
        """The server has answered as it should: a little more is tried."""
        with self._changed:
            if self._limit is not None:
                self._limit += _GROWTH / self._limit
                self._changed.notify()
