# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""From the training script into the spool: a bounded queue, and one daemon thread that writes.

What the script's own threads do is put a reference into a list. Everything else (files, disk, targets) happens in
the daemon thread or in another process, and nothing that fails there is ever raised into the script.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from queue import Empty, SimpleQueue

from neptune_exporter.mirror import spool
from neptune_exporter.mirror.kept_files import FilesToKeep, FileToKeep, keep
from neptune_exporter.mirror.spool import Header, SegmentWriter

logger = logging.getLogger("neptune_exporter.mirror")

QUEUE_ITEMS = 100_000
QUEUE_BYTES = 64 * 2**20
_DRAIN_SECONDS = 0.05
_TICK_SECONDS = 1.0
_LEAVING_SECONDS = 2.0

Payload = bytes | FileToKeep | FilesToKeep | Callable[[], bytes]
Entry = tuple[int, Payload]


# Run, time in milliseconds, records, bytes: a plain tuple, which is made in a fraction of the time of a named one.
_Item = tuple["RunLog", int, Sequence[Entry], int]


class RunLog:
    """One run in this process.

    Args:
        root: the spool's root.
        header: whose segment it will be.
        recorder: takes what is logged.

    Attributes:
        folder: the run's folder.
        segment: where it is written, once it is.
        begun: whether anything of it was logged in this process.
        closed: whether it ended.
        dropped: how many calls found the queue full, or the disk.
        reported: how many of them the spool says.
        unwritable: whether it was the disk.
    """

    def __init__(self, root: Path, header: Header, recorder: Recorder) -> None:
        self.recorder = recorder
        self.header = header
        self.folder = spool.run_folder(root, header.project, header.run_id)
        self.started = time.time_ns()
        self.segment: SegmentWriter | None = None
        self.begun = self.closed = False
        self.dropped = self.reported = 0
        self.unwritable = False

    def after_fork(self) -> None:
        """In a child process: a segment of its own; the parent's is not touched."""
        self.header = Header(**{**{n: getattr(self.header, n) for n in Header.__slots__}, "pid": os.getpid()})
        self.segment = None
        self.begun = False
        self.started = time.time_ns()
        self.dropped = self.reported = 0


class Recorder:
    """The queue and its thread; one per process.

    Args:
        on_open: called in the thread when a run's segment was made.
        on_tick: called in the thread about once a second while there are open runs.
    """

    def __init__(self, on_open: Callable[[RunLog], None], on_tick: Callable[[], None]) -> None:
        self._on_open, self._on_tick = on_open, on_tick
        self.logs: weakref.WeakSet[RunLog] = weakref.WeakSet()
        self._warned: set[str] = set()
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        # Both may be met again by a signal handler of the script that logs in the middle of a call.
        self._lock = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._items: list[_Item] = []
        self._bytes = 0
        self._idle = True
        self._thread: threading.Thread | None = None
        self._open: set[RunLog] = set()
        self._last_sync = time.monotonic()

    def _after_fork(self) -> None:
        self._reset()
        for log in list(self.logs):
            log.after_fork()

    def begin(self, log: RunLog) -> None:
        """A run is about to be logged: from now on the queue is looked at all the time."""
        self.logs.add(log)
        self._wake.put(None)

    def put(self, log: RunLog, entries: Sequence[Entry], size: int, *, always: bool = False) -> None:
        """Takes records of a run; drops and counts them if the queue is full. Never waits, never raises."""
        item = (log, time.time_ns() // 1_000_000, entries, size)
        with self._lock:  # held for less than a microsecond by whoever holds it
            if log.closed:
                return
            if not always and (len(self._items) >= QUEUE_ITEMS or (self._bytes and self._bytes + size > QUEUE_BYTES)):
                log.dropped += 1
                return
            self._items.append(item)
            self._bytes += size
            log.begun = True
            self._idle = False
        if self._thread is None:
            self._start()

    def put_last(self, log: RunLog, payload: bytes) -> None:
        """Takes the end of a run; nothing of it is taken afterwards."""
        with self._lock:
            if log.closed:
                return
            self._items.append((log, time.time_ns() // 1_000_000, [(spool.CLOSE, payload)], len(payload)))
            self._idle = False
            log.closed = True
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="neptune-exporter-spool", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._thread = None
        if multiprocessing.parent_process() is not None:  # a forked one ends without what `atexit` knows
            Finalize(None, self._leave, exitpriority=10)

    def _leave(self) -> None:
        """The end of a process that another one has started."""
        for log in list(self.logs):
            if log.begun:
                self.put_last(log, spool.json_bytes({"status": "finished"}))
        self.flush(_LEAVING_SECONDS)

    @property
    def open_folders(self) -> set[Path]:
        """The folders of the runs that are being written."""
        return {log.folder for log in list(self._open)}

    def flush(self, timeout: float) -> bool:
        """Waits until everything put so far is on disk; returns whether it is."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                if not self._items and self._idle:
                    return True
            self._wake.put(None)
            time.sleep(0.002)
        return False

    def _run(self) -> None:
        thread = threading.current_thread()
        last_tick = 0.0
        while self._thread is thread:
            # A script that logs is not made to wake us: we look 20 times a second.
            busy = not self._idle or any(not log.closed for log in list(self.logs))
            with suppress(Empty):
                self._wake.get(timeout=_DRAIN_SECONDS if busy else _TICK_SECONDS)
            with self._lock:
                items, self._items = self._items, []
                self._bytes = 0
                self._idle = not items
            try:
                self._write_all(items)
                self._report_drops()
                if time.monotonic() - last_tick >= _TICK_SECONDS:
                    last_tick = time.monotonic()
                    self._sync()
                    self._on_tick()
            except Exception as error:  # noqa: BLE001 - nothing of ours reaches the script
                self.warn(f"Dual logging: {error!r}")
            del items

    def _write_all(self, items: list[_Item]) -> None:
        by_log: dict[RunLog, list[_Item]] = {}
        for item in items:
            by_log.setdefault(item[0], []).append(item)
        for log, own in by_log.items():
            try:
                self._write(log, own)
            except OSError as error:
                log.dropped += len(own)
                log.unwritable = True
                self.warn(f"Dual logging cannot write to {log.folder}: {error.strerror or error}. Neptune goes on.")
            if any(kind == spool.CLOSE for _, _, entries, _ in own for kind, _ in entries):
                self._close(log)

    def _write(self, log: RunLog, items: list[_Item]) -> None:
        segment = log.segment
        if segment is None:
            segment = log.segment = SegmentWriter(log.folder, log.header, log.started)
            self._open.add(log)
            try:
                self._on_open(log)
            except Exception as error:  # noqa: BLE001 - the spool is what counts
                self.warn(f"Dual logging: the target is not fed: {error}. `neptune-exporter replay` does it later.")
        records = []
        for _, when, entries, _ in items:
            for kind, payload in entries:
                if type(payload) is bytes:
                    records.append(spool.record(kind, when, payload))
                else:
                    records += self._made(log, kind, when, payload, segment)
        dropped = log.dropped
        if dropped > log.reported:  # before what follows, so before the end of the run
            calls = spool.json_bytes({"calls": dropped - log.reported})
            records.insert(0, spool.record(spool.DROPPED, items[0][1], calls))
        segment.write(b"".join(records))
        log.reported = dropped

    def _made(self, log: RunLog, kind: int, when: int, payload: Payload, segment: SegmentWriter) -> list[bytes]:
        """The records of what is only now looked at; one that cannot be made costs only itself."""
        try:
            return [spool.record(kind, when, blob) for blob in _blobs(payload, segment)]
        except Exception:
            logger.debug("dual logging", exc_info=True)
            log.dropped += 1
            return []

    def _close(self, log: RunLog) -> None:
        self._open.discard(log)
        if log.segment is not None:
            try:
                log.segment.close()
            except OSError as error:
                self.warn(f"Dual logging: {log.segment.path}: {error.strerror or error}.")

    def _sync(self) -> None:
        if time.monotonic() - self._last_sync < spool.FSYNC_SECONDS:
            return
        self._last_sync = time.monotonic()
        for log in self._open:
            if log.segment is not None:
                try:
                    log.segment.sync()
                except OSError as error:
                    self.warn(f"Dual logging: {log.segment.path}: {error.strerror or error}.")

    def _report_drops(self) -> None:
        for log in list(self.logs):
            if log.dropped and not log.unwritable:
                run = log.header.run_id
                self.warn(f"Dual logging could not keep up with {run}: the spool misses calls (Neptune has them).")

    def warn(self, message: str) -> None:
        """One warning of a kind, in a process."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s", message)


def _blobs(payload: Payload, segment: SegmentWriter) -> list[bytes]:
    if isinstance(payload, FilesToKeep):
        return payload.keep(segment)
    if isinstance(payload, FileToKeep):
        return [keep(payload, segment)]
    return [payload if isinstance(payload, bytes) else payload()]
