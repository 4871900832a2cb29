# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The folder `neptune/` that travels beside a run."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders import attachments
from neptune_exporter.loaders.attachments import (
    AttachedRows,
    AttachmentsWriter,
    AttributeRecord,
    Manifest,
    artifacts_of,
    file_sha256,
)
from neptune_exporter.model import SCHEMA, RunRef, rows_batch

REF = RunRef("p", "r")


def rows(path: str, values: list[str]) -> pa.RecordBatch:
    steps = np.arange(len(values), dtype=np.int64)
    return rows_batch(REF, path, "string_series", step_micros=steps, time_ms=steps, string_value=pa.array(values))


def record(path: str) -> AttributeRecord:
    return AttributeRecord(path, "string_series", "artifact", path)


def values_of(attached: AttachedRows, of: AttributeRecord) -> list[str]:
    return [value for batch in attached.of(of) for value in batch.column("string_value").to_pylist()]


def test_rows_come_back_by_attribute_whatever_their_order_and_number(tmp_path, monkeypatch):
    monkeypatch.setattr(attachments, "GROUP_ROWS", 7)
    writer = AttachmentsWriter(tmp_path)
    wanted = {name: [f"{name}{n}" for n in range(count)] for name, count in [("a", 1), ("b", 30), ("c", 9), ("d", 0)]}
    records = {name: record(name) for name in wanted}
    for start in range(0, 30, 3):  # interleaved, as a target that wants rows by step gets them
        for name, values in wanted.items():
            writer.add_rows(records[name], rows(name, values[start : start + 3]))
    writer.close()
    file = pq.ParquetFile(tmp_path / "data.parquet")
    assert file.num_row_groups > 3
    assert file.schema_arrow.equals(SCHEMA)
    assert file.metadata.row_group(0).column(8).compression == "ZSTD"
    attached = AttachedRows(tmp_path / "data.parquet")
    for name, values in wanted.items():
        assert values_of(attached, records[name]) == values
        assert records[name].attached == len(values)
    attached.close()


def test_a_few_rows_of_a_large_batch_do_not_keep_it_in_memory(tmp_path):
    writer = AttachmentsWriter(tmp_path)
    before = pa.total_allocated_bytes()
    for _ in range(50):
        batch = rows("a", ["x" * 1000] * 1000)
        writer.add_rows(record("a"), batch.slice(500, 1))
    del batch
    assert pa.total_allocated_bytes() - before < 2_000_000
    writer.close()


def test_the_manifest_names_everything_and_comes_back(tmp_path):
    writer = AttachmentsWriter(tmp_path)
    of_file = AttributeRecord("f", "file", "artifact", "files/f", rows=1, native=1)
    writer.add_rows(record("a"), rows("a", ["x"]))
    writer.add_file(of_file, "p/f", "files/f.bin", "ab" * 32, 5)
    manifest = Manifest({"run_id": "r"}, 10, 5, [record("a"), of_file])
    digest = writer.finish(manifest, b"{}\n")
    assert file_sha256(tmp_path / "manifest.json") == digest
    written = json.loads((tmp_path / "manifest.json").read_bytes())
    assert set(written["files"]) == {"data.parquet", "files.jsonl", "extra.jsonl"}
    assert all(file_sha256(tmp_path / name) == sha256 for name, sha256 in written["files"].items())
    assert Manifest.from_bytes((tmp_path / "manifest.json").read_bytes()) == manifest
    assert artifacts_of(tmp_path / "files.jsonl") == {("f", "file"): ["files/f.bin"]}


def test_nothing_attached_makes_no_files(tmp_path):
    AttachmentsWriter(tmp_path).finish(Manifest({}, 1, 0), None)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert artifacts_of(tmp_path / "files.jsonl") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [(b'{"format": 2}', "newer neptune-exporter"), (b"{}", "cannot be read"), (b"", "cannot be read")],
)
def test_a_manifest_that_cannot_be_read_says_why(data, message):
    with pytest.raises(TargetError, match=message):
        Manifest.from_bytes(data)
