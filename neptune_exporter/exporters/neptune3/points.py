# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Points of float series out of the raw protobuf of a page, without a Python object for any of them.

A page is a `ProtoFloatSeriesValuesResponseDTO`: for each series its request id and its points, each a record of
at most five fields (time, step, value, preview, completion), of which those that are zero are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neptune_exporter.model import MICRO, STEP_LIMIT_MICROS

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_LENGTH_DELIMITED = 2
_RECORD = 0x12  # field 2 of the series: one point
_TIME, _STEP, _VALUE, _PREVIEW, _RATIO = 0x08, 0x11, 0x19, 0x20, 0x2D  # fields 1 to 5 of a point, with their wire types
_u64 = np.uint64
_LAST_BYTES = np.array([0x80 << 8 * byte for byte in range(8)], np.uint64)
_SLACK = 16  # bytes that may be read, and are then not used, after the end of a record


class MalformedPageError(ValueError):
    """The bytes are not a page of points."""


class Page(NamedTuple):
    """The points of one page, series after series in the order of the page, each in the order of its points.

    Attributes:
        ids: the request ids of the series that the page names.
        counts: how many points each of them has here.
        times: milliseconds since the epoch.
        steps: the steps as the server holds them.
        values: the values; NaN and infinities as they are.
        previews: which points are previews.
    """

    ids: list[str]
    counts: Int64s
    times: Int64s
    steps: Float64s
    values: Float64s
    previews: Bools


def decode_page(body: bytes) -> Page:
    """Decodes a page. Raises `MalformedPageError`."""
    ids, begins, ends = _blocks(body)
    data = np.frombuffer(body + bytes(_SLACK), np.uint8)
    starts, after = _records(data, np.array(begins, np.int64), np.array(ends, np.int64))
    cursor = starts + 2
    times, cursor = _varints(data, cursor, after, _TIME)
    steps, cursor = _doubles(data, cursor, after, _STEP)
    values, cursor = _doubles(data, cursor, after, _VALUE)
    previews, cursor = _varints(data, cursor, after, _PREVIEW)
    cursor = cursor + 5 * ((cursor < after) & (data[cursor] == _RATIO))
    if not np.array_equal(cursor, after):
        raise MalformedPageError("a point has fields that are not known")
    counts = np.searchsorted(starts, ends) - np.searchsorted(starts, begins)
    return Page(ids, counts.astype(np.int64), times, steps, values, previews != 0)


def micros_of(steps: Float64s) -> tuple[Int64s, Bools]:
    """Steps in micro-units, and which of them decimal(18,6) holds.

    A double near 1e12 is coarser than a micro-unit; it stands for every decimal that reads back as this double.
    """
    limit = STEP_LIMIT_MICROS // MICRO
    inside = np.isfinite(steps) & (np.abs(steps) < limit)
    safe = np.where(inside, steps, 0.0)
    whole = np.floor(safe)
    part = np.rint((safe - whole) * MICRO)
    error = np.abs(whole + part / MICRO - safe)
    micros = whole.astype(np.int64) * MICRO + part.astype(np.int64)
    return micros, inside & (error <= 2 * np.spacing(np.abs(safe))) & (np.abs(micros) < STEP_LIMIT_MICROS)


def _blocks(body: bytes) -> tuple[list[str], list[int], list[int]]:
    """For each series of a page its request id and where its records begin and end."""
    ids, begins, ends = [], [], []
    position = 0
    try:
        while position < len(body):
            number, begin, position = _field(body, position)
            if number == 1:
                request_id, first, last = _series(body, begin, position)
                ids.append(request_id)
                begins.append(first)
                ends.append(last)
        if position != len(body):
            raise MalformedPageError("the page is cut short")
    except IndexError:
        raise MalformedPageError("the page is cut short") from None
    return ids, begins, ends


def _series(body: bytes, position: int, end: int) -> tuple[str, int, int]:
    request_id, first, last = "", position, position
    while position < end:
        number, begin, position = _field(body, position)
        if number == 1:
            request_id = body[begin:position].decode()
        elif number == 2:
            first, last = begin, position
            if body[first : first + 1] == bytes([_TIME]):  # total_item_count
                _, first = _varint(body, first + 1)
    if position != end:
        raise MalformedPageError("a series reaches beyond its end")
    return request_id, first, last


def _field(body: bytes, position: int) -> tuple[int, int, int]:
    """The number of a length-delimited field, and where its content begins and ends."""
    tag, position = _varint(body, position)
    if tag & 7 != _LENGTH_DELIMITED:
        raise MalformedPageError(f"wire type {tag & 7} where a message is expected")
    length, position = _varint(body, position)
    return tag >> 3, position, position + length


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7


def _records(data: Bytes, begins: Int64s, ends: Int64s) -> tuple[Int64s, Int64s]:
    """Where each record begins and ends.

    Every byte that looks like the tag of a record is a candidate. One is a record if it begins a block, or if
    the one before it, which is a record, ends there. The first candidate that is none has nothing that ends at
    it, so taking such candidates away until none is left leaves the records.
    """
    candidates = np.flatnonzero(data[:-_SLACK] == _RECORD)
    filled = begins[begins < ends]
    while True:
        after = candidates + 2 + data[candidates + 1]
        reached = np.zeros(len(data) + 256, np.bool_)
        reached[after] = True
        reached[filled] = True
        keep = reached[candidates]
        if keep.all():
            break
        candidates = candidates[keep]
    last = np.searchsorted(candidates, ends[begins < ends]) - 1
    joined = np.append(after[:-1] == candidates[1:], True) if len(candidates) else np.empty(0, np.bool_)
    joined[last] = after[last] == ends[begins < ends]
    first = np.searchsorted(candidates, filled)
    if len(filled) and (first[0] != 0 or not np.array_equal(first[1:], last[:-1] + 1) or last[-1] + 1 != len(joined)):
        raise MalformedPageError("records outside of a series")
    if not joined.all() or (len(joined) and not len(filled)):
        raise MalformedPageError("the records of a series do not fill it")
    return candidates, after


def _doubles(data: Bytes, cursor: Int64s, after: Int64s, tag: int) -> tuple[Float64s, Int64s]:
    """A field of eight bytes, 0.0 where a record has none, and where the next field begins."""
    present = (cursor < after) & (data[cursor] == tag)
    unaligned = np.ndarray((len(data) - 7,), np.dtype("<f8"), buffer=data.data, strides=(1,))
    if present.all():
        return unaligned[cursor + 1], cursor + 9
    found = np.zeros(len(cursor))
    found[present] = unaligned[cursor[present] + 1]
    return found, cursor + 9 * present


def _varints(data: Bytes, cursor: Int64s, after: Int64s, tag: int) -> tuple[Int64s, Int64s]:
    """A number of one to ten bytes, 0 where a record has none, and where the next field begins."""
    rows = np.flatnonzero((cursor < after) & (data[cursor] == tag))
    if not len(rows):
        return np.zeros(len(cursor), np.int64), cursor
    everywhere = len(rows) == len(cursor)
    values, ends = _varints_at(data, (cursor if everywhere else cursor[rows]) + 1)
    if everywhere:
        return values.view(np.int64), ends
    found, cursor = np.zeros(len(cursor), np.uint64), cursor.copy()
    found[rows], cursor[rows] = values, ends
    return found.view(np.int64), cursor


def _varints_at(data: Bytes, start: Int64s) -> tuple[npt.NDArray[np.uint64], Int64s]:
    """The numbers that begin at these positions, and where they end. Most have at most eight bytes: one word."""
    word = np.ndarray((len(data) - 7,), np.dtype("<u8"), buffer=data.data, strides=(1,))[start]
    last = ~word & _u64(0x8080808080808080)  # the last byte of a number is the first one without its top bit
    last &= ~last + _u64(1)
    value = word & (last | last - _u64(1)) & _u64(0x7F7F7F7F7F7F7F7F)
    value = value & _u64(0x007F007F007F007F) | (value & _u64(0x7F007F007F007F00)) >> _u64(1)
    value = value & _u64(0x00003FFF00003FFF) | (value & _u64(0x3FFF00003FFF0000)) >> _u64(2)
    value = value & _u64(0x000000000FFFFFFF) | (value & _u64(0x0FFFFFFF00000000)) >> _u64(4)
    end = start + 1 + np.searchsorted(_LAST_BYTES, last)
    for row in np.flatnonzero(last == 0).tolist():  # nine or ten bytes: a time before 1970
        number, stop = _varint(data[start[row] : start[row] + 10].tobytes() + b"\0", 0)
        value[row], end[row] = number & 0xFFFFFFFFFFFFFFFF, start[row] + stop
    return value, end
