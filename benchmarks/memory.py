# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The peak of resident memory at 1, 10 and 100 million points of one run: it must not grow with them.

python -m benchmarks.memory [POINTS ...]
python -m benchmarks.memory offline [POINTS ...]

A run of ten metrics, each command in a process of its own: staging it from a stream, reading it by attribute and by
step, verify --read-data; load into MLflow (SQLite), into W&B's offline logs and into a Pluto server that counts and
forgets, and `verify` of the runs in MLflow. With `offline` the export of a store that the real client has logged, which
takes most of the time.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Result, measure, show

PROJECT, RUN = "team/memory", "run-1"
METRICS = 10
BATCH_STEPS = 20_000
SIZES = (1_000_000, 10_000_000, 100_000_000)
LOADERS = {"mlflow": "MLflow on SQLite", "wandb": "W&B's offline logs", "pluto": "a counting Pluto server"}
OFFLINE_SIZES = (1_000_000, 4_000_000)  # what the client logs in reasonable time


def staging_of(folder: str) -> Any:
    from neptune_exporter.storage.staging import Staging

    return Staging(Path(folder) / "data", Path(folder) / "files")


def batches(points: int) -> Iterator[pa.RecordBatch]:
    """The run in the order in which it was logged: step by step, all metrics at once."""
    from neptune_exporter.model import RunRef, names, rows_batch

    random = np.random.default_rng(1)
    paths = [f"metrics/{number}" for number in range(METRICS)]
    for start in range(0, points // METRICS, BATCH_STEPS):
        steps = np.repeat(np.arange(start, min(start + BATCH_STEPS, points // METRICS), dtype=np.int64), METRICS)
        codes = np.tile(np.arange(METRICS, dtype=np.int32), len(steps) // METRICS)
        yield rows_batch(
            RunRef(PROJECT, RUN),
            names(codes, paths),
            "float_series",
            step_micros=steps * 1_000_000,
            time_ms=1_700_000_000_000 + steps * 1000,
            float_value=pa.array(random.standard_normal(len(steps))),
        )


# --- the commands


def stage(folder: str, points: int) -> int:
    from neptune_exporter.model import RunInfo, RunRef
    from neptune_exporter.storage.manifest import SourceRecord

    writer = staging_of(folder).writer(RunInfo(RunRef(PROJECT, RUN)), SourceRecord("benchmark", "benchmark"))
    for batch in batches(points):
        writer.write(batch)
    writer.commit()
    return points


def read(folder: str, order: str) -> int:
    from neptune_exporter.model import RunRef

    run = staging_of(folder).run(RunRef(PROJECT, RUN))
    return sum(batch.num_rows for batch in run.read(order))


def verify(folder: str) -> int:
    from neptune_exporter.verify.check import Depth
    from neptune_exporter.verify.check import verify as checks

    (checked,) = checks(staging_of(folder), Depth(read_data=True), workers=1)
    assert not checked.findings, checked
    return checked.points


def options_of(loader: str, folder: str, url: str) -> Any:
    """Where each of the targets is."""
    from benchmarks.pluto_load import KEY
    from neptune_exporter.loaders.mlflow import MLflowOptions
    from neptune_exporter.loaders.pluto import PlutoOptions
    from neptune_exporter.loaders.wandb import WandbOptions

    if loader == "pluto":
        return PlutoOptions(url, pluto_api_key=KEY)
    if loader == "wandb":
        return WandbOptions(wandb_mode="offline", wandb_dir=folder)
    return MLflowOptions(f"sqlite:///{folder}/mlflow.db")


def load(loader: str, folder: str, url: str) -> int:
    from neptune_exporter.load import load as run_load
    from neptune_exporter.loaders.loader import LoadOptions
    from neptune_exporter.selection import Selection

    options, common = options_of(loader, folder, url), LoadOptions(Path(folder).name)
    report = run_load(loader, options, common, staging_of(folder), Selection(), workers=1)
    assert report.exit_code == 0, report
    return report.rows


def verify_target(loader: str, folder: str, url: str) -> int:
    from neptune_exporter.loaders.loader import LoadOptions
    from neptune_exporter.verify.check import Depth, Target
    from neptune_exporter.verify.check import verify as checks

    depth = Depth(target=Target(loader, options_of(loader, folder, url), LoadOptions(Path(folder).name)))
    (checked,) = checks(staging_of(folder), depth, workers=1)
    assert not checked.findings, checked
    return checked.points


def main(sizes: Sequence[int], *, offline: bool) -> None:
    from benchmarks.offline_export import METRICS as LOGGED_AT_ONCE
    from benchmarks.offline_export import export_all, log_points
    from benchmarks.pluto_load import served

    rows: dict[str, list[Result]] = {}

    def add(name: str, points: int, case: Any, *arguments: Any) -> None:
        result = measure(f"{points:>11,} points", case, *arguments, unit="points", repeat=1)
        assert points <= result.count <= points + 10, (name, result.count)  # an export has attributes of its own
        rows.setdefault(name, []).append(result)
        print(f"{name}, {points:,} points: {result.seconds:.1f} s, {result.peak_mb:.0f} MB", flush=True)

    with served() as url:
        for points in sizes:
            with tempfile.TemporaryDirectory() as folder:
                if offline:
                    measure("the client", log_points, f"{folder}/store", points, LOGGED_AT_ONCE, repeat=1)
                    add("offline export", points, export_all, f"{folder}/store", f"{folder}/offline")
                    continue
                add("staging, from a stream", points, stage, folder, points)
                for order in ("attribute", "step"):
                    add(f"read by {order}", points, read, folder, order)
                add("verify --read-data", points, verify, folder)
                for loader, name in LOADERS.items():
                    add(f"load into {name}", points, load, loader, folder, url)
                add("verify --loader mlflow", points, verify_target, "mlflow", folder, url)
    for name, results in rows.items():
        show(f"Peak memory: {name}", results)


if __name__ == "__main__":
    given = sys.argv[1:]
    from_store = given[:1] == ["offline"]
    chosen = [int(argument) for argument in given[from_store:]]
    main(chosen or (OFFLINE_SIZES if from_store else SIZES), offline=from_store)
