# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The ways of a run's rows into Pluto: metrics, series and console logs, config and tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.loaders.attachments import AttachmentsWriter, AttributeRecord
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.loaders.parameters import parameter_text
from neptune_exporter.loaders.pluto import marks
from neptune_exporter.loaders.pluto.api import Ingest, OpenRun, Pluto
from neptune_exporter.loaders.pluto.config import Json, config_array, config_value
from neptune_exporter.loaders.pluto.histograms import histogram_texts
from neptune_exporter.loaders.pluto.lines import Bodies, console_lines, data_lines, metric_lines, metric_prefixes
from neptune_exporter.loaders.pluto.places import DATA_TYPES, shown_steps, shown_texts, shown_times
from neptune_exporter.loaders.pluto.points import Points, StepByStep, images
from neptune_exporter.model import VALUE_COLUMN, rows_batch, step_micros, time_millis


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the parts of a run go.

    Attributes:
        api: the server.
        run: the run there.
        loading: what is loaded.
        attachments: the folder `neptune/`.
        multiplier: for steps.
        start_ms: stands in for missing times.
        attach_all: whether every row is attached.
    """

    api: Pluto
    run: OpenRun
    loading: RunToLoad
    attachments: AttachmentsWriter
    multiplier: int
    start_ms: int
    attach_all: bool

    def bodies(self, kind: Ingest) -> Bodies:
        """Requests with lines of a kind."""
        return Bodies(lambda lines, records: self.api.send(self.run, kind, lines, records))


class Metrics:
    """Float series, all of them together, in order of steps and times.

    Args:
        records: of the attributes; rows name theirs by its position here.
        to: where they go.
    """

    def __init__(self, records: Sequence[AttributeRecord], to: Destination) -> None:
        self._records, self._to = records, to
        self._prefixes = metric_prefixes([record.key for record in records])
        self._points = StepByStep(to.multiplier, to.start_ms)
        self._bodies = to.bodies("metrics")

    def write(self, series: npt.NDArray[np.int32], rows: pa.RecordBatch) -> None:
        """Takes rows, and which record each belongs to."""
        steps, times = step_micros(rows.column("step")), time_millis(rows.column("timestamp"))
        points = Points(series, steps, times, np.asarray(rows.column("float_value")))
        sent, kept = self._points.split(points)
        self._send(sent)
        self._keep(points if self._to.attach_all else kept)

    def finish(self) -> None:
        """All rows were there."""
        last = self._points.finish()
        if last is not None:
            sent, kept = last
            self._send(sent)
            if not self._to.attach_all:
                self._keep(kept)
        self._bodies.flush()

    def _send(self, points: Points) -> None:
        if not points:
            return
        shown, _ = images(points, self._to.multiplier, self._to.start_ms)
        self._bodies.add(*metric_lines(shown, self._prefixes.take(pa.array(points.series))))
        counts = np.bincount(points.series)
        for number in np.flatnonzero(counts).tolist():
            self._records[number].native += int(counts[number])

    def _keep(self, points: Points) -> None:
        if not points:
            return
        order = np.argsort(points.series, kind="stable")
        starts = np.flatnonzero(np.diff(points.series[order], prepend=-1))
        for chosen in np.split(order, starts[1:]):
            record, some = self._records[int(points.series[chosen[0]])], points.where(chosen)
            rows = rows_batch(
                self._to.loading.info.ref,
                record.path,
                record.type,
                step_micros=some.micros,
                time_ms=some.times,
                float_value=pa.array(some.values),
            )
            self._to.attachments.add_rows(record, rows)


class Series:
    """Series of texts and histograms, and console logs. All rows are attached: Pluto does not give them back."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._data, self._logs = to.bodies("data"), to.bodies("logs")

    def write(self, record: AttributeRecord, rows: pa.RecordBatch) -> None:
        """Takes rows of one attribute."""
        to = self._to
        times = shown_times(rows, to.start_ms)
        if record.place == "log":
            numbers = np.arange(record.native + 1, record.native + 1 + rows.num_rows)
            self._logs.add(console_lines(record.key, times, numbers, rows.column("string_value")))
        else:
            is_text = record.type == "string_series"
            data = (
                shown_texts(rows.column("string_value")) if is_text else histogram_texts(rows.column("histogram_value"))
            )
            steps = shown_steps(rows, to.multiplier)
            self._data.add(data_lines(record.key, DATA_TYPES[record.type], steps, times, data))
        record.native += rows.num_rows
        to.attachments.add_rows(record, rows)

    def finish(self) -> None:
        """All rows were there."""
        self._data.flush()
        self._logs.flush()


class Singles:
    """Parameters and sets of tags: one value each. Should there be more, the last one is shown and all are kept."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._last: dict[tuple[str, str], tuple[AttributeRecord, pa.RecordBatch]] = {}

    def write(self, record: AttributeRecord, rows: pa.RecordBatch) -> None:
        """Takes rows of one attribute."""
        name = record.path, record.type
        if name in self._last:
            self._to.attachments.add_rows(record, self._last[name][1])
        if rows.num_rows > 1:
            self._to.attachments.add_rows(record, rows.slice(0, rows.num_rows - 1))
        # A copy: one row must not keep the whole batch alive that it came in.
        self._last[name] = record, rows.take(pa.array([rows.num_rows - 1]))

    def finish(self) -> tuple[dict[str, Json], list[str]]:
        """All rows were there. Gives the entries of the config, and the tags."""
        entries: dict[str, Json] = {}
        tags: list[str] = []
        for record, row in self._last.values():
            value = row.column(VALUE_COLUMN.get(record.type, "string_value"))
            entry = entries[record.key] = config_value(record.type, value)
            if self._to.attach_all or record.attached or not _comes_back(record.type, row, value, entry):
                self._to.attachments.add_rows(record, row)
            record.native = 1
            if record.place == "tag":
                tags += value[0].as_py()
        return entries, [marks.TAG, *marks.labels(tags)]


def _comes_back(attribute_type: str, row: pa.RecordBatch, value: pa.Array, entry: Any) -> bool:
    """Whether the row can be rebuilt from its entry alone."""
    if not (row.column("step").null_count and row.column("timestamp").null_count):
        return False
    try:
        again = config_array(attribute_type, entry)
    except ValueError:
        return False
    return parameter_text(attribute_type, again) == parameter_text(attribute_type, value)
