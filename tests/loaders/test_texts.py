# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.loaders.parameters import held_text, parameter_text, parameter_value, time_text
from neptune_exporter.loaders.series_text import STRING_HEADING, histogram_series_lines, string_series_lines
from neptune_exporter.model import HISTOGRAM_TYPE, NO_VALUE, RunRef, rows_batch, time_array

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
REF = RunRef("p", "r")


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


@pytest.mark.parametrize(
    ("attribute_type", "value", "text"),
    [
        ("int", 12, "12"),
        ("int", 2**63 - 1, "9223372036854775807"),
        ("float", 12.0, "12.0"),
        ("float", -0.0, "-0.0"),
        ("float", math.nan, "nan"),
        ("float", -math.inf, "-inf"),
        ("float", 0.1, "0.1"),
        ("bool", True, "true"),
        ("bool", False, "false"),
        ("string", "12", "12"),
        ("string_set", ["b", "a,c", 'q"'], '["a,c", "b", "q\\""]'),
        ("git_ref", '{"a": 1}', '{"a": 1}'),
    ],
)
def test_loss_17_the_text_of_a_parameter_says_its_type(attribute_type, value, text):
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "string_set": pa.list_(pa.string())}
    assert parameter_text(attribute_type, pa.array([value], kinds.get(attribute_type, pa.string()))) == text


def test_a_datetime_is_iso_8601_in_utc():
    millis = round(datetime(2024, 2, 29, 23, 59, 59, 123000, UTC).timestamp() * 1000)
    assert parameter_text("datetime", time_array(np.array([millis]))) == "2024-02-29T23:59:59.123Z"


@given(INT64)
def test_ints_come_back(value):
    assert parameter_value("int", parameter_text("int", pa.array([value], pa.int64())))[0].as_py() == value


@given(st.floats())
def test_floats_come_back_to_the_bit(value):
    back = parameter_value("float", parameter_text("float", pa.array([value], pa.float64())))[0].as_py()
    assert bits(back) == bits(value)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_datetimes_come_back_whatever_the_year(millis):
    text = parameter_text("datetime", time_array(np.array([millis], np.int64)))
    assert parameter_value("datetime", text).cast(pa.int64())[0].as_py() == millis
    assert text == time_text(millis)


@given(st.lists(TEXT, max_size=5))
def test_loss_17_sets_come_back_whatever_is_in_them(values):
    text = parameter_text("string_set", pa.array([values], pa.list_(pa.string())))
    assert parameter_value("string_set", text)[0].as_py() == sorted(values)
    assert "\0" not in text


def test_the_smallest_datetime_is_a_value():
    """Elsewhere its number stands for none."""
    value = pa.array([NO_VALUE], pa.int64()).cast(pa.timestamp("ms", tz="UTC"))
    again = parameter_value("datetime", parameter_text("datetime", value))
    assert again.equals(value)
    assert again.null_count == 0


@given(st.sampled_from(["int", "float", "bool", "datetime", "string_set"]), TEXT | st.sampled_from(["1", "1.0", "[]"]))
def test_text_that_is_no_value_of_its_type_is_refused(attribute_type, text):
    try:
        value = parameter_value(attribute_type, text)
    except ValueError:
        return
    assert parameter_text(attribute_type, value) == text


@pytest.mark.parametrize("text", ["01", "1_000", " 1", "1.0", "9223372036854775808"])
def test_an_int_has_one_spelling(text):
    with pytest.raises(ValueError):
        parameter_value("int", text)


def test_loss_18_a_parameter_that_is_too_long_becomes_a_pointer():
    assert held_text("x" * 6000, 6000, "neptune/data.parquet") == "x" * 6000
    pointer = held_text("x" * 6001, 6000, "neptune/data.parquet")
    assert pointer.startswith("neptune/data.parquet: 6001 characters, blake2b ")
    assert pointer != held_text("x" * 6000 + "y", 6000, "neptune/data.parquet")
    assert held_text("a\0b", 6000, "neptune/data.parquet").startswith("neptune/data.parquet: 3 characters")


def unescaped(text: str) -> str:
    """The reader's side of the format, a character at a time."""
    out, rest = [], iter(text)
    for c in rest:
        out.append({"\\": "\\", "n": "\n", "r": "\r", "t": "\t", "0": "\0"}[next(rest)] if c == "\\" else c)
    return "".join(out)


@given(st.lists(st.text(st.sampled_from("a\\n\n\r\t\0rt0é\"'\u2028")) | TEXT, min_size=1, max_size=20))
def test_loss_17_a_text_series_can_be_parsed_back(values):
    steps = np.arange(len(values), dtype=np.int64) * 290_000
    times = np.where(steps % 2 == 0, steps, NO_VALUE)
    rows = rows_batch(
        REF, "log", "string_series", step_micros=steps, time_ms=times, string_value=pa.array(values, pa.string())
    )
    data = STRING_HEADING + string_series_lines(rows.slice(0, 1)) + string_series_lines(rows.slice(1))
    lines = data.decode().split("\n")
    assert lines.pop() == ""
    parsed = [line.split("\t") for line in lines]
    assert parsed[0] == ["step", "time", "value"]
    assert [unescaped(value) for _, _, value in parsed[1:]] == values
    assert [round(float(step) * 1_000_000) for step, _, _ in parsed[1:]] == steps.tolist()
    assert [time for _, time, _ in parsed[1:]] == [
        ""
        if t == NO_VALUE
        else datetime.fromtimestamp(t / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{t % 1000:03d}Z"
        for t in times.tolist()
    ]


@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.lists(st.floats(), max_size=5), st.lists(st.floats(), max_size=5)), min_size=1
    )
)
def test_loss_16_histograms_are_exact(histograms):
    values = [{"type": kind, "edges": edges, "values": counts} for kind, edges, counts in histograms]
    rows = rows_batch(
        REF,
        "h",
        "histogram_series",
        step_micros=np.arange(len(values), dtype=np.int64),
        time_ms=np.full(len(values), NO_VALUE),
        histogram_value=pa.array(values, HISTOGRAM_TYPE),
    )
    lines = histogram_series_lines(rows).decode().splitlines()
    assert len(lines) == len(values)
    for line, value in zip(lines, values, strict=True):
        parsed = json.loads(line, parse_constant=lambda _: pytest.fail("not strict JSON"))
        assert parsed["type"] == value["type"]
        assert parsed["time"] is None
        for part in ("edges", "values"):
            assert [bits(float(x)) for x in parsed[part]] == [bits(x) for x in value[part]]


def test_loss_16_a_histogram_of_10000_bins_is_written_whole():
    edges = (np.arange(10_001) / 7).tolist()
    value = {"type": "COUNTS", "edges": edges, "values": list(range(10_000))}
    rows = rows_batch(REF, "h", "histogram_series", histogram_value=pa.array([value], HISTOGRAM_TYPE))
    parsed = json.loads(histogram_series_lines(rows))
    assert parsed["edges"] == edges
    assert parsed["values"] == value["values"]
    assert parsed["step"] is None
