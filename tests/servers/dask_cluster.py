# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A real Dask cluster on this machine: a scheduler and workers, each a process of its own that can be stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

WORKER_TTL_SECONDS = 2  # the scheduler waits at least 5 for a worker that it has not heard of
_SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{WORKER_TTL_SECONDS}s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


class DaskCluster:
    """A scheduler, and workers with one thread each, without nannies: what dies stays dead.

    Args:
        folder: for logs and the workers' current folders.

    Attributes:
        address: of the scheduler.
        workers: the processes, by name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.address = ""

    def __enter__(self) -> Self:
        arguments = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
        self._scheduler = self._start("scheduler", arguments, {})
        self.address = self._said("scheduler", self._scheduler, r"Scheduler at:\s+(tcp://\S+)")
        return self

    def __exit__(self, *exc: object) -> None:
        for process in [*self.workers.values(), self._scheduler]:
            process.kill()
            process.wait(20)

    def start(self, name: str, *, preload: str = "", **environment: str) -> None:
        """Starts a worker and waits until the scheduler knows it.

        Args:
            name: of its log and its current folder.
            preload: Python code that it runs first.
            environment: more variables.
        """
        arguments = ["worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--name", name]
        arguments += ["--memory-limit", "0", "--local-directory", str(self._folder / f"{name}-scratch")]
        if preload:
            script = self._folder / f"{name}_preload.py"
            script.write_text(preload)
            arguments += ["--preload", str(script)]
        self.workers[name] = self._start(name, arguments, environment)
        self._said(name, self.workers[name], r"Registered to:")

    def log(self, name: str = "") -> str:
        """What a process has written, or all of them together."""
        names = [name] if name else [path.stem for path in self._folder.glob("*.log")]
        return "".join((self._folder / f"{one}.log").read_text(errors="replace") for one in names)

    def kill(self, name: str) -> None:
        """Ends a worker as a machine does that loses its power."""
        self.workers[name].kill()
        self.workers.pop(name).wait(20)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a worker a signal."""
        self.workers[name].send_signal(number)

    def named(self, pid: int) -> str:
        """The worker with a process id."""
        return next(name for name, process in self.workers.items() if process.pid == pid)

    def _start(self, name: str, arguments: list[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        folder = self._folder / name
        folder.mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "NEPTUNE_API_TOKEN"}
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**environment, **_SETTINGS, **more},
            )

    def _said(self, name: str, process: subprocess.Popen[bytes], pattern: str) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log(name))
            if found:
                return found[found.lastindex or 0]
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{name} did not come up:\n{self.log(name)[-3000:]}")
