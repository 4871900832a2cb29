# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Progress as counters: library code counts, only the command line knows about bars."""

from __future__ import annotations

import sys
from threading import RLock
from typing import Any, Protocol


class Counter(Protocol):
    """Counts things of one kind. Calls may come from several threads."""

    def start(self, total: int | None) -> None:
        """Begins, or corrects, the count of what is to come; None if nobody knows."""

    def add(self, amount: int = 1) -> None:
        """Some more of it is done."""

    def done(self) -> None:
        """No more is to come."""


class Progress(Protocol):
    """Makes counters."""

    def counter(self, name: str, unit: str, *, scale: bool = False) -> Counter:
        """A new counter; `scale` asks for k, M and G in its numbers."""


class NoCounter:
    """Counts nothing."""

    def start(self, total: int | None) -> None:
        """Does nothing."""

    def add(self, amount: int = 1) -> None:
        """Does nothing."""

    def done(self) -> None:
        """Does nothing."""


class NoProgress:
    """Shows nothing: the default for library users, and `--no-progress`."""

    def counter(self, name: str, unit: str, *, scale: bool = False) -> Counter:
        """A counter that counts nothing."""
        return NoCounter()


class Bars:
    """tqdm bars on stderr."""

    def counter(self, name: str, unit: str, *, scale: bool = False) -> Counter:
        """A bar of its own line."""
        return _Bar(name, unit, scale)


class _Bar:
    def __init__(self, name: str, unit: str, scale: bool) -> None:
        self._make: dict[str, Any] = {"desc": name, "unit": f" {unit}", "unit_scale": scale}
        self._bar: Any = None
        self._lock = RLock()  # tqdm's own lock guards the terminal, not the count

    def start(self, total: int | None) -> None:
        from tqdm import tqdm

        with self._lock:
            if self._bar is None:
                self._bar = tqdm(total=total, file=sys.stderr, dynamic_ncols=True, leave=False, **self._make)
            else:
                self._bar.total = total
                self._bar.refresh()

    def add(self, amount: int = 1) -> None:
        with self._lock:
            if self._bar is None:
                self.start(None)
            self._bar.update(amount)

    def done(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None
