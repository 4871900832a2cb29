# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Breaks the n-th change on disk below a folder: an error, a sudden death, or a write that is cut in half.

Works on the calls of the operating system that Python makes, not on any function of ours, so that nothing in the
staging area can write past it. Changes that Arrow makes by itself (spilled chunks) count when their file is opened.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pyarrow as pa

from contracts.injected import injected

Mode = Literal["count", "error", "full", "kill", "torn"]
GROWING = {"open", "write", "mkdir", "spill", "fsync"}


class Faults:
    """Counts changes below a folder and breaks the one with number `at`, counted from 1.

    Args:
        folder: where changes count.
        mode: `count` breaks nothing; `error` fails once; `full` fails everything that needs space from then on;
            `kill` ends the process before the change; `torn` does half of a write and then ends the process.
        at: which change.
    """

    def __init__(self, folder: Path, mode: Mode = "count", at: int = 0) -> None:
        self._folder = str(folder) + os.sep
        self._mode = mode
        self._at = at
        self._lock = threading.RLock()
        self.log: list[tuple[str, str]] = []

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits on the disk."""
        return self._mode == "full" and len(self.log) >= self._at

    def hit(self, operation: str, path: Any, half: Callable[[], None] | None = None) -> None:
        """Counts one change, and breaks it if it is its turn."""
        name = os.fspath(path) if not isinstance(path, int) else Path(f"/proc/self/fd/{path}").readlink()
        if not str(name).startswith(self._folder):
            return
        with self._lock:
            self.log.append((operation, str(name)))
            turn = len(self.log) == self._at
            if turn and self._mode == "torn" and half is not None:
                half()
            if turn and self._mode in ("kill", "torn"):
                os.kill(os.getpid(), signal.SIGKILL)
            if turn and self._mode == "error":
                injected("disk")
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if self.is_full and operation in GROWING:
                injected("disk")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def active(self) -> Iterator[Faults]:
        """Breaks things for the length of a with block."""
        with (
            patch.multiple(
                os,
                replace=self._two(os.replace),
                rename=self._two(os.rename),
                unlink=self._one("unlink", os.unlink),
                remove=self._one("unlink", os.remove),
                mkdir=self._one("mkdir", os.mkdir),
                rmdir=self._one("rmdir", os.rmdir),
                fsync=self._fsync,
            ),
            patch.object(io, "open", self._opener(io.open)),
            patch.object(pa, "OSFile", self._spiller(pa.OSFile)),
        ):
            yield self

    def _one(self, operation: str, call: Any) -> Any:
        def broken(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
            self.hit(operation, path if dir_fd is None else dir_fd)
            return call(path, *args, dir_fd=dir_fd, **kwargs)

        return broken

    def _two(self, call: Any) -> Any:
        def broken(source: Any, target: Any, **kwargs: Any) -> Any:
            self.hit("rename", target)
            return call(source, target, **kwargs)

        return broken

    def _fsync(self, descriptor: int) -> None:
        self.hit("fsync", descriptor)  # a process that dies loses nothing that was written: syncing would only be slow

    def _opener(self, call: Any) -> Any:
        def broken(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+"):
                return call(file, mode, *args, **kwargs)
            self.hit("open", file)
            return _File(call(file, mode, *args, **kwargs), os.fspath(file), self)

        return broken

    def _spiller(self, call: Any) -> Any:
        def broken(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode != "rb":
                self.hit("spill", path)
            return call(path, mode, *args, **kwargs)

        return broken


class _File:
    """A file whose content goes to the disk when it is flushed; that counts as one change."""

    def __init__(self, file: Any, path: str, faults: Faults) -> None:
        self._file = file
        self._path = path
        self._faults = faults
        self._pending: list[Any] = []

    def write(self, data: Any) -> int:
        if self._faults.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._pending.append(data if isinstance(data, str) else bytes(data))
        return len(data)

    def tell(self) -> int:
        return int(self._file.tell()) + sum(map(len, self._pending))

    def flush(self) -> None:
        if not self._pending:
            return
        content = self._pending[0][:0].join(self._pending)
        self._pending.clear()

        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._faults.hit("write", self._path, half)
        self._file.write(content)
        self._file.flush()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def in_child(work: Callable[[], None]) -> int:
    """Does the work in a forked process; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        injected("signal")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def run_broken(command: Callable[[], int], folder: Path, mode: Mode, number: int) -> None:
    """Runs a command of which one change below a folder is broken: it ends with an error code, or dies."""

    def work() -> None:
        with Faults(folder, mode, number).active():
            code = command()
        assert code in (1, 3), code

    if mode == "kill":
        assert in_child(work) == signal.SIGKILL
    else:
        work()
