# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The external sort equals Python's `sorted`, whatever is spilled."""

from __future__ import annotations

import random
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from contracts.rows import OFFICIAL
from hypothesis import given, settings
from hypothesis import strategies as st

from neptune_exporter.model import RunRef
from neptune_exporter.storage import sort
from neptune_exporter.storage.sort import ExternalSort

REF = RunRef("team/sort", "run-1")
ORDERS = ["attribute", "step"]
COLUMN = {"float_series": "float_value", "string_series": "string_value", "int": "int_value", "bool": "bool_value"}


def record(path: str, kind: str, step: Decimal | None, time: int | None, value: Any) -> dict[str, Any]:
    return {
        "project_id": REF.project_id,
        "run_id": REF.run_id,
        "attribute_path": path,
        "attribute_type": kind,
        "step": step,
        "timestamp": time,
        COLUMN[kind]: value,
    }


def random_records(rows: int, seed: int, paths: int = 7) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    values = {
        "float_series": lambda n: n + 0.5,
        "string_series": lambda n: f"text {n}",
        "int": lambda n: n,
        "bool": lambda n: bool(n % 2),
    }
    records = []
    for number in range(rows):
        kind = chance.choice(list(COLUMN))
        step = None if chance.random() < 0.1 else Decimal(chance.randrange(-50, 50)) / 4
        time = None if chance.random() < 0.1 else chance.randrange(-20, 20)
        path = f"p/{chance.randrange(paths)}"
        records.append(record(path, kind, step, time, values[kind](number)))
    return records


def expected(records: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """Python's own stable sort; null first."""

    def step(row: dict[str, Any]) -> tuple[bool, Any]:
        return (row["step"] is not None, row["step"] or 0)

    def time(row: dict[str, Any]) -> tuple[bool, Any]:
        return (row["timestamp"] is not None, row["timestamp"] or 0)

    def name(row: dict[str, Any]) -> tuple[str, str]:
        return row["attribute_path"], row["attribute_type"]

    key = (lambda r: (name(r), step(r))) if order == "attribute" else (lambda r: (step(r), time(r), name(r)))
    return sorted(records, key=key)


def batches(records: list[dict[str, Any]], size: int) -> list[Any]:
    return [pa.RecordBatch.from_pylist(records[n : n + size], schema=OFFICIAL) for n in range(0, len(records), size)]


def plain(batch: Any) -> list[dict[str, Any]]:
    """Rows as Python values, through a plain table with the official schema."""
    return pa.Table.from_batches([batch]).cast(OFFICIAL).to_pylist()


def sorted_by_us(records, order, folder, size=100):
    external = ExternalSort(REF, order, folder / "scratch")
    for batch in batches(records, size):
        external.add(batch)
    rows = [row for batch in external.batches() for row in plain(batch)]
    external.close()
    assert not list(folder.rglob("*.arrow"))
    return rows


def as_read(records):
    return [row for batch in batches(records, 1000) for row in plain(batch)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("chunk", "block"), [(10**6, 10**4), (250, 1000), (250, 40), (60, 7), (100, 1), (1, 1)], ids=lambda n: str(n)
)
def test_equals_pythons_sort(order, chunk, block, tmp_path, monkeypatch):
    monkeypatch.setattr(sort, "CHUNK_ROWS", chunk)
    monkeypatch.setattr(sort, "MERGED_AT_ONCE", 3)
    monkeypatch.setattr(sort, "BLOCK_ROWS", block)
    records = random_records(700 if chunk > 1 else 60, seed=chunk + block)
    found = sorted_by_us(records, order, tmp_path, size=33)
    assert found == as_read(expected(records, order))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(list(COLUMN)), st.integers(-2, 2) | st.none()), max_size=60
    ),
    st.sampled_from(ORDERS),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_equals_pythons_sort_on_anything(tmp_path_factory, keys, order, chunk, block, size):
    value = {"float_series": 0.5, "string_series": "x", "int": 3, "bool": True}
    records = [
        record(path, kind, None if step is None else Decimal(step), number % 3, value[kind])
        for number, (path, kind, step) in enumerate(keys)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sort, "CHUNK_ROWS", chunk)
        patch.setattr(sort, "BLOCK_ROWS", block)
        patch.setattr(sort, "MERGED_AT_ONCE", 3)
        found = sorted_by_us(records, order, tmp_path_factory.mktemp("sort"), size)
    assert found == as_read(expected(records, order))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("chunk", [10**6, 50])
def test_rows_with_equal_keys_keep_their_order(order, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(sort, "CHUNK_ROWS", chunk)
    monkeypatch.setattr(sort, "MERGED_AT_ONCE", 3)
    monkeypatch.setattr(sort, "BLOCK_ROWS", 9)
    records = [record(f"p{n % 2}", "int", Decimal(n % 3), 5, n) for n in range(400)]
    rows = sorted_by_us(records, order, tmp_path, size=17)
    for path in ("p0", "p1"):
        for step in range(3):
            numbers = [r["int_value"] for r in rows if r["attribute_path"] == path and r["step"] == step]
            assert numbers == sorted(numbers)


def test_extreme_steps_and_times_are_in_order(tmp_path):
    far = Decimal("999999999999.999999")
    steps = [far, -far, Decimal(0), Decimal("0.000001"), Decimal("-0.000001"), None]
    records = [record("p", "int", step, None, n) for n, step in enumerate(steps)]
    found = [row["step"] for row in sorted_by_us(records, "attribute", tmp_path)]
    assert found == [None, -far, Decimal("-0.000001"), Decimal(0), Decimal("0.000001"), far]


def test_the_origin_of_rows_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sort, "CHUNK_ROWS", 60)
    monkeypatch.setattr(sort, "MERGED_AT_ONCE", 2)
    external = ExternalSort(REF, "attribute", tmp_path, origin=True)
    for n, batch in enumerate(batches([record("p", "int", Decimal(n % 50), None, n // 100) for n in range(300)], 100)):
        external.add(batch, n)
    for batch, origins in external.batches_with_origin():
        assert batch.column("int_value").to_pylist() == origins.tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_many_attributes(order, tmp_path, monkeypatch):
    """100,000 attributes, each in several batches and chunks."""
    monkeypatch.setattr(sort, "CHUNK_ROWS", 90_000)
    count = 100_000
    external = ExternalSort(REF, order, tmp_path)
    numbers = np.random.default_rng(1).permutation(count)
    for step in range(2):
        for start in range(0, count, 25_000):
            some = numbers[start : start + 25_000]
            columns = {
                "attribute_path": pa.array([f"group/{n:06d}" for n in some]),
                "attribute_type": pa.array(["int"] * len(some)),
                "step": pa.array([Decimal(step)] * len(some), pa.decimal128(18, 6)),
                "int_value": pa.array(some * 2 + step),
            }
            external.add(pa.RecordBatch.from_pydict(columns))
    found = np.concatenate([np.asarray(batch.column("int_value")) for batch in external.batches()])
    external.close()
    if order == "attribute":
        assert found.tolist() == list(range(2 * count))
    else:
        assert found.tolist() == [*range(0, 2 * count, 2), *range(1, 2 * count, 2)]


def test_long_texts_bound_a_chunk_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sort, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(sort, "BLOCK_BYTES", 1 << 16)
    texts = [chr(97 + n % 26) * (1 << 16) for n in range(100)]
    records = [record("log", "string_series", Decimal(99 - n), None, text) for n, text in enumerate(texts)]
    external = ExternalSort(REF, "attribute", tmp_path)
    spilled = 0
    for batch in batches(records, 5):
        external.add(batch)
        spilled = max(spilled, len(list(tmp_path.rglob("*.arrow"))))
    assert spilled >= 5
    found = list(external.batches())
    assert max(batch.nbytes for batch in found) <= 1 << 20
    assert [text for batch in found for text in batch.column("string_value").to_pylist()] == texts[::-1]
    external.close()


def test_nothing_is_written_for_little(tmp_path):
    external = ExternalSort(REF, "step", tmp_path / "never")
    external.add(batches(random_records(100, 1), 100)[0])
    assert sum(batch.num_rows for batch in external.batches()) == 100
    assert not (tmp_path / "never").exists()


def test_nothing_gives_nothing(tmp_path):
    external = ExternalSort(REF, "step", tmp_path)
    external.add(pa.RecordBatch.from_pylist([], schema=OFFICIAL))
    assert list(external.batches()) == []


MEMORY = """
import sys, tempfile
from pathlib import Path
import numpy as np, pyarrow as pa
from neptune_exporter.model import RunRef, names, rows_batch
from neptune_exporter.storage.sort import ExternalSort

rows, attributes, size = int(sys.argv[1]), 100, 100_000
paths = pa.array([f"metrics/{n}" for n in range(attributes)])
with tempfile.TemporaryDirectory() as folder:
    external = ExternalSort(RunRef("p", "r"), sys.argv[2], Path(folder))
    total = 0
    for start in range(0, rows, size):
        n = np.arange(start, start + size)
        batch = rows_batch(RunRef("p", "r"), names(n % attributes, paths), "float_series",
            step_micros=n // attributes * 1_000_000, time_ms=n // attributes, float_value=pa.array(n / 7))
        external.add(batch)
    last = None
    for batch in external.batches():
        total += batch.num_rows
    assert total == rows
# Not ru_maxrss: a child starts with that of the process that started it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("order", ORDERS)
def test_memory_does_not_grow_with_the_run(order):
    """Two and a half times the rows take hardly more memory: a chunk, not the run, is what must fit."""

    def peak(rows: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(rows), order], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    small, large = peak(2_000_000), peak(5_000_000)
    assert large - small < 60_000  # kB; the rows that were added are 150 MB
    assert large < 500_000
