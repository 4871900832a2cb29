# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""How a Neptune point looks in MLflow, and which points MLflow would not give back as they were.

MLflow's metric is (key, integer step, time in ms from 1970 on, finite value or NaN), a set: equal points become one.
The image of a point is what it becomes there. A point whose image does not tell all of it, and every point that
shares its image with another, is also kept exactly in the run's `data.parquet`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.loaders.steps import scale_steps
from neptune_exporter.model import NO_VALUE, Int64s, step_micros, time_millis

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_LARGEST = np.finfo(np.float64).max
_NAN_BITS = np.int64(0x7FF8000000000000)


class Points(NamedTuple):
    """Points of one metric as MLflow holds them.

    Attributes:
        steps: whole numbers.
        times: milliseconds, not negative.
        values: finite or NaN, no -0.0.
    """

    steps: Int64s
    times: Int64s
    values: Floats

    def where(self, mask: Mask | slice) -> Points:
        """Some of the points."""
        return Points(self.steps[mask], self.times[mask], self.values[mask])

    def joined(self, other: Points) -> Points:
        """These points and then the others."""
        return Points(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    @property
    def bits(self) -> Int64s:
        """The values as bits, one form of NaN: equal if and only if MLflow takes the values for equal."""
        return np.where(np.isnan(self.values), _NAN_BITS, (self.values + 0.0).view(np.int64))

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """A 64-bit hash per point."""
        mixed = np.zeros(len(self.steps), np.uint64)
        for part in (self.steps, self.times, self.bits):
            mixed = (mixed ^ part.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
        return mixed


def image(rows: pa.RecordBatch, multiplier: int, start_ms: int) -> tuple[Points, Mask]:
    """What rows of a float series become, and which of them come back from that exactly.

    Args:
        rows: in the fixed schema.
        multiplier: the step multiplier.
        start_ms: stands in for a missing time; 0 stands in for a missing step and for times before 1970.
    """
    micros, millis = step_micros(rows.column("step")), time_millis(rows.column("timestamp"))
    values = np.asarray(rows.column("float_value"))
    exact = (micros != NO_VALUE) & (millis >= 0) & ~np.isinf(values) & ~((values == 0) & np.signbit(values))
    steps = scale_steps(micros, multiplier)
    times = np.where(millis == NO_VALUE, max(start_ms, 0), np.maximum(millis, 0))
    points = Points(np.where(micros == NO_VALUE, 0, steps), times, np.clip(values, -_LARGEST, _LARGEST) + 0.0)
    return points, exact


class SharedImages:
    """Finds the points of one attribute that become one, over batches that come in order of their steps.

    Rows without a step come first and have the image of step 0, so those are kept in mind until step 0 has passed.
    """

    def __init__(self) -> None:
        self._points: Points | None = None
        self._rows: pa.RecordBatch | None = None
        self._kept: Mask = np.empty(0, np.bool_)
        self._awaits_zero = False

    def split(self, rows: pa.RecordBatch, points: Points, exact: Mask) -> tuple[Mask, list[pa.RecordBatch]]:
        """What to send and what to keep exactly.

        Args:
            rows: the next rows.
            points: their images.
            exact: whether a row comes back exactly from its image.

        Returns:
            Which of the rows to send, and rows (some of earlier batches) to keep exactly.
        """
        if self._cannot_repeat(points):
            send, keep, earlier = np.ones(len(exact), np.bool_), ~exact, None
        else:
            send, keep, earlier = self._compare(points, ~exact)
        kept = [rows.filter(pa.array(keep))] if keep.any() else []
        if earlier is not None and self._rows is not None and earlier.any():
            kept.insert(0, self._rows.filter(pa.array(earlier)))
            self._kept |= earlier
        self._remember(rows, points, keep)
        return send, kept

    def _cannot_repeat(self, points: Points) -> bool:
        if not np.all(points.steps[1:] > points.steps[:-1]):
            return False
        return self._points is None or bool(points.steps[0] > self._points.steps.max())

    def _compare(self, points: Points, keep: Mask) -> tuple[Mask, Mask, Mask | None]:
        before = 0 if self._points is None else len(self._points.steps)
        together = points if self._points is None else self._points.joined(points)
        order = np.lexsort((together.bits, together.times, together.steps))
        columns = [column[order] for column in (together.steps, together.times, together.bits)]
        same = np.zeros(len(order), np.bool_)
        same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
        repeated, shared = np.empty_like(same), np.empty_like(same)
        repeated[order] = same
        shared[order] = same | np.append(same[1:], False)
        return ~repeated[before:], keep | shared[before:], (shared[:before] & ~self._kept) if before else None

    def _remember(self, rows: pa.RecordBatch, points: Points, keep: Mask) -> None:
        last = points.steps[-1]
        self._awaits_zero |= bool(rows.column("step").null_count)
        self._awaits_zero &= bool(last <= 0)
        now = points.steps == last
        then = None if self._points is None else self._points.steps == last
        if self._awaits_zero:
            now |= points.steps == 0
            then = None if self._points is None or then is None else then | (self._points.steps == 0)
        if self._points is None or self._rows is None or then is None or not then.any():
            self._points, self._rows, self._kept = points.where(now), rows.filter(pa.array(now)), keep[now]
            return
        self._rows = pa.concat_batches([self._rows.filter(pa.array(then)), rows.filter(pa.array(now))])
        self._points = self._points.where(then).joined(points.where(now))
        self._kept = np.concatenate([self._kept[then], keep[now]])
