# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that were found one by one, as Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.exporters.offline_scale.columns import Block, Paths
from neptune_exporter.model import HISTOGRAM_TYPE, NO_VALUE, VALUE_COLUMN, Int64s, RunRef, rows_batch, time_array

BATCH_ROWS = 100_000
BATCH_BYTES = 8 * 2**20


def micros_or_null(values: Sequence[int | None]) -> Int64s:
    """Steps or times as an array, `NO_VALUE` for None."""
    return np.array([NO_VALUE if value is None else value for value in values], np.int64)


class SeriesRows:
    """Collects rows of one series type until there are enough for a batch.

    Args:
        ref: the run.
        attribute_type: the type of all rows.
        paths: gives the codes.
        to_array: makes the value column.
    """

    def __init__(
        self, ref: RunRef, attribute_type: str, paths: Paths, to_array: Callable[[list[Any]], pa.Array]
    ) -> None:
        self._ref, self._type, self._paths, self._to_array = ref, attribute_type, paths, to_array
        self._clear()

    def _clear(self) -> None:
        self._codes: list[int] = []
        self._steps: list[int | None] = []
        self._times: list[int | None] = []
        self._values: list[Any] = []
        self._bytes = 0

    def add(self, code: int, step: int | None, time: int | None, value: Any, size: int = 8) -> None:
        """One row; `size` is about how many bytes the value takes."""
        self._codes.append(code)
        self._steps.append(step)
        self._times.append(time)
        self._values.append(value)
        self._bytes += size

    @property
    def full(self) -> bool:
        """Whether it is time to `take`."""
        return len(self._codes) >= BATCH_ROWS or self._bytes >= BATCH_BYTES

    def take(self) -> Iterator[pa.RecordBatch]:
        """What was collected, as at most one batch."""
        if not self._codes:
            return
        batch = rows_batch(
            self._ref,
            self._paths.column(np.array(self._codes, np.int32)),
            self._type,
            step_micros=micros_or_null(self._steps),
            time_ms=micros_or_null(self._times),
            **{VALUE_COLUMN[self._type]: self._to_array(self._values)},
        )
        self._clear()
        yield batch


def strings(values: list[str]) -> pa.Array:
    """A string column."""
    return pa.array(values, pa.string())


def histograms(values: list[tuple[str, list[float], list[float]]]) -> pa.Array:
    """A histogram column from type, edges and values of each."""
    kinds, edges, heights = zip(*values, strict=True)
    columns = [strings(list(kinds)), _lists(edges), _lists(heights)]
    return pa.StructArray.from_arrays(columns, fields=list(HISTOGRAM_TYPE))


def _lists(values: Sequence[list[float]]) -> pa.Array:
    offsets = np.concatenate(([0], np.cumsum([len(value) for value in values]))).astype(np.int32)
    flat = np.array([number for value in values for number in value], np.float64)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def files(values: list[str]) -> pa.Array:
    """A file column from the paths that the storage gave."""
    return pa.StructArray.from_arrays([strings(values)], ["path"])


def point_batches(ref: RunRef, paths: Paths, block: Block) -> Iterator[pa.RecordBatch]:
    """The float points of a decoded block."""
    codes, steps, times, values = [], [], [], []
    for points in block.points:
        k, m = points.values.shape
        codes.append(np.repeat(points.codes, m))
        steps.append(np.tile(points.steps, k))
        times.append(np.tile(points.times, k))
        values.append(points.values.reshape(-1))
    if block.singles is not None and len(block.singles.codes):
        single = block.singles
        codes.append(single.codes)
        steps.append(single.steps)
        times.append(single.times)
        values.append(single.values)
    if not codes:
        return
    all_codes, all_steps = np.concatenate(codes), np.concatenate(steps)
    all_times, all_values = np.concatenate(times), np.concatenate(values)
    for start in range(0, len(all_codes), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        yield rows_batch(
            ref,
            paths.column(all_codes[part]),
            "float_series",
            step_micros=all_steps[part],
            time_ms=all_times[part],
            float_value=pa.array(all_values[part]),
        )


_ATOM_ARRAYS: dict[str, Callable[[list[Any]], pa.Array]] = {
    "float": lambda values: pa.array(values, pa.float64()),
    "int": lambda values: pa.array(values, pa.int64()),
    "bool": lambda values: pa.array(values, pa.bool_()),
    "string": strings,
    "datetime": lambda values: time_array(np.array(values, np.int64)),
    "string_set": lambda values: pa.array([sorted(value) for value in values], pa.list_(pa.string())),
}


def atom_batches(ref: RunRef, values: Mapping[str, tuple[str, Any]]) -> Iterator[pa.RecordBatch]:
    """Single values by path, as batches of bounded size."""
    by_type: dict[str, dict[str, Any]] = {}
    for path, (kind, value) in sorted(values.items()):
        by_type.setdefault(kind, {})[path] = value
    for kind, of_kind in by_type.items():
        for part in _parts(of_kind):
            column = _ATOM_ARRAYS[kind]([of_kind[path] for path in part])
            yield rows_batch(ref, strings(part), kind, **{VALUE_COLUMN[kind]: column})


def _parts(values: Mapping[str, Any]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for path, value in values.items():
        part.append(path)
        size += len(value) if isinstance(value, str) else 8
        if len(part) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
