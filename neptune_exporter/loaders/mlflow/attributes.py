# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of the rows of one attribute: a metric, a parameter, a tag, a readable series, or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from neptune_exporter.loaders.attachments import (
    DATA,
    FOLDER,
    AttachmentsWriter,
    AttributeRecord,
    Place,
    file_sha256,
)
from neptune_exporter.loaders.file_names import FILE_TYPES, artifact_path, file_rows
from neptune_exporter.loaders.keys import ARTIFACT_RULE, ArtifactPaths, target_key, target_keys
from neptune_exporter.loaders.loader import Limits, RunToLoad
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.points import SharedImages, image
from neptune_exporter.loaders.mlflow.sending import Destination, Uploads
from neptune_exporter.loaders.parameters import held_text, parameter_text, parameter_value
from neptune_exporter.loaders.series_text import STRING_HEADING, histogram_series_lines, string_series_lines
from neptune_exporter.model import VALUE_COLUMN

DATA_ARTIFACT = f"{FOLDER}/{DATA}"
_SERIES_ARTIFACTS = {"string_series": ("series", ".txt"), "histogram_series": ("histograms", ".jsonl")}


def place_of(path: str, attribute_type: str) -> Place:
    """What an attribute becomes in MLflow."""
    if attribute_type == "float_series":
        return "metric"
    if attribute_type in FILE_TYPES or attribute_type in _SERIES_ARTIFACTS:
        return "artifact"
    return "tag" if attribute_type == "string_set" and path in tags.TAG_SETS else "parameter"


def records_of(run: RunToLoad, paths: ArtifactPaths) -> dict[tuple[str, str], AttributeRecord]:
    """Where each attribute of a run goes, in order of path and type."""
    names = sorted({(a.path, a.type) for a in run.attributes})
    records = {name: AttributeRecord(*name, place_of(*name), "") for name in names}
    for place in ("metric", "parameter"):
        of_place = [name for name in names if records[name].place == place]
        for name, key in target_keys(of_place, tags.KEY_RULE).items():
            records[name].key = key
    for (path, attribute_type), record in records.items():
        if record.place == "tag":
            record.key = tags.TAG_SETS[path]
        elif attribute_type in _SERIES_ARTIFACTS:
            folder, extension = _SERIES_ARTIFACTS[attribute_type]
            record.key = paths.take(f"{folder}/{target_key(path, ARTIFACT_RULE)}{extension}", path)
        elif attribute_type in FILE_TYPES:
            record.key = f"files/{target_key(path, ARTIFACT_RULE)}"
    return records


def shown_text(attribute_type: str, place: Place, value: pa.Array, limits: Limits) -> str:
    """What MLflow shows for a single value: its text, or a pointer to where it is kept."""
    length = limits.tag_length if place == "tag" else limits.value_length
    return held_text(parameter_text(attribute_type, value), length, DATA_ARTIFACT)


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where the parts of a run go.

    Attributes:
        run: what is loaded.
        destination: takes metrics, parameters and tags.
        uploads: artifacts.
        attachments: the folder `neptune/`.
        paths: artifact paths that are taken.
        folder: for temporary files.
        limits: of the target.
        step_multiplier: for metrics.
        start_ms: stands in for missing times.
        attach_all: whether every row is attached.
        announced: how many rows each attribute will have.
    """

    run: RunToLoad
    destination: Destination
    uploads: Uploads
    attachments: AttachmentsWriter
    paths: ArtifactPaths
    folder: Path
    limits: Limits
    step_multiplier: int
    start_ms: int
    attach_all: bool
    announced: Mapping[tuple[str, str], int]


class AttributeWriter(Protocol):
    """Takes the rows of one attribute in order of their steps."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes the next rows."""

    def finish(self) -> None:
        """All rows were there."""


def writer_of(record: AttributeRecord, outlets: Outlets) -> AttributeWriter:
    """The writer for an attribute."""
    if record.place == "metric":
        return _Metric(record, outlets)
    if record.place in ("parameter", "tag"):
        return _Single(record, outlets)
    return _Files(record, outlets) if record.type in FILE_TYPES else _SeriesText(record, outlets)


class _Metric:
    def __init__(self, record: AttributeRecord, outlets: Outlets) -> None:
        self._record, self._outlets = record, outlets
        self._shared = SharedImages()

    def write(self, rows: pa.RecordBatch) -> None:
        out = self._outlets
        points, exact = image(rows, out.step_multiplier, out.start_ms)
        send, kept = self._shared.split(rows, points, exact)
        for inexact in [rows] if out.attach_all else kept:
            out.attachments.add_rows(self._record, inexact)
        to_send = points if send.all() else points.where(send)
        self._record.native += len(to_send.steps)
        out.destination.metrics(self._record.key, to_send)

    def finish(self) -> None:
        """Every point has been handed over already."""


class _Single:
    """A parameter or a set of tags: one value. Should there be more, the last one is shown and all are kept."""

    def __init__(self, record: AttributeRecord, outlets: Outlets) -> None:
        self._record, self._outlets = record, outlets
        self._last: pa.RecordBatch | None = None

    def write(self, rows: pa.RecordBatch) -> None:
        if self._last is not None:
            self._outlets.attachments.add_rows(self._record, self._last)
        if rows.num_rows > 1:
            self._outlets.attachments.add_rows(self._record, rows.slice(0, rows.num_rows - 1))
        self._last = rows.slice(rows.num_rows - 1)

    def finish(self) -> None:
        out, record, last = self._outlets, self._record, self._last
        if last is None:
            return
        value = last.column(VALUE_COLUMN.get(record.type, "string_value"))
        text = shown_text(record.type, record.place, value, out.limits)
        if out.attach_all or record.attached or not _comes_back(record.type, last, value, text):
            out.attachments.add_rows(record, last)
        record.native = 1
        if record.place == "tag":
            out.destination.tags({record.key: text, **tags.label_tags(value[0].as_py())})
            return
        out.destination.param(record.key, text)
        if record.path == "sys/description" and record.type == "string":
            out.destination.tags({tags.NOTE: tags.note(value[0].as_py())})


def _comes_back(attribute_type: str, row: pa.RecordBatch, value: pa.Array, text: str) -> bool:
    """Whether the row can be rebuilt from its text alone."""
    if not (row.column("step").null_count and row.column("timestamp").null_count):
        return False
    try:
        parameter_value(attribute_type, text)
    except ValueError:
        return False
    return parameter_text(attribute_type, value) == text


class _SeriesText:
    """A series of texts or histograms: one readable artifact, and all rows attached."""

    def __init__(self, record: AttributeRecord, outlets: Outlets) -> None:
        self._record, self._outlets = record, outlets
        self._path = outlets.folder / "series"
        self._file: BinaryIO | None = None

    def write(self, rows: pa.RecordBatch) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
            if self._record.type == "string_series":
                self._file.write(STRING_HEADING)
        lines = string_series_lines if self._record.type == "string_series" else histogram_series_lines
        self._file.write(lines(rows))
        self._outlets.attachments.add_rows(self._record, rows)

    def finish(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._record.sha256 = file_sha256(self._path)
        self._record.native = 1
        self._outlets.uploads.move(self._path, self._record.key)


class _Files:
    """Files under the path of their attribute, all rows attached: their names in Neptune are only there."""

    def __init__(self, record: AttributeRecord, outlets: Outlets) -> None:
        self._record, self._outlets = record, outlets
        self._several = outlets.announced[record.path, record.type] > 1

    def write(self, rows: pa.RecordBatch) -> None:
        out, record = self._outlets, self._record
        out.attachments.add_rows(record, rows)
        for row in file_rows(record, rows):
            wanted = artifact_path(record, row, ARTIFACT_RULE, several=self._several)
            artifact = out.paths.take(wanted, row.identity(record))
            local, files = out.run.files.local(row.path), out.run.files
            out.attachments.add_file(record, row.path, artifact, files.sha256(row.path), files.size(row.path))
            out.uploads.link(local, artifact)
            record.native += 1

    def finish(self) -> None:
        """Every file has been handed over already."""
