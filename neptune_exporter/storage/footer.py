# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a Parquet footer says of its columns, read without Arrow.

Arrow ends the whole process when it is asked for the columns of a footer that was damaged; here that is an error like
any other. A footer is one struct in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"PAR1"
_DEEPEST = 32
_BYTE_ARRAY = 6
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """One column of a row group.

    Attributes:
        bytes: its bytes on disk.
        nulls: how many nulls it has, None where that is not said.
        text: whether it holds texts.
        uncompressed: its bytes as it was encoded.
        decoded: the most bytes that its values can take in memory.
    """

    bytes: int
    nulls: int | None
    text: bool
    uncompressed: int
    decoded: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group: how many rows it has, and its columns by path."""

    rows: int
    columns: Mapping[str, ColumnChunk]


def read_footer(file: BinaryIO) -> list[RowGroup]:
    """The row groups of a Parquet file that is open for reading. Raises `ValueError` if it has no footer."""
    size = file.seek(0, 2)
    file.seek(max(size - 8, 0))
    length, magic = struct.unpack("<I4s", file.read(8).rjust(8, b"\0"))
    if magic != MAGIC or length + 12 > size:
        raise ValueError("it has no Parquet footer")
    file.seek(size - 8 - length)
    try:
        return [_row_group(group) for group in _Compact(file.read(length)).fields()[4]]
    except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"its Parquet footer is damaged ({type(error).__name__})") from error


def _row_group(group: Mapping[int, Any]) -> RowGroup:
    columns = {}
    for chunk in group[1]:
        about = chunk[3]
        path = ".".join(name.decode("utf-8") for name in about[3])
        nulls = about.get(12, {}).get(3)
        nulls = None if nulls is None else _count(nulls)
        text, uncompressed = about[1] == _BYTE_ARRAY, _count(about[6])
        columns[path] = ColumnChunk(_count(about[7]), nulls, text, uncompressed, _decoded(about, nulls or 0))
    return RowGroup(_count(group[3]), columns)


def _decoded(about: Mapping[int, Any], nulls: int) -> int:
    present = max(_count(about[5]) - nulls, 0)
    if about[1] != _BYTE_ARRAY:
        return 8 * present
    said = about.get(16, {}).get(1)  # newer writers say how long all texts are
    return _count(about[6]) * present if said is None else _count(said)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("its Parquet footer is damaged (a count is none)")
    return value


class _Compact:
    """Values in Thrift's compact protocol; every length is checked against what is there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fields(self, depth: int = 0) -> dict[int, Any]:
        """A struct as its fields by number."""
        if depth > _DEEPEST:
            raise ValueError("its Parquet footer is nested too deep")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            return self._values([head & 15], self._varint() if head >> 4 == 15 else head >> 4, depth)
        if kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            return self._values([kinds >> 4, kinds & 15], size, depth)
        if kind == _STRUCT:
            return self.fields(depth + 1)
        raise ValueError("its Parquet footer is damaged (an unknown type)")

    def _values(self, kinds: list[int], size: int, depth: int) -> list[Any]:
        if size > len(self._data) - self._at or depth > _DEEPEST:
            raise ValueError("its Parquet footer is damaged (a list is too long)")
        return [self._value(kind, depth + 1) for _ in range(size) for kind in kinds]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("its Parquet footer is damaged (a text is too long)")
        self._at += size
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("its Parquet footer is damaged (a number is too long)")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
