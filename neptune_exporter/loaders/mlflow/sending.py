# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a run on its way into MLflow needs, and the general way of it: by the client, in full batches."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from neptune_exporter.errors import ExporterError, TargetError
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.known import KnownRun, KnownRuns
from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.loaders.mlflow.tracking import Tracking
from neptune_exporter.model import RunRef

BATCH_ENTITIES = 1000  # of metrics, parameters and tags together
BATCH_PARAMS = 100
CREATE_ATTEMPTS = 3
UPLOAD_FILES = 500
UPLOAD_BYTES = 256 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewRun:
    """An MLflow run that is about to be made.

    Attributes:
        ref: the Neptune run.
        digest: the digest that will be in the completion marker.
        experiment_id: the experiment it goes into.
        artifact_root: where that experiment keeps its artifacts.
        name: the run's name.
        start_ms: when it began.
        end_ms: when it ended.
        status: `FINISHED` or `FAILED`.
        tags: what it is made with, the marker that it was started among them.
        replaces: the MLflow runs whose place it takes.
        forks: the MLflow runs of its forks, which were loaded before it.
    """

    ref: RunRef
    digest: str
    experiment_id: str
    artifact_root: str
    name: str
    start_ms: int
    end_ms: int
    status: str
    tags: Mapping[str, str]
    replaces: Sequence[KnownRun] = ()
    forks: Sequence[KnownRun] = ()

    def known_as(self, run_id: str, load: str) -> KnownRun:
        """The run once it exists."""
        loaded, parent = int(self.tags[tags.LOADED]), self.tags.get(tags.PARENT_REF, "")
        return KnownRun(run_id, self.ref, tags.ref_digest(self.ref), load, loaded, parent)


class Destination(Protocol):
    """One MLflow run that is being made."""

    def metrics(self, key: str, points: Points) -> None:
        """Takes points of one metric."""

    def param(self, key: str, value: str) -> None:
        """Takes a parameter."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Takes tags."""

    def upload(self, folder: Path, into: str | None = None) -> None:
        """Uploads what is in a folder as artifacts."""

    def complete(self) -> None:
        """Makes it count: everything is there, the marker is written last, the runs that it replaces go."""

    def discard(self) -> None:
        """Leaves nothing that looks complete."""


class ClientRun:
    """A run that is made and filled by the client, call by call.

    Args:
        tracking: the target.
        new: the run. Half-loaded ones whose place it takes are deleted now, complete ones when it is complete.
        known: told what becomes of the runs.
    """

    def __init__(self, tracking: Tracking, new: NewRun, known: KnownRuns) -> None:
        from mlflow.entities import Metric

        self._metric = Metric
        self._tracking, self._new, self._known = tracking, new, known
        self._metrics: list[Any] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._complete = False
        for half in new.replaces:
            if not half.complete:
                tracking.delete_run(half.id)
                known.remove(half.id)
        self._run_id = self._create()
        known.add(new.known_as(self._run_id, tags.STARTED))

    def _create(self) -> str:
        """Makes the run, once."""
        new, loaded = self._new, self._new.tags[tags.LOADED]
        for left in reversed(range(CREATE_ATTEMPTS)):
            try:
                return self._tracking.create_run(new.experiment_id, new.name, new.start_ms, new.tags)
            except TargetError:
                of_ref = self._tracking.search([new.experiment_id], tags.REF, tags.ref_digest(new.ref))
                made = [run.info.run_id for run in of_ref if run.data.tags.get(tags.LOADED) == loaded]
                if made:  # only the answer was lost
                    return str(made[0])
                if not left:
                    raise
        raise AssertionError  # the last attempt returns or raises

    def metrics(self, key: str, points: Points) -> None:
        """Takes points. The client wants an object for each: here, and only here, there is one."""
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

    def tags(self, tags: Mapping[str, str]) -> None:
        """Takes tags."""
        self._tags.update(tags)

    def upload(self, folder: Path, into: str | None = None) -> None:
        """Uploads what is in a folder."""
        self._tracking.upload(self._run_id, folder, into)

    def complete(self) -> None:
        """Sends what is left, then the status, then the marker."""
        self._send(self._metrics)
        self._metrics = []
        for fork in self._new.forks:
            self._tracking.set_tag(fork.id, tags.MLFLOW_PARENT, self._run_id)
        self._tracking.end_run(self._run_id, self._new.status, self._new.end_ms)
        marker = tags.COMPLETE + self._new.digest
        self._tracking.set_tag(self._run_id, tags.LOAD, marker)
        self._complete = True
        self._known.add(self._new.known_as(self._run_id, marker))
        for old in self._new.replaces:
            if old.complete:
                self._delete(old.id)

    def discard(self) -> None:
        """Deletes the run unless it is complete; where that fails, its marker still says that it is not."""
        if not self._complete:
            self._delete(self._run_id)

    def _delete(self, run_id: str) -> None:
        try:
            self._tracking.delete_run(run_id)
        except ExporterError as error:  # the next load of this run finds it and tidies up
            logger.info("The MLflow run %s could not be deleted: %s", run_id, error.message)
        else:
            self._known.remove(run_id)

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
        upload: uploads what is in a folder.
        folder: an empty folder on this machine.
    """

    def __init__(self, upload: Callable[[Path], None], folder: Path) -> None:
        self._upload = upload
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
            self._upload(self._folder)
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
