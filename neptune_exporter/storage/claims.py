# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Claims: one command works on a run at a time.

A claim is a file beside the manifest that names host, process and time. It is renewed while the command
lives. A claim is dead if its process is gone (same host) or if it has not been renewed for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from neptune_exporter.errors import ClaimedError
from neptune_exporter.storage import disk

RENEW_SECONDS = 15
DEAD_SECONDS = 120


class Claim:
    """Holds one run for the length of a with block.

    Args:
        path: the claim file.
        what: the run, for the message.

    Raises:
        ClaimedError: another living command holds it.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> Self:
        disk.make_folder(self._path.parent)
        with _takeover_lock(self._path.with_name("claims.lock")):
            holder = living_holder(self._path)
            if holder is not None:
                raise ClaimedError(
                    f"{self._what} is being worked on by process {holder.get('pid')} on {holder.get('host')}.",
                    "Wait for it to end; then run the same command again.",
                )
            content = {"host": socket.gethostname(), "pid": os.getpid(), "started": _process_start(os.getpid())}
            with disk.explained("write", self._path):
                self._path.write_text(json.dumps(content))
        _renewer.add(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _renewer.drop(self._path)
        with contextlib.suppress(OSError):
            self._path.unlink()


def living_holder(path: Path) -> dict[str, Any] | None:
    """Who holds a claim: host and pid, or None if nobody alive does."""
    try:
        holder = json.loads(path.read_text())
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return None  # half-written by a process that died doing it: the takeover lock keeps living ones out
    if not isinstance(holder, dict):
        return None
    if holder.get("host") == socket.gethostname():
        pid = holder.get("pid")
        return holder if isinstance(pid, int) and _process_start(pid) == holder.get("started") else None
    return holder if age < DEAD_SECONDS else None


def _process_start(pid: int) -> str | None:
    """What tells two processes with the same pid apart; None if there is no such process."""
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        pass
    return _alive(pid)


def _alive(pid: int) -> str | None:
    if os.name == "nt":
        return "unknown"  # signal 0 would end the process there: let the claim's age decide
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "alive"
    return "alive"


@contextlib.contextmanager
def _takeover_lock(path: Path) -> Iterator[None]:
    """Lets one process at a time look at a claim and take it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with disk.explained("write", path), path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Renewer:
    """One daemon thread that renews all claims of this process."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def add(self, path: Path) -> None:
        with self._lock:
            self._paths.add(path)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
                self._thread.start()

    def drop(self, path: Path) -> None:
        with self._lock:
            self._paths.discard(path)

    def _run(self) -> None:
        while not self._wake.wait(RENEW_SECONDS):
            with self._lock:
                paths = list(self._paths)
            for path in paths:
                with contextlib.suppress(OSError):
                    os.utime(path)


_renewer = _Renewer()
