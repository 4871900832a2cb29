# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Properties of the core that must hold for every value: exact steps and times, nothing lost in splitting."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.model import (
    NO_VALUE,
    SCHEMA,
    VALUE_COLUMN,
    RunRef,
    group,
    normalize,
    rows_batch,
    series_of,
    step_array,
    step_decimals,
    step_micros,
    step_text,
    time_array,
    time_millis,
    utc,
)

REF = RunRef("ws/project", "RUN-1")
STEP_TYPE = pa.decimal128(18, 6)
TIME_TYPE = pa.timestamp("ms", tz="UTC")
LIMIT = 10**18

micros = st.integers(-LIMIT + 1, LIMIT - 1) | st.integers(-1000, 1000).map(lambda n: n * 10_000)
maybe_micros = st.lists(st.none() | micros, max_size=40)
millis = st.integers(-(2**63) + 1, 2**63 - 1)
human_millis = st.integers(-62_135_596_800_000, 253_402_300_799_999)


def whole(numbers: list[int | None]) -> np.ndarray:
    return np.array([NO_VALUE if n is None else n for n in numbers], np.int64)


def decimal(n: int | None) -> Decimal | None:
    return None if n is None else Decimal(n).scaleb(-6)


# --- steps and times


@given(maybe_micros)
def test_steps_become_decimals_exactly(numbers):
    array = step_array(whole(numbers))
    array.validate(full=True)
    assert array.type == STEP_TYPE
    assert array.to_pylist() == [decimal(n) for n in numbers]
    assert array.null_count == numbers.count(None)


@given(maybe_micros, st.integers(0, 40), st.integers(0, 40))
def test_decimals_become_steps_exactly(numbers, offset, length):
    array = pa.array([decimal(n) for n in numbers], STEP_TYPE).slice(offset, length)
    assert step_micros(array).tolist() == whole(numbers)[offset : offset + length].tolist()


@given(st.lists(st.none() | millis, max_size=40), st.integers(0, 40))
def test_times_both_ways(numbers, offset):
    array = time_array(whole(numbers))
    array.validate(full=True)
    assert array.equals(pa.array(numbers, pa.int64()).cast(TIME_TYPE))
    assert time_millis(array.slice(offset)).tolist() == whole(numbers)[offset:].tolist()


@given(human_millis)
def test_times_as_datetimes(number):
    assert utc(number) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=0, milliseconds=number)
    assert pa.scalar(utc(number), TIME_TYPE).value == number


@given(micros)
def test_step_text_is_exact_and_shortest(number):
    text = step_text(number)
    assert Decimal(text) == Decimal(number).scaleb(-6)
    assert "e" not in text.lower()
    assert not text.startswith("+")
    if "." in text:
        assert not text.endswith(("0", "."))


@given(maybe_micros)
def test_step_decimals_are_enough_and_no_more(numbers):
    needed = step_decimals(whole(numbers))
    steps = [decimal(n) for n in numbers if n is not None]
    assert all(step * 10**needed % 1 == 0 for step in steps)
    assert needed == 0 or any(step * 10 ** (needed - 1) % 1 != 0 for step in steps)


@given(maybe_micros)
def test_steps_survive_parquet(numbers):
    table = pa.table({"step": step_array(whole(numbers))})
    file = io.BytesIO()
    pq.write_table(table, file, store_decimal_as_integer=True)
    read = pq.read_table(file).column("step").combine_chunks()
    assert step_micros(read).tolist() == whole(numbers).tolist()


# --- splitting


keys = st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 3)), max_size=60)


@given(keys)
def test_group_sorts_stably_and_names_every_start(pairs):
    major, minor = (np.array([pair[i] for pair in pairs], np.int32) for i in (0, 1))
    order, starts = group(major, minor, 4)
    positions = list(range(len(pairs))) if order is None else order.tolist()
    assert positions == sorted(range(len(pairs)), key=lambda i: pairs[i])
    assert starts.tolist() == [i for i, p in enumerate(positions) if i == 0 or pairs[p] != pairs[positions[i - 1]]]


def test_group_with_more_names_than_bits():
    major = np.array([2**31 - 1, 0, 2**31 - 1, 5], np.int32)
    order, starts = group(major, np.zeros(4, np.int32), 2**31)
    assert order is not None
    assert order.tolist() == [1, 3, 0, 2]
    assert starts.tolist() == [0, 1, 2]


VALUES = {
    "float_value": st.floats(allow_nan=False),
    "int_value": st.integers(-(2**63), 2**63 - 1),
    "string_value": st.text(max_size=5),
    "bool_value": st.booleans(),
    "datetime_value": human_millis.map(utc),
    "string_set_value": st.lists(st.text(max_size=3), max_size=3),
    "file_value": st.fixed_dictionaries({"path": st.text(max_size=5)}),
    "histogram_value": st.fixed_dictionaries(
        {
            "type": st.sampled_from(["COUNTING", "DENSITY"]),
            "edges": st.lists(st.floats(allow_nan=False), max_size=3),
            "values": st.lists(st.floats(allow_nan=False), max_size=3),
        }
    ),
}


@st.composite
def rows(draw):
    kind = draw(st.sampled_from(sorted(VALUE_COLUMN)))
    row = dict.fromkeys(SCHEMA.names) | {"project_id": "ws/project", "run_id": "RUN-1", "attribute_type": kind}
    row["attribute_path"] = draw(st.sampled_from(["a/b", "a_b", "a b", "", "ä", "b"]))
    row["step"] = decimal(draw(st.none() | micros))
    row["timestamp"] = draw(st.none() | human_millis.map(utc))
    row[VALUE_COLUMN[kind]] = draw(st.none() | VALUES[VALUE_COLUMN[kind]])
    return row


@given(st.lists(rows(), max_size=25), st.integers(0, 25), st.integers(0, 25))
def test_series_are_the_rows_of_each_attribute_in_their_order(given_rows, offset, length):
    batch = normalize(pa.RecordBatch.from_pylist(given_rows, schema=SCHEMA)).slice(offset, length)
    expected: dict[tuple[str, str], list] = {}
    for row in given_rows[offset : offset + length]:
        expected.setdefault((row["attribute_path"], row["attribute_type"]), []).append(row)
    found = list(series_of(batch))
    assert [(s.path, s.type) for s in found] == sorted(expected)
    assert [s.rows.to_pylist() for s in found] == [expected[key] for key in sorted(expected)]
    for series in found:
        values = [row[VALUE_COLUMN[series.type]] for row in expected[series.path, series.type]]
        assert series.values.to_pylist() == values


@given(st.lists(rows(), max_size=25))
def test_normalizing_changes_no_value(given_rows):
    batch = pa.RecordBatch.from_pylist(given_rows, schema=SCHEMA)
    assert normalize(batch).to_pylist() == given_rows


@given(st.lists(st.tuples(micros, millis, st.floats()), max_size=30))
def test_the_columns_of_an_exporter_arrive_bit_by_bit(points):
    values = np.array([p[2] for p in points], np.float64)
    batch = rows_batch(
        REF,
        "metrics/loss",
        "float_series",
        step_micros=whole([p[0] for p in points]),
        time_ms=whole([p[1] for p in points]),
        float_value=pa.array(values),
    )
    assert batch.num_rows == len(points)
    assert step_micros(batch.column("step")).tolist() == [p[0] for p in points]
    assert time_millis(batch.column("timestamp")).tolist() == [p[1] for p in points]
    assert np.asarray(batch.column("float_value")).tobytes() == values.tobytes()
