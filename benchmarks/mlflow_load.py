# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Loading into MLflow, against its client's `log_batch` and against the raw insert limit; and reading it back.

python -m benchmarks.mlflow_load [POINTS] [POSTGRES_URI]

Every case is the whole command: the staging area is read, the artifacts are uploaded, the run is made. The baseline
gets its points ready-made. A server runs on this machine, so client and server share its cores. PostgreSQL is
measured if the address of an empty database is given.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import measure, show
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import RunInfo, RunRef, rows_batch
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

PROJECT = "acme/benchmark"
METRICS = 10
START_MS = 1_700_000_000_000
BATCH = 100_000


def columns(run: int, metric: int, points: int) -> Iterator[tuple[Any, Any, Any]]:
    """Steps, times and values of one metric of one run, in pieces; runs follow each other in time."""
    random = np.random.default_rng((run, metric))
    for start in range(0, points, BATCH):
        steps = np.arange(start, min(start + BATCH, points), dtype=np.int64)
        yield steps, START_MS + run * 137 * points + steps * 137, random.standard_normal(len(steps))


def stage(folder: str, runs: int, points: int) -> int:
    """Makes the staging area: so many runs of ten metrics of so many points, and twenty parameters."""
    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    for run in range(runs):
        ref = RunRef(PROJECT, f"RUN-{run}")
        writer = staging.writer(RunInfo(ref, name=f"run {run}"), SourceRecord("benchmark", "benchmark"))
        for metric in range(METRICS):
            for steps, times, values in columns(run, metric, points):
                path = f"metrics/name_{metric}"
                series = {"step_micros": steps * 1_000_000, "time_ms": times, "float_value": pa.array(values)}
                writer.write(rows_batch(ref, path, "float_series", **series))
        for number in range(20):
            writer.write(rows_batch(ref, f"params/{number}", "int", int_value=pa.array([number])))
        writer.commit()
    return runs * METRICS * points


def client_log_batch(uri: str, runs: int, points: int) -> tuple[int, dict[str, Any]]:
    """The baseline: 1,000 points a call, no artifact."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(uri)
    experiment = client.create_experiment(f"baseline {time.time_ns()}")
    began = time.perf_counter()
    for run in range(runs):
        run_id = client.create_run(experiment).info.run_id
        client.log_batch(run_id, params=[Param(f"params/{n}", str(n)) for n in range(20)])
        waiting: list[Any] = []
        for metric in range(METRICS):
            for steps, times, values in columns(run, metric, points):
                rows = zip(steps.tolist(), times.tolist(), values.tolist(), strict=True)
                waiting += [Metric(f"metrics/name_{metric}", value, at, step) for step, at, value in rows]
                while len(waiting) >= 1000:
                    client.log_batch(run_id, metrics=waiting[:1000])
                    del waiting[:1000]
        client.log_batch(run_id, metrics=waiting)
        client.set_terminated(run_id)
    return runs * METRICS * points, {"seconds": time.perf_counter() - began}


def raw_inserts(path: str, runs: int, points: int) -> tuple[int, dict[str, Any]]:
    """The limit of the usual way: one prepared statement for each row, MLflow's indexes, one transaction for a run."""
    database = sqlite3.connect(path, isolation_level=None)
    statement = "insert into metrics (key, value, timestamp, run_uuid, step, is_nan) values (?, ?, ?, ?, ?, ?)"
    began = time.perf_counter()
    for run in range(runs):
        database.execute("begin immediate")
        for metric in range(METRICS):
            for steps, times, values in columns(run, metric, points):
                made = (repeat(f"metrics/name_{metric}"), values.tolist(), times.tolist())
                database.executemany(statement, zip(*made, repeat(f"{run:032}"), steps.tolist(), repeat(0)))
        database.execute("commit")
    database.close()
    return runs * METRICS * points, {"seconds": time.perf_counter() - began}


def ours(folder: str, uri: str, mode: str, runs: int, points: int, workers: int) -> tuple[int, dict[str, Any]]:
    """Our load, as the command does it."""
    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    common = LoadOptions(name_prefix=f"{mode} {time.time_ns()} ")
    began = time.perf_counter()
    report = load("mlflow", MLflowOptions(uri, mlflow_mode=mode), common, staging, EVERYTHING, workers=workers)
    seconds = time.perf_counter() - began
    assert report.count("done") == runs, [outcome.reason for outcome in report.outcomes]
    return runs * METRICS * points, {"seconds": seconds, "runs/s": round(runs / seconds, 1)}


def read_back(uri: str, mode: str, runs: int) -> int:
    """What `verify` reads."""
    loader = MLflowLoader(MLflowOptions(uri, mlflow_mode=mode))
    rows = 0
    for run in range(runs):
        rows += sum(batch.num_rows for batch in loader.read(RunRef(PROJECT, f"RUN-{run}")).batches)
    return rows


def new_database(folder: Path, name: str) -> str:
    """An empty database of MLflow's; making the tables is not measured."""
    empty = folder / "empty.db"
    if not empty.exists():
        MLflowLoader(MLflowOptions(f"sqlite:///{empty}")).prepare("none", 1)
    shutil.copyfile(empty, folder / name)
    return f"sqlite:///{folder / name}"


@contextmanager
def server(folder: Path, database: str) -> Iterator[str]:
    """An `mlflow server` with its own choice of four workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", database]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(started.pid, 15)
        started.wait(30)


def main(points: int, postgres: str) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    each, runs = points // METRICS // 4, 4
    slow = max(each // 20, 100)  # the client is given less to do: its speed does not depend on it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        stage(name, runs, each)
        stage(f"{name}/slow", runs, slow)
        unit: Any = {"unit": "points", "repeat": 1}

        theirs = measure("MlflowClient.log_batch", client_log_batch, new_database(folder, "a.db"), runs, slow, **unit)
        new_database(folder, "b.db")
        uri = new_database(folder, "c.db")
        results = [
            theirs,
            measure("one statement a row", raw_inserts, f"{name}/b.db", runs, each, **unit),
            measure("neptune-exporter", ours, name, uri, "sql", runs, each, 1, **unit),
        ]
        show(f"SQLite directly, {runs * METRICS * each:,} points in {runs} runs", results, theirs)
        show_reading(folder, name, runs, each, slow)

        big = f"{name}/big"
        stage(big, 1, 1_000_000)
        uri = new_database(folder, "d.db")
        show("One run, 10 metrics of 1,000,000 points", [measure("SQLite", ours, big, uri, "sql", 1, 10**6, 1, **unit)])
        shutil.rmtree(big)
        small = f"{name}/small"
        stage(small, 1000, 10)
        uri = new_database(folder, "e.db")
        show("1,000 runs of 100 points", [measure("SQLite", ours, small, uri, "sql", 1000, 10, 1, **unit)])

        if postgres:
            theirs = measure("MlflowClient.log_batch", client_log_batch, postgres, runs, slow, **unit)
            results = [theirs]
            results += [
                measure(
                    f"neptune-exporter, {workers} workers", ours, name, postgres, "sql", runs, each, workers, **unit
                )
                for workers in (1, 2, 4)
            ]
            show("PostgreSQL directly", results, theirs)

        with server(folder, new_database(folder, "f.db")) as uri:
            theirs = measure("MlflowClient.log_batch", client_log_batch, uri, runs, slow, **unit)
            results = [theirs]
            results += [
                measure(f"{workers} workers", ours, f"{name}/slow", uri, "rest", runs, slow, workers, **unit)
                for workers in (1, 4)
            ]
            show(f"A server on SQLite, {runs * METRICS * slow:,} points", results, theirs)


def show_reading(folder: Path, name: str, runs: int, each: int, slow: int) -> None:
    results = []
    for mode, area, count in (("rest", f"{name}/slow", slow), ("sql", name, each)):
        uri = new_database(folder, f"read-{mode}.db")
        staging = Staging(Path(area) / "data", Path(area) / "files")
        load("mlflow", MLflowOptions(uri), LoadOptions(), staging, EVERYTHING, workers=1)
        results.append(
            measure(f"by {mode}, {runs * METRICS * count:,}", read_back, uri, mode, runs, unit="points", repeat=1)
        )
    show("Reading back, as verify does", results, results[0])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000, sys.argv[2] if len(sys.argv) > 2 else "")
