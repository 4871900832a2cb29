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
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from neptune_exporter.assignment import assignment
from neptune_exporter.errors import ClaimedError, ExporterError, StagingError
from neptune_exporter.storage import disk

RENEW_SECONDS = 15
DEAD_SECONDS = 120
_MOST_BYTES = 1 << 16  # of a claim
_MOST_PID = 1 << 31


class Claim:
    """Holds one run for the length of a with block.

    Args:
        path: the claim file.
        what: the run, for the message.
        assigned: whether a cluster's scheduler gives this out: then whom it gave it to before has lost it.

    Attributes:
        token: no other claim has it.
        inherited: whether somebody held the run before who may not know yet that it is not theirs any more.

    Raises:
        ClaimedError: another living command holds it.
    """

    def __init__(self, path: Path, what: str, *, assigned: bool = True) -> None:
        self._path = path
        self._assigned = assigned
        self._what = what
        self.token = uuid.uuid4().hex
        self.inherited = False

    def __enter__(self) -> Self:
        disk.make_folder(self._path.parent)
        command = assignment().command
        with self._lock():
            holder = living_holder(self._path)
            void = holder is not None and self._assigned and is_void(holder)
            self.inherited = void or (holder is None and _perhaps_alive(self._path))
            if holder is not None and not void:
                raise being_worked_on(self._what, holder)
            pid = os.getpid()
            content = {
                "host": socket.gethostname(),
                "pid": pid,
                "started": process_start(pid),
                "token": self.token,
                "command": command,
            }
            with disk.explained("write", self._path), disk.opened(self._path, "wb") as file:
                file.write(json.dumps(content).encode())
            held.add(self.token, partial(os.utime, self._path))
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
        return _takeover_lock(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held.drop(self.token)
        with contextlib.suppress(OSError, StagingError), self._lock():
            if not self.lost:
                self._path.unlink()


@contextlib.contextmanager
def nobody_comes(path: Path) -> Iterator[dict[str, Any] | None]:
    """For the length of a with block nobody can take a claim. Gives who holds it, None if nobody does.

    For what is done in a moment: a command that wants the run waits, and does not take it for somebody else's.
    """
    with _takeover_lock(path):
        holder = living_holder(path)
        yield None if holder is None or is_void(holder) else holder


def being_worked_on(what: str, holder: Mapping[str, Any]) -> ClaimedError:
    """What is said of a claim that somebody holds."""
    return ClaimedError(
        f"{what} is being worked on by process {holder.get('pid')} on {holder.get('host')}.",
        "Wait for it to end; then run the same command again.",
    )


def is_void(holder: Mapping[str, Any]) -> bool:
    """Whether the scheduler of a cluster has given the run to us since."""
    command = assignment().command
    return command != "" and holder.get("command") == command


def _content(path: Path) -> dict[str, Any]:
    """What a claim says; nothing if there is none, or one that a process died of writing."""
    try:
        with path.open("rb") as file:
            return parsed(file.read(_MOST_BYTES))
    except OSError:
        return {}


def parsed(data: bytes) -> dict[str, Any]:
    """What the content of a claim says; nothing if it is not one of ours: anybody can have put anything there."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    wanted = {"host": str, "pid": int, "token": str}
    right = isinstance(content, dict) and all(type(content.get(key)) is kind for key, kind in wanted.items())
    return content if right and 0 < content["pid"] < _MOST_PID else {}


def is_living_here(holder: Mapping[str, Any]) -> bool:
    """Whether who holds a claim is a process of this machine that still runs."""
    if holder["pid"] == os.getpid():
        return holder["token"] in held
    started = process_start(holder["pid"])
    return started is not None and started == holder.get("started")


def living_holder(path: Path) -> dict[str, Any] | None:
    """Who holds a claim: host and pid, or None if nobody alive does."""
    holder = _content(path)
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    if not holder:
        return None
    if holder["host"] != socket.gethostname():
        return holder if age < DEAD_SECONDS else None
    return holder if is_living_here(holder) else None


def _perhaps_alive(path: Path) -> bool:
    """Whether who held a claim that counts as dead may only be cut off, or stopped."""
    holder = _content(path)
    return bool(holder) and holder["host"] != socket.gethostname()


def process_start(pid: int) -> str | None:
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
def _takeover_lock(claim: Path) -> Iterator[None]:
    """Lets one process at a time look at a claim and take it."""
    # A few locks for all runs of a project: commits of different runs seldom wait for each other.
    path = claim.with_name(f"claims-{claim.stem[-1:]}.lock")
    try:
        import fcntl
    except ImportError:
        yield
        return
    with disk.explained("write", path), disk.opened(path, "ab") as lock:
        with disk.where_possible():
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Held:
    """The claims of this process by token, each with what renews it. One daemon thread does that."""

    def __init__(self) -> None:
        self._renew: dict[str, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def add(self, token: str, renew: Callable[[], None]) -> None:
        with self._lock:
            self._renew[token] = renew
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
                self._thread.start()

    def drop(self, token: str) -> None:
        with self._lock:
            self._renew.pop(token, None)

    def __contains__(self, token: str) -> bool:
        with self._lock:
            return token in self._renew

    def _run(self) -> None:
        while not self._wake.wait(RENEW_SECONDS):
            with self._lock:
                known = list(self._renew.values())
            for renew in known:
                with contextlib.suppress(OSError, ExporterError):
                    renew()


held = _Held()
