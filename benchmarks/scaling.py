# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One worker, two and four: export from a Neptune 3.x server 50 ms away, load into Pluto as far away, and into MLflow.

python -m benchmarks.scaling [export|pluto|mlflow [threads|processes|dask]]

Workers are threads, processes, and those of a Dask cluster on this machine, with one thread each. The cluster is
there before the clock starts, as it would be; processes are started within the time. Servers run in processes of their
own and take part of the machine. The peak is that of the biggest worker, the command's own process among them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import pluto_load
from benchmarks.harness import Result, measure, show

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

PROJECT = "team/benchmark"
RUNS, METRICS, POINTS = 128, 20, 1_000
LATENCY_SECONDS = 0.05
WAYS = ("threads", "processes", "dask")
NUMBERS = (1, 2, 4)


# --- servers, each in a process of its own; it ends with its standard input


def neptune3() -> None:
    import numpy as np
    from servers.neptune3 import Neptune3Server

    random = np.random.default_rng(1)
    with Neptune3Server() as server:
        for number in range(RUNS):
            run = server.store.add_run(PROJECT, f"run-{number}")
            for metric in range(METRICS):
                series = run.series(f"metrics/name_{metric}", "floatSeries")
                steps = np.arange(POINTS)
                series.extend(steps, 1_700_000_000_000 + steps * 250, random.normal(size=POINTS))
                for descending in (False, True):
                    series.encoded(descending=descending, previews=False)
        server.http.latency = LATENCY_SECONDS
        print(server.api_token, flush=True)
        sys.stdin.read()


def pluto() -> None:
    with pluto_load.CountingServer() as server:
        server.http.latency = LATENCY_SECONDS
        print(server.url, flush=True)
        sys.stdin.read()


@contextmanager
def serving(name: str) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.scaling", "serve", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """MLflow's own server, four processes of it, on PostgreSQL."""
    from servers.mlflow_server import serving as serving_mlflow
    from servers.postgres import postgres

    with postgres() as database, serving_mlflow(folder, database, workers=4) as url:
        yield url


# --- the cases


def exported(token: str, folder: str, executor: str, workers: int) -> tuple[int, dict[str, Any]]:
    from neptune_exporter.export import export
    from neptune_exporter.exporters.neptune3 import Neptune3Options
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    shutil.rmtree(folder, ignore_errors=True)
    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    options = Neptune3Options(api_token=token)
    return timed(
        lambda: export(
            "neptune3", options, staging, Selection(projects=(PROJECT,)), workers=workers, executor=executor
        ),
        executor,
    )


def loaded(loader: str, url: str, folder: str, executor: str, workers: int) -> tuple[int, dict[str, Any]]:
    from neptune_exporter import plugins
    from neptune_exporter.load import load
    from neptune_exporter.loaders.loader import LoadOptions
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    kind = plugins.find(plugins.LOADERS, loader).options
    options = kind(url, pluto_api_key=pluto_load.KEY) if loader == "pluto" else kind(url)
    common = LoadOptions(name_prefix=f"{time.time_ns()}-")
    return timed(
        lambda: load(loader, options, common, staging, Selection(), workers=workers, executor=executor), executor
    )


def timed(command: Callable[[], Any], executor: str) -> tuple[int, dict[str, Any]]:
    """Runs a command; how many rows, how long, and the peak of the biggest process that worked for it."""
    peaks: dict[int, int] = {}
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(peaks, over, executor))
    watch.start()
    began, cpu = time.perf_counter(), time.process_time()
    report = command()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    over.set()
    watch.join()
    assert report.exit_code == 0, report
    return report.rows, {"seconds": seconds, "cpu": cpu, "worker": f"{max(peaks.values()) / 1024:.0f} MB"}


def _watch(peaks: dict[int, int], over: threading.Event, executor: str) -> None:
    cluster = [int(pid) for pid in os.environ.get("SCALING_WORKERS", "").split()] if executor != "processes" else []
    while True:
        children = (
            Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() if executor == "processes" else []
        )
        for process in {os.getpid(), *cluster, *map(int, children)}:
            try:
                status = Path(f"/proc/{process}/status").read_text()
            except OSError:
                continue
            peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
            peaks[process] = max(peak, peaks.get(process, 0))
        if over.wait(0.05):
            return


# --- the tables


def scaled(title: str, case: Callable[..., Any], *arguments: Any, ways: Sequence[str]) -> None:
    """Measures a case with each way of working and number of workers; ratios are to one worker of the same way."""
    for way in ways:
        results: list[Result] = []
        for workers in NUMBERS:
            with ExitStack() as stack:
                executor, environment = way, {}
                if way == "dask":
                    from servers.dask_cluster import DaskCluster

                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    cluster = stack.enter_context(DaskCluster(folder))
                    for number in range(workers):
                        cluster.start(f"worker-{number}")
                    executor = f"dask:{cluster.address}"
                    environment["SCALING_WORKERS"] = " ".join(str(p.pid) for p in cluster.workers.values())
                name = f"{way}, {workers} worker{'s' * (workers > 1)}"
                result = measure(name, case, *arguments, executor, workers, unit="rows", repeat=1, **environment)
                results.append(result)
        show(f"{title}: {way}", results, results[0])


def export_part(folder: Path, ways: Sequence[str]) -> None:
    with serving("neptune3") as token:
        title = f"Export, {RUNS} runs, {RUNS * METRICS * POINTS:,} points, {LATENCY_SECONDS * 1000:.0f} ms a request"
        scaled(title, exported, token, str(folder / "area"), ways=ways)


def pluto_part(folder: Path, ways: Sequence[str]) -> None:
    pluto_load.stage(str(folder), 24, 4_000)
    with serving("pluto") as url:
        title = f"Load into Pluto, 24 runs, {24 * 40_000:,} points, {LATENCY_SECONDS * 1000:.0f} ms a request"
        scaled(title, loaded, "pluto", url, str(folder), ways=ways)


def mlflow_part(folder: Path, ways: Sequence[str]) -> None:
    pluto_load.stage(str(folder), 16, 1_000)
    (folder / "server").mkdir()
    with mlflow_server(folder / "server") as url:
        title = f"Load into MLflow over HTTP, 16 runs, {16 * 10_000:,} points; its server shares the four cores"
        scaled(title, loaded, "mlflow", url, str(folder), ways=ways)


PARTS = {"export": export_part, "pluto": pluto_part, "mlflow": mlflow_part}

if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        {"neptune3": neptune3, "pluto": pluto}[sys.argv[2]]()
    else:
        for part in sys.argv[1:2] or PARTS:
            with tempfile.TemporaryDirectory() as scratch:
                PARTS[part](Path(scratch), sys.argv[2:] or WAYS)
