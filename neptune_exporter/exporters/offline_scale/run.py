# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One run: the operations of its stores, in order, as batches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.exporters.offline_scale import rows
from neptune_exporter.exporters.offline_scale.attachments import Attachments, Leftover, Located
from neptune_exporter.exporters.offline_scale.columns import FloatDecoder, Paths
from neptune_exporter.exporters.offline_scale.database import CREATE, Block, FileRequest
from neptune_exporter.exporters.offline_scale.fold import Created, Previews, SingleValues
from neptune_exporter.exporters.offline_scale.transfer import Transfer
from neptune_exporter.exporters.offline_scale.wire import (
    CreateRun,
    DecodeError,
    UpdateRunSnapshot,
    micros_of_step,
    millis_of_timestamp,
)
from neptune_exporter.model import STEP_LIMIT_MICROS, OutsideValue, RunRef, rows_batch, step_text, utc
from neptune_exporter.selection import Selection

logger = logging.getLogger(__name__)

_EARLIEST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1000
_LATEST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000
_EXACT_IN_DOUBLE = 2**53


class OperationLog(Protocol):
    """What a `RunReader` reads: a `Database` of the client, or a segment of our own spool; see there."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def ever(self) -> int | None:
        """How many operations were ever logged, None if unknown."""

    @property
    def lost(self) -> int:
        """How many of them are missing."""

    @property
    def lost_transactions(self) -> int:
        """How many transactions are missing."""

    @property
    def damaged(self) -> bool:
        """Whether anything could not be read."""

    def blocks(self, after: int = 0) -> Iterator[Block]:
        """The operations behind `after`."""

    def file_requests(self) -> list[FileRequest]:
        """The files that belong to them."""

    def refusals(self) -> list[str]:
        """What the server has refused."""


class RunReader:
    """Turns the operations of one run into batches.

    Args:
        ref: the run.
        selection: which attributes are wanted.
        files: takes the run's files.
        findings: takes what cannot be carried over.
        path_map: where attached files have moved to.
        include_previews: whether points that were never final are wanted.
    """

    def __init__(
        self,
        ref: RunRef,
        selection: Selection,
        files: Files,
        findings: Findings,
        path_map: tuple[tuple[str, str], ...],
        *,
        include_previews: bool,
    ) -> None:
        self._ref, self._selection, self._findings = ref, selection, findings
        self._path_map, self._include_previews = path_map, include_previews
        self._transfer = Transfer(files, findings)
        self._created = Created()
        self._single = SingleValues()
        self._paths = {kind: self._paths_of(kind) for kind in ("float_series", "string_series", "histogram_series")}
        self._floats = self._rows("float_series", lambda values: pa.array(values, pa.float64()))
        self._strings = self._rows("string_series", rows.strings)
        self._histograms = self._rows("histogram_series", rows.histograms)
        self._file_paths = self._paths_of("file_series")
        self._file_rows = rows.SeriesRows(ref, "file_series", self._file_paths, rows.files)
        self._decoder = FloatDecoder(self._paths["float_series"])
        self._previews = Previews(self._paths["float_series"])
        self._attachments: list[Attachments] = []
        self._final_floats: set[int] = set()
        self._place = 0
        self._unparsable = 0
        self._unknown: Counter[str | None] = Counter()

    def _paths_of(self, kind: str) -> Paths:
        return Paths(lambda path: self._selection.wants(path, kind))

    def _rows(self, kind: str, to_array: Any) -> rows.SeriesRows:
        return rows.SeriesRows(self._ref, kind, self._paths[kind], to_array)

    def read(self, database: OperationLog, after: int = 0) -> Iterator[pa.RecordBatch]:
        """The series points of one store, from the operation behind `after`; stores in the order of their times."""
        attachments = Attachments(database.path, database.file_requests(), self._path_map)
        self._attachments.append(attachments)
        for block in database.blocks(after):
            yield from self._read_block(block, attachments)
        self._report_store(database)

    def _read_block(self, block: Block, attachments: Attachments) -> Iterator[pa.RecordBatch]:
        self._read_others(block.others)
        updates = block.updates
        if not updates:
            return
        places = range(self._place, self._place + len(updates))
        self._place += len(updates)
        decoded = self._decoder.decode(updates)
        for position in decoded.rest:
            yield from self._read_update(updates[position], places[position], attachments)
        self._previews.replace_block(decoded, places)
        for points in decoded.points:
            self._final_floats.update(points.codes.tolist())
        if decoded.singles is not None:
            self._final_floats.update(set(decoded.singles.codes.tolist()))
        yield from rows.point_batches(self._ref, self._paths["float_series"], decoded)

    def _read_others(self, operations: Iterable[tuple[int, bytes]]) -> None:
        for kind, blob in operations:
            if kind != CREATE:
                self._unknown[None] += 1
                continue
            try:
                self._created = self._created.joined(Created.from_message(CreateRun.FromString(blob)))
            except DecodeError:
                self._unparsable += 1

    def _read_update(self, blob: bytes, place: int, attachments: Attachments) -> Iterator[pa.RecordBatch]:
        try:
            snapshot = UpdateRunSnapshot.FromString(blob)
        except DecodeError:
            self._unparsable += 1
            return
        for path, value in snapshot.assign.items():
            if not self._single.assign(path, value, attachments):
                self._unknown[path] += 1
        for path, change in snapshot.modify_sets.items():
            if not self._single.modify(path, change):
                self._unknown[path] += 1
        if not snapshot.append:
            return
        step = micros_of_step(snapshot.step) if snapshot.HasField("step") else None
        time = millis_of_timestamp(snapshot.timestamp) if snapshot.HasField("timestamp") else None
        for path, value in snapshot.append.items():
            self._append(path, value, step, time, place=place, preview=snapshot.preview.is_preview, store=attachments)
        for series in (self._floats, self._strings, self._histograms, self._file_rows):
            if series.full:
                yield from series.take()

    def _append(
        self,
        path: str,
        value: Any,
        step: int | None,
        time: int | None,
        *,
        place: int,
        preview: bool,
        store: Attachments,
    ) -> None:
        kind = value.WhichOneof("value")
        if kind == "float64":
            self._append_float(path, value.float64, step, time, place=place, preview=preview)
        elif kind == "string":
            code = self._paths["string_series"].code(path)
            if code >= 0 and self._fits(path, "string_series", value.string, step, time):
                self._strings.add(code, step, time, value.string, len(value.string))
        elif kind == "histogram":
            self._append_histogram(path, value.histogram, step, time)
        elif kind == "file_ref":
            self._append_file(path, store.locate(value.file_ref.path, value.file_ref.size_bytes), step, time)
        else:
            self._unknown[path] += 1

    def _append_float(
        self, path: str, value: float, step: int | None, time: int | None, *, place: int, preview: bool
    ) -> None:
        code = self._paths["float_series"].code(path)
        if code < 0:
            return
        if preview:
            self._previews.add(step, code, place, time, value)
            return
        self._previews.replace(step, (code,), place)
        if self._fits(path, "float_series", repr(value), step, time):
            self._final_floats.add(code)
            self._floats.add(code, step, time, value)

    def _append_histogram(self, path: str, message: Any, step: int | None, time: int | None) -> None:
        code = self._paths["histogram_series"].code(path)
        if code < 0:
            return
        kind = message.WhichOneof("values")
        edges = list(message.bin_edges)
        heights = list(getattr(message, kind).values) if kind else []
        exact = {"type": kind, "edges": [repr(edge) for edge in edges], "values": [repr(h) for h in heights]}
        if kind is None or (kind == "counts" and any(count > _EXACT_IN_DOUBLE for count in heights)):
            self._outside(path, "histogram_series", "a count that a double does not hold exactly", exact, step, time)
        elif self._fits(path, "histogram_series", exact, step, time):
            name = "COUNTING" if kind == "counts" else "DENSITY"
            self._histograms.add(code, step, time, (name, edges, heights), 8 * (len(edges) + len(heights)))

    def _append_file(self, path: str, located: Located, step: int | None, time: int | None) -> None:
        code = self._file_paths.code(path)
        if code < 0:
            return
        stored = self._transfer.add(path, located, step)
        if stored is not None and self._fits(path, "file_series", stored, step, time):
            self._file_rows.add(code, step, time, stored, len(stored))

    def _fits(self, path: str, kind: str, value: Any, step: int | None, time: int | None) -> bool:
        """Whether the schema holds the step and time of a point; if not, the point is kept beside it."""
        if step is not None and step >= STEP_LIMIT_MICROS:
            self._outside(path, kind, "a step of 1e12 or more", value, step, time)
            return False
        if time is not None and not _EARLIEST <= time <= _LATEST:
            reason = f"a time outside the years 1 to 9999: {time} ms since the epoch"
            self._outside(path, kind, reason, value, step, None)
            return False
        return True

    def _outside(self, path: str, kind: str, reason: str, value: Any, step: int | None, time: int | None) -> None:
        in_range = time is not None and _EARLIEST <= time <= _LATEST
        when = utc(time).isoformat() if time is not None and in_range else None
        text = None if step is None else step_text(step)
        self._findings.outside(OutsideValue(path, kind, reason, value, text, when))

    def finish(self, *, partly_synced: bool) -> Iterator[pa.RecordBatch]:
        """What only the end of the last store decides. Then problems of the run as a whole are reported."""
        yield from self._finish_previews()
        yield from self.held_back()
        yield from self._finish_single_values(partly_synced=partly_synced)
        for attachments in self._attachments:
            for leftover in attachments.leftovers():
                if not any(other.uses(leftover) for other in self._attachments if other is not attachments):
                    yield from self._finish_leftover(leftover)
        yield from self._file_rows.take()
        self._report_operations()

    def held_back(self) -> Iterator[pa.RecordBatch]:
        """Series points that are waiting for their batch to fill, for those who follow a run while it is written."""
        for series in (self._floats, self._strings, self._histograms, self._file_rows):
            yield from series.take()

    def _finish_previews(self) -> Iterator[pa.RecordBatch]:
        if not len(self._previews):
            return
        if self._include_previews:
            for code, step, time, value in self._previews.left():
                path = self._paths["float_series"].names[code]
                if self._fits(path, "float_series", repr(value), step, time):
                    self._final_floats.add(code)
                    self._floats.add(code, step, time, value)
                if self._floats.full:
                    yield from self._floats.take()
            return
        for path in self._previews.by_path():
            if self._paths["float_series"].code(path) not in self._final_floats:
                self._findings.empty(path, "float_series")
        logger.info(
            "%s: %d points that were still previews are left out (--include-metric-previews exports them)",
            self._ref,
            len(self._previews),
        )

    def _finish_single_values(self, *, partly_synced: bool) -> Iterator[pa.RecordBatch]:
        values = self.single_values()
        yield from self.value_batches(values)
        if partly_synced:
            for path in sorted(self._single.relative_sets & values.keys()):
                if not self._selection.wants(path, "string_set"):
                    continue
                message = (
                    "The set was changed after a part of the log was synced: what else it holds is not known here."
                )
                self._findings.problem(Problem(message, path))

    def single_values(self) -> dict[str, tuple[str, Any]]:
        """Type and value of all single values as they are now; a set is a dict, a file `Located`."""
        values = {path: (kind, value) for path, kind, value in self._created.system_values(self._ref.run_id)}
        values.update(self._single.values)
        return values

    def value_batches(self, given: Mapping[str, tuple[str, Any]]) -> Iterator[pa.RecordBatch]:
        """Those of some single values that are selected."""
        values = dict(given)
        for path, (kind, value) in sorted(values.items()):
            if kind == "file":
                del values[path]
                if self._selection.wants(path, kind):
                    yield from self._file(path, value)
            elif not self._selection.wants(path, kind):
                del values[path]
            elif kind == "datetime" and not _EARLIEST <= value <= _LATEST:
                del values[path]
                self._outside(path, kind, "a time outside the years 1 to 9999", f"{value} ms", None, None)
        yield from rows.atom_batches(self._ref, values)

    def _file(self, path: str, located: Located) -> Iterator[pa.RecordBatch]:
        stored = self._transfer.add(path, located, None)
        if stored is not None:
            yield rows_batch(self._ref, path, "file", file_value=rows.files([stored]))

    def _finish_leftover(self, leftover: Leftover) -> Iterator[pa.RecordBatch]:
        """A file whose operation is gone: under its attribute path if that is known, else under a name that says so."""
        path, step = leftover.attribute, leftover.step
        if path is None:
            path = f"neptune_exporter/unreferenced_files/{leftover.located.name}"
            message = f"The file {leftover.located.name} was never uploaded, and nothing in the log says what it is."
            self._findings.problem(Problem(message, path))
        if step is None:
            if self._selection.wants(path, "file"):
                yield from self._file(path, leftover.located)
        else:
            code = self._file_paths.code(path)
            stored = self._transfer.add(path, leftover.located, step) if code >= 0 else None
            if stored is not None:
                self._file_rows.add(code, step, None, stored)

    def _report_store(self, database: OperationLog) -> None:
        name = database.path
        if database.lost or (database.damaged and database.ever is None):
            known = f"{database.lost:,} operations" if database.lost else "an unknown number of operations"
            message = f"{name} is damaged: {known} of {database.ever or 'an unknown number'} could not be read."
            self._findings.problem(Problem(message, count=max(1, database.lost)))
        if database.lost_transactions:
            message = f"The write-ahead log of {name} is damaged: {database.lost_transactions:,} transactions are lost."
            self._findings.problem(Problem(message, count=database.lost_transactions))
        for refusal in database.refusals():
            self._findings.problem(Problem(f"Neptune refused something that is no longer in {name}: {refusal}"))

    def _report_operations(self) -> None:
        if self._unparsable:
            message = f"{self._unparsable:,} operations are damaged and cannot be decoded."
            self._findings.problem(Problem(message, count=self._unparsable))
        for path, count in self._unknown.items():
            message = f"{count:,} values or operations are of a kind that this version does not know."
            self._findings.problem(Problem(message, path, count=count))
