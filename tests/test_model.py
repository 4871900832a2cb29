# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The schema, steps and times as whole numbers, and splitting a batch into its attributes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from neptune_exporter.model import (
    BATCH_SCHEMA,
    NO_VALUE,
    SCHEMA,
    VALUE_COLUMN,
    VALUE_COLUMNS,
    RunInfo,
    RunRef,
    constant,
    names,
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
from neptune_exporter.selection import CLASS_OF_TYPE, CLASSES

REF = RunRef("ws/project", "RUN-1")
LARGEST = Decimal("999999999999.999999")


def test_the_schema_is_the_official_exporters():
    """Archives are interchangeable in both directions only as long as this does not change."""
    assert [(field.name, str(field.type)) for field in SCHEMA] == [
        ("project_id", "string"),
        ("run_id", "string"),
        ("attribute_path", "string"),
        ("attribute_type", "string"),
        ("step", "decimal128(18, 6)"),
        ("timestamp", "timestamp[ms, tz=UTC]"),
        ("int_value", "int64"),
        ("float_value", "double"),
        ("string_value", "string"),
        ("bool_value", "bool"),
        ("datetime_value", "timestamp[ms, tz=UTC]"),
        ("string_set_value", "list<item: string>"),
        ("file_value", "struct<path: string>"),
        ("histogram_value", "struct<type: string, edges: list<item: double>, values: list<item: double>>"),
    ]


def test_every_type_has_a_value_column_and_a_class():
    assert set(VALUE_COLUMN.values()) == set(VALUE_COLUMNS)
    assert set(VALUE_COLUMN) == set(CLASS_OF_TYPE)
    assert set(CLASS_OF_TYPE.values()) == set(CLASSES)


@pytest.mark.parametrize(
    "step",
    [
        Decimal(0),
        Decimal("0.29"),
        Decimal("-0.29"),
        Decimal("0.000001"),
        Decimal("-0.000001"),
        Decimal(2**39),
        Decimal(-(2**39)) - Decimal("0.5"),
        LARGEST,
        -LARGEST,
        None,
    ],
)
def test_steps_are_exact(step):
    micros = np.array([NO_VALUE if step is None else int(step.scaleb(6)), 1], np.int64)
    array = step_array(micros)
    array.validate(full=True)
    assert array.to_pylist() == [step, Decimal("0.000001")]
    assert step_micros(pa.array([step, Decimal("0.000001")], pa.decimal128(18, 6))).tolist() == micros.tolist()


@pytest.mark.parametrize("micros", [10**18, -(10**18), 2**63 - 1, -(2**63) + 1])
def test_steps_that_do_not_fit_are_refused(micros):
    with pytest.raises(ValueError, match="1e12"):
        step_array(np.array([0, micros], np.int64))


def test_steps_and_times_of_a_slice():
    steps = pa.array([Decimal(i) if i % 3 else None for i in range(20)], pa.decimal128(18, 6))
    times = pa.array([i if i % 4 else None for i in range(20)], pa.timestamp("ms", tz="UTC"))
    assert step_micros(steps.slice(5, 7)).tolist() == [i * 10**6 if i % 3 else NO_VALUE for i in range(5, 12)]
    assert time_millis(times.slice(5, 7)).tolist() == [i if i % 4 else NO_VALUE for i in range(5, 12)]
    assert step_micros(steps.slice(3, 1)).tolist() == [NO_VALUE]
    assert step_micros(steps.slice(20)).tolist() == []
    assert time_millis(times.slice(20)).tolist() == []
    assert step_micros(pa.nulls(2, pa.decimal128(18, 6))).tolist() == [NO_VALUE, NO_VALUE]
    assert time_millis(pa.nulls(2, pa.timestamp("ms", tz="UTC"))).tolist() == [NO_VALUE, NO_VALUE]


def test_steps_from_every_other_number():
    micros = np.arange(10, dtype=np.int64)[::2]
    assert step_micros(step_array(micros)).tolist() == [0, 2, 4, 6, 8]
    assert time_millis(time_array(micros)).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("millis", "time"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        (1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)),
        (253_402_300_799_999, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
def test_times_are_exact(millis, time):
    assert utc(millis) == time
    array = time_array(np.array([millis, NO_VALUE], np.int64))
    array.validate(full=True)
    assert array.to_pylist() == [time, None]
    assert time_millis(pa.array([time, None], pa.timestamp("ms", tz="UTC"))).tolist() == [millis, NO_VALUE]


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0"),
        (3_000_000, "3"),
        (290_000, "0.29"),
        (-290_000, "-0.29"),
        (-1, "-0.000001"),
        (10**18 - 1, "999999999999.999999"),
        (10_000_000, "10"),
    ],
)
def test_step_text(micros, text):
    assert step_text(micros) == text


@pytest.mark.parametrize(
    ("steps", "decimals"),
    [([], 0), ([None], 0), (["3", None], 0), (["1", "0.5"], 1), (["-0.29"], 2), (["0.000001"], 6), (["10.1200"], 2)],
)
def test_step_decimals(steps, decimals):
    micros = np.array([NO_VALUE if s is None else int(Decimal(s).scaleb(6)) for s in steps], np.int64)
    assert step_decimals(micros) == decimals


# --- batches


def test_a_batch_from_the_columns_that_there_are():
    batch = rows_batch(
        REF,
        pa.array(["loss", "acc", "loss"]),
        "float_series",
        step_micros=np.array([290_000, NO_VALUE, 0], np.int64),
        time_ms=np.array([1, 2, NO_VALUE], np.int64),
        float_value=pa.array([1.5, None, 2.5]),
    )
    batch.validate(full=True)
    assert batch.schema.equals(BATCH_SCHEMA)
    row = dict.fromkeys(SCHEMA.names) | {"project_id": "ws/project", "run_id": "RUN-1"}
    row["attribute_type"] = "float_series"
    assert batch.to_pylist() == [
        row | {"attribute_path": "loss", "step": Decimal("0.29"), "timestamp": utc(1), "float_value": 1.5},
        row | {"attribute_path": "acc", "timestamp": utc(2)},
        row | {"attribute_path": "loss", "step": Decimal(0), "float_value": 2.5},
    ]


def test_a_misspelt_column_is_an_error_and_not_a_loss():
    with pytest.raises(TypeError, match="flaot_value"):
        rows_batch(REF, "loss", "float", flaot_value=pa.array([1.0]))


def test_a_batch_without_values():
    assert rows_batch(REF, "p", "string", rows=2).num_rows == 2
    assert rows_batch(REF, "p", "string").num_rows == 0


def test_names():
    assert constant("a", 3).to_pylist() == ["a", "a", "a"]
    assert names(np.array([1, 0, 1]), ["x", "y"]).to_pylist() == ["y", "x", "y"]
    assert names(np.array([1, 0], np.uint16), pa.array(["x", "y"])).to_pylist() == ["y", "x"]


def plain_batch() -> pa.RecordBatch:
    rows = rows_batch(
        REF, pa.array(["b", "a", "b"]), "int", step_micros=np.array([0, 1, 2]), int_value=pa.array([1, 2**53 + 1, -1])
    ).to_pylist()
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def with_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, column)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("attribute_path", pa.large_string()),
        ("attribute_path", pa.dictionary(pa.int8(), pa.string())),
        ("attribute_path", pa.dictionary(pa.int64(), pa.large_string())),
        ("string_value", pa.large_string()),
        ("int_value", pa.float64()),
        ("step", pa.decimal128(38, 6)),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("string_set_value", pa.large_list(pa.string())),
    ],
)
def test_normalize_keeps_every_value(name, type_):
    batch = plain_batch()
    values = [1, 2, 3] if pa.types.is_floating(type_) else batch.column(name).to_pylist()
    other = with_column(batch, name, pa.array(values, type_))
    result = normalize(other)
    assert result.schema.equals(BATCH_SCHEMA)
    assert result.to_pylist() == with_column(batch, name, pa.array(values, SCHEMA.field(name).type)).to_pylist()


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("step", pa.array([0.29, None, 99999999999.123456]), [Decimal("0.29"), None, Decimal("99999999999.123459")]),
        ("step", pa.array([0.1, -2.5, 16777216], pa.float32()), [Decimal("0.1"), Decimal("-2.5"), Decimal(16777216)]),
        ("float_value", pa.array([Decimal("0.1"), None, Decimal("1e-7")], pa.decimal128(30, 10)), [0.1, None, 1e-7]),
        ("bool_value", pa.array([0, None, 1]), [False, None, True]),
    ],
)
def test_normalize_takes_what_can_be_cast(name, column, expected):
    assert normalize(with_column(plain_batch(), name, column)).column(name).to_pylist() == expected


def test_normalize_leaves_alone_what_is_normal_and_fills_what_is_absent():
    batch = normalize(plain_batch())
    assert normalize(batch) is batch
    absent = normalize(plain_batch().drop_columns(["histogram_value", "step"]))
    assert absent.schema.equals(BATCH_SCHEMA)
    assert absent.column("histogram_value").null_count == absent.column("step").null_count == 3
    assert absent.column("int_value").to_pylist() == [1, 2**53 + 1, -1]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("int_value", pa.array([0.5, 1.0, 2.0])),
        ("step", pa.array([Decimal("1e13")] * 3, pa.decimal128(38, 6))),
        ("step", pa.array([Decimal("0.0000001")] * 3, pa.decimal128(38, 7))),
        ("timestamp", pa.array([1, 2, 3], pa.timestamp("us", tz="UTC"))),
        ("int_value", pa.array([2**63] * 3, pa.uint64())),
        ("step", pa.array([0.5, 0.1234567, 1.0])),
        ("step", pa.array([0.5, float("nan"), 1.0])),
        ("step", pa.array([0.5, 0.1234567, 1.0], pa.float32())),
        ("float_value", pa.array([Decimal("0.1234567890123456789012345")] * 3, pa.decimal128(38, 25))),
        ("bool_value", pa.array([0, 1, 2])),
        ("bool_value", pa.array([0.0, 1.0, 0.5])),
    ],
)
def test_normalize_refuses_to_lose(name, column):
    with pytest.raises(pa.ArrowInvalid):
        normalize(with_column(plain_batch(), name, column))


# --- series


def test_series_of_a_batch_without_rows():
    assert list(series_of(rows_batch(REF, "p", "int"))) == []


def test_series_keep_the_order_of_rows_and_every_column():
    paths, values = ["b", "a", "b", "a", "b"], [1, 2, 3, 4, 5]
    kinds = ["int", "int", "int", "int", "string"]
    texts = [None, None, None, None, "text"]
    batch = rows_batch(
        REF,
        pa.array(paths),
        pa.array(kinds),
        step_micros=np.array([5, 4, 3, 2, 1]),
        time_ms=np.array([9, NO_VALUE, 7, 6, 5]),
        int_value=pa.array(values),
        string_value=pa.array(texts),
    )
    found = list(series_of(batch))
    assert [(s.path, s.type) for s in found] == [("a", "int"), ("b", "int"), ("b", "string")]
    rows = batch.to_pylist()
    assert [s.rows.to_pylist() for s in found] == [[rows[1], rows[3]], [rows[0], rows[2]], [rows[4]]]
    assert [s.values.to_pylist() for s in found] == [[2, 4], [1, 3], ["text"]]
    assert all(s.rows.schema.equals(BATCH_SCHEMA) for s in found)


def test_series_of_nested_values():
    histograms = [{"type": "COUNTING", "edges": [float(i)], "values": [1.0, i / 3]} for i in range(6)]
    batch = rows_batch(
        REF,
        pa.array(["x", "y"] * 3),
        "histogram_series",
        histogram_value=pa.array(histograms, SCHEMA.field("histogram_value").type),
    )
    assert {s.path: s.values.to_pylist() for s in series_of(batch)} == {"x": histograms[::2], "y": histograms[1::2]}


def test_series_of_more_attributes_than_sixteen_bits_can_number():
    count = 70_000
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(count), 2))
    dictionary = [f"p/{i:05d}" for i in range(count)]
    batch = rows_batch(REF, names(order, dictionary), "int", int_value=pa.array(np.arange(2 * count)))
    wanted: list[list[int]] = [[] for _ in range(count)]
    for position, code in enumerate(order.tolist()):
        wanted[code].append(position)
    found = list(series_of(batch))
    assert [s.path for s in found] == dictionary
    together = pa.chunked_array([s.values for s in found]).to_pylist()
    assert together == [position for positions in wanted for position in positions]
    assert all(s.rows.num_rows == 2 for s in found)


# --- runs


FULL = RunInfo(
    ref=RunRef("ws/project", "żółw", "model_version"),
    name="a name",
    sys_id="RUN-7",
    experiment="exp",
    parent=RunRef("ws/project", "parent"),
    fork_step=Decimal("0.290000"),
    created=datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
    modified=datetime(2025, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    owner="me",
    state="Inactive",
    failed=False,
)


@pytest.mark.parametrize("info", [FULL, RunInfo(REF), RunInfo(REF, fork_step=Decimal(0), failed=True, name="")])
def test_run_info_survives_json(info):
    text = json.dumps(info.to_json())
    again = RunInfo.from_json(json.loads(text))
    assert again == info
    assert str(again.fork_step) == str(info.fork_step)


def test_run_info_in_json_says_utc_and_newer_members_are_ignored():
    value = FULL.to_json()
    assert value["modified"] == "2025-01-02T03:04:05+00:00"
    assert RunInfo.from_json(value | {"from_the_future": 1}) == FULL


def test_run_refs_are_keys():
    assert str(REF) == "ws/project/RUN-1"
    assert len({REF, RunRef("ws/project", "RUN-1"), RunRef("ws/project", "RUN-1", "model")}) == 2
    assert min(RunRef("b", "1"), RunRef("a", "2")).project_id == "a"
