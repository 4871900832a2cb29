# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet: anybody reads our parts with the official schema, and damage is an error that names the part."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from areas import row
from contracts.rows import (
    OFFICIAL,
    assert_same,
    batch_of,
    curve,
    everything,
    read_rows,
    rows_on_disk,
    single,
    write_run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from truth import Content, rows_in

from neptune_exporter.errors import DamagedDataError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import RunInfo, RunRef, normalize
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.parquet import open_part, part_batches, read_index, without_placeholders, write_index
from neptune_exporter.storage.staging import Staging

REF = RunRef("team/parquet", "run-1")


def parts_of(staging):
    return sorted(staging.folder(REF.project_id).data.glob("*_part_*.parquet"))


def sort_key(row):
    return row.path, row.type, row.step is not None, row.step or 0


def test_anybody_reads_it_with_the_official_schema(staging):
    write_run(staging, REF, everything())
    (part,) = parts_of(staging)
    assert pq.read_schema(part).remove_metadata().equals(OFFICIAL)
    table = pq.read_table(part)
    assert table.schema.remove_metadata().equals(OFFICIAL)
    assert table.cast(OFFICIAL).num_rows == len(everything())
    assert_same(everything(), rows_on_disk(staging, REF))


def test_it_is_read_by_column_and_by_filter(staging):
    write_run(staging, REF, everything())
    (part,) = parts_of(staging)
    loss = pq.read_table(part, columns=["step", "float_value"], filters=[("attribute_path", "==", "loss")])
    assert loss.num_rows == 43
    assert loss.schema.field("step").type == pa.decimal128(18, 6)


def test_rows_are_sorted_and_parts_roll(staging, small_pieces):
    rows = everything() + curve("accuracy", 200) + curve("zebra", 100)
    run = write_run(staging, REF, rows)
    parts = parts_of(staging)
    assert len(parts) > 4
    assert max(part.stat().st_size for part in parts[:-1]) < 20_000
    content = Content(staging.folder(REF.project_id).files)
    found = []
    for number in range(len(parts)):
        (part,) = [p for p in parts if p.name.endswith(f"_part_{number}.parquet")]
        found += rows_in(pq.read_table(part), content)
    assert [sort_key(row) for row in found] == sorted(sort_key(row) for row in rows)
    assert_same(rows, found)
    assert sum(part.rows for part in run.manifest.parts) == len(rows)
    continued = {row.path for row in rows_in(pq.read_table(parts[0]), content)} & {
        row.path for row in rows_in(pq.read_table(parts[1]), content)
    }
    assert continued  # a series goes on over parts
    assert_same(rows, read_rows(run, staging))


def test_two_exports_of_the_same_rows_are_the_same_bytes(staging, tmp_path):
    other = Staging(tmp_path / "other", tmp_path / "other-files")
    write_run(staging, REF, everything(), batch_rows=7)
    write_run(other, REF, everything()[::-1], batch_rows=1000)
    (first,), second = parts_of(staging), next((tmp_path / "other").rglob("*_part_0.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_an_empty_run_is_one_part_without_rows(staging):
    run = write_run(staging, REF, [])
    (part,) = parts_of(staging)
    table = pq.read_table(part)
    assert table.num_rows == 0
    assert table.schema.remove_metadata().equals(OFFICIAL)
    assert read_rows(run, staging) == []


@settings(max_examples=30)
@given(st.data())
def test_any_value_comes_back(tmp_path_factory, data):
    """Ground truth: the values themselves."""
    root = tmp_path_factory.mktemp("any")
    staging = Staging(root / "data", root / "files")
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    columns = {
        "float_series": ("float_value", st.floats()),
        "int": ("int_value", st.integers(-(2**63), 2**63 - 1)),
        "string_series": ("string_value", texts),
        "bool": ("bool_value", st.booleans()),
        "string_set": ("string_set_value", st.lists(texts, max_size=3, unique=True)),
        "datetime": ("datetime_value", st.integers(-(2**50), 2**50)),
    }
    records = []
    for number in range(data.draw(st.integers(0, 12))):
        kind = data.draw(st.sampled_from(sorted(columns)))
        column, values = columns[kind]
        micros = data.draw(st.none() | st.integers(-(10**18) + 1, 10**18 - 1))
        records.append(
            {
                "project_id": REF.project_id,
                "run_id": REF.run_id,
                "attribute_path": data.draw(texts) + str(number),
                "attribute_type": kind,
                "step": None if micros is None else _decimal(micros),
                "timestamp": data.draw(st.none() | st.integers(-(2**50), 2**50)),
                column: data.draw(values),
            }
        )
    batch = pa.RecordBatch.from_pylist(records, schema=OFFICIAL)
    writer = staging.writer(RunInfo(REF), SourceRecord("memory", "here"))
    writer.write(batch)
    writer.commit()
    (part,) = parts_of(staging)
    by_name = [("attribute_path", "ascending"), ("attribute_type", "ascending")]
    found = pq.read_table(part, schema=OFFICIAL).sort_by(by_name)
    assert repr(_exact(found)) == repr(_exact(pa.Table.from_batches([batch]).sort_by(by_name)))


def _exact(table):
    """Values as Python objects; times as numbers, because Python knows no year 35,000."""
    numbers = [f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    return table.cast(pa.schema(numbers)).to_pylist()


def _decimal(micros):
    return Decimal(micros).scaleb(-6)


def test_2_to_the_53_plus_1_stays_an_integer(staging):
    """Loss 5 and 15: integers beside nulls went through float64."""
    rows = [single("big", 2**53 + 1), single("max", 2**63 - 1), single("min", -(2**63)), single("text", "x")]
    write_run(staging, REF, rows)
    assert_same(rows, rows_on_disk(staging, REF))


# --- damage


@pytest.fixture
def part(staging):
    write_run(staging, REF, everything())
    return parts_of(staging)[0]


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -100])
def test_a_part_that_was_cut_short_is_named(part, keep):
    """Loss 13: an unreadable part was skipped with a log line."""
    part.write_bytes(part.read_bytes()[:keep])
    with pytest.raises(DamagedDataError, match=part.name) as raised:
        open_part(part)
    assert "cut short" in raised.value.hint


def test_damage_in_the_middle_is_named(part):
    content = bytearray(part.read_bytes())
    content[100:1000] = bytes(900)
    part.write_bytes(content)
    with pytest.raises(DamagedDataError, match=part.name):
        list(part_batches(open_part(part), part))


def test_a_missing_part_is_named(part):
    part.unlink()
    with pytest.raises(DamagedDataError, match=r"_part_0\.parquet is missing"):
        open_part(part)


def test_another_parquet_file_is_named(part):
    pq.write_table(pa.table({"project_id": ["x"], "attribute_path": ["y"]}), part)
    with pytest.raises(DamagedDataError, match="no column run_id"):
        open_part(part)


def test_rows_without_a_name_are_named(part):
    pq.write_table(pa.Table.from_pylist([{"project_id": "team/parquet", "int_value": 1}], schema=OFFICIAL), part)
    with pytest.raises(DamagedDataError, match="without a name"):
        list(part_batches(open_part(part), part))


# --- placeholders


def test_rows_without_a_value_carry_nothing():
    records = [
        {"attribute_path": "a", "attribute_type": "float_series", "float_value": 1.0},
        {"attribute_path": "a", "attribute_type": "float_series"},
        {"attribute_path": "b", "attribute_type": "int", "float_value": 1.0},
        {"attribute_path": "c", "attribute_type": "file", "file_value": {"path": None}},
        {"attribute_path": "c", "attribute_type": "file", "file_value": {"path": "x"}},
        {"attribute_path": "d", "attribute_type": "string_set", "string_set_value": []},
        {"attribute_path": "e", "attribute_type": "histogram_series"},
        {"attribute_path": "f", "attribute_type": "string", "string_value": ""},
        {"attribute_path": "g", "attribute_type": "something_new", "string_value": "kept"},
        {"attribute_path": "h", "attribute_type": "bool", "bool_value": False},
    ]
    records = [{"project_id": "p", "run_id": "r", **record} for record in records]
    batch = without_placeholders(normalize(pa.RecordBatch.from_pylist(records, schema=OFFICIAL)))
    assert batch.column("attribute_path").to_pylist() == ["a", "c", "d", "f", "g", "h"]


def test_nothing_is_dropped_where_all_rows_have_values():
    batch = normalize(batch_of(REF, curve("loss", 10)))
    assert without_placeholders(batch) is batch


# --- the index


def test_the_index_comes_back(tmp_path):
    attributes = [
        Attribute("a", "float_series", 10, 2, -(10**18) + 1, 10**18 - 1, 6, -1, 2**50, 2**64 - 1),
        Attribute("b", "string"),
        Attribute("ü/漢", "int", 1, 0, None, None, 0, None, None, 7),
    ]
    for some in (attributes, []):
        write_index(tmp_path / "index", some)
        assert read_index(tmp_path / "index", (tmp_path / "index").read_bytes()) == some


def test_a_damaged_index_is_named(tmp_path):
    with pytest.raises(DamagedDataError, match="index"):
        read_index(tmp_path / "index", b"PAR1 not")


def test_columns_of_one_name_are_refused(tmp_path):
    rows = pa.Table.from_pylist([row("loss", "float_series", step=1, float_value=0.5)], OFFICIAL)
    pq.write_table(rows.append_column("float_value", rows.column("float_value")), tmp_path / "part")
    with pytest.raises(DamagedDataError, match="2 columns float_value"):
        open_part(tmp_path / "part")
