# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Rows as plain Python objects, into Arrow and back from disk: what tests compare.

Reading goes through plain pyarrow with the official schema, written down here once more, and through nothing of ours.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from truth import Content, HistogramValue, Row, differences, rows_in

from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

OFFICIAL = pa.schema(
    {
        "project_id": pa.string(),
        "run_id": pa.string(),
        "attribute_path": pa.string(),
        "attribute_type": pa.string(),
        "step": pa.decimal128(18, 6),
        "timestamp": pa.timestamp("ms", "UTC"),
        "int_value": pa.int64(),
        "float_value": pa.float64(),
        "string_value": pa.string(),
        "bool_value": pa.bool_(),
        "datetime_value": pa.timestamp("ms", "UTC"),
        "string_set_value": pa.list_(pa.string()),
        "file_value": pa.struct({"path": pa.string()}),
        "histogram_value": pa.struct(
            {"type": pa.string(), "edges": pa.list_(pa.float64()), "values": pa.list_(pa.float64())}
        ),
    }
)


def single(path: str, value: Any, kind: str = "") -> Row:
    """A single value; its type follows from the Python type where it is not given."""
    kinds = {bool: "bool", int: "int", float: "float", str: "string", datetime: "datetime", frozenset: "string_set"}
    return Row(path, kind or kinds.get(type(value), "file"), None, None, value)


def point(path: str, step: str | float, value: Any, millis: int = 0) -> Row:
    """A point of a series, so many milliseconds after `START`; its type follows from the Python type."""
    kinds = {float: "float_series", str: "string_series", HistogramValue: "histogram_series", bytes: "file_series"}
    exact = Decimal(str(step))
    return Row(path, kinds[type(value)], exact, START + timedelta(milliseconds=millis), value)


def curve(path: str, points: int, *, first: int = 0, seed: int = 0) -> list[Row]:
    """A float series at whole steps."""
    chance = random.Random(f"{path} {seed}")
    return [point(path, step, chance.random(), step) for step in range(first, first + points)]


def everything() -> list[Row]:
    """At least one row of each type, with the values that are easily lost."""
    return [
        single("config/epochs", 2**63 - 1),
        single("config/rate", float("nan")),
        single("config/zero", -0.0),
        single("config/far", float("inf")),
        single("config/note", "text\nwith lines, ünicode and \0"),
        single("config/on", True),
        single("config/when", datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
        single("sys/tags", frozenset({"b", "a"})),
        single("sys/name", "the name"),
        single("model", b"weights" * 99),
        single("empty", b""),
        *curve("loss", 40),
        point("loss", "40.5", float("nan"), 41),
        point("loss", "-1.25", -0.0, 1),
        point("loss", "41.000001", float("-inf"), 42),
        *(point("log", step, f"line {step}", step) for step in range(20)),
        *(
            point("weights", step, HistogramValue("COUNTING", (0.0, 0.5, float(step + 1)), (1.0, 2.0)), step)
            for step in range(5)
        ),
        *(point("images", step, bytes([step]) * 100, step) for step in range(3)),
    ]


_COLUMNS = {
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
}


def batch_of(ref: RunRef, rows: Sequence[Row], files: Any = None, paths: Mapping[Row, str] | None = None) -> Any:
    """The rows as a record batch with the official schema; files are stored through `files` unless `paths` has them."""
    return pa.RecordBatch.from_pylist([_record(ref, row, files, paths or {}) for row in rows], schema=OFFICIAL)


def _record(ref: RunRef, row: Row, files: Any, paths: Mapping[Row, str]) -> dict[str, Any]:
    value = row.value
    if isinstance(value, HistogramValue):
        value = value._asdict()
    elif isinstance(value, frozenset):
        value = sorted(value)
    elif isinstance(value, bytes):
        path = paths.get(row) or files.add(row.path, "content.bin", _pieces(value), step=row.step)
        value = {"path": path}
    return {
        "project_id": ref.project_id,
        "run_id": ref.run_id,
        "attribute_path": row.path,
        "attribute_type": row.type,
        "step": row.step,
        "timestamp": row.time,
        _COLUMNS[row.type]: value,
    }


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 64):
        yield content[start : start + 64]


def write_run(
    staging: Staging,
    ref: RunRef,
    rows: Sequence[Row],
    *,
    source: SourceRecord | None = None,
    policy: Any = "replace",
    info: RunInfo | None = None,
    batch_rows: int = 50,
) -> Any:
    """Stages a run over what is there, and gives it back."""
    writer = staging.writer(info or RunInfo(ref), source or SourceRecord("memory", "here"), staging.run(ref), policy)
    try:
        for start in range(0, len(rows), batch_rows):
            writer.write(batch_of(ref, rows[start : start + batch_rows], writer.files))
        writer.commit()
    except BaseException:
        writer.abort()
        raise
    return staging.run(ref)


def read_rows(run: Any, staging: Staging, order: Any = None, wanted: Any = None) -> list[Row]:
    """What a reader of ours gets of a run, the content of its files included."""
    content = Content(staging.folder(run.ref.project_id, run.ref.kind).files)
    return [row for batch in run.read(order, wanted) for row in rows_in(batch, content)]


def rows_on_disk(staging: Staging, ref: RunRef) -> list[Row]:
    """What anybody else finds: every part of the run by its name on disk, read with the official schema."""
    folder = staging.folder(ref.project_id, ref.kind)
    tables = [pq.read_table(path, schema=OFFICIAL) for path in sorted(folder.data.glob("*_part_*.parquet"))]
    return [
        row
        for table in tables
        for row in rows_in(table.filter(pa.compute.equal(table["run_id"], ref.run_id)), Content(folder.files))
    ]


def assert_same(expected: Iterable[Row], found: Iterable[Row]) -> None:
    """The same rows, in any order, as often; times are compared as well."""
    missing, surplus = differences(list(expected), list(found))
    assert not missing, f"missing: {missing[:5]} ({len(missing)})"
    assert not surplus, f"surplus: {surplus[:5]} ({len(surplus)})"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
