# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the patched clients talk to: opens and closes the logs of runs, and starts the processes that feed targets."""

from __future__ import annotations

import atexit
import logging
import os
import time
from pathlib import Path

from neptune_exporter.mirror import spool
from neptune_exporter.mirror.launch import Worker, obstacle
from neptune_exporter.mirror.recorder import Recorder, RunLog
from neptune_exporter.mirror.settings import Settings
from neptune_exporter.mirror.spool import Header, Progress

logger = logging.getLogger("neptune_exporter.mirror")

_FLUSH_SHARE = 0.6  # of the time for closing, at most, goes to our own disk


class Mirror:
    """One per process; made by `current` when the first run needs it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._recorder = Recorder(self._opened, self._tick)
        self._workers: dict[Path, Worker] = {}
        self._exit_deadline: float | None = None
        self._obstacle: str | None = None
        self._announced = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """The parent's processes are not ours, and its exit is not ours."""
        self._workers = {}
        self._exit_deadline = None

    def open(self, project: str, run_id: str, client: str, version: str, **more: str) -> RunLog:
        """Begins a run. Cheap: no file is made here."""
        if not self._announced:
            self._announced = True
            self._obstacle = obstacle(self.settings)
            if self._obstacle:
                self._recorder.warn(self._obstacle)
        header = Header(project, run_id, client, version, spool.host_name(), os.getpid(), **more)
        log = RunLog(self.settings.spool, header, self._recorder)
        self._recorder.logs.add(log)
        # The last registered runs first: before Neptune closes what the script left open.
        atexit.unregister(self._leaving)
        atexit.register(self._leaving)
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
        payload = spool.json_bytes({"status": status})
        self._recorder.put(log, [(spool.CLOSE, payload)], len(payload), always=True)
        log.closed = True
        seconds = self.settings.close_seconds if timeout is None else min(timeout, self.settings.close_seconds)
        deadline = time.monotonic() + seconds
        if self._exit_deadline is not None:
            deadline = min(deadline, self._exit_deadline)
        flush_seconds = max(0.2, (deadline - time.monotonic()) * _FLUSH_SHARE)
        if self._recorder.flush(flush_seconds):
            self._await_target(log, deadline)

    def _leaving(self) -> None:
        """At exit all runs together get what one gets."""
        self._exit_deadline = time.monotonic() + self.settings.close_seconds

    # --- in the recorder's thread

    def _opened(self, log: RunLog) -> None:
        if self.settings.target and not self._obstacle and log.folder not in self._workers:
            self._workers[log.folder] = Worker(self.settings, log.folder)

    def _tick(self) -> None:
        for worker in self._workers.values():
            complaint = worker.look_after()
            if complaint:
                self._recorder.warn(complaint)

    # --- in the script's thread, at the end

    def _await_target(self, log: RunLog, deadline: float) -> None:
        worker = self._workers.get(log.folder)
        segment = log.segment
        if worker is None or segment is None:
            return
        while time.monotonic() < deadline:
            progress = Progress.load(log.folder, self.settings.target)
            if progress.offsets.get(segment.path.name, 0) >= segment.size and progress.state == "done":
                return
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
