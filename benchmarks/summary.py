# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`summary` of many runs, and how long the command takes to say anything.

python -m benchmarks.summary [RUNS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import measure, show
from neptune_exporter.model import RunInfo, RunRef, names, rows_batch
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

POINTS, METRICS = 10_000, 20


def make_runs(folder: str, runs: int) -> None:
    """Runs of 10,000 points each."""
    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    paths = [f"metrics/{i}" for i in range(METRICS)]
    codes = np.tile(np.arange(METRICS, dtype=np.int32), POINTS // METRICS)
    steps = np.repeat(np.arange(POINTS // METRICS, dtype=np.int64), METRICS) * 1_000_000
    for number in range(runs):
        ref = RunRef("acme/benchmark", f"RUN-{number}")
        writer = staging.writer(RunInfo(ref), SourceRecord("benchmark", "benchmark"))
        values = pa.array(np.random.default_rng(number).standard_normal(POINTS))
        writer.write(rows_batch(ref, names(codes, paths), "float_series", step_micros=steps, float_value=values))
        writer.commit()


def summarise(folder: str) -> tuple[int, dict[str, float]]:
    """The command as a user types it, start of the interpreter included."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "neptune_exporter", "summary", "-d", f"{folder}/data", "-f", f"{folder}/files"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1, {"seconds": time.perf_counter() - start}


def ask_for_help() -> tuple[int, dict[str, float]]:
    """`neptune-exporter --help`, start of the interpreter included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "neptune_exporter", "--help"], check=True, stdout=subprocess.DEVNULL)
    return 1, {"seconds": time.perf_counter() - start}


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_runs(folder, runs)
        results = [
            measure("neptune-exporter --help", ask_for_help, unit="commands", repeat=5),
            measure("neptune-exporter summary", summarise, folder, unit="commands"),
        ]
        show(f"summary of {runs:,} runs with {runs * POINTS:,} points", results)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
