# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The staging area: writing against plain Parquet, its size against snappy, reading in both orders, verifying.

python -m benchmarks.staging [ROWS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import measure, show
from neptune_exporter.fingerprint import Fingerprint
from neptune_exporter.model import SCHEMA, RunInfo, RunRef, names, rows_batch
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

REF = RunRef("acme/benchmark", "RUN-1")
ATTRIBUTES = 100
BATCH = 100_000


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """Points of 100 metrics as a training loop logs them: step by step, half of them single precision."""
    paths = pa.array([f"metrics/group_{i % 7}/name_{i}" for i in range(ATTRIBUTES)])
    random = np.random.default_rng(1)
    codes = np.tile(np.arange(ATTRIBUTES, dtype=np.int32), BATCH // ATTRIBUTES)
    for number in range(rows // BATCH):
        steps = np.repeat(np.arange(BATCH // ATTRIBUTES, dtype=np.int64), ATTRIBUTES) + number * (BATCH // ATTRIBUTES)
        values = random.standard_normal(BATCH)
        values[::2] = values[::2].astype(np.float32)
        yield rows_batch(
            REF,
            names(codes, paths),
            "float_series",
            step_micros=steps * 1_000_000,
            time_ms=1_700_000_000_000 + steps * 137,
            float_value=pa.array(values),
        )


def write_plain(rows: int, path: str) -> tuple[int, dict[str, float]]:
    """The baseline: each batch straight into one snappy Parquet file with pyarrow's defaults, unsorted."""
    given = [batch.cast(SCHEMA) for batch in batches(rows)]
    cpu, start = time.process_time(), time.perf_counter()
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in given:
            writer.write_batch(batch)
    return rows, {**_since(start, cpu), "MB": round(Path(path).stat().st_size / 1e6, 1)}


def write_staging(rows: int, path: str) -> tuple[int, dict[str, float]]:
    """Sorted, compressed, fingerprinted, committed."""
    staging = Staging(Path(path) / "data", Path(path) / "files")
    writer = staging.writer(RunInfo(REF), SourceRecord("benchmark", "benchmark"))
    spent = cpu = 0.0
    for batch in batches(rows):  # made one by one, so that they do not count as our memory
        at, at_cpu = time.perf_counter(), time.process_time()
        writer.write(batch)
        spent, cpu = spent + time.perf_counter() - at, cpu + time.process_time() - at_cpu
    at, at_cpu = time.perf_counter(), time.process_time()
    writer.commit()
    spent, cpu = spent + time.perf_counter() - at, cpu + time.process_time() - at_cpu
    size = sum(file.stat().st_size for file in Path(path).rglob("*.parquet"))
    return rows, {"seconds": spent, "cpu": cpu, "MB": round(size / 1e6, 1)}


def read_plain(path: str) -> int:
    """The baseline: all columns of the file, in file order."""
    return sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches())


def read_staging(path: str, order: str | None) -> int:
    """One run, in the order asked for."""
    run = Staging(Path(path) / "data", Path(path) / "files").run(REF)
    assert run is not None
    return sum(batch.num_rows for batch in run.read(order))


def read_and_verify(path: str) -> int:
    """One run, every fingerprint computed again, in one thread."""
    run = Staging(Path(path) / "data", Path(path) / "files").run(REF)
    assert run is not None
    fingerprint = Fingerprint(run.files.sha256)
    for batch in run.read():
        fingerprint.write(batch)
    assert fingerprint.attributes() == run.attributes()
    return fingerprint.rows


def _since(start: float, cpu: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = f"{folder}/plain.parquet", f"{folder}/area"
        baseline = measure("plain Parquet (snappy, unsorted)", write_plain, rows, plain)
        written = measure("staging (sorted, fingerprinted, committed)", write_staging_anew, rows, ours)
        show(f"Writing {rows:,} rows of {ATTRIBUTES} metrics", [baseline, written], baseline)
        print(f"  size: {written.extra['MB'] / baseline.extra['MB']:.2f} of plain snappy")
        baseline = measure("plain Parquet, file order", read_plain, plain)
        results = [
            baseline,
            measure("staging, by attribute", read_staging, ours, "attribute"),
            measure("staging, by step", read_staging, ours, "step"),
            measure("staging, every fingerprint", read_and_verify, ours),
        ]
        show(f"Reading {rows:,} rows of one run", results, baseline)


def write_staging_anew(rows: int, path: str) -> tuple[int, dict[str, float]]:
    """`write_staging` into a folder that is emptied first."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    return write_staging(rows, path)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
