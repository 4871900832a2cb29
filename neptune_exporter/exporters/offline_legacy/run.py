# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One run of the 1.x client: the operations of its stores, in order, as batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.exporters.float_steps import step_micros
from neptune_exporter.exporters.offline_legacy.attached import Attached, PathMap, step_of
from neptune_exporter.exporters.offline_legacy.fold import State
from neptune_exporter.exporters.offline_legacy.log import Health, Log
from neptune_exporter.exporters.offline_legacy.points import Points
from neptune_exporter.exporters.offline_scale.rows import atom_batches
from neptune_exporter.exporters.tracked_files import TrackedFiles
from neptune_exporter.model import MICRO, NO_VALUE, Int64s, OutsideValue, RunRef, codes_of, rows_batch, utc
from neptune_exporter.selection import Selection

BATCH_ROWS = 100_000
_STORE_BITS = 40  # versions of one store are below this many bits
_KINDS = {"LogFloats": ("float_series", "float_value"), "LogStrings": ("string_series", "string_value")}
_CREATED = "sys/creation_time"
_INT64 = range(-(2**63), 2**63)
_NOTHING = Decimal(-1)  # the step before the first one that the server counts


class RunReader:
    """Turns the stores of one run into batches.

    Args:
        ref: the run.
        container_id: as the client knows it.
        folders: its stores, in order.
        selection: which attributes are wanted.
        files: takes the run's files.
        findings: takes what cannot be carried over.
        path_map: where attached files have moved to.
        tracked: fetches what artifacts point at.
    """

    def __init__(
        self,
        ref: RunRef,
        container_id: str,
        folders: Sequence[Path],
        selection: Selection,
        files: Files,
        findings: Findings,
        path_map: PathMap,
        tracked: TrackedFiles,
    ) -> None:
        self._ref, self._selection, self._files, self._findings = ref, selection, files, findings
        self._folders = folders
        self._state = State(container_id)
        self._logs = [Log(folder) for folder in folders]
        self._attached = Attached(ref, files, findings, path_map, tracked)
        self._last_steps: dict[tuple[str, str], int | None] = {}
        self._has_points: set[tuple[str, str]] = set()

    @property
    def health(self) -> list[Health]:
        """What each log turned out to be; known when `batches` has ended."""
        return [log.health for log in self._logs]

    def batches(self, created: datetime | None, acknowledged: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """All selected rows of the run.

        Args:
            created: when the run was made, None if unknown.
            acknowledged: for each store, the last version that the server had confirmed.
        """
        for number, log in enumerate(self._logs):
            for record in log.decisions():
                self._state.apply(record, log.folder, number << _STORE_BITS | record.version)
        for kind in _KINDS:
            for number, log in enumerate(self._logs):
                for points in log.points(kind):
                    yield from self._series(kind, points, number)
        yield from self._images()
        yield from self._kept_files(acknowledged)
        yield from self._singles(created)
        self._report()

    # --- series

    def _series(self, kind: str, points: Points, store: int) -> Iterator[pa.RecordBatch]:
        """The points of a block that count, grouped by path."""
        series_type, column = _KINDS[kind]
        paths = points.paths.dictionary.to_pylist()
        codes = codes_of(points.paths)
        at = points.versions | (store << _STORE_BITS)
        cleared = np.array([self._state.cleared.get((path, series_type), -1) for path in paths], np.int64)
        wanted = np.array([self._selection.wants(path, series_type) for path in paths], np.bool_)
        rows = np.flatnonzero((at > cleared[codes]) & wanted[codes]) if len(codes) else np.empty(0, np.int64)
        rows = rows[np.argsort(codes[rows], kind="stable")]
        codes = codes[rows]
        micros, fits = step_micros(points.steps[rows])
        starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else np.empty(0, np.int64)
        for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(codes)][: len(starts)], strict=True):
            part = slice(first, end)
            name = (paths[int(codes[first])], series_type)
            self._has_points.add(name)
            self._count(name, points.steps[rows[part]], micros[part], fits[part])
        times = _millis(points.times[rows])
        values = points.values.take(pa.array(rows))
        values, fits = self._readable(series_type, paths, codes, micros, times, values, fits)
        keep = np.flatnonzero(fits)
        dictionary = pa.array(paths, pa.string())
        for start in range(0, len(keep), BATCH_ROWS):
            part_rows = keep[start : start + BATCH_ROWS]
            names = pa.DictionaryArray.from_arrays(pa.array(codes[part_rows], pa.int32()), dictionary)
            yield rows_batch(
                self._ref,
                names,
                series_type,
                step_micros=micros[part_rows],
                time_ms=times[part_rows],
                **{column: values.take(pa.array(part_rows))},
            )

    def _count(
        self, name: tuple[str, str], given: npt.NDArray[np.float64], micros: Int64s, fits: npt.NDArray[np.bool_]
    ) -> None:
        """Fills in the steps that the server was to count: one more than the one before, the first is 0."""
        index = np.arange(len(given))
        explicit = ~np.isnan(given)
        before = np.maximum.accumulate(np.where(explicit, index, -1))
        known = before >= 0
        carried = self._last_steps.get(name, -MICRO)
        base = np.where(known, micros[np.maximum(before, 0)], carried if carried is not None else 0)
        base_fits = np.where(known, fits[np.maximum(before, 0)], carried is not None)
        offset = np.where(known, index - before, index + 1)
        counted = ~explicit
        micros[counted] = base[counted] + offset[counted] * MICRO
        fits[counted] = base_fits[counted]
        self._last_steps[name] = int(micros[-1]) if fits[-1] else None

    def _readable(
        self,
        series_type: str,
        paths: Sequence[str],
        codes: npt.NDArray[np.int32],
        micros: Int64s,
        times: Int64s,
        values: pa.Array,
        fits: npt.NDArray[np.bool_],
    ) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
        """Takes out what the schema refuses: steps that do not fit, text that UTF-8 cannot hold."""
        refused = dict.fromkeys(np.flatnonzero(~fits).tolist(), "a step of 1e12 or more, or finer than 1e-6")
        if pa.types.is_binary(values.type):
            texts = [v.decode("utf-8", "surrogatepass") if v is not None else None for v in values.to_pylist()]
            for row, text in enumerate(texts):
                if text is not None and not _is_text(text):
                    refused.setdefault(row, "text with a lone surrogate")
            exact: Any = texts
            values = pa.array([None if row in refused else text for row, text in enumerate(texts)], pa.string())
        else:
            exact = values
        for row, reason in refused.items():
            value = exact[row].as_py() if isinstance(exact, pa.Array) else exact[row]
            value = repr(value) if isinstance(value, float) else value
            path, time = paths[int(codes[row])], None if times[row] == NO_VALUE else utc(int(times[row])).isoformat()
            step = None if not fits[row] else str(Decimal(int(micros[row])) / MICRO)
            self._findings.outside(OutsideValue(path, series_type, reason, value, step, time))
        missing = np.asarray(values.is_null()) & ~np.isin(np.arange(len(values)), list(refused))
        for row in np.flatnonzero(missing).tolist():
            self._findings.problem(Problem("A point without a value.", paths[int(codes[row])]))
        fits = fits.copy()
        fits[list(refused)] = False
        return values, fits & ~missing

    # --- images

    def _images(self) -> Iterator[pa.RecordBatch]:
        last: dict[str, Decimal] = {}
        for number, log in enumerate(self._logs):
            for record in log.images():
                path = record.path
                at = number << _STORE_BITS | record.version
                if not self._selection.wants(path, "file_series") or not self._state.counts(path, "file_series", at):
                    continue
                for point in record.detail.get("values", ()):
                    step = step_of(point.get("step"))
                    step = last.get(path, _NOTHING) + 1 if step is None else step
                    last[path] = step
                    self._has_points.add((path, "file_series"))
                    yield from self._image(path, step, point)

    def _image(self, path: str, step: Decimal, point: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        micros = step * MICRO
        image = point.get("value") or {}
        if micros != micros.to_integral_value() or abs(step) >= 10**12:
            exact = {"data": image.get("data"), "name": image.get("name"), "description": image.get("description")}
            reason = "a step of 1e12 or more, or finer than 1e-6"
            self._findings.outside(OutsideValue(path, "file_series", reason, exact, str(step)))
            return
        stored = self._attached.content(path, str(image.get("data") or ""), "image.png", step)
        if stored is not None:
            title = ": ".join(text for text in (image.get("name"), image.get("description")) if text)
            yield rows_batch(
                self._ref,
                path,
                "file_series",
                step_micros=np.array([int(micros)], np.int64),
                time_ms=np.array([round(point["ts"] * 1000)], np.int64),
                file_value=pa.StructArray.from_arrays([pa.array([stored], pa.string())], ["path"]),
                string_value=pa.array([title if title and _is_text(title) else None], pa.string()),
            )

    # --- the rest

    def _kept_files(self, acknowledged: Sequence[int]) -> Iterator[pa.RecordBatch]:
        state, wants = self._state, self._selection.wants
        for path, upload in sorted(state.files.items()):
            if wants(path, "file"):
                store, version = upload.at >> _STORE_BITS, upload.at & (1 << _STORE_BITS) - 1
                yield from self._attached.file(path, upload, synced=version <= acknowledged[store])
        for path, file_set in sorted(state.file_sets.items()):
            if wants(path, "file_set"):
                yield from self._attached.file_set(path, file_set)
        for path, artifact in sorted(state.artifacts.items()):
            if wants(path, "artifact"):
                yield from self._attached.artifact(path, artifact)
        if self._selection.whole_runs:
            for folder in self._folders:
                yield from self._attached.leftovers(folder)

    def _singles(self, created: datetime | None) -> Iterator[pa.RecordBatch]:
        values: dict[str, tuple[str, Any]] = {}
        for path, (kind, value) in self._state.values.items():
            if not self._selection.wants(path, kind):
                continue
            reason = _refusal(kind, value)
            if reason:
                exact = sorted(value) if isinstance(value, frozenset) else value
                self._findings.outside(OutsideValue(path, kind, reason, exact))
            else:
                values[path] = kind, float(value) if kind == "float" else value
        if created is not None and _CREATED not in values and self._selection.wants(_CREATED, "datetime"):
            values[_CREATED] = "datetime", round(created.timestamp() * 1000)
        yield from atom_batches(self._ref, values)

    def _report(self) -> None:
        state = self._state
        for path, kind in sorted(state.series - self._has_points):
            if self._selection.wants(path, kind):
                self._findings.empty(path, kind)
        for path, source in state.unresolved.items():
            if self._selection.wants_attribute(path):
                message = f"It was copied from {source}, whose value is not here."
                self._findings.problem(Problem(message, path))
        for kind, count in state.unknown.items():
            message = f"{count} operations of the type {kind}, which this version does not know."
            self._findings.problem(Problem(message, count=count))


def _millis(seconds: npt.NDArray[np.float64]) -> Int64s:
    """Times in milliseconds, `NO_VALUE` where the log has none."""
    given = np.isfinite(seconds)
    millis = np.full(len(seconds), NO_VALUE, np.int64)
    millis[given] = np.rint(seconds[given] * 1000.0).astype(np.int64)
    return millis


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(kind: str, value: Any) -> str:
    """Why the schema cannot hold a single value, or ""."""
    expected: dict[str, tuple[type, ...]] = {
        "float": (float, int),
        "int": (int,),
        "bool": (bool,),
        "string": (str,),
        "datetime": (int,),
        "string_set": (frozenset,),
    }
    if not isinstance(value, expected[kind]) or (isinstance(value, bool) and kind != "bool"):
        return f"the log holds no {kind}"
    if kind in ("int", "datetime") and value not in _INT64:
        return "a whole number of more than 64 bits"
    texts = [value] if isinstance(value, str) else value if isinstance(value, frozenset) else ()
    return "" if all(_is_text(text) for text in texts) else "text with a lone surrogate"
