# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the patched clients talk to: opens and closes the logs of runs, and starts the processes that feed targets."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from pathlib import Path

from neptune_exporter.mirror import spool
from neptune_exporter.mirror.launch import Worker, obstacle
from neptune_exporter.mirror.recorder import Recorder, RunLog
from neptune_exporter.mirror.settings import Settings
from neptune_exporter.mirror.spool import Header, Progress

logger = logging.getLogger("neptune_exporter.mirror")

WORKERS = 8  # processes that feed at once: each holds the target's client, up to some 200 MB
_DISK_SECONDS = 0.5  # of the time for closing are not for waiting for a target: our own disk is to have them


class Mirror:
    """One per process; made by `current` when the first run needs it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._recorder = Recorder(self._opened, self._tick)
        self._workers: dict[Path, Worker] = {}
        self._waiting: dict[Path, None] = {}
        self._left_at_exit: float | None = None
        self._obstacle: str | None = None
        self._announced = False
        atexit.register(self._leaving)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """The parent's processes are not ours, and its exit is not ours."""
        self._workers, self._waiting = {}, {}
        self._left_at_exit = None

    def open(self, project: str, run_id: str, client: str, version: str, **more: str) -> RunLog:
        """Begins a run. Cheap: no file is made here."""
        if not self._announced:
            self._announced = True
            self._obstacle = obstacle(self.settings)
            if self._obstacle:
                self._recorder.warn(self._obstacle)
        header = Header(project, run_id, client, version, spool.host_name(), os.getpid(), **more)
        log = RunLog(self.settings.spool, header, self._recorder)
        self._recorder.begin(log)
        return log

    @property
    def recorder(self) -> Recorder:
        """Takes what is logged."""
        return self._recorder

    def close(self, log: RunLog, status: str, timeout: float | None) -> None:
        """Ends a run: flushes it to disk and gives the target a moment, together never longer than agreed.

        Args:
            log: the run.
            status: `finished`, or `failed` where the client says so.
            timeout: what the script has asked of Neptune's own close, in seconds.
        """
        if log.closed or not log.begun:
            return
        began = time.monotonic()
        self._recorder.put_last(log, spool.json_bytes({"status": status}))
        seconds = self.settings.close_seconds if timeout is None else min(timeout, self.settings.close_seconds)
        seconds = min(seconds, self._left())
        if self._recorder.flush(seconds):
            disk = min(_DISK_SECONDS, self.settings.close_seconds / 2)
            self._await_target(log, began + seconds - disk)
        self._spent(time.monotonic() - began)

    def _left(self) -> float:
        """The time that is left: while the script runs, what each run may take; at its end, all runs together."""
        if self._left_at_exit is None and not threading.main_thread().is_alive():
            self._left_at_exit = self.settings.close_seconds
        return self.settings.close_seconds if self._left_at_exit is None else self._left_at_exit

    def _spent(self, seconds: float) -> None:
        if self._left_at_exit is not None:
            self._left_at_exit = max(0.0, self._left_at_exit - seconds)

    def _leaving(self) -> None:
        """The last runs of a script that ends: what is in the queue goes to disk."""
        self._recorder.flush(self._left())

    # --- in the recorder's thread

    def _opened(self, log: RunLog) -> None:
        worker = self._workers.get(log.folder)
        if self.settings.target and not self._obstacle and (worker is None or worker.done):
            self._workers.pop(log.folder, None)
            self._waiting[log.folder] = None
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Starts processes for runs that have none, as long as there are not too many at once."""
        while self._waiting and sum(worker.running for worker in self._workers.values()) < WORKERS:
            folder = next(iter(self._waiting))
            self._waiting.pop(folder, None)  # the script's thread comes here as well
            self._workers[folder] = Worker(self.settings, folder)

    def _tick(self) -> None:
        logging_to = self._recorder.open_folders
        for folder, worker in list(self._workers.items()):
            complaint = worker.look_after(logging=folder in logging_to)
            if complaint:
                self._recorder.warn(complaint)
            if worker.done and folder not in logging_to:
                self._workers.pop(folder, None)
        self._start_waiting()

    # --- in the script's thread, at the end

    def _await_target(self, log: RunLog, deadline: float) -> None:
        worker = self._workers.get(log.folder)
        segment = log.segment
        if worker is None or segment is None:
            return
        while time.monotonic() < deadline:
            done = worker.done  # asked before reading how far it got
            progress = Progress.load(log.folder, self.settings.target)
            arrived = progress.offsets.get(segment.path.name, 0) >= segment.size
            if arrived and progress.state == "done":
                return
            if done and not arrived:  # it was done with an earlier run of that name when this one began
                worker.start_again()
                continue
            if progress.state in ("failing", "refused") or not worker.running:
                self._tick()
                return
            time.sleep(0.05)


_current: Mirror | None = None


def current() -> Mirror | None:
    """The mirror of this process; None if nothing is to be mirrored."""
    global _current  # noqa: PLW0603 - one per process
    if _current is None:
        settings = Settings.from_environment()
        if settings.active:
            _current = Mirror(settings)
    return _current
