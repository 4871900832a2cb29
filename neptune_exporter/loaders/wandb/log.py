# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""W&B's transaction log: protobuf records in LevelDB's log framing, as `wandb sync` reads it.

A file begins with `:W&B`, the magic 0xBEE1 and version 0; then come blocks of 32 KiB. A record that does not fit
the rest of a block is cut. Each piece has a header: CRC-32 of type and content, length, and type (1 whole, 2 first,
3 middle, 4 last). Numbers of fields are those of `wandb_internal.proto`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

HEADER = b":W&B\xe1\xbe\x00"
BLOCK_BYTES = 32 * 1024
_PIECE = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_CRC_OF = {kind: zlib.crc32(bytes([kind])) for kind in (_WHOLE, _FIRST, _MIDDLE, _LAST)}
_LENGTH_DELIMITED = 2


class LogFile:
    """Writes a log.

    Args:
        path: a file that does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb", buffering=1 << 20)
        self._file.write(HEADER)
        self._room = BLOCK_BYTES - len(HEADER)

    def write(self, record: bytes) -> None:
        """Appends a record."""
        length = len(record)
        if _PIECE.size + length <= self._room:
            crc = zlib.crc32(record, _CRC_OF[_WHOLE])
            self._file.write(_PIECE.pack(crc, length, _WHOLE) + record)
            self._room -= _PIECE.size + length
        else:
            self._write_pieces(memoryview(record))

    def _write_pieces(self, rest: memoryview) -> None:
        first = True
        while True:
            if self._room < _PIECE.size:
                self._file.write(b"\0" * self._room)
                self._room = BLOCK_BYTES
            piece, rest = rest[: self._room - _PIECE.size], rest[self._room - _PIECE.size :]
            kind = (_FIRST if rest else _WHOLE) if first else (_MIDDLE if rest else _LAST)
            self._file.write(_PIECE.pack(zlib.crc32(piece, _CRC_OF[kind]), len(piece), kind))
            self._file.write(piece)
            self._room -= _PIECE.size + len(piece)
            first = False
            if not rest:
                return

    def close(self) -> None:
        """Completes the file."""
        self._file.close()


def records(path: Path) -> Iterator[bytes]:
    """The records of a log.

    Raises:
        ValueError: it is no log, or damaged.
    """
    with path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise ValueError(f"{path} is not a W&B log")
        parts: list[bytes] = []
        room = BLOCK_BYTES - len(HEADER)
        while True:
            if room < _PIECE.size:
                file.read(room)
                room = BLOCK_BYTES
            header = file.read(_PIECE.size)
            if not header:
                break
            crc, length, kind = _PIECE.unpack(header.ljust(_PIECE.size, b"\0"))
            content = file.read(length)
            if kind not in _CRC_OF or len(content) != length or zlib.crc32(content, _CRC_OF[kind]) != crc:
                raise ValueError(f"{path} is damaged before byte {file.tell()}")
            room -= _PIECE.size + length
            parts.append(content)
            if kind in (_WHOLE, _LAST):
                yield b"".join(parts)
                parts.clear()
        if parts:
            raise ValueError(f"{path} is cut short")


# --- protobuf


def varint(number: int) -> bytes:
    """A number of at most 64 bits as protobuf writes it."""
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number: int, value: bytes | str | int) -> bytes:
    """A field: text, bytes and messages with their length, numbers and bools as they are."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(data)) + data


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers as int, everything else as bytes. Raises `ValueError`."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, position = _read_varint(message, position)
        else:
            if kind == _LENGTH_DELIMITED:
                length, position = _read_varint(message, position)
            else:
                length = {1: 8, 5: 4}[kind]
            value = message[position : position + length]
            position += length
        yield tag >> 3, value


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, position
