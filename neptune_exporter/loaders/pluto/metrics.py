# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The points of a metric as Pluto gives them back: by windows of steps, since it gives a sample of what is many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.attachments import AttributeRecord
from neptune_exporter.loaders.pluto.api import PAGE_POINTS, OpenRun, Pluto, millis
from neptune_exporter.loaders.pluto.config import LARGEST_INT
from neptune_exporter.loaders.pluto.points import Images, Mask, Points, images
from neptune_exporter.model import Int64s

SURE_POINTS = PAGE_POINTS // 2  # a sample of more points than a page holds at least half a page
WINDOW_POINTS = 4_000


def found_points(api: Pluto, run: OpenRun, record: AttributeRecord) -> Iterator[Images]:
    """All points of a metric, in order of steps, one per step: the one with the latest time."""
    whole = api.points(run, record.key)
    if len(whole) <= SURE_POINTS:
        yield _collapsed(whole)
        return
    share = max(1, WINDOW_POINTS * len(whole) // max(record.native, len(whole)))
    last = -1
    for cut in [*_steps(whole)[share - 1 :: share].tolist(), LARGEST_INT]:
        if cut > last:
            yield from _window(api, run, record.key, last + 1, cut)
            last = cut


def _window(api: Pluto, run: OpenRun, key: str, first: int, last: int) -> Iterator[Images]:
    found = api.points(run, key, first, last)
    steps = _steps(found)
    if len(steps) and (steps.min() < first or steps.max() > last):
        raise TargetError("The Pluto server does not give points by steps.", "Update the Pluto server.")
    if len(found) <= SURE_POINTS or first == last:
        yield _collapsed(found)
        return
    middle = int(np.median(steps))
    middle = min(max(middle, first), last - 1)
    yield from _window(api, run, key, first, middle)
    yield from _window(api, run, key, middle + 1, last)


def _steps(found: list[Any]) -> Int64s:
    return np.array([int(point["step"]) for point in found], np.int64)


def _collapsed(found: list[Any]) -> Images:
    """Points as numbers; of a step the one with the latest time, as Pluto draws them."""
    steps = _steps(found)
    times = np.array([millis(point["time"]) for point in found], np.int64)
    values = np.array([_value(point) for point in found], np.float64)
    order = np.lexsort((times, steps))
    steps = steps[order]
    last = np.append(steps[1:] != steps[:-1], True)[: len(steps)]
    chosen = order[last]
    return Images(steps[last], times[chosen], values[chosen])


def _value(point: dict[str, Any]) -> float:
    flag = str(point.get("valueFlag") or "")
    if flag:  # the value itself stands as 0 then
        return float(flag.replace("Infinity", "inf"))
    return float("nan") if point["value"] is None else float(point["value"])


class Expected:
    """What Pluto must hold at the steps of attached points: the image of the last that it takes of each step.

    Args:
        multiplier: the step multiplier.
        start_ms: stands in for missing times.
    """

    def __init__(self, multiplier: int, start_ms: int) -> None:
        self._multiplier, self._start_ms = multiplier, start_ms
        self._added: list[Images] = []
        self._sorted: Images | None = None
        self._held: Mask = np.empty(0, np.bool_)

    def add(self, points: Points) -> None:
        """Attached points, in the order in which they were attached."""
        shown, takes = images(points, self._multiplier, self._start_ms)
        self._added.append(shown.where(takes))

    def see(self, found: Images) -> Mask:
        """Which of the points that Pluto holds are images of attached ones; these count from now on."""
        wanted = self._wanted()
        if not len(wanted.steps):
            return np.zeros(len(found.steps), np.bool_)
        at = np.minimum(np.searchsorted(wanted.steps, found.steps), len(wanted.steps) - 1)
        same: Mask = (wanted.steps[at] == found.steps) & (wanted.times[at] == found.times)
        same &= wanted.values[at] == found.values
        self._held[at[same]] = True
        return same

    def held(self, points: Points) -> Mask:
        """Which attached points count: Pluto holds the image of their step, or does not take them."""
        shown, takes = images(points, self._multiplier, self._start_ms)
        wanted = self._wanted()
        if not len(wanted.steps):
            return ~takes
        at = np.minimum(np.searchsorted(wanted.steps, shown.steps), len(wanted.steps) - 1)
        holds: Mask = ~takes | self._held[at]
        return holds

    def _wanted(self) -> Images:
        if self._sorted is None:
            together = Images(
                np.concatenate([added.steps for added in self._added]),
                np.concatenate([added.times for added in self._added]),
                np.concatenate([added.values for added in self._added]),
            )
            order = np.argsort(together.steps, kind="stable")
            steps = together.steps[order]
            chosen = order[np.append(steps[1:] != steps[:-1], True)[: len(steps)]]
            self._sorted = together.where(chosen)
            self._held = np.zeros(len(chosen), np.bool_)
            self._added = []
        return self._sorted
