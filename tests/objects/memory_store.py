# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""An object store in memory, whose n-th request fails, or is done and not answered, or is the last one before death."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from contracts.injected import injected

from neptune_exporter.errors import StagingError

# Once an error; done, but nobody is told; that, and the next one fails; all fail from now on; dead before it, or after.
Mode = Literal["none", "error", "unanswered", "hiccup", "down", "death", "late death"]
CHANGES = {"put", "create", "delete", "abandon"}


class Death(BaseException):
    """The process is gone: nothing that it does from now on reaches the store."""


class MemoryStore:
    """See `Store`.

    Attributes:
        content: the objects by key.
        log: every request: its name and its key.
        written: the time of each object's last write, by the store's own clock.
        clock: what that clock is ahead of ours, in seconds.
    """

    def __init__(self, content: dict[str, bytes] | None = None) -> None:
        self.content = dict(content or {})
        self.written = dict.fromkeys(self.content, time.time())
        self.clock = 0.0
        self.log: list[tuple[str, str]] = []
        self.requests: dict[str, int] = Counter()
        self._lock = threading.RLock()
        self._mode: Mode = "none"
        self._at = 0

    def breaks(self, mode: Mode, at: int) -> None:
        """From now on, counted from 1."""
        self.log.clear()
        self._mode, self._at = mode, at

    def _begin(self, name: str, key: str) -> Any:
        """Counts a request and breaks it, or returns what is to be raised when it is done."""
        self.log.append((name, key))
        self.requests[name] += 1
        turn, over = len(self.log) == self._at, len(self.log) > self._at
        failure = StagingError(f"Cannot {name} {key}: S3 answered 503 SlowDown.", "Run the same command again.")
        if self._mode == "none":
            return None
        if turn:
            injected("signal" if "death" in self._mode else "network")
        if self._mode == "hiccup" and len(self.log) == self._at + 1:
            raise failure
        if (self._mode == "error" and turn) or (self._mode == "down" and (turn or over)):
            raise failure
        if (self._mode == "death" and (turn or over)) or (self._mode == "late death" and over):
            raise Death
        if turn:
            return Death() if self._mode == "late death" else failure
        return None

    @staticmethod
    def _end(verdict: Any) -> None:
        if verdict is not None:
            raise verdict

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._lock:
            verdict = self._begin("list", prefix)
            found = sorted((key, len(data)) for key, data in self.content.items() if key.startswith(prefix))
            self._end(verdict)
        yield from found

    def folders(self, prefix: str) -> list[str]:
        return sorted({key.removeprefix(prefix).split("/")[0] for key, _ in self.objects(prefix)})

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._lock:
            verdict = self._begin("read", key)
            if key not in self.content:
                raise FileNotFoundError(2, "There is no such object", key)
            self._end(verdict)
            return self.content[key][start : None if length is None else start + length]

    def stream(self, key: str) -> Iterator[bytes]:
        data = self.read(key)
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    def aged(self, key: str) -> tuple[bytes, float]:
        return self.read(key), time.time() - self.written[key] + self.clock

    def put(self, key: str, source: Path | bytes, on_bytes: Any = None) -> None:
        with self._lock:
            verdict = self._begin("put", key)
            self.content[key] = source if isinstance(source, bytes) else source.read_bytes()
            self.written[key] = time.time()
            self._end(verdict)

    def create(self, key: str, content: bytes) -> bool:
        with self._lock:
            verdict = self._begin("create", key)
            if key in self.content:
                self._end(verdict)
                return self.content[key] == content
            self.content[key] = content
            self.written[key] = time.time()
            self._end(verdict)
            return True

    def delete(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        with self._lock:
            verdict = self._begin("delete", keys[0])
            for key in keys:
                self.content.pop(key, None)
            self._end(verdict)

    def abandon(self, prefix: str) -> None:
        with self._lock:
            self._end(self._begin("abandon", prefix))
