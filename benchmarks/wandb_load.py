# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""W&B: our logs against a well-grouped loop of `run.log`, written only and sent as well; memory; many small runs.

The server is the one of the tests, in a process of its own: no latency, no limits. It shares the machine.

python -m benchmarks.wandb_load [POINTS]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import measure, show
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.loaders.loader import LoadOptions, RunToLoad
from neptune_exporter.loaders.wandb import WandbOptions
from neptune_exporter.loaders.wandb.loader import WandbLoader
from neptune_exporter.model import RunInfo, RunRef, names, rows_batch

KEYS = 10
BATCH_ROWS = 5_000
START_MS = 1_700_000_000_000
PATHS = [f"metrics/group_{n % 3}/name_{n}" for n in range(KEYS)]


def batches(ref: RunRef, points: int) -> Iterator[pa.RecordBatch]:
    """Ten metrics logged together, by (step, time, path): what the staging area gives."""
    paths = pa.array(sorted(PATHS))
    random = np.random.default_rng(1)
    for first in range(0, points // KEYS, BATCH_ROWS):
        rows = min(BATCH_ROWS, points // KEYS - first)
        steps = np.repeat(np.arange(first, first + rows, dtype=np.int64), KEYS)
        yield rows_batch(
            ref,
            names(np.tile(np.arange(KEYS, dtype=np.int32), rows), paths),
            "float_series",
            step_micros=steps * 1_000_000,
            time_ms=START_MS + steps * 137,
            float_value=pa.array(random.standard_normal(rows * KEYS)),
        )


def load_runs(url: str, folder: str, way: str, mode: str, points: int, runs: int = 1) -> tuple[int, dict[str, Any]]:
    """Our loader. Making the rows is not counted."""
    options = WandbOptions(
        wandb_entity="tester",
        wandb_project=tempfile.mktemp(dir="", prefix="p"),
        wandb_api_key="k" * 40,
        wandb_base_url=url,
        wandb_dir=folder,
        wandb_way=way,
        wandb_mode=mode,
    )
    loader = WandbLoader(options, LoadOptions())
    spent = 0.0
    for number in range(runs):
        ref = RunRef("acme/benchmark", f"RUN-{number}")
        attributes = [Attribute(path, "float_series", points // KEYS, first_time=START_MS) for path in sorted(PATHS)]
        run = RunToLoad(RunInfo(ref), f"{number:032x}", attributes, None)  # type: ignore[arg-type]
        at = time.perf_counter()
        sink = loader.start(run, 1)
        spent += time.perf_counter() - at
        for batch in batches(ref, points):
            at = time.perf_counter()
            sink.write(batch)
            spent += time.perf_counter() - at
        at = time.perf_counter()
        sink.commit()
        spent += time.perf_counter() - at
    return points * runs, {"seconds": spent}


def loop_of_run_log(folder: str, mode: str, points: int) -> tuple[int, dict[str, Any]]:
    """The baseline: one call of `run.log` per step with all its metrics, as a good script does."""
    import wandb

    rows = []
    for batch in batches(RunRef("acme/benchmark", "RUN"), points):
        values = np.asarray(batch.column("float_value")).reshape(-1, KEYS).tolist()
        rows += [dict(zip(sorted(PATHS), row, strict=True)) for row in values]
    at = time.perf_counter()
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, x_disable_meta=True)
    run = wandb.init(project="baseline", mode=mode, dir=folder, settings=settings)
    for step, row in enumerate(rows):
        run.log(row, step=step)
    run.finish()
    return points, {"seconds": time.perf_counter() - at}


@contextmanager
def serving() -> Iterator[str]:
    """The wire-level server in a process of its own; its address."""
    environment = {**os.environ, "PYTHONPATH": "tests"}
    command = [sys.executable, "-m", "servers.wandb"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.stdin.close()


def main(points: int) -> None:
    with tempfile.TemporaryDirectory() as folder, serving() as url:
        places = {"WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data", "NETRC": "netrc"}
        own = {name: str(Path(folder) / place) for name, place in places.items()}
        own |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40, "WANDB_SILENT": "true"}
        few = min(points, 200_000)
        for mode, title in (("offline", "written"), ("online", "written and sent")):
            baseline = measure(f"run.log, {KEYS} keys a call", loop_of_run_log, folder, mode, few, unit="points", **own)
            ours = measure("our logs", load_fresh, url, folder, "log", mode, few, unit="points", **own)
            client = measure(
                "our loader by run.log", load_fresh, url, folder, "client", mode, few, unit="points", **own
            )
            show(f"W&B, {few:,} points {title}", [baseline, ours, client], baseline)
        large = measure("our logs", load_fresh, url, folder, "log", "offline", points, unit="points", repeat=1, **own)
        show(f"W&B, one run of {points:,} points written", [large])
        small = measure("our logs", load_runs, url, folder, "log", "online", 2000, 500, unit="points", repeat=1, **own)
        show("W&B, 500 runs of 2,000 points written and sent, one after the other", [small])


def load_fresh(url: str, folder: str, way: str, mode: str, points: int) -> tuple[int, dict[str, Any]]:
    """One run into an empty place."""
    place = tempfile.mkdtemp(dir=folder)
    try:
        return load_runs(url, place, way, mode, points)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
