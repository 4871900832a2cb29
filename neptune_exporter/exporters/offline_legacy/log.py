# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The operation log of one execution of the 1.x client: JSON, one record a line, in files named by their first version.

Read twice: once for the few operations that decide what counts, once for the many points. Points are decoded without
Python touching them; a block that is not as expected goes through `json`, record by record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from neptune_exporter.model import Int64s

BLOCK_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20
_GLIMPSE_BYTES = 256 << 10
_SEGMENT = re.compile(r"data-(\d+)\.log")
_POINTS = {
    "LogFloats": (b'{"obj": {"type": "LogFloats"', pa.float64()),
    "LogStrings": (b'{"obj": {"type": "LogStrings"', pa.string()),
}
_RECORD = b'{"obj":'
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


class Points(NamedTuple):
    """Points of many series, in the order of the log.

    Attributes:
        paths: the attribute path of each, a dictionary array.
        versions: the version of the operation of each.
        steps: NaN where the server was to count.
        times: seconds since the epoch.
        values: an Arrow array.
    """

    paths: pa.DictionaryArray
    versions: Int64s
    steps: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]
    values: pa.Array


@dataclass
class Health:
    """What a log turned out to be.

    Attributes:
        count: records that were read.
        first: the first version, None without records.
        last: the last version.
        unreadable: lines, or parts of lines, that are no record.
        torn: whether the last line is cut off.
    """

    count: int = 0
    first: int | None = None
    last: int | None = None
    unreadable: int = 0
    torn: bool = False

    def saw(self, versions: Int64s) -> None:
        """Some records were read."""
        if len(versions):
            self.count += len(versions)
            low, high = int(versions.min()), int(versions.max())
            self.first = low if self.first is None else min(low, self.first)
            self.last = high if self.last is None else max(high, self.last)

    @property
    def holes(self) -> int:
        """How many versions between the first and the last are not there."""
        return 0 if self.first is None or self.last is None else max(self.last - self.first + 1 - self.count, 0)


def segments(folder: Path) -> list[Path]:
    """The files of a log, in order."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _SEGMENT.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


class Content(NamedTuple):
    """What is in some whole lines.

    Attributes:
        lines: how many they are.
        clean: whether each begins with a record and holds no other.
        only: the one kind of points that is all there is, "" if there is more.
    """

    lines: int
    clean: bool
    only: str

    @classmethod
    def of(cls, body: bytes) -> Content:
        """What is in `body`, which has no line end at its end. Counts bytes, which is far quicker than splitting."""
        lines = body.count(b"\n") + 1
        one_each = body.count(_RECORD) == lines
        for kind, (prefix, _) in _POINTS.items():
            if one_each and body.startswith(prefix) and body.count(b"\n" + prefix) == lines - 1:
                return cls(lines, clean=True, only=kind)
        begin = body.startswith(_RECORD) + body.count(b"\n" + _RECORD)
        return cls(lines, one_each and begin == lines, "")


class Block(NamedTuple):
    """Some whole lines of a log, without the last line end."""

    body: bytes
    content: Content

    def lines(self) -> list[bytes]:
        """The records; where one was torn, the next one follows on the same line."""
        lines = self.body.split(b"\n")
        return lines if self.content.clean else [piece for line in lines for piece in _pieces(line)]


@dataclass
class Log:
    """The log in one folder.

    Attributes:
        folder: where it is.
        health: filled while it is read.
    """

    folder: Path
    health: Health = field(default_factory=Health)
    _kinds: set[str] = field(default_factory=set)
    _contents: dict[tuple[Path, int, int], Content] = field(default_factory=dict)

    def decisions(self) -> Iterator[Record]:
        """All operations but points of float and string series, in order; to be read before these."""
        prefixes = tuple(prefix for prefix, _ in _POINTS.values())
        for block in self._blocks(first_time=True):
            if block.content.only:
                self._kinds.add(block.content.only)
                continue
            lines = block.lines()
            found = list(self._records(line for line in lines if not line.startswith(prefixes)))
            self._kinds.update(kind for kind, (prefix, _) in _POINTS.items() if prefix in block.body)
            self._kinds.update("LogImages" for record in found if record.type == "LogImages")
            self.health.saw(np.array([record.version for record in found], np.int64))
            yield from found

    def points(self, kind: str) -> Iterator[Points]:
        """The points of all series of one kind (`LogFloats` or `LogStrings`), block by block."""
        prefix, value_type = _POINTS[kind]
        for block in self._blocks() if kind in self._kinds else ():
            body = block.body
            if block.content.only != kind:
                lines = [] if block.content.only else [line for line in block.lines() if line.startswith(prefix)]
                if not lines:
                    continue
                body = b"\n".join(lines)
            versions, points = self._decode(body, value_type)
            self.health.saw(versions)
            yield points

    def glimpse(self) -> Iterator[Record]:
        """The operations near the beginning and the end: what tells of a run without reading it all."""
        found = segments(self.folder)
        for path in dict.fromkeys((*found[:1], *found[-1:])):
            with path.open("rb") as file:
                head = file.read(_GLIMPSE_BYTES)
                file.seek(max(path.stat().st_size - _GLIMPSE_BYTES, len(head)))
                for line in (head + b"\n" + file.read()).split(b"\n"):
                    record = _parsed(line)
                    if record is not None:
                        yield record

    def images(self) -> Iterator[Record]:
        """The operations that add to image series, in order."""
        prefix = b'{"obj": {"type": "LogImages"'
        for block in self._blocks() if "LogImages" in self._kinds else ():
            for line in block.lines():
                if line.startswith(prefix) and (record := _parsed(line)) is not None:
                    yield record

    def _blocks(self, *, first_time: bool = False) -> Iterator[Block]:
        for path in segments(self.folder):
            with path.open("rb") as file:
                rest = b""
                while chunk := file.read(BLOCK_BYTES):
                    cut = chunk.rfind(b"\n")
                    if cut < 0:
                        rest += chunk
                        continue
                    yield self._block(path, file.tell(), rest + chunk[:cut])
                    rest = chunk[cut + 1 :]
                *lines, end = [*_pieces(rest)] or [b""]
                if _parsed(end) is not None:
                    lines.append(end)
                elif end and first_time:
                    self.health.torn = True
                if lines:
                    yield self._block(path, file.tell(), b"\n".join(lines))

    def _block(self, path: Path, end: int, body: bytes) -> Block:
        """A block; a log only grows, so what was found in it the first time still holds."""
        key = (path, end, len(body))
        if key not in self._contents:
            self._contents[key] = Content.of(body)
        return Block(body, self._contents[key])

    def _records(self, lines: Iterable[bytes]) -> Iterator[Record]:
        for line in lines:
            record = _parsed(line)
            if record is not None:
                yield record
            elif line.strip(_FILLING):
                self.health.unreadable += 1

    def _decode(self, body: bytes, value_type: pa.DataType) -> tuple[Int64s, Points]:
        for piece_bytes in (_PIECE_BYTES, len(body) + 1):  # a record that is longer than a piece needs a larger one
            try:
                return _decode(body, value_type, piece_bytes)
            except (pa.ArrowInvalid, ValueError):
                continue
        return self._decode_slowly(body.split(b"\n"), value_type)

    def _decode_slowly(self, lines: list[bytes], value_type: pa.DataType) -> tuple[Int64s, Points]:
        records = list(self._records(lines))
        versions = np.array([record.version for record in records], np.int64)
        points = [(r.path, r.version, value) for r in records for value in r.detail.get("values", ())]
        steps = [np.nan if value.get("step") is None else float(value["step"]) for _, _, value in points]
        found = [value.get("value") for _, _, value in points]
        if pa.types.is_string(value_type):
            values = pa.array([None if v is None else v.encode("utf-8", "surrogatepass") for v in found], pa.binary())
        else:
            values = pa.array([None if v is None else float(v) for v in found], value_type)
        return versions, Points(
            pa.array([path for path, _, _ in points], pa.string()).dictionary_encode(),
            np.array([version for _, version, _ in points], np.int64),
            np.array(steps, np.float64),
            np.array([value["ts"] for _, _, value in points], np.float64),
            values,
        )


def _pieces(line: bytes) -> Iterator[bytes]:
    starts = [match.start() for match in re.finditer(re.escape(_RECORD), line)]
    if not starts:
        if line.strip(_FILLING):
            yield line
        return
    if line[: starts[0]].strip(_FILLING):
        yield line[: starts[0]]
    for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
        yield line[start:end]


def _parsed(line: bytes) -> Record | None:
    try:
        value = json.loads(line, strict=False)
        detail = value["obj"]
        return Record(int(value["version"]), str(detail["type"]), "/".join(detail["path"]), detail)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _decode(body: bytes, value_type: pa.DataType, piece_bytes: int) -> tuple[Int64s, Points]:
    """Decodes records of one kind; raises `ArrowInvalid` or ValueError if one of them is not as expected."""
    point = pa.struct([("value", value_type), ("step", pa.float64()), ("ts", pa.float64())])
    operation = pa.struct([("path", pa.list_(pa.string())), ("values", pa.list_(point))])
    table = pyarrow.json.read_json(
        pa.BufferReader(body),
        read_options=pyarrow.json.ReadOptions(block_size=piece_bytes),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([("obj", operation), ("version", pa.int64())]),
            unexpected_field_behavior="ignore",
        ),
    ).combine_chunks()
    if table.num_rows != body.count(b"\n") + 1:
        raise ValueError("a line that is no record")
    paths, lists = table.column("obj").combine_chunks().flatten()
    version_column = table.column("version").combine_chunks()
    if paths.null_count or lists.null_count or version_column.null_count:
        raise ValueError("a record without path, values or version")
    versions: Int64s = np.asarray(version_column)
    values, steps, times = lists.flatten().flatten()
    if times.null_count or values.null_count:
        raise ValueError("a point without time or value")
    counts = np.asarray(pc.list_value_length(lists))
    names = pc.binary_join(paths, "/").dictionary_encode()
    codes = np.repeat(np.asarray(names.indices), counts)
    filled = np.asarray(pc.fill_null(steps, float("nan")))
    return versions, Points(
        pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), names.dictionary),
        np.repeat(versions, counts),
        filled,
        np.asarray(times),
        values,
    )
