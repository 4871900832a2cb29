# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
r"""Series of text and histograms as files for human eyes that can be parsed back exactly.

A string series is a table separated by tabs, with a heading line: step, time, value. In the value a backslash, line
feed, carriage return, tab and NUL are written `\\`, `\n`, `\r`, `\t` and `\0`. A histogram series is one JSON
object per line, numbers in their shortest exact form, those that JSON does not know as strings (`"NaN"`,
`"Infinity"`, `"-Infinity"`). A step or time that is missing is empty, or null.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.model import NO_VALUE, time_millis

STRING_HEADING = b"step\ttime\tvalue\n"
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\0", "\\0"))
_NUMBERS = (("-0", "-0.0"), ("nan", '"NaN"'), ("inf", '"Infinity"'), ("-inf", '"-Infinity"'))


def string_series_lines(rows: pa.RecordBatch) -> bytes:
    """The lines of some rows of a string series, without the heading."""
    values = rows.column("string_value")
    for plain, escaped in _ESCAPES:
        values = pc.replace_substring(values, plain, escaped)
    return _bytes(_joined(_steps(rows, ""), "\t", _times(rows, ""), "\t", values, "\n"))


def histogram_series_lines(rows: pa.RecordBatch) -> bytes:
    """The lines of some rows of a histogram series."""
    values = rows.column("histogram_value")
    kinds = values.field("type").dictionary_encode()
    quoted = pa.array([json.dumps(kind) for kind in kinds.dictionary.to_pylist()], pa.string())
    times = pc.if_else(rows.column("timestamp").is_null(), "null", _joined('"', _times(rows, ""), '"'))
    return _bytes(
        _joined(
            '{"step": ', _steps(rows, "null"),
            ', "time": ', times,
            ', "type": ', quoted.take(kinds.indices),
            ', "edges": [', _numbers(values.field("edges")),
            '], "values": [', _numbers(values.field("values")),
            "]}\n",
        )
    )  # fmt: skip


def _steps(rows: pa.RecordBatch, missing: str) -> pa.Array:
    text = pc.cast(rows.column("step"), pa.string())  # six decimals, always
    return pc.fill_null(pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), "."), missing)


def _times(rows: pa.RecordBatch, missing: str) -> pa.Array:
    millis = time_millis(rows.column("timestamp"))
    text = pa.array(np.datetime_as_string(millis.astype("datetime64[ms]")), pa.string())
    return pc.if_else(pa.array(millis == NO_VALUE), missing, _joined(text, "Z"))


def _numbers(lists: pa.Array) -> pa.Array:
    """Each list of doubles as text, separated by commas."""
    text = pc.cast(lists.flatten(), pa.string())
    for plain, exact in _NUMBERS:
        text = pc.if_else(pc.equal(text, plain), exact, text)
    lengths = np.asarray(pc.list_value_length(lists))
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), text), ", ")


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _bytes(lines: pa.Array) -> bytes:
    """All texts of a freshly computed array, one after the other."""
    return bytes(
        pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "")[0].as_buffer()
    )
