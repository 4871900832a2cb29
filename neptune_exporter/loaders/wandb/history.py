# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Points of all metrics of a run as rows of W&B's history: one per (step, timestamp), in ascending order.

W&B wants rows with a whole, increasing `_step` and drops what goes back. A row's `_step` is the Neptune step (times
the multiplier, rounded down) wherever that increases, else one more than the last; the exact step is `neptune_step`.
A key that comes twice at one step and time gets another row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.errors import TargetError
from neptune_exporter.model import MICRO, NO_VALUE, Int64s, codes_of, step_micros, time_millis

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

HISTOGRAM_BINS = 512
_LARGEST_STEP = 2**62


class Points(NamedTuple):
    """Points of a run's metrics, in order of (step, time, key).

    Attributes:
        steps: in micro-units, `NO_VALUE` without one.
        times: in milliseconds, `NO_VALUE` without one.
        codes: of their keys.
        values: of float series; NaN for histograms and media.
        texts: of histograms and media as JSON; null for floats.
    """

    steps: Int64s
    times: Int64s
    codes: Codes
    values: Floats
    texts: pa.Array

    def where(self, rows: slice | Int64s) -> Points:
        """Some of the points."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self.steps))
            texts = self.texts.slice(start, stop - start)
        else:
            texts = self.texts.take(pa.array(rows))
        return Points(self.steps[rows], self.times[rows], self.codes[rows], self.values[rows], texts)

    def joined(self, other: Points) -> Points:
        """These points and then the others."""
        return Points(
            np.concatenate((self.steps, other.steps)),
            np.concatenate((self.times, other.times)),
            np.concatenate((self.codes, other.codes)),
            np.concatenate((self.values, other.values)),
            pa.concat_arrays([self.texts, other.texts]),
        )


def in_order(parts: Sequence[Points]) -> Points:
    """Points of several origins, each in order of (step, time, key), as one such list."""
    together = parts[0]
    for part in parts[1:]:
        together = together.joined(part)
    if len(parts) == 1:
        return together
    return together.where(np.lexsort((together.codes, together.times, together.steps)))


class Rows(NamedTuple):
    """Rows of the history.

    Attributes:
        first: the number of the first row within the run.
        starts: where in `points` each row starts, and after the last one where it ends.
        numbers: each row's `_step`.
        points: their values.
    """

    first: int
    starts: Int64s
    numbers: Int64s
    points: Points

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def steps(self) -> Int64s:
        """Each row's step in micro-units."""
        return self.points.steps[self.starts[:-1]]

    @property
    def times(self) -> Int64s:
        """Each row's time in milliseconds."""
        return self.points.times[self.starts[:-1]]

    def after(self, count: int) -> Rows:
        """Without the rows whose number is below `count`."""
        skip = min(max(count - self.first, 0), len(self))
        if not skip:
            return self
        start = int(self.starts[skip])
        return Rows(
            self.first + skip, self.starts[skip:] - start, self.numbers[skip:], self.points.where(slice(start, None))
        )


def last_texts(codes: Codes, texts: pa.Array, keys: Sequence[str]) -> dict[str, str]:
    """The last value of each key that points have.

    Args:
        codes: the key of each point, by its number.
        texts: their values.
        keys: all keys.
    """
    last = np.full(len(keys), -1, np.int64)
    last[codes] = np.arange(len(codes))
    present = np.flatnonzero(last >= 0)
    values = texts.take(pa.array(last[present])).to_pylist()
    return dict(zip((keys[code] for code in present.tolist()), values, strict=True))


class RowBuilder:
    """Groups points into rows; what may continue in the next batch waits.

    Args:
        multiplier: what steps are multiplied with to give `_step`.
        first: the lowest `_step`.
    """

    def __init__(self, multiplier: int, first: int = 0) -> None:
        self._multiplier = multiplier
        self._tail: Points | None = None
        self._next_step = first
        self.count = 0

    def add(self, points: Points) -> Rows | None:
        """Takes points in order and gives the rows that are complete."""
        if not len(points.steps):
            return None
        if self._tail is not None:
            points = self._tail.joined(points)
        last = (points.steps == points.steps[-1]) & (points.times == points.times[-1])
        complete = int(np.flatnonzero(~last)[-1]) + 1 if not last.all() else 0
        self._tail = points.where(slice(complete, None))
        return self._rows(points.where(slice(0, complete))) if complete else None

    def finish(self) -> Rows | None:
        """The rows that waited."""
        points, self._tail = self._tail, None
        return None if points is None else self._rows(points)

    def _rows(self, points: Points) -> Rows:
        new = _changes(points.steps, points.times)
        repeated = ~new & ~_changes(points.codes)
        if repeated.any():
            points, new = _spread(points, new, repeated)
        starts = np.flatnonzero(new)
        numbers = self._numbers(points.steps[starts])
        rows = Rows(self.count, np.append(starts, len(points.steps)), numbers, points)
        self.count += len(rows)
        self._next_step = int(numbers[-1]) + 1
        return rows

    def _numbers(self, micros: Int64s) -> Int64s:
        whole, part = np.divmod(np.where(micros == NO_VALUE, 0, micros), MICRO)
        if (int(np.abs(whole).max()) + 1) * self._multiplier >= _LARGEST_STEP:
            raise TargetError(
                f"Steps times {self._multiplier} do not fit 64 bits.", "Use a smaller --step-multiplier, or auto."
            )
        wanted = np.maximum(whole * self._multiplier + part * self._multiplier // MICRO, 0)
        wanted[0] = max(int(wanted[0]), self._next_step)
        count = np.arange(len(wanted))
        numbers: Int64s = np.maximum.accumulate(wanted - count) + count
        return numbers


def _changes(*columns: npt.NDArray[Any]) -> Mask:
    """Where any of the columns differs from the row before."""
    changed = np.ones(len(columns[0]), np.bool_)
    changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changed


def _spread(points: Points, new: Mask, repeated: Mask) -> tuple[Points, Mask]:
    """Orders points so that the n-th occurrence of each key at one step and time is in the n-th row there."""
    position = np.arange(len(repeated))
    first = np.maximum.accumulate(np.where(repeated, 0, position))
    occurrence = position - first
    group = np.cumsum(new)
    order = np.lexsort((occurrence, group))
    return points.where(order), _changes(group[order], occurrence[order])


def points_of(batch: pa.RecordBatch, table: npt.NDArray[np.int32], texts: pa.Array) -> Points:
    """The points of a batch in which every row is one.

    Args:
        batch: rows of float and histogram series, in order of (step, time, path, type).
        table: the code of the key for each code of path and type.
        texts: histograms as JSON, null for floats.
    """
    values = np.asarray(batch.column("float_value").fill_null(np.nan))
    codes = table[codes_of(batch.column("attribute_path")), codes_of(batch.column("attribute_type"))]
    return Points(
        step_micros(batch.column("step")),
        time_millis(batch.column("timestamp")),
        codes,
        values.astype(np.float64),
        texts,
    )


def code_table(batch: pa.RecordBatch, codes: Mapping[tuple[str, str], int]) -> npt.NDArray[np.int32]:
    """The code of every attribute of a batch by its codes of path and type; -1 for what has none."""
    paths = batch.column("attribute_path").dictionary.to_pylist()
    types = batch.column("attribute_type").dictionary.to_pylist()
    return np.array([[codes.get((path, kind), -1) for kind in types] for path in paths], np.int32).reshape(
        len(paths), len(types)
    )


def exact(points: Points) -> Mask:
    """Which points come back from the history as they were.

    The step travels as a decimal number of at most 15 digits, the time in seconds; what is not finite, and -0.0,
    the servers do not keep alike.
    """
    steps, times, values = points.steps, points.times, points.values
    with np.errstate(invalid="ignore", over="ignore"):
        step_held = (steps != NO_VALUE) & (np.rint(steps / MICRO * MICRO) == steps) & (np.abs(steps) < 10**15)
        time_held = (times > 0) & (times < 10**14)
        value_held = np.isfinite(values) & ~((values == 0) & np.signbit(values))
    held: Mask = step_held & time_held & value_held
    return held
