# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker knows of the command that it works for, and whether the run it was given is still its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from neptune_exporter.errors import ClaimedError

T = TypeVar("T")


@dataclass(frozen=True)
class Assignment:
    """One run, given to a worker. The default is what holds on one machine.

    Attributes:
        command: the command of which a cluster's scheduler distributes the runs, "" on one machine.
        task: the run, for the scheduler.
        again: whether another worker was given the run before, and died or seemed to.
        revoked: whether the scheduler has taken the run back, as known for a second or, if asked so, exactly.
    """

    command: str = ""
    task: str = ""
    again: bool = False
    revoked: Callable[[bool], bool] = lambda _exactly: False

    @property
    def stopped(self) -> bool:
        """Whether there is no use in going on."""
        return self.revoked(False)

    def confirm(self) -> None:
        """For the moment before something counts. Raises `ClaimedError` if the run was given to another worker."""
        if self.revoked(True):
            raise ClaimedError(
                "The scheduler has given this run to another worker, or the command has ended.",
                "Run the same command again if it is not done.",
            )


_HERE = Assignment()
_current: ContextVar[Assignment] = ContextVar("assignment", default=_HERE)


def assignment() -> Assignment:
    """What the calling thread works on."""
    return _current.get()


@contextmanager
def assigned(given: Assignment) -> Iterator[None]:
    """The calling thread works on this for the length of a with block."""
    before = _current.set(given)
    try:
        yield
    finally:
        _current.reset(before)


class Connections(Generic[T]):
    """What a process has opened: one for each command and set of arguments, shared by its threads.

    Worker processes of a cluster outlive commands, and what a connection has learned of a server is true for one
    command only. A run that is done again has a connection of its own, which sees what became of it before.

    Args:
        make: opens one.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._opened: dict[Any, T] = {}

    def __call__(self, *arguments: Any) -> T:
        """The connection for these arguments."""
        here = assignment()
        key = (here.command, here.task if here.again else "", arguments)
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self._make(*arguments)
            return self._opened[key]

    def cache_clear(self) -> None:
        """Forgets all of them; whoever has them closes them."""
        with self._lock:
            self._opened.clear()

    def close(self, command: str, task: str | None = None) -> None:
        """Closes those of a command, or of one of its runs that was done again."""
        with self._lock:
            keys = [key for key in self._opened if key[0] == command and task in (None, key[1])]
            found: list[Any] = [self._opened.pop(key) for key in keys]
        for connection in found:
            connection.close()
