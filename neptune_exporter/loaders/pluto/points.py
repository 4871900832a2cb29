# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which points of float series Pluto takes, and which it would not give back as they were.

Pluto keeps one point per metric and step: of several the one with the latest time. Steps and times are whole numbers
from 0 on, and JavaScript must be able to count them; values that JSON does not know stay out. So of the points that
share a step only the last is sent. It, and every point that it does not tell all of, is also kept exactly in the
run's `data.parquet`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neptune_exporter.loaders.pluto.config import LARGEST_INT
from neptune_exporter.loaders.steps import scale_steps
from neptune_exporter.model import MICRO, NO_VALUE, STEP_LIMIT_MICROS, Int64s

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
LAST_MS = 10_413_791_999_999  # the end of the year 2299, and of ClickHouse's times


class Points(NamedTuple):
    """Rows of float series.

    Attributes:
        series: a number for the attribute of each.
        micros: steps in micro-units, `NO_VALUE` for none.
        times: milliseconds, `NO_VALUE` for none.
        values: any.
    """

    series: npt.NDArray[np.int32]
    micros: Int64s
    times: Int64s
    values: Floats

    def where(self, chosen: Mask | Int64s | slice) -> Points:
        """Some of the points."""
        return Points(self.series[chosen], self.micros[chosen], self.times[chosen], self.values[chosen])

    def joined(self, other: Points) -> Points:
        """These points and then the others."""
        return Points(
            np.concatenate([self.series, other.series]),
            np.concatenate([self.micros, other.micros]),
            np.concatenate([self.times, other.times]),
            np.concatenate([self.values, other.values]),
        )

    def __bool__(self) -> bool:
        return len(self.series) > 0


class Images(NamedTuple):
    """What points become in Pluto.

    Attributes:
        steps: whole numbers.
        times: milliseconds.
        values: as they come back.
    """

    steps: Int64s
    times: Int64s
    values: Floats

    def where(self, chosen: Mask | Int64s) -> Images:
        """Some of them."""
        return Images(self.steps[chosen], self.times[chosen], self.values[chosen])


def images(points: Points, multiplier: int, start_ms: int) -> tuple[Images, Mask]:
    """What points become, and whether Pluto takes them at all.

    Args:
        points: in any order.
        multiplier: the step multiplier.
        start_ms: stands in for a missing time.
    """
    largest = min(LARGEST_INT // multiplier * MICRO, STEP_LIMIT_MICROS)
    known = (points.micros >= 0) & (points.micros <= largest)  # NO_VALUE is negative
    steps = scale_steps(np.where(known, points.micros, 0), multiplier)
    times = np.where(points.times == NO_VALUE, min(max(start_ms, 0), LAST_MS), points.times)
    takes = known & np.isfinite(points.values) & (times >= 0) & (times <= LAST_MS)
    return Images(steps, times, points.values + 0.0), takes


def come_back(points: Points) -> Mask:
    """Of points that Pluto takes: whether it tells all of them."""
    exact: Mask = (points.times != NO_VALUE) & ~((points.values == 0) & np.signbit(points.values))
    return exact


class StepByStep:
    """Finds the last point of each metric and step, over points that come in order of step and time.

    The points of the last step seen are held back, one per metric: the next ones may share it.
    """

    def __init__(self, multiplier: int, start_ms: int) -> None:
        self._multiplier, self._start_ms = multiplier, start_ms
        self._held: Points | None = None
        self._held_shared = np.empty(0, np.bool_)

    def split(self, points: Points) -> tuple[Points, Points]:
        """The points to send, in order, and those to keep exactly: of these and of earlier ones."""
        _, takes = images(points, self._multiplier, self._start_ms)
        outside = points.where(~takes)
        inside = points if takes.all() else points.where(takes)
        if not inside:
            return inside, outside
        before = 0 if self._held is None else len(self._held.series)
        together = inside if self._held is None else self._held.joined(inside)
        last, shared = _last_of_each(together.series, together.micros)
        shared[:before] |= self._held_shared
        done = together.micros != together.micros[-1]
        hold = last & ~done
        kept = (shared & ~hold) | (done & ~come_back(together))
        sent = together.where(last & done)
        self._held, self._held_shared = together.where(hold), shared[hold]
        return sent, outside.joined(together.where(kept)) if kept.any() else outside

    def finish(self) -> tuple[Points, Points] | None:
        """What was held back, likewise."""
        held = self._held
        if held is None:
            return None
        self._held = None
        return held, held.where(self._held_shared | ~come_back(held))


def _last_of_each(series: npt.NDArray[np.int32], micros: Int64s) -> tuple[Mask, Mask]:
    """Of points in order of steps: which is the last of its series and step, and which are not alone there."""
    number = np.zeros(len(micros), np.int64)
    np.cumsum(micros[1:] != micros[:-1], out=number[1:])
    key = number * (int(series.max()) + 1) + series
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    last, shared = np.ones(len(key), np.bool_), np.zeros(len(key), np.bool_)
    if same.any():
        last[order[:-1][same]] = False
        shared[order[:-1][same]] = shared[order[1:][same]] = True
    return last, shared
