# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Claims where nothing can be locked: whoever first puts `<run>.g7.claim` may write generation 7 of that run.

A claim that is not renewed for a while is taken over by making its generation impossible: an empty manifest is put
where its own would go. Whoever held it can never commit any more, however alive it still is, and so what it has
uploaded is garbage for certain. The one who takes over writes the next generation.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from neptune_exporter.assignment import assignment
from neptune_exporter.errors import ClaimedError, ExporterError
from neptune_exporter.storage.claims import (
    DEAD_SECONDS,
    being_worked_on,
    held,
    is_living_here,
    is_void,
    parsed,
    process_start,
)
from neptune_exporter.storage.manifest import MANIFESTS

if TYPE_CHECKING:
    from neptune_exporter.storage.objects.folder import ObjectFolder, Standing

RENEW_SECONDS = 30
_PATIENCE = 20  # how many others may be seen to come and go


class GenerationClaim:
    """Holds the next generation of a run for the length of a with block.

    Args:
        folder: the project.
        run_stem: the run.
        what: the run, for messages.
        above: a generation that is known to exist, perhaps without its number in a name.

    Attributes:
        token: no other claim has it.
        number: the generation.
        standing: the manifests of the run, seen after the claim was put.
        took_over: whether others have left what they had not finished.

    Raises:
        ClaimedError: another living command holds it.
    """

    def __init__(self, folder: ObjectFolder, run_stem: str, what: str, above: int = 0) -> None:
        self._folder = folder
        self._stem = run_stem
        self._what = what
        self._above = above
        self._renewed = time.monotonic()
        self._lock = threading.Lock()
        self.token = uuid.uuid4().hex
        self.number = 0
        self.took_over = False
        self._left = False
        self.standing: Standing

    def __enter__(self) -> Self:
        try:
            self._take()
        except BaseException:
            if self.token in held:
                self._release()
            raise
        return self

    def _take(self) -> None:
        known = self._folder.standing(self._stem)
        for _ in range(_PATIENCE):
            self.number = max(known.last, self._above) + 1
            if self._path.create(self._content()):
                held.add(self.token, self._renew)
                known = self._folder.standing(self._stem, anew=True)
                if known.last < self.number:
                    self.standing = known
                    return
                self._release()  # the list was old: somebody has just committed this generation
                continue
            self._take_over()
            known = self._folder.standing(self._stem, anew=True)
        raise ClaimedError(f"{self._what} is being worked on by many others.", "Run the same command again later.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    @property
    def _path(self) -> Any:
        return self._folder.data / MANIFESTS / f"{self._stem}.g{self.number}.claim"

    def leave(self) -> None:
        """Lets the claim lie: the next one finds it dead, and removes what could not be removed now."""
        held.drop(self.token)
        self._left = True

    def check(self) -> None:
        """Raises `ClaimedError` if another command has taken over."""
        if self._folder.standing(self._stem, anew=True).last >= self.number:
            raise taken_over(self._what)

    def _content(self) -> bytes:
        pid = os.getpid()
        content = {
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": pid,
            "started": process_start(pid),
            "token": self.token,
            "command": assignment().command,
        }
        return json.dumps(content).encode()

    def _renew(self) -> None:
        """Called now and then by another thread."""
        with self._lock:  # not while it is released, or it would be there again
            if self.token in held and time.monotonic() - self._renewed >= RENEW_SECONDS:
                self._path.put(self._content())
                self._renewed = time.monotonic()

    def _release(self) -> None:
        held.drop(self.token)
        if self._left:
            return
        with contextlib.suppress(OSError, ExporterError), self._lock:
            (self._folder.data / MANIFESTS).remove([self._path.name])

    def _take_over(self) -> None:
        """Makes the generation of a dead claim impossible. Raises `ClaimedError` if its holder lives."""
        try:
            content, age = self._path.store.aged(self._path.key)
        except FileNotFoundError:
            return  # done, or given up, a moment ago
        holder = self._living_holder(content, age)
        if holder is not None:
            raise being_worked_on(self._what, holder)
        self.took_over = True
        self._folder.void(self._stem, self.number)

    @staticmethod
    def _living_holder(content: bytes, age: float) -> dict[str, Any] | None:
        holder = parsed(content)
        if not holder or is_void(holder):
            return None
        if (holder["host"], holder.get("boot")) != (socket.gethostname(), _boot()):
            return holder if age < DEAD_SECONDS else None
        return holder if is_living_here(holder) else None


def taken_over(what: str) -> ClaimedError:
    """What is said to a command that looked dead for a while."""
    return ClaimedError(f"Another command has taken over {what}.", "Run the same command again.")


def _boot() -> str:
    """Tells machines of the same name apart, where the system can."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
