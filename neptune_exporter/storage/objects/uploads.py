# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Uploads beside the work: what is whole on this machine goes to the store while the next is made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from neptune_exporter.errors import InterruptedRunError, StagingError
from neptune_exporter.storage import disk
from neptune_exporter.storage.objects.path import ObjectPath

THREADS = 8
WAITING = 16  # how many files may lie on this machine, to bound the space


class Uploads:
    """Uploads files and removes them from this machine.

    Attributes:
        begun: the names of all that may be on the store because of this, by the folder that they are in.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="upload")
        self._room = threading.BoundedSemaphore(WAITING)
        self._change = threading.Condition()
        self._pending = 0
        self._failure: BaseException | None = None
        self._stopped = threading.Event()
        self.begun: dict[ObjectPath, list[str]] = {}

    def add(self, local: Path, folder: ObjectPath, name: str) -> None:
        """Takes a file that is whole. Raises what an earlier upload has met."""
        self._room.acquire()
        with self._change:
            if self._failure is not None:
                self._room.release()
                raise self._failure
            self._pending += 1
            self.begun.setdefault(folder, []).append(name)
        self._pool.submit(self._upload, local, folder / name)

    def wait(self) -> None:
        """Returns when all is there. Raises what an upload has met."""
        with self._change:
            self._change.wait_for(lambda: self._pending == 0)
            if self._failure is not None:
                raise self._failure

    def stop(self) -> None:
        """Ends what is going on, and what has begun in parts leaves none of them. Nothing comes after it."""
        self._stopped.set()
        self._pool.shutdown(wait=True)

    def _upload(self, local: Path, target: ObjectPath) -> None:
        failure: BaseException | None = None
        try:
            self._check(0)
            target.put(local, self._check)
        except BaseException as error:  # noqa: BLE001 - raised by those who wait
            failure = error
        finally:
            with suppress(StagingError):  # its folder goes anyway
                disk.remove(local)
            self._room.release()
            with self._change:
                self._pending -= 1
                self._failure = self._failure or failure
                self._change.notify_all()

    def _check(self, _bytes: int) -> None:
        if self._stopped.is_set() or self._failure is not None:
            raise InterruptedRunError
