# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One Neptune run on its way into W&B."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.attachments import DATA, FOLDER, AttributeRecord, Manifest, run_json
from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.loaders.runs import end_ms
from neptune_exporter.loaders.wandb import config, names
from neptune_exporter.loaders.wandb.artifact import ArtifactFolder
from neptune_exporter.loaders.wandb.histograms import histogram_texts
from neptune_exporter.loaders.wandb.history import (
    Points,
    RowBuilder,
    Rows,
    code_table,
    exact,
    in_order,
    last_texts,
    points_of,
)
from neptune_exporter.loaders.wandb.media import MediaFolder, Shown
from neptune_exporter.loaders.wandb.records import json_texts
from neptune_exporter.loaders.wandb.writers import Head, RunWriter, Tail, runtime_seconds, summary_texts
from neptune_exporter.model import VALUE_COLUMN, Series, codes_of, normalize, series_of, step_micros, time_millis

METRIC_TYPES = ("float_series", "histogram_series")
TAG_SETS = ("sys/tags", "sys/group_tags")
NOTES_LENGTH = 20_000
DATA_FILE = f"{FOLDER}/{DATA}"
Name = tuple[str, str]


def records_of(run: RunToLoad, *, media: bool = False) -> dict[Name, AttributeRecord]:
    """What each attribute becomes, in order of path and type; where files go is not decided yet.

    Args:
        run: what is loaded.
        media: whether images, audio and video are shown.
    """
    found: dict[Name, AttributeRecord] = {}
    for name in sorted({(a.path, a.type) for a in run.attributes}):
        artifact = name[1] in FILE_TYPES or name[1] == "string_series"
        place = "metric" if name[1] in METRIC_TYPES else "artifact" if artifact else "parameter"
        found[name] = AttributeRecord(*name, place, "")  # type: ignore[arg-type]
    parameters = [name for name, record in found.items() if record.place == "parameter"]
    for name, key in names.native_keys(parameters, names.RESERVED_CONFIG).items():
        found[name].key = key
    visible = [name for name, record in found.items() if record.place == "metric" or (media and _may_show(record))]
    for name, key in names.native_keys(visible, names.RESERVED_METRICS).items():
        record = found[name]
        if record.place == "metric":
            record.key = key
        else:
            record.media = key
    return found


def history_key(record: AttributeRecord) -> str:
    """The key of an attribute in the history, "" if it is not there."""
    if record.place == "metric":
        return record.key
    return record.media if record.type == "file_series" else ""


def _may_show(record: AttributeRecord) -> bool:
    return record.type in ("file", "file_series")


class RunSink:
    """Takes the rows of one run, by (step, time).

    Args:
        run: what is loaded.
        records: what each attribute becomes.
        head: what the run begins with.
        open_writer: gives what writes it, once its notes and tags are known: single values come first.
        folder: an empty folder, for the artifact.
        multiplier: what steps are multiplied with to give `_step`.
        keep: whether `folder` stays.
        attach_all: whether every row goes into `data.parquet`.
        media: takes the files that are shown as images, audio or video; None to show none.
        deliver: called with what the run ends with, when all is written: makes it count.
        clean: called in the end, whatever happens.
    """

    def __init__(
        self,
        run: RunToLoad,
        records: dict[Name, AttributeRecord],
        head: Head,
        open_writer: Callable[[Head], RunWriter],
        folder: Path,
        *,
        multiplier: int,
        keep: bool,
        attach_all: bool,
        media: MediaFolder | None,
        deliver: Callable[[RunWriter, Tail, int], None],
        clean: Callable[[], None],
    ) -> None:
        self._run, self._records, self._head, self._open_writer = run, records, head, open_writer
        self._attach_all, self._deliver, self._clean = attach_all, deliver, clean
        self._manifest = Manifest(run_json(run), multiplier, head.start_ms)
        self._artifact = ArtifactFolder(run, folder, keep=keep)
        for record in records.values():
            if record.place == "artifact":
                self._artifact.place(record)
        self._media = media
        self._visible = [record for record in records.values() if history_key(record)]
        codes = {(record.path, record.type): code for code, record in enumerate(self._visible)}
        self._metrics = {name: code for name, code in codes.items() if records[name].place == "metric"}
        self._shown = {name: code for name, code in codes.items() if name not in self._metrics}
        self._builder = RowBuilder(multiplier, head.fork.step + 1 if head.fork else 0)
        self._last_row: Rows | None = None
        self._last_texts: dict[str, str] = {}
        self._config: dict[str, Any] = {}
        self._singles: dict[Name, pa.RecordBatch] = {}
        self._opened: RunWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes rows, in order of (step, time, path, type).

        Raises:
            TargetError: W&B does not take them.
            DamagedDataError: a file of the run cannot be read.
        """
        batch = normalize(batch)
        if not batch.num_rows:
            return
        table = code_table(batch, self._metrics)
        codes = table[codes_of(batch.column("attribute_path")), codes_of(batch.column("attribute_type"))]
        metric = codes >= 0
        points = []
        if not metric.all():
            for series in series_of(batch.filter(pa.array(~metric))):  # first: the notes and tags are among them
                points += self._add_series(series)
            batch = batch.filter(pa.array(metric))
        if batch.num_rows:
            points.append(self._metric_points(batch, table))
        if points:
            self._write_rows(self._builder.add(in_order(points)))

    def commit(self) -> None:
        """Completes the run; the marker is written last."""
        self._write_rows(self._builder.finish())
        for name, row in self._singles.items():
            self._finish_single(self._records[name], row)
        self._artifact.finish_texts(self._records)
        self._manifest.attributes = list(self._records.values())
        self._artifact.attachments.finish(self._manifest, self._run.extra)
        if self._head.resumed_rows > self._builder.count:
            raise TargetError(
                f"The W&B run {self._head.name.id} has {self._head.resumed_rows} rows, "
                f"but {self._run.info.ref} only {self._builder.count}: something else writes into it.",
                "Load into another project, with --wandb-project or --name-prefix.",
            )
        start = self._head.start_ms
        tail = Tail(
            {**self._head.config, **self._config},
            summary_texts(self._last_texts, self._last_row, start),
            self._artifact.entries(),
            runtime_seconds(start, end_ms(self._run, start)),
            1 if self._run.info.failed else 0,
            self._media.folder if self._media else None,
            self._media.sizes if self._media else {},
        )
        self._deliver(self._writer, tail, self._builder.count)
        self._clean()

    def abort(self) -> None:
        """Stops here. What W&B has of the run stays there, marked as begun; the next load goes on from it."""
        try:
            if self._opened is not None:
                self._opened.abort()
            self._artifact.attachments.close()
        finally:
            self._clean()

    @property
    def _writer(self) -> RunWriter:
        if self._opened is None:
            tags = {tag for path in TAG_SETS for tag in self._single(path, "string_set") or ()}
            notes = self._single("sys/description", "string") or ""
            head = replace(self._head, notes=notes[:NOTES_LENGTH], tags=tuple(names.tags_of(tags)))
            self._opened = self._open_writer(head)
        return self._opened

    def _single(self, path: str, attribute_type: str) -> Any:
        row = self._singles.get((path, attribute_type))
        return None if row is None else row.column(VALUE_COLUMN[attribute_type])[0].as_py()

    def _add_series(self, series: Series) -> list[Points]:
        """Takes rows that are no metric; returns the points that they are shown as."""
        record = self._record((series.path, series.type))
        record.rows += series.rows.num_rows
        if record.place == "parameter":
            self._add_single(record, series.rows)
            return []
        self._artifact.attachments.add_rows(record, series.rows)
        if record.type not in FILE_TYPES:
            self._artifact.add_texts(record, series)
            return []
        return self._media_points(record, series.rows, self._artifact.add_files(record, series, self._media))

    # --- what is in the history

    def _media_points(
        self, record: AttributeRecord, rows: pa.RecordBatch, shown: Sequence[Shown | None]
    ) -> list[Points]:
        """Files that are shown: of a series as points, single ones in the summary."""
        code = self._shown.get((record.path, record.type))
        if code is None:
            self._last_texts.update((record.media, one.value) for one in shown if one is not None)
            return []
        texts = pa.array([one and one.value for one in shown], pa.string())
        visible = np.flatnonzero(np.asarray(texts.is_valid()))
        if not len(visible):
            return []
        count = rows.num_rows
        points = Points(
            step_micros(rows.column("step")),
            time_millis(rows.column("timestamp")),
            np.full(count, code, np.int32),
            np.full(count, np.nan),
            texts,
        )
        return [points.where(visible)]

    def _metric_points(self, batch: pa.RecordBatch, table: Any) -> Points:
        texts, is_point = histogram_texts(batch)
        points = points_of(batch, table, texts)
        rows_of = np.bincount(points.codes, minlength=len(self._visible))
        native_of = np.bincount(points.codes[is_point], minlength=len(self._visible))
        for code in np.flatnonzero(rows_of).tolist():
            self._visible[code].rows += int(rows_of[code])
            self._visible[code].native += int(native_of[code])
        attach = ~exact(points) | np.asarray(texts.is_valid()) | ~is_point
        if self._attach_all:
            attach[:] = True
        if attach.any():
            for series in series_of(batch.filter(pa.array(attach))):
                self._artifact.attachments.add_rows(self._record((series.path, series.type)), series.rows)
        return points if is_point.all() else points.where(np.flatnonzero(is_point))

    def _write_rows(self, rows: Rows | None) -> None:
        if rows is None:
            return
        texts = json_texts(rows.points.values, rows.points.texts)
        self._last_texts |= last_texts(rows.points.codes, texts, self._head.keys)
        self._last_row = rows.after(rows.first + len(rows) - 1)
        new = rows.after(self._head.resumed_rows)
        if len(new):
            self._writer.rows(new, texts.slice(len(texts) - len(new.points.codes)))

    # --- single values

    def _add_single(self, record: AttributeRecord, rows: pa.RecordBatch) -> None:
        """Should there be more than one, the last one is shown and all are kept."""
        name = (record.path, record.type)
        if name in self._singles:
            self._artifact.attachments.add_rows(record, self._singles[name])
        if rows.num_rows > 1:
            self._artifact.attachments.add_rows(record, rows.slice(0, rows.num_rows - 1))
        self._singles[name] = rows.slice(rows.num_rows - 1)

    def _finish_single(self, record: AttributeRecord, row: pa.RecordBatch) -> None:
        value = row.column(VALUE_COLUMN.get(record.type, "string_value"))
        held = config.config_value(record.type, value, DATA_FILE)
        if self._attach_all or record.attached or not config.comes_back(record.type, row, value, held):
            self._artifact.attachments.add_rows(record, row)
        record.native = 1
        self._config[record.key] = held

    def _record(self, name: Name) -> AttributeRecord:
        if name not in self._records:
            raise ValueError(f"{name} was not announced")
        return self._records[name]
