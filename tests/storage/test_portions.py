# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Parts are read in batches of bounded bytes, however long their texts and however they lie on disk."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neptune_exporter.model import SCHEMA
from neptune_exporter.storage import portions
from neptune_exporter.storage.parquet import open_part, part_batches

LIMIT = 100_000
HISTOGRAM = {"type": "COUNTING", "edges": [float(n) for n in range(101)], "values": [1.0] * 100}
PIECES = 400


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    monkeypatch.setattr(portions, "READ_BYTES", LIMIT)


def written(path, kind, values, **how):
    column = {"string_set": "string_set_value", "histogram_series": "histogram_value", "file_series": "file_value"}
    name = column.get(kind, "string_value")
    own = {"project_id": "p", "run_id": "r", "attribute_path": "a", "attribute_type": kind}
    pq.write_table(pa.Table.from_pylist([{**own, name: value} for value in values], SCHEMA), path, **how)
    return name


@pytest.mark.parametrize("stripped", [False, True], ids=["with statistics", "without"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string_series", ["x" * 5000] * PIECES),
        ("string_series", [f"{n:05}" * 1000 for n in range(PIECES)]),
        ("string_series", ["short"] * PIECES + ["x" * 5000] * 60 + [None] * PIECES),
        ("string_set", [["x" * 2500, "y" * 2500]] * PIECES),
        ("histogram_series", [HISTOGRAM] * PIECES),
        ("file_series", [{"path": "d/" * 2000}] * PIECES),
    ],
    ids=["one text", "texts", "some texts", "sets", "histograms", "files"],
)
@pytest.mark.parametrize("group", [50, 1_000_000])
def test_batches_are_bounded_in_bytes(tmp_path, kind, values, stripped, group):
    part = tmp_path / "part"
    how = {"write_statistics": False, "use_dictionary": True} if stripped else {}
    name = written(part, kind, values, row_group_size=group, **how)
    batches = list(part_batches(open_part(part), part))
    found = pa.concat_arrays([batch.column(name) for batch in batches])
    assert found.equals(pa.array([value for value in values if value is not None], found.type))
    assert max(batch.column(name).nbytes for batch in batches) <= 1.1 * LIMIT
    assert len(batches) <= 60  # and not in crumbs


def test_one_text_may_be_longer(tmp_path):
    part = tmp_path / "part"
    written(part, "string_series", ["x" * (3 * LIMIT)] * 3)
    assert [batch.num_rows for batch in part_batches(open_part(part), part)] == [1, 1, 1]


def test_small_row_groups_are_read_together(tmp_path, monkeypatch):
    part = tmp_path / "part"
    written(part, "string_series", ["x"] * 300, row_group_size=1)
    file, asked = open_part(part), []
    read = file.iter_batches
    monkeypatch.setattr(file, "iter_batches", lambda *how, **more: asked.append(more) or read(*how, **more))
    assert sum(batch.num_rows for batch in part_batches(file, part)) == 300
    assert len(asked) < 5
