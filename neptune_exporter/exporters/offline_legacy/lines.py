# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Lines of a log: which operation each holds, without looking further into those that add points."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from neptune_exporter.model import Int64s

POINTS = ("LogFloats", "LogStrings", "LogImages")  # the operations that add points to series
_BEGIN = b'{"obj": {"type": "'  # of a record, as the client writes it
_POINT_BEGINS = tuple(_BEGIN + kind.encode() for kind in POINTS)
_RECORD = re.compile(rb'\{"obj":')  # as anybody may write it
_FILLING = b"\0 \r\n"  # what a crash leaves between records


class Record(NamedTuple):
    """One operation.

    Attributes:
        version: its number in the log.
        type: the name of the client's class.
        path: the attribute path.
        detail: everything that the client wrote of it.
    """

    version: int
    type: str
    path: str
    detail: dict[str, Any]


def parsed(text: bytes) -> Record | None:
    """The record that a text is, None if it is none."""
    try:
        value = json.loads(text, strict=False)
        detail = value["obj"]
        return Record(int(value["version"]), str(detail["type"]), "/".join(detail["path"]), detail)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def pieces_of(body: bytes) -> Iterator[bytes]:
    """What may be records in damaged lines: where one was torn, the next one follows on the same line."""
    for line in body.split(b"\n"):
        starts = [match.start() for match in _RECORD.finditer(line)]
        first = starts[0] if starts else len(line)
        if line[:first].strip(_FILLING):
            yield line[:first]
        for start, end in zip(starts, [*starts[1:], len(line)][: len(starts)], strict=True):
            yield line[start:end]


def adds_points(line: bytes) -> bool:
    """Whether a line begins like one that the client writes for points of a series."""
    return line.startswith(_POINT_BEGINS)


class Lines(NamedTuple):
    """Some whole lines of a log.

    Attributes:
        body: the lines, the last one without its end.
        starts: where each begins.
        kinds: index in `POINTS` of what each adds, -1 for any other operation.
        clean: whether each begins with a record, as the client writes it, and holds no other. If not, `kinds` is void.
    """

    body: bytes
    starts: Int64s
    kinds: Int64s
    clean: bool

    @classmethod
    def of(cls, body: bytes) -> Lines:
        """Looks at how each line begins."""
        starts = np.append(0, np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n")) + 1)
        kinds = np.full(len(starts), -1)
        if len(body) < 32 or body.count(_BEGIN) != len(starts):
            return cls(body, starts, kinds, clean=False)
        words = np.ndarray((len(body) - 7,), np.dtype("<u8"), buffer=body, strides=(1,))

        def words_at(offset: int) -> Any:
            return words[np.minimum(starts + offset, len(words) - 1)]

        # There are as many beginnings as lines, and each line has the first and last letters of one.
        clean = all(np.all(words_at(n) == np.frombuffer(_BEGIN[n : n + 8], "<u8")) for n in (0, len(_BEGIN) - 8))
        names = words_at(len(_BEGIN))
        for number, kind in enumerate(POINTS):
            found = names == np.frombuffer(kind[:8].encode(), "<u8")
            if found.any():
                found &= words_at(len(_BEGIN) + len(kind) - 7) == np.frombuffer(f'{kind[-7:]}"'.encode(), "<u8")
                kinds[found] = number
        return cls(body, starts, kinds, clean)

    def added(self) -> frozenset[str]:
        """To which kinds of series points are added."""
        return frozenset(kind for number, kind in enumerate(POINTS) if np.any(self.kinds == number))

    def texts(self, kind: str | None) -> list[bytes]:
        """The lines of one kind; with None those that add no points."""
        chosen = self._is(kind)
        ends = np.append(self.starts[1:] - 1, len(self.body))
        pairs = zip(self.starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
        return [self.body[start:end] for start, end in pairs]

    def only(self, kind: str) -> bytes:
        """The lines of one kind as a body of their own."""
        chosen = self._is(kind)
        if chosen.all():
            return self.body
        offsets = np.append(self.starts, len(self.body))
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.body)]
        lines = pa.Array.from_buffers(pa.large_binary(), len(chosen), buffers).filter(pa.array(chosen))
        size = int(np.frombuffer(lines.buffers()[1], np.int64)[len(lines)])
        return bytes(memoryview(lines.buffers()[2])[:size]).removesuffix(b"\n")

    def _is(self, kind: str | None) -> Any:
        return self.kinds == (-1 if kind is None else POINTS.index(kind))
