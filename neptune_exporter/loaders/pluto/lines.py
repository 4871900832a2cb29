# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The lines of JSON that Pluto takes, made a column at a time, and their way into requests of a modest size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.loaders.pluto.points import Images
from neptune_exporter.model import Int64s

LINES = 4_000
LINES_BYTES = 2 << 20


def metric_prefixes(keys: Sequence[str]) -> pa.StringArray:
    """What stands before the value of each metric in a line."""
    return pa.array([json.dumps(key) + ":" for key in keys], pa.string())


def metric_lines(points: Images, prefixes: pa.Array) -> tuple[pa.Array, Int64s]:
    """One line for the points that share a step and a time, in order.

    Args:
        points: finite ones, sorted by step and time; no metric twice at a step.
        prefixes: of each point, from `metric_prefixes`.

    Returns:
        The lines, and how many points each holds.
    """
    steps, times = points.steps, points.times
    starts = np.flatnonzero(np.append(True, (steps[1:] != steps[:-1]) | (times[1:] != times[:-1])))
    ends = np.append(starts[1:], len(steps))
    values = pc.cast(pa.array(points.values), pa.string())
    pairs = pc.binary_join_element_wise(prefixes, values, "")
    offsets = pa.array(np.append(starts, len(steps)).astype(np.int32))
    inside = pc.binary_join(pa.ListArray.from_arrays(offsets, pairs), ",")
    lines = _joined('{"time":', _text(times[starts]), ',"step":', _text(steps[starts]), ',"data":{', inside, "}}\n")
    return lines, ends - starts


def data_lines(name: str, kind: str, steps: Int64s, times: Int64s, data: pa.Array) -> pa.Array:
    """One line for each row of a series.

    Args:
        name: the log name.
        kind: the data type, as Pluto spells it.
        steps: whole numbers.
        times: milliseconds.
        data: texts.
    """
    tail = f',"dataType":{json.dumps(kind)},"logName":{json.dumps(name)},"data":'
    return _joined('{"time":', _text(times), ',"step":', _text(steps), tail, quoted(data), "}\n")


def console_lines(kind: str, times: Int64s, numbers: Int64s, messages: pa.Array) -> pa.Array:
    """One line for each line of a console log."""
    tail = f',"logType":{json.dumps(kind)},"message":'
    return _joined('{"time":', _text(times), ',"lineNumber":', _text(numbers), tail, quoted(messages), "}\n")


def quoted(texts: pa.Array) -> pa.Array:
    """Texts as JSON strings."""
    encoded = texts.dictionary_encode()
    return pa.array(list(map(json.dumps, encoded.dictionary.to_pylist())), pa.string()).take(encoded.indices)


class Bodies:
    """Gathers lines into requests.

    Args:
        send: takes a request's content and how many records it holds.
    """

    def __init__(self, send: Callable[[bytes, int], None]) -> None:
        self._send = send
        self._parts: list[pa.Buffer] = []
        self._lines = self._bytes = self._records = 0

    def add(self, lines: pa.Array, records: Int64s | None = None) -> None:
        """Takes lines, and how many records each holds: one if that is not said."""
        offsets, data = _layout(lines)
        total = np.append(0, np.cumsum(records)) if records is not None else np.arange(len(lines) + 1)
        start = 0
        while start < len(lines):
            room = int(offsets[start]) + LINES_BYTES - self._bytes
            end = min(int(np.searchsorted(offsets, room, "right")) - 1, start + LINES - self._lines, len(lines))
            end = max(end, start if self._lines else start + 1)  # one line goes whatever its size
            self._parts.append(data.slice(int(offsets[start]), int(offsets[end] - offsets[start])))
            self._lines += end - start
            self._bytes += int(offsets[end] - offsets[start])
            self._records += int(total[end] - total[start])
            start = end
            if start < len(lines):
                self.flush()

    def flush(self) -> None:
        """Sends what is there."""
        if self._lines:
            self._send(b"".join(self._parts), self._records)
        self._parts = []
        self._lines = self._bytes = self._records = 0


def _layout(lines: pa.Array) -> tuple[npt.NDArray[np.int32], pa.Buffer]:
    """The offsets of texts and the bytes that they count."""
    _, offsets, data = lines.buffers()
    return np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1], data


def _text(numbers: Int64s) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _joined(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
