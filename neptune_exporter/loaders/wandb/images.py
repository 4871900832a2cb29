# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What rows become in W&B's history, so that a point there can be told to be the image of an attached row.

The image of a point is its key, its step and time as floating-point numbers, and its value: one form of NaN, 0.0 for
-0.0, and of a histogram its bins and edges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.loaders.attachments import AttributeRecord
from neptune_exporter.loaders.wandb import names
from neptune_exporter.loaders.wandb.histograms import histogram_bytes, histogram_texts
from neptune_exporter.loaders.wandb.history import Points, code_table, points_of
from neptune_exporter.model import (
    MICRO,
    NO_VALUE,
    STEP_LIMIT_MICROS,
    Int64s,
    RunRef,
    codes_of,
    rows_batch,
    step_micros,
    time_millis,
)

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


class Expected:
    """Points that are expected, by their hashes, each as often as it was named.

    Args:
        parts: the hashes of all of them.
    """

    def __init__(self, parts: Sequence[Hashes]) -> None:
        together = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        self.hashes, self.count = np.unique(together, return_counts=True)
        self.seen = np.zeros(len(self.hashes), np.int64)

    def take(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which of these points are expected; they are so no more."""
        taken = np.zeros(len(hashes), np.bool_)
        if not len(self.hashes):
            return taken
        order = np.argsort(hashes, kind="stable")
        position = np.minimum(np.searchsorted(self.hashes, hashes[order]), len(self.hashes) - 1)
        hit = self.hashes[position] == hashes[order]
        # The n-th point with a hash is expected only if n of them are.
        ordinal = np.arange(len(order)) - np.searchsorted(hashes[order], hashes[order])
        hit &= self.seen[position] + ordinal < self.count[position]
        np.add.at(self.seen, position[hit], 1)
        taken[order[hit]] = True
        return taken


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
        self._expected: Expected | None = None

    def expect(self, rows: pa.RecordBatch) -> None:
        """Takes attached rows."""
        _, _, hashes = self._images(rows)
        self._parts.append(hashes)

    def without_expected(self, points: HeldPoints) -> HeldPoints:
        """The points that are no image of an attached row."""
        expected = self._table()
        return points.where(np.flatnonzero(~expected.take(points.hashes))) if len(expected.hashes) else points

    def found(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Takes the attached rows again, once all of the history was seen.

        Returns:
            The rows of metrics that W&B holds the image of, or that never had one.
        """
        expected = self._table()
        mine, has_image, hashes = self._images(rows)
        keep = mine & ~has_image
        positions = np.flatnonzero(has_image)
        if len(positions):
            where = np.searchsorted(expected.hashes, hashes)
            for row, at in zip(positions.tolist(), where.tolist(), strict=True):
                if expected.seen[at] > 0:
                    expected.seen[at] -= 1
                    keep[row] = True
        if keep.any():
            yield rows.filter(pa.array(keep))

    def _table(self) -> Expected:
        if self._expected is None:
            self._expected = Expected(self._parts)
            self._parts.clear()
        return self._expected

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
        return mine, has_image, hashes_of(points, self._start_ms)


def hashes_of(points: Points, start_ms: int) -> Hashes:
    """The hash of the image of each point.

    Args:
        points: histograms as JSON in their texts.
        start_ms: stands in for missing times.
    """
    values = points.values.copy()
    for row in np.flatnonzero(np.asarray(points.texts.is_valid())).tolist():
        values[row], _ = _value(json.loads(points.texts[row].as_py()))
    steps = np.where(points.steps == NO_VALUE, np.nan, points.steps / MICRO)
    seconds = np.where(points.times == NO_VALUE, start_ms, points.times) / 1000
    return HeldPoints(points.codes.astype(np.int64), steps, seconds, values, ()).hashes


class RowReader:
    """Takes rows of the history apart, and makes Neptune's rows of them.

    Args:
        ref: the run.
        metrics: the metrics that were loaded, by code.
        start_ms: stands in for missing times.
        shown: the files that are shown as images, audio or video.
    """

    def __init__(
        self, ref: RunRef, metrics: Sequence[AttributeRecord], start_ms: int, shown: ShownFiles | None = None
    ) -> None:
        self._ref = ref
        self._shown = shown
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
                if key in _OWN_KEYS or (self._shown is not None and self._shown.take(key, step, time, value)):
                    continue
                codes.append(self.code_of(key, value))
                steps.append(step)
                seconds.append(time)
                number, other = _value(value)
                values.append(number)
                objects.append(other)
        if codes:
            yield HeldPoints(np.array(codes, np.int64), np.array(steps), np.array(seconds), np.array(values), objects)

    @property
    def keys(self) -> list[str]:
        """Every key, by its code."""
        return list(self._codes)

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

    def code_of(self, key: str, value: Any = None) -> int:
        """The code of a key; one that was not known gets the next."""
        if key not in self._codes:  # somebody has added it
            self._codes[key] = len(self._names)
            self._names.append((key, "string_series" if isinstance(value, str) else "float_series"))
        return self._codes[key]


class ShownFiles:
    """The files of series that are shown as images, audio or video, each at its step and time.

    Args:
        start_ms: stands in for missing times.
    """

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._expected: dict[str, tuple[str, str]] = {}
        self._seen: dict[str, tuple[float, float]] = {}

    def expect(self, path: str, key: str, sha256: str) -> None:
        """A file that was shown under a key."""
        self._expected[path] = (key, sha256)

    def take(self, key: str, step: float, seconds: float, value: Any) -> bool:
        """Whether a value of the history is one of them; every one counts once."""
        path = value.get("path") if isinstance(value, dict) else None
        if path is None or path in self._seen or self._expected.get(path) != (key, value.get("sha256")):
            return False
        self._seen[path] = (step, seconds)
        return True

    def held(self, paths: Sequence[str], rows: pa.RecordBatch) -> Any:
        """Which rows of a file series W&B shows where they belong; those that it was not to show are all right.

        Args:
            paths: as which file each row is shown, "" for those that are not.
            rows: of the file series.
        """
        micros = step_micros(rows.column("step"))
        steps = np.where(micros == NO_VALUE, np.nan, micros / MICRO).tolist()
        millis = time_millis(rows.column("timestamp"))
        seconds = (np.where(millis == NO_VALUE, self._start_ms, millis) / 1000).tolist()
        nowhere = (float("inf"), float("inf"))
        return [
            not path or repr(self._seen.get(path, nowhere)) == repr((step, second))
            for path, step, second in zip(paths, steps, seconds, strict=True)
        ]


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
    if isinstance(value, dict) and isinstance(value.get("sha256"), str):
        return _hash_as_float(value["sha256"].encode()), value
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
