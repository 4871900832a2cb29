# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The fast way of a run into MLflow: its artifacts first, then all of it in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.artifacts import Artifacts, artifact_uri
from neptune_exporter.loaders.mlflow.database import Database, RunRows
from neptune_exporter.loaders.mlflow.known import KnownRuns
from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.loaders.mlflow.sending import NewRun
from neptune_exporter.loaders.mlflow.tracking import Tracking

SPOOL_ROWS = 1 << 16
_POINT_BYTES = 24


def run_id_of(new: NewRun, number: int = 0) -> str:
    """The id of a run: the same for the same run, with the same content, in the same experiment.

    So what an attempt has uploaded that was killed is overwritten by the next one. What changed gets another id, and
    so does (`number`) what was loaded, deleted by hand, and is loaded again: deleted runs keep their ids.
    """
    ref = new.ref
    parts = (new.experiment_id, ref.project_id, ref.run_id, ref.kind, new.digest, str(number))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


class DirectRun:
    """A run that is written into MLflow's tables. Nothing of it is there before it is complete.

    Args:
        tracking: where its artifacts go through.
        database: where its rows go.
        new: the run.
        known: told what becomes of the runs.
        folder: an existing folder on this machine; the points wait there, so that the transaction is short and can
            be repeated.
    """

    def __init__(self, tracking: Tracking, database: Database, new: NewRun, known: KnownRuns, folder: Path) -> None:
        self._database, self._new, self._known = database, new, known
        number = 0
        while database.has_run(run_id_of(new, number)):
            number += 1
        self.run_id = run_id_of(new, number)
        self._artifacts = Artifacts(tracking, artifact_uri(new.artifact_root, self.run_id))
        self._spool = Spool(folder / "points")
        self._params: dict[str, str] = {}
        self._tags = dict(new.tags)
        self._latest: dict[str, tuple[int, int, float, bool]] = {}

    def metrics(self, key: str, points: Points) -> None:
        """Takes points of one metric."""
        if len(points.steps):
            self._spool.add(key, points)
            latest = latest_of(points)
            if key not in self._latest or latest[:3] > self._latest[key][:3]:
                self._latest[key] = latest

    def param(self, key: str, value: str) -> None:
        """Takes a parameter."""
        self._params[key] = value

    def tags(self, tags: Mapping[str, str]) -> None:
        """Takes tags."""
        self._tags.update(tags)

    def upload(self, folder: Path, into: str | None = None) -> None:
        """Uploads what is in a folder."""
        self._artifacts.upload(folder, into)

    def complete(self) -> None:
        """Writes all rows, and deletes the runs that it replaces, in one transaction."""
        new, run_id = self._new, self.run_id
        marker = tags.COMPLETE + new.digest
        self._tags |= {tags.LOAD: marker, tags.RUN_NAME: new.name}
        rows = RunRows(
            self._row(),
            self._params,
            self._tags,
            self._latest,
            deleted=[old.id for old in new.replaces],
            forks=[fork.id for fork in new.forks],
        )
        pa.default_memory_pool().release_unused()  # what reading the parts has left: up to 200 MB
        try:
            self._database.write(rows, self._spool.read)
        except TargetError:
            if not self._is_there(marker):
                raise
        self._spool.close()
        self._known.add(new.known_as(run_id, marker))
        for old in new.replaces:
            self._known.remove(old.id)

    def discard(self) -> None:
        """There is nothing but artifacts that no run points at; the next attempt overwrites them."""
        self._spool.close()

    def _is_there(self, marker: str) -> bool:
        """Whether the run is complete all the same: the answer was lost, or another command was faster."""
        try:
            held = self._database.run(self.run_id)
        except TargetError:
            return False
        return held is not None and held.active and held.tags.get(tags.LOAD) == marker

    def _row(self) -> dict[str, Any]:
        """As MLflow's own store makes it."""
        new = self._new
        return {
            "run_uuid": self.run_id,
            "name": new.name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": new.tags.get(tags.USER, "unknown"),
            "status": new.status,
            "start_time": new.start_ms or 1,
            "end_time": new.end_ms or 1,
            "deleted_time": None,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": self._artifacts.uri,
            "experiment_id": int(new.experiment_id),
        }


def latest_of(points: Points) -> tuple[int, int, float, bool]:
    """The point that MLflow shows as the latest: that with the largest step, time and value, where NaN is 0."""
    of_step = points.where(points.steps == points.steps.max())
    last = of_step.where(of_step.times == of_step.times.max())
    is_nan = np.isnan(last.values)
    values = np.where(is_nan, 0.0, last.values)
    at = int(values.argmax())  # the first one of equals, as in MLflow
    return int(last.steps[0]), int(last.times[0]), float(values[at]), bool(is_nan[at])


class Spool:
    """Points on their way, in a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._chunks: list[tuple[str, int]] = []

    def add(self, key: str, points: Points) -> None:
        """Takes points of one metric."""
        for start in range(0, len(points.steps), SPOOL_ROWS):
            part = points.where(slice(start, start + SPOOL_ROWS))
            for column in part:
                self._file.write(np.ascontiguousarray(column).data)
            self._chunks.append((key, len(part.steps)))

    def read(self) -> Iterator[tuple[str, Points]]:
        """All points with their keys, in the order in which they came."""
        self._file.seek(0)
        for key, count in self._chunks:
            data = self._file.read(count * _POINT_BYTES)
            whole = np.frombuffer(data, np.int64).reshape(3, count)
            yield key, Points(whole[0], whole[1], whole[2].view(np.float64))

    def close(self) -> None:
        """Closes the file; it goes with its folder."""
        self._file.close()
