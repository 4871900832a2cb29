# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One Neptune run on its way into MLflow."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import ExporterError
from neptune_exporter.loaders.attachments import FOLDER, AttachmentsWriter, Manifest, run_json
from neptune_exporter.loaders.keys import ArtifactPaths
from neptune_exporter.loaders.loader import Limits, RunToLoad
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.attributes import AttributeWriter, Outlets, records_of, writer_of
from neptune_exporter.loaders.mlflow.sending import Batches, Uploads
from neptune_exporter.loaders.mlflow.tracking import Tracking
from neptune_exporter.loaders.runs import end_ms
from neptune_exporter.model import codes_of, normalize

logger = logging.getLogger(__name__)


class RunSink:
    """Takes the rows of one run, by (attribute, step), into an MLflow run that was just made.

    Args:
        tracking: the target.
        run_id: the MLflow run.
        run: what is loaded.
        step_multiplier: for metrics.
        start_ms: the run's start, which stands in for missing times.
        limits: of the target.
        replaces: runs to delete once this one is complete.
        children: forks of this run that were loaded before it.
        folder: an empty folder on this machine, removed in the end.
        attach_all: whether every row goes into `data.parquet`.
    """

    def __init__(
        self,
        tracking: Tracking,
        run_id: str,
        run: RunToLoad,
        *,
        step_multiplier: int,
        start_ms: int,
        limits: Limits,
        replaces: Sequence[str],
        children: Sequence[str],
        folder: Path,
        attach_all: bool,
    ) -> None:
        self._tracking, self._run_id, self._run = tracking, run_id, run
        self._replaces, self._children, self._folder = replaces, children, folder
        self._manifest = Manifest(run_json(run), step_multiplier, start_ms)
        (folder / FOLDER).mkdir()
        paths = ArtifactPaths()
        self._records = records_of(run, paths)
        self._out = Outlets(
            run=run,
            batches=Batches(tracking, run_id),
            uploads=Uploads(tracking, run_id, folder / "artifacts"),
            attachments=AttachmentsWriter(folder / FOLDER),
            paths=paths,
            folder=folder,
            limits=limits,
            step_multiplier=step_multiplier,
            start_ms=start_ms,
            attach_all=attach_all,
            announced={(a.path, a.type): a.rows for a in run.attributes},
        )
        self._current: tuple[str, str] | None = None
        self._writer: AttributeWriter | None = None
        self._finished: set[tuple[str, str]] = set()
        self._complete = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes rows. All rows of an attribute must come together, in order of their steps.

        Raises:
            TargetError: MLflow does not take them.
            DamagedDataError: a file of the run cannot be read.
        """
        for name, rows in _in_order(normalize(batch)):
            if self._writer is None or self._current != name:
                self._writer = self._turn_to(name)
            self._records[name].rows += rows.num_rows
            self._writer.write(rows)

    def commit(self) -> None:
        """Completes the run: the marker is written last; then the runs that it replaces go."""
        self._finish_current()
        self._out.uploads.flush()
        self._manifest.attributes = list(self._records.values())
        digest = self._out.attachments.finish(self._manifest, self._run.extra)
        self._tracking.upload(self._run_id, self._folder / FOLDER, FOLDER)
        self._out.batches.tags({tags.MANIFEST: digest})
        self._out.batches.flush()
        for child in self._children:
            self._tracking.set_tag(child, tags.MLFLOW_PARENT, self._run_id)
        status = "FAILED" if self._run.info.failed else "FINISHED"
        self._tracking.end_run(self._run_id, status, end_ms(self._run, self._manifest.start_ms))
        self._tracking.set_tag(self._run_id, tags.LOAD, tags.COMPLETE + self._run.digest)
        self._complete = True
        for replaced in self._replaces:
            self._delete(replaced)
        shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Deletes the MLflow run unless it is complete; where that fails, its marker still says that it is not."""
        try:
            if not self._complete:
                self._delete(self._run_id)
            self._out.attachments.close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _delete(self, run_id: str) -> None:
        try:
            self._tracking.delete_run(run_id)
        except ExporterError as error:  # the next load of this run finds it and tidies up
            logger.info("The MLflow run %s could not be deleted: %s", run_id, error.message)

    def _turn_to(self, name: tuple[str, str]) -> AttributeWriter:
        self._finish_current()
        if name in self._finished:
            raise ValueError(f"the rows of {name} do not come together")
        if name not in self._records:
            raise ValueError(f"{name} was not announced")
        self._current = name
        return writer_of(self._records[name], self._out)

    def _finish_current(self) -> None:
        if self._writer is not None and self._current is not None:
            self._writer.finish()
            self._finished.add(self._current)
        self._writer = self._current = None


def _in_order(batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, str], pa.RecordBatch]]:
    """The attributes of a batch with their rows, in the order in which they stand there."""
    if batch.num_rows == 0:
        return
    path_column, type_column = batch.column("attribute_path"), batch.column("attribute_type")
    paths, types = codes_of(path_column), codes_of(type_column)
    starts = np.flatnonzero((paths[1:] != paths[:-1]) | (types[1:] != types[:-1])) + 1
    bounds = [0, *starts.tolist(), batch.num_rows]
    for start, end in pairwise(bounds):
        name = (path_column.dictionary[int(paths[start])].as_py(), type_column.dictionary[int(types[start])].as_py())
        yield name, batch.slice(start, end - start)
