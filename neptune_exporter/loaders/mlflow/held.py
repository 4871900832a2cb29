# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What MLflow holds of one run, as a reader sees it: by the client, or straight from its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from neptune_exporter.loaders.mlflow.artifacts import Artifacts
from neptune_exporter.loaders.mlflow.database import Database, HeldRun
from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.loaders.mlflow.tracking import Tracking


class View(Protocol):
    """One run.

    Attributes:
        active: whether it is not deleted.
        params: its parameters.
        tags: its tags.
        metrics: the latest value of each metric.
    """

    active: bool
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    def points(self, key: str) -> Iterator[Points]:
        """The whole history of a metric, in pages, in any order."""

    def download(self, artifact: str, folder: Path) -> Path | None:
        """Fetches one artifact into a folder; None if it is not there."""


class ClientView:
    """A run by the client, in pages."""

    def __init__(self, tracking: Tracking, run_id: str) -> None:
        self._tracking, self._run_id = tracking, run_id
        run = tracking.run(run_id)
        self.active = run.info.lifecycle_stage == "active"
        self.params: Mapping[str, str] = run.data.params
        self.tags: Mapping[str, str] = run.data.tags
        self.metrics: Mapping[str, float] = run.data.metrics

    def points(self, key: str) -> Iterator[Points]:
        """See `View`."""
        return map(_points_of, self._tracking.points(self._run_id, key))

    def download(self, artifact: str, folder: Path) -> Path | None:
        """See `View`."""
        return self._tracking.download(self._run_id, artifact, folder)


class DatabaseView:
    """A run by its rows, streamed."""

    def __init__(self, tracking: Tracking, database: Database, run_id: str, held: HeldRun) -> None:
        self._database, self._run_id = database, run_id
        self._artifacts = Artifacts(tracking, held.artifact_uri)
        self.active = held.active
        self.params: Mapping[str, str] = held.params
        self.tags: Mapping[str, str] = held.tags
        self.metrics: Mapping[str, float] = held.metrics

    def points(self, key: str) -> Iterator[Points]:
        """See `View`."""
        return self._database.points(self._run_id, key)

    def download(self, artifact: str, folder: Path) -> Path | None:
        """See `View`."""
        return self._artifacts.download(artifact, folder)


def _points_of(page: Any) -> Points:
    count = len(page)
    return Points(
        np.fromiter((point.step for point in page), np.int64, count),
        np.fromiter((point.timestamp for point in page), np.int64, count),
        np.fromiter((point.value for point in page), np.float64, count),
    )
