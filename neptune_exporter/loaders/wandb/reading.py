# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a Neptune run from W&B alone, so that it can be compared with what was loaded.

What W&B holds natively is inverted; a row of `data.parquet` counts only if W&B holds its image. So whatever was
changed, removed or added there by hand comes out as other rows.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from neptune_exporter.loaders.attachments import DATA, FILES, FOLDER, AttributeRecord, file_entries, file_sha256
from neptune_exporter.loaders.beside import Beside
from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.loader import TargetRun
from neptune_exporter.loaders.wandb import config, names
from neptune_exporter.loaders.wandb.images import Images, RowReader, ShownFiles
from neptune_exporter.model import VALUE_COLUMN, RunRef, normalize, rows_batch, series_of

_MISSING = "0" * 64
Name = tuple[str, str]


class HeldContent(Protocol):
    """A run as a server or a log holds it."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config, without wrappers."""

    def rows(self) -> Iterator[list[Mapping[str, Any]]]:
        """Its history, in pages."""

    def file(self, path: str, folder: Path) -> Path | None:
        """A file of its artifact, on this machine; None if it is not there."""


def read_run(held: HeldContent, ref: RunRef) -> TargetRun:
    """The run as W&B holds it.

    Raises:
        TargetError: what travels beside the run is missing or is not what the manifest says.
    """
    reader = _Reader(held, ref)
    attributes = [(record.path, record.type) for record in reader.manifest.attributes]
    return TargetRun(reader.batches(), reader.sha256, attributes)


class _Reader:
    def __init__(self, held: HeldContent, ref: RunRef) -> None:
        self._held, self._ref = held, ref
        self._folder = Path(tempfile.mkdtemp(prefix="neptune-exporter-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._beside = beside = Beside(f"W&B run of {ref}", self._fetch)
        self.manifest = beside.manifest
        self._records = {(record.path, record.type): record for record in self.manifest.attributes}
        self._data, files = beside.file(DATA), beside.file(FILES)
        self._whole: dict[str, bool] = {}
        self._positions: dict[Name, int] = {}
        entries = list(file_entries(files)) if files is not None else []
        self._artifacts: dict[Name, list[str]] = defaultdict(list)
        self._shown_as: dict[Name, list[str]] = defaultdict(list)
        self._shown = ShownFiles(self.manifest.start_ms)
        for entry in entries:
            self._add_file(entry)

    def _add_file(self, entry: Mapping[str, Any]) -> None:
        name = (entry["attribute"], entry["type"])
        record = self._records.get(name)
        in_history = record is not None and record.type == "file_series"
        path = str(entry.get("media", "")) if in_history else ""
        self._artifacts[name].append(entry["artifact"])
        self._shown_as[name].append(path)
        if record is not None and path:
            self._shown.expect(path, record.media, entry["sha256"])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows: the history, the config, and what is attached."""
        images = Images(self._metric_codes(), self.manifest.start_ms)
        for rows in self._attached():
            images.expect(rows)
        reader = RowReader(self._ref, self._metrics(), self.manifest.start_ms, self._shown)
        for page in self._held.rows():
            for points in reader.points(page):
                surplus = images.without_expected(points)
                yield from reader.batches(surplus)
        singles: dict[Name, list[pa.RecordBatch]] = {}
        for rows in self._attached():
            yield from images.found(rows)
            for series in series_of(rows):
                record = self._records.get((series.path, series.type))
                if record is None or record.place == "metric":
                    continue
                if record.place == "parameter":
                    singles.setdefault((series.path, series.type), []).append(series.rows)
                elif record.type in FILE_TYPES:
                    yield self._with_artifacts(record, series.rows)
                elif self._is_whole(record):
                    yield series.rows
        yield from self._singles(singles)

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file of the artifact as it is in W&B now; zeros if it is not there."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            local = self._held.file(path, Path(folder))
            if local is None or not local.is_file():
                return _MISSING
            return self._beside.noticed(path, file_sha256(local))

    def _metrics(self) -> list[AttributeRecord]:
        return [record for record in self.manifest.attributes if record.place == "metric"]

    def _metric_codes(self) -> dict[Name, int]:
        return {(record.path, record.type): code for code, record in enumerate(self._metrics())}

    def _fetch(self, name: str) -> Path | None:
        return self._held.file(f"{FOLDER}/{name}", self._folder)

    def _attached(self) -> Iterator[pa.RecordBatch]:
        if self._data is None:
            return
        with pq.ParquetFile(self._data, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                for batch in file.read_row_group(group).to_batches(max_chunksize=65_536):
                    yield normalize(batch)

    def _is_whole(self, record: AttributeRecord) -> bool:
        """Whether the text of a series is what was loaded."""
        if record.key not in self._whole:
            self._whole[record.key] = self.sha256(record.key) == record.sha256
        return self._whole[record.key]

    def _with_artifacts(self, record: AttributeRecord, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The next attached rows of a file attribute, with the path in the artifact in place of the file's.

        What W&B does not show any more where it belongs is left out.
        """
        name = (record.path, record.type)
        start = self._positions.get(name, 0)
        self._positions[name] = start + rows.num_rows
        paths = pa.array(self._artifacts[name][start : start + rows.num_rows], pa.string())
        values = pa.StructArray.from_arrays([paths], names=["path"])
        held = self._shown.held(self._shown_as[name][start : start + rows.num_rows], rows)
        rows = rows.set_column(rows.schema.get_field_index("file_value"), "file_value", values)
        return rows if all(held) else rows.filter(pa.array(held))

    def _singles(self, attached: Mapping[Name, list[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        held = self._held.config
        known = set()
        for name, record in self._records.items():
            if record.place == "parameter":
                known.add(record.key)
                if record.key in held:
                    yield from self._single(record, held[record.key], attached.get(name, []))
        for key in sorted(held.keys() - known - names.RESERVED_CONFIG - {"_wandb"}):
            yield self._text_row(key, held[key])

    def _single(self, record: AttributeRecord, held: Any, attached: list[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        column = VALUE_COLUMN.get(record.type, "string_value")
        if attached:
            last = attached[-1].column(column)
            where = f"{FOLDER}/{DATA}"
            shown = config.config_value(record.type, last.slice(len(last) - 1), where)
            return attached if config.same(held, shown) else [self._text_row(record.path, held)]
        try:
            value = config.value_of(record.type, held)
        except ValueError:
            return [self._text_row(record.path, held)]
        return [rows_batch(self._ref, record.path, record.type, **{column: value})] if record.rows else []

    def _text_row(self, path: str, held: Any) -> pa.RecordBatch:
        """What stands in W&B and is no value that we wrote."""
        return rows_batch(self._ref, path, "string", string_value=pa.array([str(held)], pa.string()))
