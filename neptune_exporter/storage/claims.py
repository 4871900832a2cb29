# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Claims: one command works on a run at a time.

A claim is a file beside the manifest that names host, process and time. It is renewed while the command
lives. A claim is dead if its process is gone (same host) or if it has not been renewed for a while. Where a
cluster's scheduler has given a run to another worker of the same command, the first worker's claim is void.

Whoever holds a claim may only have seemed dead: a process that was stopped goes on as if nothing had happened.
So it looks once more before it commits, and no claim changes hands while it does (`Claim.kept`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from neptune_exporter.assignment import assignment
from neptune_exporter.errors import ClaimedError, StagingError
from neptune_exporter.storage import disk

RENEW_SECONDS = 15
DEAD_SECONDS = 120


class Claim:
    """Holds one run for the length of a with block.

    Args:
        path: the claim file.
        what: the run, for the message.

    Attributes:
        token: no other claim has it.
        inherited: whether somebody held the run before who may not know yet that it is not theirs any more.

    Raises:
        ClaimedError: another living command holds it.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self.token = uuid.uuid4().hex
        self.inherited = False

    def __enter__(self) -> Self:
        disk.make_folder(self._path.parent)
        command = assignment().command
        with self._lock():
            holder = living_holder(self._path)
            void = holder is not None and command != "" and holder.get("command") == command
            self.inherited = void or (holder is None and _perhaps_alive(self._path))
            if holder is not None and not void:
                raise ClaimedError(
                    f"{self._what} is being worked on by process {holder.get('pid')} on {holder.get('host')}.",
                    "Wait for it to end; then run the same command again.",
                )
            pid = os.getpid()
            content = {
                "host": socket.gethostname(),
                "pid": pid,
                "started": _process_start(pid),
                "token": self.token,
                "command": command,
            }
            with disk.explained("write", self._path):
                self._path.write_text(json.dumps(content))
            _held.add(self.token, self._path)
        return self

    @property
    def lost(self) -> bool:
        """Whether another command has taken over, because this one looked dead for a while."""
        return _content(self._path).get("token") != self.token

    def check(self) -> None:
        """Raises `ClaimedError` if another command has taken over."""
        if self.lost:
            raise ClaimedError(f"Another command has taken over {self._what}.", "Run the same command again.")

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """For the length of a with block nobody can take over. Raises `ClaimedError` if somebody has."""
        with self._lock():
            self.check()
            yield

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        # A few locks for all runs of a project: commits of different runs seldom wait for each other.
        return _takeover_lock(self._path.with_name(f"claims-{self._path.stem[-1:]}.lock"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _held.drop(self.token)
        with contextlib.suppress(OSError, StagingError), self._lock():
            if not self.lost:
                self._path.unlink()


def _content(path: Path) -> dict[str, Any]:
    """What a claim says; nothing if there is none, or one that a process died of writing."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def living_holder(path: Path) -> dict[str, Any] | None:
    """Who holds a claim: host and pid, or None if nobody alive does."""
    holder = _content(path)
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    if "host" not in holder:
        return None
    if holder.get("host") != socket.gethostname():
        return holder if age < DEAD_SECONDS else None
    pid = holder.get("pid")
    if pid == os.getpid():
        return holder if holder.get("token") in _held else None
    return holder if isinstance(pid, int) and _process_start(pid) == holder.get("started") else None


def _perhaps_alive(path: Path) -> bool:
    """Whether who held a claim that counts as dead may only be cut off, or stopped."""
    holder = _content(path)
    return "host" in holder and holder.get("host") != socket.gethostname()


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
        with disk.where_possible():
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Held:
    """The claims of this process. One daemon thread renews them."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def add(self, token: str, path: Path) -> None:
        with self._lock:
            self._paths[token] = path
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
                self._thread.start()

    def drop(self, token: str) -> None:
        with self._lock:
            self._paths.pop(token, None)

    def __contains__(self, token: object) -> bool:
        with self._lock:
            return token in self._paths

    def _run(self) -> None:
        while not self._wake.wait(RENEW_SECONDS):
            with self._lock:
                paths = list(self._paths.values())
            for path in paths:
                with contextlib.suppress(OSError):
                    os.utime(path)


_held = _Held()
