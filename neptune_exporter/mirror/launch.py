# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Starts the process that feeds a target from the spool, and says what keeps it from being started."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

from neptune_exporter.errors import ExporterError
from neptune_exporter.mirror.settings import STAGING, Settings
from neptune_exporter.mirror.spool import Progress

_STARTS = 3
_AGAIN_SECONDS = 10.0
_REMEDY = "Nothing is lost: what was logged is in the spool, and `neptune-exporter replay` feeds it later."


def obstacle(settings: Settings) -> str | None:
    """Why the target cannot be fed at all, as a warning with its remedy; None if nothing is in the way."""
    if settings.target in ("", STAGING):
        return None
    from neptune_exporter import plugins

    try:
        plugin = plugins.find(plugins.LOADERS, settings.target)
    except ExporterError as error:
        return f"Dual logging: {error.message} {error.hint} ({settings.why}). {_REMEDY}"
    if plugin.package and importlib.util.find_spec(plugin.package) is None:
        return (
            f"Dual logging: {plugin.package} is not installed, so {settings.target} gets nothing. Install it with: "
            f"pip install 'neptune-exporter[{plugin.extra}]'. {_REMEDY}"
        )
    return None


def _environment() -> dict[str, str]:
    """Ours, without what switches dual logging on in the processes that a script starts."""
    environment = dict(os.environ)
    startup = str(Path(__file__).with_name("startup"))
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != startup]
    environment.pop("PYTHONPATH", None)
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


class Worker:
    """The process that feeds one run.

    Args:
        settings: which target, and for how long.
        folder: the run's folder in the spool.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._starts = 0
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self._starts += 1
        self._started = time.monotonic()
        command = [
            *(sys.executable, "-m", "neptune_exporter.mirror.worker", str(self._folder)),
            *("--target", self._settings.target, "--parent", str(os.getpid())),
            *("--linger", str(self._settings.linger_seconds)),
        ]
        (self._folder / "targets").mkdir(parents=True, exist_ok=True)
        log = self._folder / "targets" / "worker.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                close_fds=True,
                env=_environment(),
                start_new_session=True,  # Ctrl-C in the terminal ends the script, and the script's end ends this
            )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def done(self) -> bool:
        """Whether the process has ended, with everything delivered."""
        return self._process is not None and self._process.poll() == 0

    def start_again(self) -> None:
        """Starts a new process after one that was done."""
        self._starts = 0
        self._start()

    def look_after(self, *, logging: bool) -> str:
        """Restarts a process that died, or that was done with a run that goes on.

        Args:
            logging: whether this process still logs to the run.

        Returns:
            A complaint if the target is not being fed, else "".
        """
        progress = Progress.load(self._folder, self._settings.target)
        if self.done and logging:
            if time.monotonic() - self._started > _AGAIN_SECONDS:
                self.start_again()
        elif not self.running and self._process is not None and self._process.returncode not in (0, 3):
            if self._starts < _STARTS:
                self._start()
            else:
                return f"Dual logging: the process that feeds {self._settings.target} dies. {_REMEDY}"
        if progress.state in ("failing", "refused"):
            return f"Dual logging: {self._settings.target} takes nothing: {progress.error} {_REMEDY}"
        return ""
