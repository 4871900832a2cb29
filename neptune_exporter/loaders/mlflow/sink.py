# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One Neptune run on its way into MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from neptune_exporter.assignment import assignment
from neptune_exporter.loaders.attachments import FOLDER, AttachmentsWriter, Manifest, run_json
from neptune_exporter.loaders.keys import ArtifactPaths
from neptune_exporter.loaders.loader import Limits, RunToLoad
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.attributes import AttributeWriter, Outlets, records_of, writer_of
from neptune_exporter.loaders.mlflow.sending import Destination, Uploads
from neptune_exporter.model import codes_of, normalize


class RunSink:
    """Takes the rows of one run, by (attribute, step), into an MLflow run that is being made.

    Args:
        destination: the MLflow run.
        run: what is loaded.
        step_multiplier: for metrics.
        start_ms: the run's start, which stands in for missing times.
        limits: of the target.
        folder: a folder on this machine, removed in the end.
        attach_all: whether every row goes into `data.parquet`.
    """

    def __init__(
        self,
        destination: Destination,
        run: RunToLoad,
        *,
        step_multiplier: int,
        start_ms: int,
        limits: Limits,
        folder: Path,
        attach_all: bool,
    ) -> None:
        self._destination, self._run, self._folder = destination, run, folder
        self._manifest = Manifest(run_json(run), step_multiplier, start_ms)
        (folder / FOLDER).mkdir()
        paths = ArtifactPaths()
        self._records = records_of(run, paths)
        self._out = Outlets(
            run=run,
            destination=destination,
            uploads=Uploads(destination.upload, folder / "artifacts"),
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
        """Completes the run: the artifacts, then the rest, the marker last; then the runs that it replaces go."""
        self._finish_current()
        self._out.uploads.flush()
        self._manifest.attributes = list(self._records.values())
        digest = self._out.attachments.finish(self._manifest, self._run.extra)
        self._destination.upload(self._folder / FOLDER, FOLDER)
        self._destination.tags({tags.MANIFEST: digest})
        assignment().confirm()
        self._destination.complete()
        shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Leaves nothing that looks complete."""
        try:
            self._destination.discard()
            self._out.attachments.close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

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
