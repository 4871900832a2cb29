# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Loading into MLflow, against its client's `log_batch` and against the raw insert limit; and reading it back.

    python -m benchmarks.mlflow_load [sqlite] [large] [small] [reading] [postgres] [server]

Every case is the whole command: the staging area is read, the artifacts are uploaded, the run is made. The baseline
gets its points ready-made. A server runs on this machine, so client and server share its cores; its memory is not
counted. PostgreSQL comes from the system's packages, is started for the benchmark and waits for the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Result, measure, show
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.dialects import copy_rows
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.model import RunInfo, RunRef, rows_batch
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from servers.mlflow_server import serving
from servers.postgres import postgres, why_not

PROJECT = "acme/benchmark"
METRICS = 10
START_MS = 1_700_000_000_000
BATCH = 100_000
RUNS = 4
MANY = 150  # rows in one statement
COLUMNS = "(key, value, timestamp, run_uuid, step, is_nan)"
POINTS: Any = {"unit": "points", "repeat": 1}


def columns(run: int, metric: int, points: int) -> Iterator[tuple[Any, Any, Any]]:
    """Steps, times and values of one metric of one run, in pieces; runs follow each other in time."""
    random = np.random.default_rng((run, metric))
    for start in range(0, points, BATCH):
        steps = np.arange(start, min(start + BATCH, points), dtype=np.int64)
        yield steps, START_MS + run * 137 * points + steps * 137, random.standard_normal(len(steps))


def stage(folder: Path, runs: int, points: int) -> Path:
    """Makes the staging area: so many runs of ten metrics of so many points, and twenty parameters."""
    staging = Staging(folder / "data", folder / "files")
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
    return folder


# --- the cases, each in a process of its own


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


def sqlite_inserts(path: str, runs: int, points: int, together: int) -> tuple[int, dict[str, Any]]:
    """The limit: prepared statements of so many rows, MLflow's indexes, one transaction for a run."""
    database = sqlite3.connect(path, isolation_level=None)
    rows = ", ".join(["(?, ?, ?, ?, ?, ?)"] * together)
    statement = f"insert into metrics {COLUMNS} values {rows}"
    began = time.perf_counter()
    for run in range(runs):
        database.execute("begin immediate")
        for metric in range(METRICS):
            for steps, times, values in columns(run, metric, points):
                made = (repeat(f"metrics/name_{metric}"), values.tolist(), times.tolist())
                each = zip(*made, repeat(f"{run:032}"), steps.tolist(), repeat(0))
                if together == 1:
                    database.executemany(statement, each)
                else:
                    flat = (value for row in each for value in row)
                    pieces = (list(islice(flat, 6 * together)) for _ in range(len(steps) // together))
                    database.executemany(statement, pieces)
        database.execute("commit")
    database.close()
    return runs * METRICS * (points // together * together), {"seconds": time.perf_counter() - began}


def postgres_copy(uri: str, runs: int, points: int) -> tuple[int, dict[str, Any]]:
    """The limit: `COPY` of binary rows that are ready-made, MLflow's indexes, one transaction for a run."""
    import io

    import psycopg2

    database = psycopg2.connect(uri.replace("+psycopg2", ""))
    cursor = database.cursor()
    spent = 0.0
    for run in range(runs):
        run_id = f"{run:032}"
        data = io.BytesIO(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        data.seek(0, io.SEEK_END)
        for metric in range(METRICS):
            for piece in columns(run, metric, points):
                data.write(copy_rows(run_id, f"metrics/name_{metric}", Points(*piece)))
        data.write(b"\xff\xff")
        data.seek(0)
        began = time.perf_counter()
        run_row = "insert into runs (run_uuid, name, experiment_id, lifecycle_stage, status) values (%s, %s, 0, %s, %s)"
        cursor.execute(run_row, (run_id, "limit", "active", "FINISHED"))
        cursor.copy_expert(f"copy metrics {COLUMNS} from stdin (format binary)", data, size=1 << 20)
        database.commit()
        spent += time.perf_counter() - began
    database.close()
    return runs * METRICS * points, {"seconds": spent}


def ours(
    folder: str, options: dict[str, str], runs: int, points: int, workers: int, prefix: str = ""
) -> tuple[int, dict[str, Any]]:
    """Our load, as the command does it."""
    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    common = LoadOptions(name_prefix=prefix)
    began = time.perf_counter()
    report = load("mlflow", MLflowOptions(**options), common, staging, EVERYTHING, workers=workers)
    seconds = time.perf_counter() - began
    assert report.count("done") == runs, [outcome.reason for outcome in report.outcomes]
    return runs * METRICS * points, {"seconds": seconds, "runs/s": round(runs / seconds, 1)}


def read_back(options: dict[str, str], runs: int) -> int:
    """What `verify` reads."""
    loader = MLflowLoader(MLflowOptions(**options))
    rows = 0
    for run in range(runs):
        rows += sum(batch.num_rows for batch in loader.read(RunRef(PROJECT, f"RUN-{run}")).batches)
    return rows


# --- the tables


def new_database(folder: Path, name: str) -> str:
    """An empty database of MLflow's; making the tables is not measured."""
    empty = folder / "empty.db"
    if not empty.exists():
        MLflowLoader(MLflowOptions(f"sqlite:///{empty}")).prepare("none", 1)
    shutil.copyfile(empty, folder / name)
    return f"sqlite:///{folder / name}"


def of_ours(name: str, area: Path, runs: int, points: int, workers: int = 1, **options: str) -> Result:
    """Our load as a row of a table."""
    return measure(name, ours, str(area), options, runs, points, workers, f"{name}: ", **POINTS)


def sqlite_directly(folder: Path) -> None:
    points, slow = 50_000, 2_500  # the client is given less to do: its speed hardly depends on it
    area = stage(folder, RUNS, points)
    theirs = measure("MlflowClient.log_batch", client_log_batch, new_database(folder, "a.db"), RUNS, slow, **POINTS)
    results = [theirs]
    for number, together in enumerate((1, MANY)):
        new_database(folder, f"raw{number}.db")
        name = "limit: a statement for each row" if together == 1 else f"limit: a statement for {together} rows"
        raw = (f"{folder}/raw{number}.db", RUNS, points, together)
        results.append(measure(name, sqlite_inserts, *raw, **POINTS))
    uri = new_database(folder, "ours.db")
    results.append(of_ours("neptune-exporter", area, RUNS, points, mlflow_tracking_uri=uri, mlflow_mode="sql"))
    uri = new_database(folder, "rest.db")
    slow_area = stage(folder / "slow", RUNS, slow)
    results.append(
        of_ours("neptune-exporter, mode rest", slow_area, RUNS, slow, mlflow_tracking_uri=uri, mlflow_mode="rest")
    )
    show(f"SQLite directly, {RUNS * METRICS * points:,} points in {RUNS} runs", results, theirs)


def one_large_run(folder: Path) -> None:
    area = stage(folder, 1, 1_000_000)
    uri = new_database(folder, "large.db")
    large = of_ours("neptune-exporter", area, 1, 1_000_000, mlflow_tracking_uri=uri, mlflow_mode="sql")
    show("SQLite directly, one run of 10 metrics of 1,000,000 points", [large])


def many_small_runs(folder: Path) -> None:
    area = stage(folder, 1000, 10)
    uri = new_database(folder, "small.db")
    small = of_ours("neptune-exporter", area, 1000, 10, mlflow_tracking_uri=uri, mlflow_mode="sql")
    show("SQLite directly, 1,000 runs of 100 points and 20 parameters", [small])


def reading(folder: Path) -> None:
    results = []
    for mode, points in (("rest", 10_000), ("sql", 50_000)):
        area = stage(folder / mode, RUNS, points)
        options = {"mlflow_tracking_uri": new_database(folder, f"{mode}.db"), "mlflow_mode": mode}
        ours(str(area), {**options, "mlflow_mode": "sql"}, RUNS, points, 1)
        results.append(measure(f"mode {mode}", read_back, options, RUNS, **POINTS))
    show("Reading back from SQLite, as verify does", results, results[0])


def postgres_directly(folder: Path) -> None:
    if why_not():
        print(f"\nPostgreSQL: {why_not()}")
        return
    points, slow = 25_000, 2_500
    area = stage(folder, RUNS, points)
    with postgres(settings=()) as uri:
        MLflowLoader(MLflowOptions(uri)).prepare("none", 1)
        theirs = measure("MlflowClient.log_batch", client_log_batch, uri, RUNS, slow, **POINTS)
        results = [theirs, measure("limit: COPY of ready-made rows", postgres_copy, uri, RUNS, points, **POINTS)]
        for workers in (1, 2, 4):
            name = f"neptune-exporter, workers: {workers}"
            place = {"mlflow_tracking_uri": uri, "mlflow_artifact_location": (folder / "artifacts").as_uri()}
            results.append(of_ours(name, area, RUNS, points, workers, **place, mlflow_mode="sql"))
    show(f"PostgreSQL directly, {RUNS * METRICS * points:,} points in {RUNS} runs", results, theirs)


def a_server(folder: Path) -> None:
    points, larger = 2_500, 10_000  # what is faster is given more to do, so that its start does not count for much
    area, larger_area = stage(folder, RUNS, points), stage(folder / "larger", RUNS, larger)
    database = new_database(folder, "server.db")
    with serving(folder, database, workers=None) as uri:
        theirs = measure("MlflowClient.log_batch", client_log_batch, uri, RUNS, points, **POINTS)
        place = {"mlflow_tracking_uri": uri}
        results = [
            theirs,
            of_ours("neptune-exporter, workers: 1", area, RUNS, points, 1, **place),
            of_ours("neptune-exporter, workers: 4", larger_area, RUNS, larger, 4, **place),
            of_ours(
                "with --mlflow-backend-store-uri",
                larger_area,
                RUNS,
                larger,
                1,
                **place,
                mlflow_backend_store_uri=database,
            ),
        ]
    show("A server on SQLite, 4 runs", results, theirs)


TABLES = {
    "sqlite": sqlite_directly,
    "large": one_large_run,
    "small": many_small_runs,
    "reading": reading,
    "postgres": postgres_directly,
    "server": a_server,
}


def main() -> None:
    """Every table, or those that are named."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], metavar="TABLE", help="all, if none is named")
    for name in parser.parse_args().tables or TABLES:
        with tempfile.TemporaryDirectory() as folder:
            TABLES[name](Path(folder))


if __name__ == "__main__":
    main()
