# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a Neptune run from Pluto alone, so that it can be compared with what was loaded.

What Pluto gives back (config, tags, points, console logs, files) is inverted; a row of `data.parquet` counts only if
Pluto holds what was sent for it. Series of texts and histograms Pluto shows but does not give back: of them the
attachment is all there is. It is read twice, from beginning to end: for what must be there, and for its rows.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neptune_exporter.loaders.attachments import (
    DATA,
    FILES,
    FOLDER,
    AttributeRecord,
    artifacts_of,
    file_sha256,
)
from neptune_exporter.loaders.beside import Beside
from neptune_exporter.loaders.loader import TargetRun
from neptune_exporter.loaders.pluto import marks
from neptune_exporter.loaders.pluto.api import OpenRun, Pluto, millis
from neptune_exporter.loaders.pluto.config import config_array, config_value, shown_text
from neptune_exporter.loaders.pluto.metrics import Expected, found_points
from neptune_exporter.loaders.pluto.places import shown_times
from neptune_exporter.loaders.pluto.points import Points
from neptune_exporter.loaders.steps import unscale_steps
from neptune_exporter.model import VALUE_COLUMN, RunRef, normalize, rows_batch, series_of, step_micros, time_millis

_MISSING = "0" * 64
_ROWS = 65_536


def read_run(api: Pluto, run: OpenRun, details: dict[str, Any], ref: RunRef) -> TargetRun:
    """The run as Pluto holds it.

    Raises:
        TargetError: what travels beside the run is missing or is not what its config says.
    """
    reader = _Reader(api, run, details, ref)
    names = [(record.path, record.type) for record in reader.manifest.attributes]
    return TargetRun(reader.batches(), reader.sha256, names)


class _Reader:
    def __init__(self, api: Pluto, run: OpenRun, details: dict[str, Any], ref: RunRef) -> None:
        self._api, self._run, self._ref = api, run, ref
        self._config: dict[str, Any] = dict(details["config"] or {})
        self._tags, self._names = set(details["tags"] or ()), details["logNames"]
        self._folder = Path(tempfile.mkdtemp(prefix="neptune-exporter-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._listed: tuple[str, dict[str, str]] = "", {}
        self._beside = beside = Beside(f"Pluto run of {ref}", self._fetch, str(self._config.get(marks.MANIFEST, "")))
        self.manifest = beside.manifest
        self._records = {(record.path, record.type): record for record in self.manifest.attributes}
        self._data, files = beside.file(DATA), beside.file(FILES)
        self._artifacts = artifacts_of(files) if files is not None else {}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, and after them what Pluto has and we did not write."""
        expected = self._expected()
        for record in self.manifest.attributes:
            if record.place == "metric":
                yield from self._metric(record, expected.get((record.path, record.type)))
        lost: set[tuple[str, str]] = set()
        yield from self._singles(lost)
        yield from self._attached(expected, lost)
        yield from self._foreign()

    def sha256(self, artifact: str) -> str:
        """The SHA-256 of a file as it is in Pluto now; zeros if it is not there."""
        log_name, _, name = artifact.rpartition("/")
        if self._listed[0] != log_name:
            self._listed = log_name, self._api.listed_files(self._run, log_name)
        url = self._listed[1].get(name)
        target = self._folder / "file"
        if not url or not self._api.files.download(url, target):
            return _MISSING
        return self._beside.noticed(artifact, file_sha256(target))

    # --- what travels beside the run

    def _fetch(self, name: str) -> Path | None:
        if self._listed[0] != FOLDER:
            self._listed = FOLDER, self._api.listed_files(self._run, FOLDER)
        url, target = self._listed[1].get(name), self._folder / name
        return target if url and self._api.files.download(url, target) else None

    def _attached_series(self) -> Iterator[tuple[AttributeRecord, pa.RecordBatch]]:
        if self._data is None:
            return
        with pq.ParquetFile(self._data, pre_buffer=False) as file:
            for batch in file.iter_batches(_ROWS):
                for series in series_of(normalize(batch)):
                    if (series.path, series.type) in self._records:
                        yield self._records[series.path, series.type], series.rows

    # --- metrics

    def _points_of(self, rows: pa.RecordBatch) -> Points:
        return Points(
            np.zeros(rows.num_rows, np.int32),
            step_micros(rows.column("step")),
            time_millis(rows.column("timestamp")),
            np.asarray(rows.column("float_value")),
        )

    def _expected(self) -> dict[tuple[str, str], Expected]:
        """What Pluto must hold for the attached points of each metric."""
        found: dict[tuple[str, str], Expected] = {}
        for record, rows in self._attached_series():
            if record.place == "metric":
                name = record.path, record.type
                if name not in found:
                    found[name] = Expected(self.manifest.step_multiplier, self.manifest.start_ms)
                found[name].add(self._points_of(rows))
        return found

    def _metric(self, record: AttributeRecord, expected: Expected | None) -> Iterator[pa.RecordBatch]:
        for points in found_points(self._api, self._run, record):
            plain = points if expected is None else points.where(~expected.see(points))
            yield rows_batch(
                self._ref,
                record.path,
                record.type,
                step_micros=unscale_steps(plain.steps, self.manifest.step_multiplier),
                time_ms=plain.times,
                float_value=pa.array(plain.values, pa.float64()),
            )

    # --- single values

    def _singles(self, lost: set[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
        """The values that come back from the config; those whose attached rows do not count are put into `lost`."""
        last: dict[tuple[str, str], pa.RecordBatch] = {}
        for record, rows in self._attached_series():
            if record.place in ("parameter", "tag"):
                last[record.path, record.type] = rows.slice(rows.num_rows - 1)
        for name, record in self._records.items():
            if record.place not in ("parameter", "tag") or not record.rows:
                continue
            if record.key not in self._config:
                lost.add(name)
                continue
            entry, column = self._config[record.key], VALUE_COLUMN.get(record.type, "string_value")
            if name in last and config_value(record.type, last[name].column(column)) == entry:
                continue
            lost.add(name)
            try:
                value = config_array(record.type, entry)
            except ValueError:
                yield self._text_row(record.path, shown_text(entry))
                continue
            if record.place == "tag":
                value = self._still_shown(value)
            yield rows_batch(self._ref, record.path, record.type, **{column: value})

    def _still_shown(self, value: pa.Array) -> pa.Array:
        """A set without those whose tag the run does not have any more."""
        kept = [name for name in value[0].as_py() if set(marks.labels([name])) <= self._tags]
        return pa.array([kept], pa.list_(pa.string()))

    # --- attached rows

    def _attached(
        self, expected: dict[tuple[str, str], Expected], lost: set[tuple[str, str]]
    ) -> Iterator[pa.RecordBatch]:
        lines = self._console()
        taken: Counter[tuple[str, str]] = Counter()
        numbers: Counter[tuple[str, str]] = Counter()
        for record, rows in self._attached_series():
            name = record.path, record.type
            if record.place == "metric":
                yield rows.filter(pa.array(expected[name].held(self._points_of(rows))))
            elif record.place == "artifact":
                artifacts = self._artifacts.get(name, [])[taken[name] : taken[name] + rows.num_rows]
                taken[name] += rows.num_rows
                values = pa.StructArray.from_arrays([pa.array(artifacts, pa.string())], names=["path"])
                yield rows.set_column(rows.schema.get_field_index("file_value"), "file_value", values)
            elif record.place == "log":
                keys = self._line_keys(record, rows, numbers[name])
                numbers[name] += rows.num_rows
                yield rows.filter(pa.array([_take(lines, key) for key in keys], pa.bool_()))
            elif record.place == "series" or name not in lost:
                yield rows
        for (kind, number, _, message), count in lines.items():
            for _ in range(count):
                yield rows_batch(
                    self._ref,
                    f"logs/{kind}",
                    "string_series",
                    step_micros=np.array([number * 1_000_000]),
                    string_value=pa.array([message], pa.string()),
                )

    def _console(self) -> Counter[tuple[str, int, int, str]]:
        """The lines of the console log: kind, number, time, message."""
        if not any(record.place == "log" for record in self._records.values()):
            return Counter()
        return Counter(
            (line["logType"], int(line["lineNumber"]), millis(line["time"]), line["message"])
            for page in self._api.log_lines(self._run)
            for line in page
        )

    def _line_keys(self, record: AttributeRecord, rows: pa.RecordBatch, before: int) -> Iterator[Any]:
        times = shown_times(rows, self.manifest.start_ms).tolist()
        for number, (time, message) in enumerate(zip(times, rows.column("string_value").to_pylist(), strict=True)):
            yield record.key, before + number + 1, time, message

    # --- what we did not write

    def _foreign(self) -> Iterator[pa.RecordBatch]:
        ours = {record.key for record in self._records.values() if record.place in ("parameter", "tag")}
        for key in sorted(self._config.keys() - ours):
            if not key.startswith(marks.PREFIX):
                yield self._text_row(key, shown_text(self._config[key]))
        metrics = {record.key for record in self._records.values() if record.place == "metric"}
        shown = {entry["logName"] for entry in self._names if entry["logType"] == "METRIC"}
        for key in sorted(shown - metrics):
            yield from self._metric(AttributeRecord(key, "float_series", "metric", key), None)

    def _text_row(self, path: str, text: str) -> pa.RecordBatch:
        """What stands in Pluto and is no value that we wrote."""
        return rows_batch(self._ref, path, "string", string_value=pa.array([text], pa.string()))


def _take(lines: Counter[Any], key: Any) -> bool:
    if lines[key] <= 0:
        return False
    lines[key] -= 1
    return True
