# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A staging area into Pluto, against Pluto's own client in an environment of its own; the server only counts.

python -m benchmarks.pluto_load [POINTS] [RUNS]
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import measure, show

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from servers.http import Reply, Request
from servers.pluto import KEY, PlutoServer

KEYS = 10
PROJECT = "acme/benchmark"
CLIENT = "pluto-ml==0.0.29"
SDK = """
import json, sys, time
import pluto
url, key, rows, keys, folder, tuned = sys.argv[1:]
settings = {"_auth": key, "disable_console": True, "disable_system_metrics": True}
settings.update({f"url_{name}": url for name in ("app", "api", "ingest", "py")})
if tuned == "tuned":
    settings.update(
        sync_process_batch_size=5000, sync_process_flush_interval=0.01, sync_process_shutdown_timeout=3600.0
    )
began, cpu = time.perf_counter(), time.process_time()
op = pluto.init(project="acme/sdk", name="run", run_id=f"sdk {time.time_ns()}", settings=settings, dir=folder)
for step in range(int(rows)):
    op.log({f"metrics/{i}": step * 0.001 + i / 7 for i in range(int(keys))}, step=step, timestamp=1_700_000_000 + step)
op.finish(code=0)
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}))
"""


# --- the server, in a process of its own


class CountingServer(PlutoServer):
    """Takes lines without looking into them, and says how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Counter[str] = Counter()

    def _ingest(self, request: Request) -> Reply:
        kind = request.path.rpartition("/")[2]
        lines = request.body.count(b"\n")
        # Every line has three members of its own; what else ends in a quote and a colon is a point.
        records = len(re.findall(rb'": ?', request.body)) - 3 * lines if kind == "metrics" else lines
        self.taken[kind] += records
        return Reply(f"Stream processed successfully: {records} records".encode())

    def _handle(self, request: Request) -> Reply:
        if request.path == "/taken":
            taken = Reply.json(self.taken)
            self.taken = Counter()
            return taken
        return super()._handle(request)


def serve() -> None:
    """The server's process: ends with its standard input."""
    with CountingServer() as server:
        print(server.url, flush=True)
        sys.stdin.read()


@contextmanager
def served() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from benchmarks.pluto_load import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


def taken(url: str) -> int:
    """The points that the server took since it was asked last."""
    with urllib.request.urlopen(f"{url}/taken") as answer:
        return int(json.load(answer).get("metrics", 0))


# --- the cases


def stage(folder: str, runs: int, rows: int) -> int:
    """Stages runs of so many rows of ten metrics each."""
    from neptune_exporter.model import RunInfo, RunRef, names, rows_batch
    from neptune_exporter.storage.manifest import SourceRecord
    from neptune_exporter.storage.staging import Staging

    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    random = np.random.default_rng(1)
    for number in range(runs):
        ref = RunRef(PROJECT, f"RUN-{number}")
        writer = staging.writer(RunInfo(ref), SourceRecord("benchmark", "benchmark"))
        for start in range(0, rows, 10_000):
            steps = np.repeat(np.arange(start, min(start + 10_000, rows), dtype=np.int64), KEYS)
            codes = np.tile(np.arange(KEYS, dtype=np.int32), len(steps) // KEYS)
            writer.write(
                rows_batch(
                    ref,
                    names(codes, [f"metrics/{i}" for i in range(KEYS)]),
                    "float_series",
                    step_micros=steps * 1_000_000,
                    time_ms=1_700_000_000_000 + steps * 1000,
                    float_value=pa.array(random.standard_normal(len(steps))),
                )
            )
        writer.commit()
    return runs * rows * KEYS


def load_area(folder: str, url: str, prefix: str, workers: int) -> tuple[int, dict[str, Any]]:
    """The verb load."""
    from neptune_exporter.load import load
    from neptune_exporter.loaders.loader import LoadOptions
    from neptune_exporter.loaders.pluto import PlutoOptions
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    options, common = PlutoOptions(url, pluto_api_key=KEY), LoadOptions(name_prefix=f"{prefix}{time.time_ns()}-")
    began, cpu = time.perf_counter(), time.process_time()
    report = load("pluto", options, common, staging, Selection(), workers=workers, executor="processes")
    spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    assert report.exit_code == 0, report
    assert taken(url) == report.rows
    return (report.rows, spent) if len(report.outcomes) == 1 else (len(report.outcomes), spent)


def sdk(python: str, url: str, rows: int, how: str) -> tuple[int, dict[str, Any]]:
    """Pluto's client, a call per step, until it says that it has finished."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-c", SDK, url, KEY, str(rows), str(KEYS), folder, how]
        home = {"HOME": folder, "PATH": os.environ["PATH"], "PLUTO_DISABLE_TELEMETRY": "1", "CI": "1"}
        done = subprocess.run(command, env=home, capture_output=True, text=True, check=True, cwd=folder)
    found = taken(url)
    lost = rows * KEYS - found
    return found, {**json.loads(done.stdout.splitlines()[-1]), **({"lost": lost} if lost else {})}


def real_client(folder: str) -> str | None:
    """The Python of an environment with Pluto's client, None where it cannot be made."""
    uv = shutil.which("uv")
    python = Path(folder) / "client" / "bin" / "python"
    for command in (
        ["venv", "-q", "--python", sys.executable, python.parents[1]],
        ["pip", "install", "-q", "--python", python, CLIENT],
    ):
        if uv is None or subprocess.run([uv, *command], check=False, capture_output=True).returncode:
            return None
    return str(python)


def main(points: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder, served() as url:
        big, small = f"{folder}/big", f"{folder}/small"
        stage(big, 1, points // KEYS)
        stage(small, runs, 200)
        python = real_client(folder)
        rows = points // KEYS
        ours = measure(f"neptune-exporter load, {points:,} points", load_area, big, url, "b", 1, unit="points")
        results, baseline = [ours], None
        if python is None:
            print(f"{CLIENT} cannot be fetched: nothing to compare with")
        else:
            few = min(rows, 20_000)
            baseline = measure(
                f"the client, tuned, {few * KEYS:,} points", sdk, python, url, few, "tuned", unit="points"
            )
            plain = measure(
                "the client as it is, 20,000 points", sdk, python, url, 2_000, "plain", unit="points", repeat=1
            )
            results += [baseline, plain]
        show("One run into Pluto, 10 metrics per step", results, baseline)
        many = measure(f"{runs} runs of 2,000 points, 4 workers", load_area, small, url, "s", 4, unit="runs", repeat=1)
        show("Small runs into Pluto", [many])


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [10_000_000, 500][len(given) :]))
