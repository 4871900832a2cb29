# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a Neptune run from MLflow alone, so that it can be compared with what was loaded.

What MLflow holds natively is inverted; a row of `data.parquet` counts only if MLflow holds its image. So whatever was
changed, removed or added there by hand comes out as other rows.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.loaders.attachments import (
    DATA,
    FILES,
    FOLDER,
    AttachedRows,
    AttributeRecord,
    artifacts_of,
    file_sha256,
)
from neptune_exporter.loaders.beside import Beside
from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.loader import Limits, TargetRun
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.attributes import shown_text
from neptune_exporter.loaders.mlflow.held import View
from neptune_exporter.loaders.mlflow.points import Points, image
from neptune_exporter.loaders.parameters import parameter_value
from neptune_exporter.loaders.steps import unscale_steps
from neptune_exporter.model import VALUE_COLUMN, RunRef, rows_batch

_MISSING = "0" * 64


def read_run(view: View, ref: RunRef, limits: Limits) -> TargetRun:
    """The run as MLflow holds it.

    Raises:
        TargetError: what travels beside the run is missing or is not what its tag says.
    """
    reader = _Reader(view, ref, limits)
    names = [(record.path, record.type) for record in reader.manifest.attributes]
    return TargetRun(reader.batches(), reader.sha256, names)


class _Reader:
    def __init__(self, view: View, ref: RunRef, limits: Limits) -> None:
        self._held, self._ref, self._limits = view, ref, limits
        self._folder = Path(tempfile.mkdtemp(prefix="neptune-exporter-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._beside = beside = Beside(f"MLflow run of {ref}", self._fetch, view.tags.get(tags.MANIFEST, ""))
        self.manifest = beside.manifest
        data, files = beside.file(DATA), beside.file(FILES)
        self._attached = AttachedRows(data) if data is not None else None
        self._artifacts = artifacts_of(files) if files is not None else {}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, attribute by attribute, and after them what MLflow has and we did not write."""
        known: dict[str, set[str]] = {"metric": set(), "parameter": set()}
        for record in sorted(self.manifest.attributes, key=lambda r: r.first):
            known.setdefault(record.place, set()).add(record.key)
            if record.place == "metric":
                yield from self._metric(record)
            elif record.place == "artifact":
                yield from self._files(record) if record.type in FILE_TYPES else self._series(record)
            else:
                yield from self._single(record)
        for key in sorted(set(self._held.metrics) - known["metric"]):
            yield from self._metric(AttributeRecord(key, "float_series", "metric", key))
        for key in sorted(set(self._held.params) - known["parameter"]):
            yield self._text_row(key, self._held.params[key])

    def sha256(self, artifact: str) -> str:
        """The SHA-256 of an artifact as it is in MLflow now; zeros if it is not there."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            local = self._held.download(artifact, Path(folder))
            if local is None or not local.is_file():
                return _MISSING
            return self._beside.noticed(artifact, file_sha256(local))

    def _fetch(self, name: str) -> Path | None:
        return self._held.download(f"{FOLDER}/{name}", self._folder)

    def _rows(self, record: AttributeRecord) -> Iterator[pa.RecordBatch]:
        return iter(()) if self._attached is None else self._attached.of(record)

    def _metric(self, record: AttributeRecord) -> Iterator[pa.RecordBatch]:
        expected = self._expected_images(record)
        found = np.zeros(len(expected), np.bool_)
        latest = _Latest()
        for points in self._held.points(record.key):
            latest.see(points)
            position, is_image = _find(expected, points.hashes)
            found[position[is_image]] = True
            if not is_image.all():
                yield self._inverse(record, points.where(~is_image))
        for rows in self._rows(record):
            points, _ = image(rows, self.manifest.step_multiplier, self.manifest.start_ms)
            position, _ = _find(expected, points.hashes)
            yield rows.filter(pa.array(found[position]))
        shown = self._held.metrics.get(record.key)
        if not latest.explains(shown):
            value = np.nan if shown is None else shown
            yield rows_batch(self._ref, record.path, record.type, float_value=pa.array([value], pa.float64()))

    def _expected_images(self, record: AttributeRecord) -> Any:
        """The hashes of the images of the attached rows, sorted, each once."""
        multiplier, start = self.manifest.step_multiplier, self.manifest.start_ms
        hashes = [image(rows, multiplier, start)[0].hashes for rows in self._rows(record)]
        return np.unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)

    def _inverse(self, record: AttributeRecord, points: Points) -> pa.RecordBatch:
        return rows_batch(
            self._ref,
            record.path,
            record.type,
            step_micros=unscale_steps(points.steps, self.manifest.step_multiplier),
            time_ms=points.times,
            float_value=pa.array(points.values),
        )

    def _single(self, record: AttributeRecord) -> Iterator[pa.RecordBatch]:
        held = self._held.tags if record.place == "tag" else self._held.params
        text = held.get(record.key)
        if text is None:
            return
        column = VALUE_COLUMN.get(record.type, "string_value")
        attached = list(self._rows(record))
        if attached:
            last = attached[-1].column(column)
            if shown_text(record.type, record.place, last.slice(len(last) - 1), self._limits) == text:
                yield from attached
                return
        elif record.rows:
            try:
                value = parameter_value(record.type, text)
            except ValueError:
                pass
            else:
                yield rows_batch(self._ref, record.path, record.type, **{column: value})
                return
        yield self._text_row(record.path, text)

    def _text_row(self, path: str, text: str) -> pa.RecordBatch:
        """What stands in MLflow and is no value that we wrote."""
        return rows_batch(self._ref, path, "string", string_value=pa.array([text], pa.string()))

    def _series(self, record: AttributeRecord) -> Iterator[pa.RecordBatch]:
        if record.rows and self.sha256(record.key) == record.sha256:
            yield from self._rows(record)

    def _files(self, record: AttributeRecord) -> Iterator[pa.RecordBatch]:
        """The attached rows, with the path of the artifact in place of the file's."""
        artifacts = self._artifacts.get((record.path, record.type), [])
        start = 0
        for rows in self._rows(record):
            paths = pa.array(artifacts[start : start + rows.num_rows], pa.string())
            start += rows.num_rows
            values = pa.StructArray.from_arrays([paths], names=["path"])
            yield rows.set_column(rows.schema.get_field_index("file_value"), "file_value", values)


class _Latest:
    """What MLflow must show as the latest value of a metric: one with the largest (step, time)."""

    def __init__(self) -> None:
        self._at: tuple[int, int] | None = None
        self._values: set[float | None] = set()

    def see(self, points: Points) -> None:
        if len(points.steps) == 0:
            return
        of_last_step = points.where(points.steps == points.steps.max())
        last = of_last_step.where(of_last_step.times == of_last_step.times.max())
        at = (int(last.steps[0]), int(last.times[0]))
        if self._at is None or at > self._at:
            self._at, self._values = at, set()
        if at == self._at:
            self._values.update(None if np.isnan(value) else value for value in last.values.tolist())

    def explains(self, shown: float | None) -> bool:
        if shown is None or self._at is None:
            return shown is None and self._at is None
        return (None if np.isnan(shown) else shown) in self._values


def _find(expected: Any, hashes: Any) -> tuple[Any, Any]:
    """Where each hash stands among the expected ones, and whether it does."""
    if len(expected) == 0:
        return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), np.bool_)
    position = np.minimum(np.searchsorted(expected, hashes), len(expected) - 1)
    return position, expected[position] == hashes
