# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Points of float and string series out of the lines of a log, without a Python object for any of them.

Three ways, each for what the one before it refuses, all with the same result: the layout that the client writes when
a script logs value by value, read by its columns; any JSON of the expected form, read by pyarrow; and `json`, record
by record, for lines that are damaged and for numbers and texts that are out of the ordinary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from neptune_exporter.exporters.offline_legacy.lines import Record
from neptune_exporter.model import Int64s

Bytes = npt.NDArray[np.uint8]
Float64s = npt.NDArray[np.float64]

_VALUE_TYPES = {"LogFloats": pa.float64(), "LogStrings": pa.string()}
_PIECE_BYTES = 1 << 20
_LINE_LIMIT = 1 << 16
_TEXT_LIMIT = 1 << 31  # the offsets of Arrow's texts have 32 bits


class UncommonError(ValueError):
    """Lines that another way of reading them is for."""


class Points(NamedTuple):
    """Points of many series, in the order of the log.

    Attributes:
        paths: the attribute path of each, a dictionary array.
        versions: the version of the operation of each.
        steps: NaN where the server was to count.
        times: seconds since the epoch, NaN where the log has none.
        values: an Arrow array, null where the log has none.
    """

    paths: pa.DictionaryArray
    versions: Int64s
    steps: Float64s
    times: Float64s
    values: pa.Array


class Decoded(NamedTuple):
    """What some lines hold.

    Attributes:
        versions: of their records, each once.
        points: all their points.
    """

    versions: Int64s
    points: Points


def decode(kind: str, body: bytes) -> Decoded:
    """The points of lines that begin with a record of one kind each (see `Lines`); the last line is without its end.

    Raises:
        UncommonError: one of them is no such record, or holds something that takes `points_of`.
    """
    if not _is_utf8(body):
        raise UncommonError
    if kind == "LogFloats":
        try:
            return _decode_columns(body)
        except UncommonError:
            pass
    for piece_bytes in (_PIECE_BYTES, len(body) + 1):  # a record that is longer than a piece needs a larger one
        try:
            return _decode_json(body, _VALUE_TYPES[kind], piece_bytes)
        except (pa.ArrowInvalid, UncommonError):
            continue
    raise UncommonError


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def points_of(kind: str, records: Iterable[Record]) -> Points:
    """The points of records of one kind."""
    found = [(record.path, record.version, value) for record in records for value in _values(record.detail)]
    given = [value.get("value") for _, _, value in found]
    if kind == "LogStrings":  # as bytes: a lone surrogate is text to the client
        texts = [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else None for v in given]
        values = pa.array(texts, pa.binary())
    else:
        values = pa.array([_double(v) for v in given], pa.float64())
    return Points(
        pa.array([path for path, _, _ in found], pa.string()).dictionary_encode(),
        np.array([version for _, version, _ in found], np.int64),
        _doubles(value.get("step") for _, _, value in found),
        _doubles(value.get("ts") for _, _, value in found),
        values,
    )


def _values(detail: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    values = detail.get("values")
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _double(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # nothing, text, more digits than a double holds
        return None


def _doubles(values: Iterable[Any]) -> Float64s:
    found = (_double(value) for value in values)
    return np.array([np.nan if value is None else value for value in found], np.float64)


# --- by columns
#
# {"obj": {"type": "LogFloats", "path": ["a", "b"], "values": [{"value": 0.5, "step": null, "ts": 1.5}]}, "version": 1,
# "at": 1.5}, on one line; clients before 1.8.5 write no "at". The colons divide each line into the same columns.

_NAMES = ("obj", "type", "path", "values", "value", "step", "ts", "version", "at")
_COLON, _SPACE, _LINE_END, _BRACE, _DOT, _MINUS, _ZERO = b": \n}.-0"
_NINE = 9
_FIXED = (  # text of 8 bytes, and where it begins: at which colon, how far from it
    (b'path": [', 2, -5),
    (b'], "valu', 3, -11),
    (b'es": [{"', 3, -3),
    (b'value": ', 4, -6),
    (b', "step"', 5, -8),
    (b', "ts": ', 6, -6),
    (b'}]}, "ve', 7, -14),
    (b'rsion": ', 7, -6),
    (b', "at": ', 8, -6),
)


def _decode_columns(body: bytes) -> Decoded:
    """Lines that all have the client's own layout, one point each; what "at" says is not looked at.

    Text is compared eight bytes at a time, numbers are cut out and converted by Arrow, which rounds correctly: a
    double that was written by `repr` is the same double again.
    """
    if not 64 < len(body) < _TEXT_LIMIT:
        raise UncommonError
    data = np.frombuffer(body, np.uint8)
    colons = np.flatnonzero(data == _COLON)
    try:
        columns = _columns(data, colons)
    except UncommonError:  # there may be colons in paths
        columns = _columns(data, colons[_ends_name(data, colons)])
    texts = _Texts(body)
    line_ends = np.append(columns[0][1:] - 7, len(data))
    version_ends = columns[8] - 6 if len(columns) == len(_NAMES) else line_ends - 1
    versions: Int64s = np.asarray(texts.numbers(columns[7] + 2, version_ends, pa.int64()))
    paths = _paths(texts.between(columns[2] + 3, columns[3] - 11))
    steps = _steps(data, texts, columns[5] + 2, columns[6] - 6)
    times = np.asarray(texts.numbers(columns[6] + 2, columns[7] - 14, pa.float64()))
    values = texts.numbers(columns[4] + 2, columns[5] - 8, pa.float64())
    return Decoded(versions, Points(paths, versions, steps, times, values))


def _columns(data: Bytes, colons: Int64s) -> Int64s:
    """Where the colon after each name is: one row a name, one column a line.

    Raises:
        UncommonError: what is around them, from the path on, is not what is always there.
    """
    first_line = colons[: np.searchsorted(colons, bytes(data[:_LINE_LIMIT]).find(b"\n") % len(data))]
    lines, rest = divmod(len(colons), max(len(first_line), 1))
    if rest or len(first_line) not in (len(_NAMES) - 1, len(_NAMES)):
        raise UncommonError
    columns = np.ascontiguousarray(colons.reshape(lines, len(first_line)).T)
    begins = columns[0] - 6
    distances = {1: begins + 15, 2: begins + 36, 4: columns[3] + 11}
    ends = np.append(begins[1:] - 1, len(data))
    if (
        begins[0] != 0
        or columns[-1][-1] + 2 > len(data)
        or any(np.any(columns[column] != place) for column, place in distances.items())
        or np.any(data[ends[:-1]] != _LINE_END)
        or np.any(data[ends - 1] != _BRACE)
        or np.any(data[columns[5] + 1] != _SPACE)
    ):
        raise UncommonError
    words = np.ndarray((len(data) - 7,), np.dtype("<u8"), buffer=data.data, strides=(1,))
    for text, column, offset in _FIXED:
        if column < len(columns) and np.any(words[columns[column] + offset] != np.frombuffer(text, "<u8")):
            raise UncommonError
    return columns


def _ends_name(data: Bytes, colons: Int64s) -> npt.NDArray[np.bool_]:
    """Which colons follow one of the names, as far as its last letter tells."""
    words = np.ndarray((len(data) - 3,), np.dtype("<u4"), buffer=data.data, strides=(1,))
    names = np.frombuffer("".join(f'{name[-1]}": ' for name in _NAMES).encode(), "<u4")
    return np.isin(words[np.clip(colons - 2, 0, len(words) - 1)], names)


class _Texts:
    """Pieces of text that are cut out of a body."""

    def __init__(self, body: bytes) -> None:
        self._buffer = pa.py_buffer(body)

    def between(self, begins: Int64s, ends: Int64s) -> pa.Array:
        """The pieces; none may be empty."""
        if np.any(ends <= begins):
            raise UncommonError
        # An Arrow array has no gaps between its texts: every second one of this is a gap.
        offsets = np.empty(2 * len(begins) + 1, np.int32)
        offsets[0:-1:2], offsets[1::2], offsets[-1] = begins, ends, ends[-1]
        gapless = pa.Array.from_buffers(pa.string(), 2 * len(begins), [None, pa.py_buffer(offsets), self._buffer])
        return gapless.take(pa.array(np.arange(0, 2 * len(begins), 2)))

    def numbers(self, begins: Int64s, ends: Int64s, number: pa.DataType) -> pa.Array:
        """The pieces as numbers; each must be one as JSON has it."""
        pieces = self.between(begins, ends)
        _check_numbers(pieces)
        try:
            return pieces.cast(number)
        except pa.ArrowInvalid:
            raise UncommonError from None


def _check_numbers(pieces: pa.Array) -> None:
    """Arrow reads more than JSON allows: +1, 01, .5, 5., 1.e5 and the names of what is no number."""
    _, offsets, content = pieces.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(pieces) + 1)
    text = np.append(np.frombuffer(content, np.uint8, int(bounds[-1])), np.uint8(0))
    is_digit = text - _ZERO <= _NINE
    begins = bounds[:-1] + (text[bounds[:-1]] == _MINUS)
    if (
        not np.all(is_digit[begins])
        or not np.all(is_digit[bounds[1:] - 1])
        or np.any((text[:-1] == _DOT) & ~is_digit[1:])
        or np.any((text[begins] == _ZERO) & is_digit[begins + 1] & (begins + 1 < bounds[1:]))
    ):
        raise UncommonError


def _steps(data: Bytes, texts: _Texts, begins: Int64s, ends: Int64s) -> Float64s:
    words = np.ndarray((len(data) - 3,), np.dtype("<u4"), buffer=data.data, strides=(1,))
    is_null = (words[begins] == np.frombuffer(b"null", "<u4")) & (ends - begins == 4)
    steps = np.full(len(begins), np.nan)
    if not is_null.all():
        given = np.flatnonzero(~is_null)
        steps[given] = np.asarray(texts.numbers(begins[given], ends[given], pa.float64()))
    return steps


def _paths(pieces: pa.Array) -> pa.DictionaryArray:
    """Attribute paths from what stands between the brackets; two spellings may stand for one path."""
    spelled = pieces.dictionary_encode()
    try:
        found = [json.loads(f"[{text}]") for text in spelled.dictionary.to_pylist()]
        names = pa.array(["/".join(parts) for parts in found], pa.string()).dictionary_encode()
    except (ValueError, TypeError):
        raise UncommonError from None
    codes = np.asarray(names.indices)[np.asarray(spelled.indices)]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), names.dictionary)


# --- by pyarrow's reader of JSON


def _decode_json(body: bytes, value_type: pa.DataType, piece_bytes: int) -> Decoded:
    """Records of one kind, each with any number of points."""
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
        raise UncommonError  # a line that is no record
    paths, lists = table.column("obj").combine_chunks().flatten()
    version_column = table.column("version").combine_chunks()
    if paths.null_count or lists.null_count or version_column.null_count:
        raise UncommonError
    versions: Int64s = np.asarray(version_column)
    values, steps, times = lists.flatten().flatten()
    if times.null_count or values.null_count:
        raise UncommonError
    counts = np.asarray(pc.list_value_length(lists))
    names = pc.binary_join(paths, "/").dictionary_encode()
    codes = np.repeat(np.asarray(names.indices), counts)
    return Decoded(
        versions,
        Points(
            pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), names.dictionary),
            np.repeat(versions, counts),
            np.asarray(pc.fill_null(steps, float("nan"))),
            np.asarray(times),
            values,
        ),
    )
