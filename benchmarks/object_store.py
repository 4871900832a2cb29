# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A staging area on S3 against one on disk: many small runs, one big one, what asking and reading cost, and requests.

The server is moto on this machine, which answers one request at a time; with a number of milliseconds each answer
takes so much longer, as over a network, and then many are on their way at once.

python -m benchmarks.object_store [RUNS] [ROWS] [MILLISECONDS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Result, measure, show
from neptune_exporter.model import RunInfo, RunRef, names, rows_batch
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.objects.path import ObjectPath
from neptune_exporter.storage.place import parse_place
from neptune_exporter.storage.staging import Staging
from neptune_exporter.summary import summary

PROJECT, WORKERS = "acme/benchmark", 8
POINTS, METRICS, FILE_BYTES = 10_000, 20, 10_000
BATCH = 100_000
BIG = RunRef(PROJECT, "BIG")


def area(root: str) -> Staging:
    return Staging(parse_place(f"{root}/data"), parse_place(f"{root}/files"))


def requests(staging: Staging, runs: int) -> dict[str, Any]:
    """How many requests this process has sent."""
    if not isinstance(staging.data_path, ObjectPath):
        return {}
    sent = staging.data_path.store.requests
    return {"requests": sum(sent.values()), "a run": round(sum(sent.values()) / runs, 2), "are": dict(sent)}


def write(staging: Staging, ref: RunRef, rows: int, file: bytes = b"") -> None:
    writer = staging.writer(RunInfo(ref), SourceRecord("benchmark", "benchmark"), staging.run(ref))
    random, paths = np.random.default_rng(1), [f"metrics/{i}" for i in range(METRICS)]
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        codes = np.tile(np.arange(METRICS, dtype=np.int32), count // METRICS)
        steps = (start // METRICS + np.repeat(np.arange(count // METRICS, dtype=np.int64), METRICS)) * 1_000_000
        values = pa.array(random.standard_normal(count))
        writer.write(rows_batch(ref, names(codes, paths), "float_series", step_micros=steps, float_value=values))
    if file:
        path = writer.files.add("model", "model.bin", [file])
        writer.write(rows_batch(ref, "model", "file", file_value=pa.array([{"path": path}])))
    writer.commit()


def write_runs(root: str, runs: int) -> tuple[int, dict[str, Any]]:
    """Runs of 10,000 points and a file of 10 kB each, eight at once."""
    staging, content = area(root), os.urandom(FILE_BYTES)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda n: write(staging, RunRef(PROJECT, f"RUN-{n}"), POINTS, content), range(runs)))
    return runs, requests(staging, runs)


def write_big(root: str, rows: int) -> tuple[int, dict[str, Any]]:
    """One run."""
    staging = area(root)
    write(staging, BIG, rows)
    return rows, requests(staging, 1)


def look(root: str, runs: int) -> tuple[int, dict[str, Any]]:
    """`summary`."""
    staging = area(root)
    (project,) = summary(staging).projects
    assert project.runs == {"complete": runs + 1}
    return runs + 1, requests(staging, runs + 1)


def skip(root: str, runs: int) -> tuple[int, dict[str, Any]]:
    """What an export asks of runs that it has exported before, eight at once."""
    staging = area(root)
    with ThreadPoolExecutor(WORKERS) as pool:
        assert all(pool.map(lambda n: staging.run(RunRef(PROJECT, f"RUN-{n}")), range(runs)))
    return runs, requests(staging, runs)


def read_big(root: str, rows: int) -> tuple[int, dict[str, Any]]:
    """Every row of the big run."""
    staging = area(root)
    run = staging.run(BIG)
    assert run is not None
    assert sum(batch.num_rows for batch in run.read()) == rows
    return rows, requests(staging, 1)


def serve(latency_ms: int) -> None:
    """An S3 server, until its input ends."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from servers.s3 import S3Server

    server = S3Server(latency=latency_ms / 1000)
    print(server.address, flush=True)
    sys.stdin.read()
    server.close()


@contextmanager
def serving(latency_ms: int) -> Iterator[dict[str, str]]:
    """A server in a process of its own; the environment in which boto3 finds it, with a bucket in it."""
    command = [sys.executable, "-m", "benchmarks.object_store", "serve", str(latency_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        os.environ.update(environment)
        import boto3

        boto3.client("s3").create_bucket(Bucket="benchmark")
        yield environment
    finally:
        process.stdin.close()
        process.wait(30)


def cases(name: str, root: str, runs: int, rows: int) -> list[Result]:
    how: dict[str, Any] = {"repeat": 1}
    return [
        measure(f"{name}: write {runs} runs", write_runs, root, runs, unit="runs", **how),
        measure(f"{name}: write {rows:,} points", write_big, root, rows, **how),
        measure(f"{name}: summary", look, root, runs, unit="runs", **how),
        measure(f"{name}: nothing new", skip, root, runs, unit="runs", **how),
        measure(f"{name}: read {rows:,} points", read_big, root, rows, **how),
    ]


def main(runs: int, rows: int, latency_ms: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = cases("disk", folder, runs, rows)
    for latency in (0, latency_ms):
        with serving(latency):
            results += cases(f"S3 + {latency} ms", f"s3://benchmark/{latency}", runs, rows)
    show(f"{runs} runs of {POINTS:,} points and a file; one run of {rows:,} points", results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main(*[*map(int, sys.argv[1:]), *(200, 5_000_000, 30)[len(sys.argv) - 1 :]])
