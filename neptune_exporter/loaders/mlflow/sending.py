# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Sends what belongs to one MLflow run, in full batches: metrics and parameters, and artifacts by the folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.loaders.mlflow.tracking import Tracking

BATCH_ENTITIES = 1000  # of metrics, parameters and tags together
BATCH_PARAMS = 100
UPLOAD_FILES = 500
UPLOAD_BYTES = 256 << 20


class Batches:
    """Gathers the metrics of all series, parameters and tags of a run and sends them in full calls."""

    def __init__(self, tracking: Tracking, run_id: str) -> None:
        from mlflow.entities import Metric

        self._metric = Metric
        self._tracking = tracking
        self._run_id = run_id
        self._metrics: list[Any] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}

    def metrics(self, key: str, points: Points) -> None:
        """Takes points of one metric. The client wants an object per point: here, and only here, there is one."""
        make = self._metric
        for start in range(0, len(points.steps), BATCH_ENTITIES):
            part = points.where(slice(start, start + BATCH_ENTITIES))
            columns = zip(part.values.tolist(), part.times.tolist(), part.steps.tolist(), strict=True)
            self._metrics += [make(key, value, time, step) for value, time, step in columns]
            self._send_full()

    def param(self, key: str, value: str) -> None:
        """Takes a parameter."""
        self._params[key] = value
        self._send_full()

    def tags(self, tags: dict[str, str]) -> None:
        """Takes tags."""
        self._tags.update(tags)

    def flush(self) -> None:
        """Sends what is left."""
        self._send(self._metrics)
        self._metrics = []

    def _send_full(self) -> None:
        while len(self._metrics) + len(self._params) >= BATCH_ENTITIES or len(self._params) >= BATCH_PARAMS:
            room = BATCH_ENTITIES - len(self._params)
            now, self._metrics = self._metrics[:room], self._metrics[room:]
            self._send(now)

    def _send(self, metrics: list[Any]) -> None:
        self._tracking.log(self._run_id, metrics, self._params, self._tags)
        self._params, self._tags = {}, {}


class Uploads:
    """Gathers files in a folder that looks as the run's artifacts will, and uploads it whenever it is full.

    Args:
        tracking: where to.
        run_id: the run.
        folder: an empty folder on this machine.
    """

    def __init__(self, tracking: Tracking, run_id: str, folder: Path) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self._folder = folder
        self._files = self._bytes = 0

    def link(self, source: Path, artifact: str) -> None:
        """Takes a file that stays where it is until it has been uploaded."""
        target = self._place(artifact)
        try:
            target.symlink_to(source.resolve())
        except OSError:  # no right to make links, as on Windows
            shutil.copyfile(source, target)
        self._count(source.stat().st_size)

    def move(self, source: Path, artifact: str) -> None:
        """Takes a file of ours."""
        size = source.stat().st_size
        source.replace(self._place(artifact))
        self._count(size)

    def flush(self) -> None:
        """Uploads what is there."""
        if self._files:
            self._tracking.upload(self._run_id, self._folder)
            shutil.rmtree(self._folder)
        self._files = self._bytes = 0

    def _place(self, artifact: str) -> Path:
        target = self._folder / artifact
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _count(self, size: int) -> None:
        self._files += 1
        self._bytes += size
        if self._files >= UPLOAD_FILES or self._bytes >= UPLOAD_BYTES:
            self.flush()
