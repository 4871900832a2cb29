# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprints against a slow second implementation of their definition in docs/design.md, and golden values."""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.model import SCHEMA

NULL = -(2**63)
COLUMN = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    "float_series": "float_value",
    "string_series": "string_value",
    "histogram_series": "histogram_value",
    "file": "file_value",
    "file_series": "file_value",
    "git_ref": "string_value",
}


class Row(NamedTuple):
    path: str
    type: str
    step: int | None  # micro-units
    time: int | None  # ms
    value: Any


# --- the definition, one row and one Python integer at a time


def wrap(x: int) -> int:
    return x % 2**64


def mix(x: int) -> int:
    x = wrap(x)
    x = wrap((x ^ x >> 30) * 0xBF58476D1CE4E5B9)
    x = wrap((x ^ x >> 27) * 0x94D049BB133111EB)
    return x ^ x >> 31


def text(s: str) -> int:
    return int.from_bytes(hashlib.blake2b(s.encode("utf-8"), digest_size=8).digest(), "little")


def number(x: float) -> int:
    return 0x7FF8000000000000 if math.isnan(x) else struct.unpack("<Q", struct.pack("<d", x))[0]


def many(hashes: Iterable[int]) -> int:
    hashes = list(hashes)
    return mix(sum(hashes) + len(hashes) * 0x165667B19E3779F9)


def sequence(numbers: Iterable[float]) -> int:
    return many(mix(number(x) + mix(i * 0x165667B19E3779F9)) for i, x in enumerate(numbers, 1))


def content_sha256(path: str) -> str:
    return hashlib.sha256(b"content of " + path.rpartition("|")[2].encode()).hexdigest()


def value_hash(row: Row) -> int:
    value = row.value
    match COLUMN[row.type]:
        case "float_value":
            return number(value)
        case "string_value":
            return text(value)
        case "string_set_value":
            return many(mix(text(s)) for s in value)
        case "histogram_value":
            edges, values = sequence(value["edges"]), sequence(value["values"])
            return mix(text(value["type"]) + mix(edges + 0x9E3779B97F4A7C15)) + mix(values + 0xC2B2AE3D27D4EB4F)
        case "file_value":
            return int.from_bytes(bytes.fromhex(content_sha256(value["path"]))[:8], "big")
        case _:
            return wrap(int(value))


def row_hash(row: Row) -> int:
    h = mix(value_hash(row) + text(row.type))
    h = mix(h + wrap(NULL if row.time is None else row.time) * 0xC2B2AE3D27D4EB4F)
    return mix(h + wrap(NULL if row.step is None else row.step) * 0x9E3779B97F4A7C15)


def decimals(step: int) -> int:
    exact = Decimal(step).scaleb(-6)
    return next(d for d in range(7) if exact == exact.quantize(Decimal(1).scaleb(-d)))


def expected(rows: Iterable[Row]) -> list[Attribute]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row.path, row.type].append(row)
    found = []
    for (path, attribute_type), group in sorted(grouped.items()):
        steps = [row.step for row in group if row.step is not None]
        times = [row.time for row in group if row.time is not None]
        found.append(
            Attribute(
                path=path,
                type=attribute_type,
                rows=len(group),
                nan_count=sum(isinstance(row.value, float) and math.isnan(row.value) for row in group),
                first_step=min(steps, default=None),
                last_step=max(steps, default=None),
                step_decimals=max(map(decimals, steps), default=0),
                first_time=min(times, default=None),
                last_time=max(times, default=None),
                digest=wrap(sum(map(row_hash, group))),
            )
        )
    return found


# --- rows as batches: plain strings, or dictionaries as they come


def batch_of(rows: list[Row]) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in SCHEMA.names}
    for i, row in enumerate(rows):
        columns["project_id"][i], columns["run_id"][i] = "ws/project", "RUN-1"
        columns["attribute_path"][i], columns["attribute_type"][i] = row.path, row.type
        columns["step"][i] = None if row.step is None else Decimal(row.step).scaleb(-6)
        columns["timestamp"][i] = row.time
        columns[COLUMN[row.type]][i] = row.value
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)


def in_dictionaries(batch: pa.RecordBatch, seed: int, index_type: pa.DataType) -> pa.RecordBatch:
    """The same batch with name columns as dictionaries in some order, with names that no row has."""
    columns, fields = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if field.name in ("project_id", "run_id", "attribute_path", "attribute_type"):
            names = [*column.unique().to_pylist(), "nobody/has/this"]
            random.Random(seed).shuffle(names)
            codes = pa.array([names.index(name) for name in column.to_pylist()], index_type)
            column = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
        columns.append(column)
        fields.append(pa.field(field.name, column.type))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def fingerprint(*batches: pa.RecordBatch) -> list[Attribute]:
    sink = Fingerprint(content_sha256)
    for batch in batches:
        sink.write(batch)
    sink.commit()
    assert sink.rows == sum(batch.num_rows for batch in batches)
    return sink.attributes()


def digest(*rows: Row) -> int:
    return fingerprint(batch_of(list(rows)))[0].digest


def any_bits(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


texts = st.text(max_size=8)
floats = st.floats() | st.integers(0, 2**64 - 1).map(any_bits) | st.sampled_from([0.0, -0.0, 1.0, math.nan])
numbers = st.lists(floats, max_size=5)
int64s = st.integers(-(2**63), 2**63 - 1)
histograms = st.fixed_dictionaries(
    {"type": st.sampled_from(["COUNTING", "DENSITY"]), "edges": numbers, "values": numbers}
)
VALUES = {
    "float_value": floats,
    "int_value": int64s,
    "string_value": texts,
    "bool_value": st.booleans(),
    "datetime_value": int64s,
    "string_set_value": st.lists(texts, max_size=4, unique=True),
    "file_value": st.builds(lambda folder, name: {"path": f"{folder}|{name}"}, texts, texts),
    "histogram_value": histograms,
}
steps = (
    st.none()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.integers(-(10**9), 10**9).map(lambda step: step * 10**6)
    | st.integers(-100, 100).map(lambda step: step * 10**4)
)
times = st.none() | st.integers(-(2**62), 2**62)
paths = st.sampled_from(["a/b", "a_b", "a b", "ä/ß", "", "metrics/loss", "x" * 300])
row = st.sampled_from(sorted(COLUMN)).flatmap(
    lambda t: st.builds(Row, paths, st.just(t), steps, times, VALUES[COLUMN[t]])
)
rows_of_a_run = st.lists(row, max_size=30)


@given(rows_of_a_run)
def test_agrees_with_the_definition(rows):
    assert fingerprint(batch_of(rows)) == expected(rows)


@given(rows_of_a_run, st.randoms(use_true_random=False), st.integers(0, 30))
def test_neither_order_nor_batches_matter(rows, rng, cut):
    shuffled = rng.sample(rows, len(rows))
    assert fingerprint(batch_of(shuffled[:cut]), batch_of(shuffled[cut:])) == expected(rows)


@given(rows_of_a_run, st.integers(0, 1000), st.sampled_from([pa.int8(), pa.int32(), pa.int64()]))
def test_dictionaries_are_the_same_as_strings(rows, seed, index_type):
    assert fingerprint(in_dictionaries(batch_of(rows), seed, index_type)) == expected(rows)


@given(rows_of_a_run, st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_a_slice_counts_its_own_rows_only(rows, offset, length, dictionaries):
    batch = batch_of(rows)
    if dictionaries:
        batch = in_dictionaries(batch, 0, pa.int32())
    assert fingerprint(batch.slice(offset, length)) == expected(rows[offset : offset + length])


def test_equal_names_in_a_dictionary_are_one_attribute():
    rows = [Row("loss", "float_series", i, i, float(i)) for i in range(4)]
    batch = batch_of(rows)
    doubled = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0], pa.int32()), pa.array(["loss", "loss"]))
    index = batch.schema.get_field_index("attribute_path")
    batch = batch.set_column(index, "attribute_path", doubled)
    assert fingerprint(batch) == expected(rows)


def test_many_rows():
    """More rows than are mixed at a time, attributes interleaved."""
    rng = random.Random(7)
    rows = [
        Row(f"m/{i % 7}", "float_series", i // 7 * 100_000, 1_700_000_000_000 + i, rng.random()) for i in range(40_000)
    ]
    assert fingerprint(batch_of(rows)) == expected(rows)


def test_more_attributes_than_sixteen_bits_can_number():
    rng = random.Random(8)
    rows = [Row(f"p/{i}", ("int", "float_series")[i % 2], None, None, (i, i / 3)[i % 2]) for i in range(70_000)]
    rng.shuffle(rows)
    assert fingerprint(batch_of(rows)) == expected(rows)


GOLDEN = [
    (Row("p", "float", None, None, 0.1), 2060661633163691380),
    (Row("p", "int", None, None, 2**53 + 1), 9782006291398619461),
    (Row("p", "string", None, None, "żółw\n🐢"), 1142144702765894273),
    (Row("p", "bool", None, None, True), 15867193050215588731),
    (Row("p", "datetime", None, None, 1_700_000_000_123), 567250847270726168),
    (Row("p", "string_set", None, None, ["b", "a", ""]), 2188589351503446297),
    (Row("p", "float_series", 290_000, 1_700_000_000_123, -0.0), 5751504955488456834),
    (Row("p", "float_series", -1, -1, math.nan), 15094299008091826487),
    (Row("p", "string_series", 1, 2, "line"), 12740018884235003053),
    (Row("p", "file", None, None, {"path": "x"}), 11722477367195832221),
    (
        Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [0.0, 0.5, 1.0], "values": [3.0, 4.0]}),
        7032234784075735879,
    ),
]


@pytest.mark.parametrize(("row", "golden"), GOLDEN, ids=[f"{i}-{row.type}" for i, (row, _) in enumerate(GOLDEN)])
def test_golden_digests(row, golden):
    """Archives were verified with these: a change here makes every archive look damaged."""
    assert digest(row) == golden


def test_golden_run_digest():
    attributes = fingerprint(batch_of([row._replace(path=f"p/{i}") for i, (row, _) in enumerate(GOLDEN)]))
    assert run_digest(attributes) == "3b300a023110c0b4de79e17264990c4b"
    assert run_digest(attributes, "ab" * 32) == "a1882dcdda0c2878a301881906b73498"


NANS = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000001, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000001]


def test_nan_has_one_form():
    assert len({digest(Row("p", "float_series", 0, 0, any_bits(bits))) for bits in NANS}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(Row("p", "float", None, None, 0.0), Row("p", "float", None, None, -0.0), id="sign of zero"),
        pytest.param(
            Row("p", "float", None, None, any_bits(7)), Row("p", "int", None, None, 7), id="equal bits, other type"
        ),
        pytest.param(Row("p", "int", None, None, 1), Row("p", "bool", None, None, True), id="int and bool"),
        pytest.param(Row("p", "float", None, None, 1.0), Row("p", "float_series", None, None, 1.0), id="value, series"),
        pytest.param(Row("p", "int", None, None, 2**53), Row("p", "int", None, None, 2**53 + 1), id="beyond floats"),
        pytest.param(Row("p", "float_series", None, 0, 1.0), Row("p", "float_series", 0, 0, 1.0), id="no step, step 0"),
        pytest.param(Row("p", "float_series", 0, None, 1.0), Row("p", "float_series", 0, 0, 1.0), id="no time, time 0"),
        pytest.param(
            Row("p", "float_series", 1, 2, 1.0), Row("p", "float_series", 2, 1, 1.0), id="step and time exchanged"
        ),
        pytest.param(
            Row("p", "string_set", None, None, ["ab"]), Row("p", "string_set", None, None, ["a", "b"]), id="sets"
        ),
        pytest.param(
            Row("p", "string_set", None, None, []), Row("p", "string_set", None, None, [""]), id="empty set, empty text"
        ),
        pytest.param(
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [0.0, 1.0], "values": [2.0]}),
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [0.0], "values": [1.0, 2.0]}),
            id="where edges end",
        ),
        pytest.param(
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [0.0, 1.0], "values": [2.0]}),
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [1.0, 0.0], "values": [2.0]}),
            id="order of edges",
        ),
        pytest.param(
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [0.0, 1.0], "values": [2.0]}),
            Row("p", "histogram_series", 0, 0, {"type": "DENSITY", "edges": [0.0, 1.0], "values": [2.0]}),
            id="counts and densities",
        ),
        pytest.param(
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [0.0], "values": []}),
            Row("p", "histogram_series", 0, 0, {"type": "COUNTING", "edges": [], "values": [0.0]}),
            id="edges and values exchanged",
        ),
    ],
)
def test_what_differs_has_another_digest(one, other):
    assert digest(one) != digest(other)


def test_the_order_of_a_set_does_not_count():
    assert digest(Row("p", "string_set", None, None, ["a", "b", "c"])) == digest(
        Row("p", "string_set", None, None, ["c", "a", "b"])
    )


def test_files_count_by_content_and_not_by_path():
    here, there, other = ({"path": path} for path in ("here|one", "there|one", "here|two"))
    assert digest(Row("p", "file", None, None, here)) == digest(Row("p", "file", None, None, there))
    assert digest(Row("p", "file", None, None, here)) != digest(Row("p", "file", None, None, other))


def test_a_file_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match=r"here\|one"):
        Fingerprint().write(batch_of([Row("p", "file", None, None, {"path": "here|one"})]))


def test_a_value_twice_is_not_a_value_once():
    row = Row("loss", "float_series", 0, 0, 1.0)
    assert digest(row) != digest(row, row)
    assert fingerprint(batch_of([row, row])) == expected([row, row])


@pytest.mark.parametrize("attribute_type", sorted(COLUMN))
def test_rows_without_a_value_are_refused(attribute_type):
    with pytest.raises(ValueError, match="null"):
        fingerprint(batch_of([Row("p", attribute_type, 0, 0, None)]))


@pytest.mark.parametrize(
    ("attribute_type", "value"),
    [
        ("string_set", ["a", None]),
        ("file", {"path": None}),
        ("histogram_series", {"type": None, "edges": [0.0], "values": []}),
        ("histogram_series", {"type": "COUNTING", "edges": None, "values": []}),
        ("histogram_series", {"type": "COUNTING", "edges": [None], "values": []}),
        ("histogram_series", {"type": "COUNTING", "edges": [], "values": [1.0, None]}),
    ],
)
def test_a_hole_in_a_value_is_not_taken_for_a_value(attribute_type, value):
    with pytest.raises(ValueError, match="null inside a value"):
        fingerprint(batch_of([Row("p", attribute_type, 0, 0, value)]))


def test_nothing_at_all():
    assert fingerprint() == []
    assert fingerprint(batch_of([])) == []


def test_what_is_known_already_is_added_without_its_rows():
    rows = [Row("loss", "float_series", i * 500_000, 1000 - i, float(i)) for i in range(10)]
    sink = Fingerprint()
    sink.add(Attribute("loss", "float_series"))  # an empty series
    sink.add(Attribute("empty", "string_series"))
    for attribute in expected(rows[:4]):
        sink.add(attribute)
    sink.write(batch_of(rows[4:]))
    assert sink.attributes() == [Attribute("empty", "string_series"), *expected(rows)]


@given(rows_of_a_run, st.randoms(use_true_random=False))
def test_the_digest_of_a_run_depends_on_its_attributes_and_not_on_their_order(rows, rng):
    attributes = expected(rows)
    whole = run_digest(attributes)
    assert run_digest(rng.sample(attributes, len(attributes))) == whole
    assert run_digest(attributes, "00" * 32) != whole
    for i, attribute in enumerate(attributes):
        rest = attributes[:i] + attributes[i + 1 :]
        assert run_digest(rest) != whole
        for changed in (
            attribute._replace(path=attribute.path + "x"),
            attribute._replace(rows=attribute.rows + 1),
            attribute._replace(digest=attribute.digest ^ 1),
        ):
            assert run_digest([*rest, changed]) != whole


def test_an_attribute_survives_json():
    for attribute in expected([row for row, _ in GOLDEN]):
        assert Attribute(*json.loads(json.dumps(attribute))) == attribute
