# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The process that feeds a run to its target while the script trains: `python -m neptune_exporter.mirror.worker`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neptune_exporter.certificates import trust
from neptune_exporter.mirror.feed import explain, feed
from neptune_exporter.mirror.spool import Progress, progress_path
from neptune_exporter.secrets import MaskedFormatter, mask_tracebacks

logger = logging.getLogger(__name__)

EXIT_LEFT_OVER = 3
_LONGEST_PAUSE = 30.0
# A target that does not answer is asked again; waiting for it for minutes would only keep this process alive.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


class Parent:
    """The script, and how long it has been gone.

    Args:
        pid: its process.
        linger: how many seconds after its end this process may go on.
    """

    def __init__(self, pid: int, linger: float) -> None:
        self._pid, self._linger = pid, linger
        self._gone_at: float | None = None

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        if self._gone_at is None and os.getppid() != self._pid:
            self._gone_at = time.monotonic()
        return self._gone_at is not None

    @property
    def time_is_up(self) -> bool:
        """Whether this process should end, too."""
        return self.gone and self._gone_at is not None and time.monotonic() - self._gone_at > self._linger


def main(arguments: list[str]) -> int:
    """Feeds until everything has arrived, the target refuses for good, or time is up."""
    parser = argparse.ArgumentParser(prog="neptune_exporter.mirror.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--linger", type=float, default=60.0)
    options = parser.parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(MaskedFormatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    mask_tracebacks()
    trust()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    parent = Parent(options.parent, options.linger)
    threading.Thread(target=_end_in_time, args=(parent,), daemon=True).start()
    with only_one(options.folder, options.target, lambda: parent.gone) as chosen:
        return _feed_patiently(options.folder, options.target, parent) if chosen else 0


def _feed_patiently(folder: Path, target: str, parent: Parent) -> int:
    pause = 1.0
    while True:
        try:
            done = feed(folder, target, wait=True, stop=lambda: parent.time_is_up)
        except Exception as error:
            refused = bool(getattr(error, "fatal", False)) or getattr(error, "exit_code", 1) == 2
            logger.warning("%s", explain(error), exc_info=not hasattr(error, "hint"))
            progress = Progress.load(folder, target)
            progress.state, progress.error = "refused" if refused else "failing", explain(error)
            with suppress(OSError):
                progress.save(folder, target)
            if refused or parent.gone:
                return EXIT_LEFT_OVER
        else:
            return 0 if done.state == "done" else EXIT_LEFT_OVER
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _end_in_time(parent: Parent) -> None:
    """Ends this process even if it hangs in the target's client."""
    while not parent.time_is_up:
        time.sleep(1.0)
    time.sleep(5.0)
    os._exit(EXIT_LEFT_OVER)


@contextmanager
def only_one(folder: Path, target: str, give_up: object = None) -> Iterator[bool]:
    """Holds the lock of a run and target; yields False if another process has it and `give_up` says so.

    Several processes may log to one run, each with a worker of its own: one feeds, the others stand by.
    """
    path = progress_path(folder, target).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        while not _locked(file.fileno()):
            if give_up is None or (callable(give_up) and give_up()):
                yield False
                return
            time.sleep(0.5)
        yield True


def _locked(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: without it two processes might feed one run
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
