# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 3.x server with known runs, whose requests can be held back, and the program at work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from contracts.rows import rows_on_disk
from servers.http import Reply, Request
from servers.neptune3 import Neptune3Server

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunRef
from neptune_exporter.storage.staging import Staging

PROJECT = "team/cluster"
START_MS = 1_700_000_000_000
PATIENCE_SECONDS = 100


def values(number: int, points: int) -> np.ndarray:
    """What the metrics of a run are: the truth."""
    return np.random.default_rng(number).normal(size=points)


class Source:
    """A server whose runs are known.

    Attributes:
        server: the server.
        runs: how many runs it has: run-0, run-1 and so on.
        points: of the one metric of each.
    """

    def __init__(self, server: Neptune3Server, runs: int, points: int) -> None:
        self.server, self.runs, self.points = server, runs, points
        for number in range(runs):
            run = server.store.add_run(PROJECT, f"run-{number}")
            run.set("config/seed", "int", number)
            steps = np.arange(points)
            run.series("metrics/loss", "floatSeries").extend(steps, START_MS + steps, values(number, points))

    def assert_staged(self, staging: Staging) -> None:
        """Every run is there, once, with every value."""
        found = sorted(run.ref.run_id for run in staging.folder(PROJECT).runs())
        assert found == sorted(f"run-{number}" for number in range(self.runs))
        for number in range(self.runs):
            rows = rows_on_disk(staging, RunRef(PROJECT, f"run-{number}"))
            points = [(int(row.step), row.value) for row in rows if row.path == "metrics/loss"]
            assert points == list(enumerate(values(number, self.points).tolist()))
            assert [row.value for row in rows if row.path == "config/seed"] == [number]


class Gate:
    """Holds one request of a server back.

    Attributes:
        reached: set when the request is there.
    """

    def __init__(self, http: Any, wanted: Callable[[Request], bool], times: int = 1) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        self._http, self._handle, self._wanted, self._times = http, http._handle, wanted, times
        http._handle = self._held

    def _held(self, request: Request) -> Reply:
        if self._times and self._wanted(request):
            self._times -= 1
            self.reached.set()
            assert self._open.wait(PATIENCE_SECONDS)
        return self._handle(request)

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE_SECONDS)

    def open(self) -> None:
        self._open.set()


@contextmanager
def running(*arguments: str):
    """The program at work in a thread; what it returns is the exit code."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(main, list(arguments))


def places(staging: Staging) -> list[str]:
    return ["-d", str(staging.data_path), "-f", str(staging.files_path), "--no-progress"]
