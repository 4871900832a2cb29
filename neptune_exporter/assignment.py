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
        processes: how many processes work for the command; 0 where `processes()` knows.
    """

    command: str = ""
    task: str = ""
    again: bool = False
    revoked: Callable[[bool], bool] = lambda _exactly: False
    processes: int = 0

    @property
    def stopped(self) -> bool:
        """Whether there is no use in going on."""
        return self.revoked(False)

    def confirm(self) -> None:
        """For the moment before something counts.

        Raises:
            ClaimedError: the run was given to another worker.
            ExporterError: nobody can say whether it was.
        """
        if self.revoked(True):
            raise ClaimedError(
                "The scheduler has given this run to another worker, or the command has ended.",
                "Run the same command again if it is not done.",
            )


_HERE = Assignment()
_current: ContextVar[Assignment] = ContextVar("assignment", default=_HERE)
_processes = 1


def assignment() -> Assignment:
    """What the calling thread works on."""
    return _current.get()


def share_with(processes: int) -> None:
    """Said once to a worker process: it is one of so many."""
    global _processes  # noqa: PLW0603 - of the process
    _processes = processes


def processes() -> int:
    """How many processes share what the command may take of a server."""
    return assignment().processes or _processes


@contextmanager
def assigned(given: Assignment) -> Iterator[None]:
    """The calling thread works on this for the length of a with block."""
    before = _current.set(given)
    try:
        yield
    finally:
        _current.reset(before)


_all: list[Connections[Any]] = []


def close_connections(command: str, task: str | None = None) -> None:
    """Closes what this process has opened for a command, or for one of its runs that was done again."""
    for connections in _all:
        connections.close(command, task)


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
        _all.append(self)

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
        """See `close_connections`."""
        with self._lock:
            keys = [key for key in self._opened if key[0] == command and task in (None, key[1])]
            found: list[Any] = [self._opened.pop(key) for key in keys]
        for connection in found:
            connection.close()
