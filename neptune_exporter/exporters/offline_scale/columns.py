# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Float points straight from the bytes of many operations at once.

Almost all of a log is `UpdateRunSnapshot` messages that hold a step, a time and appended floats. Their bytes are

    0A len [08 whole] [10 micro]    12 len [08 seconds] [10 nanos]    { 42 len  0A len KEY  12 09 09 DOUBLE } ...

The two headers are decoded for all operations together. What follows is the *tail*. In a tail of one point
everything before the double is looked up in a dictionary. Longer tails are compared with templates: operations of
one training loop differ only in their doubles, which therefore lie at fixed offsets. Every byte that is not part
of a double is compared with a tail that has been parsed strictly, so what is taken here is proven to be what a
protobuf parser would find; everything else is handed back to be parsed by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.model import MICRO, Int64s, names

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int32]

UNWANTED = -1
_STEP, _TIME, _APPEND, _KEY = 0x0A, 0x12, 0x42, 0x0A
_FLOAT_VALUE = b"\x12\x09\x09"  # Value, 9 bytes long, a fixed64 in field 1
_PADDING = bytes(512)  # decoding never looks further behind the last operation
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799  # the years 1 to 9999
_TEMPLATES_PER_LENGTH = 16
_TEMPLATE_BYTES = 64 * 2**20


class Paths:
    """Gives each wanted attribute path of one type a code.

    Args:
        wants: whether rows of a path are wanted; others get `UNWANTED`.
    """

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self._wants = wants
        self._codes: dict[str, int] = {}
        self.names: list[str] = []
        self._array: pa.Array | None = None

    def code(self, path: str) -> int:
        """The code of a path."""
        code = self._codes.get(path)
        if code is None:
            code = len(self.names) if self._wants(path) else UNWANTED
            self._codes[path] = code
            if code != UNWANTED:
                self.names.append(path)
        return code

    def column(self, codes: Codes) -> pa.DictionaryArray:
        """The name column of rows with these codes; its dictionary is not much longer than the rows."""
        if len(self.names) > 2 * len(codes):
            present, short = np.unique(codes, return_inverse=True)
            return names(short, [self.names[code] for code in present])
        if self._array is None or len(self._array) != len(self.names):
            self._array = pa.array(self.names, pa.string())
        return names(codes, self._array)


@dataclass(slots=True)
class Points:
    """Float points of several operations that have the same paths.

    Attributes:
        operations: the position of each of the m operations in the block.
        steps: their steps in micro-units.
        times: their times in milliseconds.
        codes: the codes of the k paths.
        values: k rows of m values.
    """

    operations: Int64s
    steps: Int64s
    times: Int64s
    codes: Codes
    values: npt.NDArray[np.float64]


@dataclass(slots=True)
class Singles:
    """Float points of operations that hold one each: all arrays are parallel."""

    operations: Int64s
    steps: Int64s
    times: Int64s
    codes: Codes
    values: npt.NDArray[np.float64]


@dataclass(slots=True)
class Block:
    """What came out of a block of operations.

    Attributes:
        points: points of operations that look alike.
        singles: points of operations with one point.
        rest: positions of the operations that need the general parser, ascending.
    """

    points: list[Points] = field(default_factory=list)
    singles: Singles | None = None
    rest: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Template:
    """A tail that was parsed: its bytes without the doubles, and where those are."""

    static: Bytes
    mask: Bytes
    cells: Int64s
    codes: Codes


class FloatDecoder:
    """Decodes blocks of operations of one run.

    Args:
        paths: the run's float series.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._singles: dict[bytes, int] = {}
        self._templates: dict[int, list[_Template]] = {}
        self._template_bytes = 0

    def decode(self, blobs: Sequence[bytes]) -> Block:
        """Decodes a block of `UpdateRunSnapshot` messages."""
        lengths = np.fromiter(map(len, blobs), np.int64, len(blobs))
        ends = np.cumsum(lengths)
        starts = ends - lengths
        data = np.frombuffer(b"".join((*blobs, _PADDING)), np.uint8)
        steps, times, tails, plain = _headers(data, starts, ends)
        plain &= data[tails] == _APPEND
        single = plain & _is_single(data, tails, ends)

        block = Block()
        taken = np.zeros(len(blobs), np.bool_)
        at = np.flatnonzero(single)
        if len(at):
            codes = self._single_codes(blobs, at, (tails - starts)[at])
            known = codes >= UNWANTED
            taken[at] = known
            at, codes = at[codes >= 0], codes[codes >= 0]
            block.singles = Singles(at, steps[at], times[at], codes, _doubles(data)[ends[at] - 8])
        at = np.flatnonzero(plain & ~single)
        for group in _groups(at, (ends - tails)[at]):
            for template, matched in self._match(data, tails, int((ends - tails)[group[0]]), group):
                taken[matched] = True
                if len(template.codes):
                    values = _doubles(data)[tails[matched][None, :] + template.cells[:, None]]
                    block.points.append(Points(matched, steps[matched], times[matched], template.codes, values))
        block.rest = np.flatnonzero(~taken).tolist()
        return block

    def _single_codes(self, blobs: Sequence[bytes], at: Int64s, tails: Int64s) -> Codes:
        """The code of each operation's one path; below `UNWANTED` where the tail is something else."""
        known = self._singles
        unknown = UNWANTED - 1
        keys = [blobs[i][tail:-8] for i, tail in zip(at.tolist(), tails.tolist(), strict=True)]
        codes = [known.get(key, unknown) for key in keys]
        if unknown in codes:
            for position, code in enumerate(codes):
                if code == unknown:
                    codes[position] = self._learn_single(keys[position])
        return np.array(codes, np.int32)

    def _learn_single(self, key: bytes) -> int:
        code = self._singles.get(key)
        if code is None:
            entries = _parse_tail(key + bytes(8))
            if entries is None:
                return UNWANTED - 1
            code = self._singles[key] = self._paths.code(entries[0][0])
        return code

    def _match(self, data: Bytes, tails: Int64s, length: int, at: Int64s) -> list[tuple[_Template, Int64s]]:
        """The operations (all with tails of one length) that a template fits, old templates or new."""
        found = []
        templates = self._templates.get(length, [])
        tried = 0
        windows = np.lib.stride_tricks.sliding_window_view(data, length)
        while len(at):
            if tried == len(templates):
                if tried >= _TEMPLATES_PER_LENGTH:
                    break
                first = int(tails[at[0]])
                template = self._learn(data[first : first + length].tobytes())
                if template is None:  # the first is of another kind: the others may still be alike
                    at = at[1:]
                    continue
                templates.append(template)
                self._templates[length] = templates
            template = templates[tried]
            tried += 1
            rows = windows[tails[at]]
            np.bitwise_xor(rows, template.static, out=rows)
            np.bitwise_and(rows, template.mask, out=rows)
            fits = ~rows.any(axis=1)
            if fits.any():
                found.append((template, at[fits]))
                at = at[~fits]
        return found

    def _learn(self, tail: bytes) -> _Template | None:
        entries = _parse_tail(tail)
        if entries is None:
            return None
        if self._template_bytes > _TEMPLATE_BYTES:
            self._templates.clear()
            self._template_bytes = 0
        self._template_bytes += 2 * len(tail)
        codes = np.array([self._paths.code(path) for path, _ in entries], np.int32)
        cells = np.array([cell for _, cell in entries], np.int64)
        mask = np.full(len(tail), 0xFF, np.uint8)
        mask[cells[:, None] + np.arange(8)] = 0
        wanted = np.flatnonzero(codes != UNWANTED)
        wanted = wanted[np.argsort(codes[wanted])]
        return _Template(np.frombuffer(tail, np.uint8) & mask, mask, cells[wanted], codes[wanted])


def _parse_tail(tail: bytes) -> list[tuple[str, int]] | None:
    """The paths in a tail of appended floats and the offsets of their doubles; None if it is anything else."""
    entries: dict[str, int] = {}
    position = 0
    while position < len(tail):
        if tail[position] != _APPEND:
            return None
        size, start = _varint(tail, position + 1)
        if start + 1 >= len(tail) or tail[start] != _KEY:
            return None
        key_size, key = _varint(tail, start + 1)
        value = key + key_size
        position = start + size
        if tail[value : value + 3] != _FLOAT_VALUE or value + 11 != position or position > len(tail):
            return None
        try:
            path = tail[key:value].decode()
        except UnicodeDecodeError:
            return None
        if path in entries:
            return None
        entries[path] = value + 3
    return list(entries.items())


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A varint of at most four bytes and the position behind it; nonsense gives a number that fits nowhere."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return len(data) + 1, position


def _headers(data: Bytes, starts: Int64s, ends: Int64s) -> tuple[Int64s, Int64s, Int64s, Bools]:
    """Steps in micro-units, times in milliseconds, where the tails start, and for which operations that holds."""
    whole, micro, time, step_ok = _pair(data, starts, _STEP)
    seconds, nanos, tails, time_ok = _pair(data, time, _TIME)
    plain = step_ok & time_ok & (tails < ends)
    plain &= (whole < 10**12) & (micro < MICRO) & (nanos < 10**9)
    signed = seconds.view(np.int64)
    plain &= (signed >= _MIN_SECONDS) & (signed <= _MAX_SECONDS)
    steps = np.where(plain, whole, 0).astype(np.int64) * MICRO + np.where(plain, micro, 0).astype(np.int64)
    micros = np.where(plain, signed, 0) * MICRO + (np.where(plain, nanos, 0).astype(np.int64) + 500) // 1000
    return steps, (micros + 500) // 1000, np.where(plain, tails, starts), plain


def _pair(data: Bytes, starts: Int64s, tag: int) -> tuple[Any, Any, Int64s, Bools]:
    """The varints in fields 1 and 2 of a message that begins with `tag`, and where it ends."""
    starts = np.minimum(starts, len(data) - 256)
    size = data[starts + 1]
    ends = starts + 2 + size
    first, position = _tagged_varints(data, starts + 2, ends, 0x08)
    second, position = _tagged_varints(data, position, ends, 0x10)
    return first, second, ends, (data[starts] == tag) & (size < 0x80) & (position == ends)


def _tagged_varints(data: Bytes, positions: Int64s, ends: Int64s, tag: int) -> tuple[npt.NDArray[np.uint64], Int64s]:
    """The varint behind a tag, 0 where the tag is absent, and the positions behind it (-1 if it never ends)."""
    values = np.zeros(len(positions), np.uint64)
    after = positions.copy()
    active = np.flatnonzero((positions < ends) & (data[positions] == tag))
    after[active] += 1
    for shift in range(0, 70, 7):
        if not len(active):
            return values, after
        byte = data[after[active]]
        values[active] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
        after[active] += 1
        active = active[byte >= 0x80]
    after[active] = -1
    return values, after


def _is_single(data: Bytes, tails: Int64s, ends: Int64s) -> Bools:
    """Where the first entry of a tail is all of it and seems to end in a double."""
    low, high = data[tails + 1].astype(np.int64), data[tails + 2].astype(np.int64)
    size = ends - tails
    alone = np.where(low < 0x80, size == 2 + low, size == 3 + (low & 0x7F) + (high << 7))
    value = np.maximum(ends - 11, 0)
    is_float = (data[value] == 0x12) & (data[value + 1] == 0x09) & (data[value + 2] == 0x09)
    return np.asarray(alone & is_float)


def _doubles(data: Bytes) -> npt.NDArray[np.float64]:
    """The data as a double at every byte offset: an unaligned, overlapping view."""
    return np.ndarray((len(data) - 7,), "<f8", data, strides=(1,))


def _groups(at: Int64s, keys: Int64s) -> list[Int64s]:
    """Splits positions by key, keeping their order."""
    if not len(at):
        return []
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    return np.split(at[order], np.flatnonzero(keys[1:] != keys[:-1]) + 1)
