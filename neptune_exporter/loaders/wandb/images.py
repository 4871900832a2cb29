# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What rows become in W&B's history, so that a point there can be told to be the image of an attached row.

The image of a point is its key, its step and time as floating-point numbers, and its value: one form of NaN, 0.0 for
-0.0, and of a histogram its bins and edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.loaders.attachments import AttributeRecord
from neptune_exporter.loaders.wandb import names
from neptune_exporter.loaders.wandb.histograms import histogram_bytes, histogram_texts
from neptune_exporter.loaders.wandb.history import code_table, points_of
from neptune_exporter.model import MICRO, NO_VALUE, STEP_LIMIT_MICROS, Int64s, RunRef, codes_of, rows_batch

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_OWN_KEYS = frozenset({"_step", "_timestamp", "_runtime", names.STEP_KEY, "_wandb"})
_NAN_BITS = np.int64(0x7FF8000000000000)
_WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class HeldPoints(NamedTuple):
    """Points of the history.

    Attributes:
        codes: of their keys.
        steps: as numbers, NaN without one.
        seconds: their times.
        values: of floats; the hash of a histogram as bits.
        objects: what a value is that is no number; None for floats.
    """

    codes: Int64s
    steps: Floats
    seconds: Floats
    values: Floats
    objects: Sequence[Any]

    @property
    def hashes(self) -> Hashes:
        """A 64-bit hash per point."""
        mixed = np.zeros(len(self.codes), np.uint64)
        for part in (self.codes.astype(np.int64), _bits(self.steps), _bits(self.seconds), _bits(self.values)):
            mixed = (mixed ^ part.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
        return mixed

    def where(self, rows: Int64s) -> HeldPoints:
        """Some of the points."""
        objects = [self.objects[row] for row in rows.tolist()]
        return HeldPoints(self.codes[rows], self.steps[rows], self.seconds[rows], self.values[rows], objects)


class Images:
    """The images that the attached rows have; each is expected as often as there are rows with it.

    Args:
        codes: of the metrics, by path and type.
        start_ms: stands in for missing times.
    """

    def __init__(self, codes: Mapping[tuple[str, str], int], start_ms: int) -> None:
        self._codes = codes
        self._start_ms = start_ms
        self._parts: list[Hashes] = []
        self._expected: Hashes | None = None
        self._seen = np.empty(0, np.int64)

    def expect(self, rows: pa.RecordBatch) -> None:
        """Takes attached rows."""
        _, _, hashes = self._images(rows)
        self._parts.append(hashes)

    def without_expected(self, points: HeldPoints) -> HeldPoints:
        """The points that are no image of an attached row."""
        expected, count = self._table()
        if not len(expected):
            return points
        hashes = points.hashes
        order = np.argsort(hashes, kind="stable")
        position = np.minimum(np.searchsorted(expected, hashes[order]), len(expected) - 1)
        hit = expected[position] == hashes[order]
        # The n-th point with an image is an image only if n rows are still expected to have it.
        ordinal = np.arange(len(order)) - np.searchsorted(hashes[order], hashes[order])
        hit &= self._seen[position] + ordinal < count[position]
        np.add.at(self._seen, position[hit], 1)
        return points.where(np.sort(order[~hit]))

    def found(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Takes the attached rows again, once all of the history was seen.

        Returns:
            The rows of metrics that W&B holds the image of, or that never had one.
        """
        expected, _ = self._table()
        mine, has_image, hashes = self._images(rows)
        keep = mine & ~has_image
        positions = np.flatnonzero(has_image)
        if len(positions):
            where = np.searchsorted(expected, hashes)
            for row, at in zip(positions.tolist(), where.tolist(), strict=True):
                if self._seen[at] > 0:
                    self._seen[at] -= 1
                    keep[row] = True
        if keep.any():
            yield rows.filter(pa.array(keep))

    def _table(self) -> tuple[Hashes, Int64s]:
        if self._expected is None:
            together = np.concatenate(self._parts) if self._parts else np.empty(0, np.uint64)
            self._expected, self._count = np.unique(together, return_counts=True)
            self._seen = np.zeros(len(self._expected), np.int64)
            self._parts.clear()
        return self._expected, self._count

    def _images(self, rows: pa.RecordBatch) -> tuple[Any, Any, Hashes]:
        """Which rows are metrics, which of them have an image, and the hashes of these images."""
        table = code_table(rows, self._codes)
        codes = table[codes_of(rows.column("attribute_path")), codes_of(rows.column("attribute_type"))]
        mine = codes >= 0
        if not mine.any():
            return mine, mine, np.empty(0, np.uint64)
        texts, is_point = histogram_texts(rows)
        has_image = mine & is_point
        points = points_of(rows, table, texts).where(np.flatnonzero(has_image))
        values = points.values.copy()
        if points.texts.null_count < len(points.texts):
            histograms = rows.column("histogram_value").filter(pa.array(has_image))
            for row in np.flatnonzero(np.asarray(points.texts.is_valid())).tolist():
                one = histograms[row]
                values[row] = _hash_as_float(histogram_bytes(one["values"].as_py(), one["edges"].as_py()))
        steps = np.where(points.steps == NO_VALUE, np.nan, points.steps / MICRO)
        seconds = np.where(points.times == NO_VALUE, self._start_ms, points.times) / 1000
        held = HeldPoints(points.codes.astype(np.int64), steps, seconds, values, ())
        return mine, has_image, held.hashes


class RowReader:
    """Takes rows of the history apart, and makes Neptune's rows of them.

    Args:
        ref: the run.
        metrics: the metrics that were loaded, by code.
        start_ms: stands in for missing times.
    """

    def __init__(self, ref: RunRef, metrics: Sequence[AttributeRecord], start_ms: int) -> None:
        self._ref = ref
        self._names = [(record.path, record.type) for record in metrics]
        self._codes = {record.key: code for code, record in enumerate(metrics)}
        self._start_ms = start_ms

    def points(self, page: Sequence[Mapping[str, Any]]) -> Iterator[HeldPoints]:
        """The points of a page of rows."""
        codes: list[int] = []
        steps: list[float] = []
        seconds: list[float] = []
        values: list[float] = []
        objects: list[Any] = []
        for row in page:
            step, time = _number(row.get(names.STEP_KEY)), _number(row.get("_timestamp"))
            for key, value in row.items():
                if key in _OWN_KEYS:
                    continue
                codes.append(self._code_of(key, value))
                steps.append(step)
                seconds.append(time)
                number, other = _value(value)
                values.append(number)
                objects.append(other)
        if codes:
            yield HeldPoints(np.array(codes, np.int64), np.array(steps), np.array(seconds), np.array(values), objects)

    def batches(self, points: HeldPoints) -> Iterator[pa.RecordBatch]:
        """Points as rows of Neptune's, by key."""
        micros = _micros(points.steps)
        with np.errstate(invalid="ignore"):
            millis = np.where(np.isnan(points.seconds), NO_VALUE, np.rint(points.seconds * 1000)).astype(np.int64)
        for code in np.unique(points.codes).tolist():
            rows = np.flatnonzero(points.codes == code)
            path, kind = self._names[code]
            column = "float_value"
            values = pa.array(points.values[rows])
            if kind == "histogram_series" or any(points.objects[row] is not None for row in rows.tolist()):
                # Its row in data.parquet, which says what it counts, is missing or differs.
                kind, column = "string_series", "string_value"
                held = [points.objects[row] for row in rows.tolist()]
                shown = [str(v) if o is None else str(o) for v, o in zip(points.values[rows], held, strict=True)]
                values = pa.array(shown, pa.string())
            yield rows_batch(self._ref, path, kind, step_micros=micros[rows], time_ms=millis[rows], **{column: values})

    def _code_of(self, key: str, value: Any) -> int:
        if key not in self._codes:  # somebody has added it
            self._codes[key] = len(self._names)
            self._names.append((key, "string_series" if isinstance(value, str) else "float_series"))
        return self._codes[key]


def _value(value: Any) -> tuple[float, Any]:
    """A value of the history as a number, and as an object if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), None
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value], None
    if isinstance(value, dict) and value.get("_type") == "histogram":
        try:
            return _hash_as_float(histogram_bytes(value["values"], value["bins"])), value
        except (KeyError, TypeError, ValueError):
            return 0.0, value
    return 0.0, value


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _micros(steps: Floats) -> Int64s:
    with np.errstate(invalid="ignore", over="ignore"):
        inside = np.abs(steps) * MICRO < STEP_LIMIT_MICROS
        return np.where(inside, np.rint(np.where(inside, steps, 0.0) * MICRO), NO_VALUE).astype(np.int64)


def _hash_as_float(data: bytes) -> float:
    """A hash in the 52 bits of a number between 1 and 2."""
    number = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 12
    return 1.0 + number / 2**52


def _bits(values: Floats) -> Int64s:
    return np.where(np.isnan(values), _NAN_BITS, (values + 0.0).view(np.int64))
