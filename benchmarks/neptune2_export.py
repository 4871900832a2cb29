# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Float series of a Neptune 2.x server into the staging area, against the plain client; and offline logs of 1.x.

python -m benchmarks.neptune2_export [server | offline]

The server of the tests runs in a process of its own on this machine and holds every reply back for 20 ms; each
variant runs in another process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.harness import measure, show

TESTS = Path(__file__).parent.parent / "tests"
PROJECT = "team/benchmark"
RUNS, SERIES, POINTS = 50, 50, 1_000
LATENCY = 0.02
RECORDS = 1_000_000
PLAIN_RUNS = 10  # the plain client is slow and linear: it reads so many runs, and is counted by points per second


def serve() -> None:
    """A server with all runs; answers `counts` on each line of stdin and ends with it."""
    import numpy as np

    sys.path.insert(0, str(TESTS))
    from servers.neptune2 import Neptune2Server

    random = np.random.default_rng(1)
    with Neptune2Server(latency=LATENCY) as server:
        project = server.store.add_project(PROJECT, "BENCH")
        for _ in range(RUNS):
            run = server.store.create(project, "run")
            for number in range(SERIES):
                values = random.normal(size=POINTS).tolist()
                points = [(float(n), 1_700_000_000_000 + 250 * n, value) for n, value in enumerate(values)]
                run.set(f"metrics/name_{number}", "floatSeries", points)
        print(server.api_token, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.http.counts), flush=True)
            server.http.log.clear()


def plainly(token: str, runs: int) -> tuple[int, dict[str, float]]:
    """The baseline: each run opened read-only, each series fetched; nothing written."""
    os.environ.update(NEPTUNE_API_TOKEN=token, OAUTHLIB_INSECURE_TRANSPORT="1")
    import neptune

    start, cpu, count = time.perf_counter(), time.process_time(), 0
    for number in range(1, runs + 1):
        with neptune.init_run(with_id=f"BENCH-{number}", project=PROJECT, mode="read-only") as run:
            for series in run.get_structure()["metrics"].values():
                count += len(series.fetch_values(include_timestamp=True, progress_bar=False))
    return count, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def exported(token: str, folder: str, workers: int) -> tuple[int, dict[str, float]]:
    """The verb export, as the command line runs it: sorted parts, fingerprints, manifests."""
    os.environ.update(OAUTHLIB_INSECURE_TRANSPORT="1")
    import neptune  # noqa: F401 - imports are not timed on either side

    import neptune_exporter.exporters.neptune2.exporter  # noqa: F401
    from neptune_exporter.export import export
    from neptune_exporter.exporters.neptune2 import Neptune2Options
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    shutil.rmtree(f"{folder}/area", ignore_errors=True)
    staging = Staging(Path(folder) / "area" / "data", Path(folder) / "area" / "files")
    selection = Selection(projects=(PROJECT,), classes=frozenset({"metrics"}))
    start, cpu = time.perf_counter(), time.process_time()
    report = export("neptune2", Neptune2Options(api_token=token), staging, selection, workers=workers)
    assert report.exit_code == 0, report.outcomes[:1]
    return report.rows, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def compare_servers() -> None:
    command = [sys.executable, "-m", "benchmarks.neptune2_export", "serve"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        token = server.stdout.readline().strip()

        def requests(runs: int) -> str:
            server.stdin.write("counts\n")
            server.stdin.flush()
            return f"{Counter(json.loads(server.stdout.readline())).total() / runs:.1f} requests a run"

        name = f"init_run, fetch_values ({PLAIN_RUNS} runs)"
        baseline = measure(name, plainly, token, PLAIN_RUNS, unit="points", repeat=1)
        baseline.extra["cost"] = requests(PLAIN_RUNS)
        results = [baseline]
        for workers in (1, 4):
            ours_name = f"neptune-exporter export, {workers} worker{'s' * (workers > 1)}"
            ours = measure(ours_name, exported, token, folder, workers, unit="points", repeat=3)
            assert ours.count == RUNS * SERIES * POINTS, ours.count
            ours.extra["cost"] = requests(3 * RUNS)
            results.append(ours)
        title = f"Neptune 2.x: {RUNS} runs, {SERIES} series, {POINTS:,} points each, {LATENCY * 1000:.0f} ms a reply"
        show(title, results, baseline)
        server.stdin.close()


# --- offline


def write_log(folder: Path) -> None:
    """A log as the 1.x client writes it: one point a record, 50 series, files of 64 MB."""
    store = folder / "offline" / "run__01234567-89ab-cdef-0123-456789abcdef__1__abcdefgh"
    store.mkdir(parents=True)
    file, size = (store / "data-1.log").open("w"), 0
    for version in range(1, RECORDS + 1):
        point = {"value": version * 0.001, "step": None, "ts": 1_700_000_000.0 + version * 0.01}
        operation = {"type": "LogFloats", "path": ["metrics", f"name_{version % 50}"], "values": [point]}
        line = json.dumps({"obj": operation, "version": version, "at": 1_700_000_000.0 + version * 0.01}) + "\n"
        if size + len(line) > 64 << 20:
            file.close()
            file, size = (store / f"data-{version}.log").open("w"), 0
        size += len(line)
        file.write(line)
    file.close()
    (store / "last_put_version").write_text(str(RECORDS))


def parse_plainly(source: str) -> tuple[int, dict[str, float]]:
    """The baseline: `json.loads` of every line, every value looked at once, nothing written."""
    start, cpu, count, total = time.perf_counter(), time.process_time(), 0, 0.0
    for path in sorted(Path(source).rglob("data-*.log")):
        with path.open("rb") as file:
            for line in file:
                for point in json.loads(line)["obj"]["values"]:
                    total += point["value"]
                    count += 1
    return count, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def read_only(source: str) -> tuple[int, dict[str, float]]:
    """Our reader: all batches of the run, nothing written."""
    from neptune_exporter.exporters.offline import OfflineOptions, plugin
    from neptune_exporter.selection import Selection

    selection = Selection(projects=(PROJECT,))
    start, cpu = time.perf_counter(), time.process_time()
    exporter = plugin.make(OfflineOptions(offline_path=(source,)))
    (project,) = exporter.projects(selection)
    (run,) = exporter.runs(project, selection)
    count = sum(batch.num_rows for batch in exporter.batches(run, selection, _Nowhere(), _Nowhere()))
    return count, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


class _Nowhere:
    def problem(self, problem: object) -> None:
        raise AssertionError(problem)

    def empty(self, *_what: object) -> None:
        """Nothing."""


def offline_export(source: str, target: str) -> tuple[int, dict[str, float]]:
    """The verb export, one run in one thread."""
    from neptune_exporter.export import export
    from neptune_exporter.exporters.offline import OfflineOptions
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    shutil.rmtree(target, ignore_errors=True)
    staging = Staging(Path(target) / "data", Path(target) / "files")
    options = OfflineOptions(offline_path=(source,))
    start, cpu = time.perf_counter(), time.process_time()
    report = export("offline", options, staging, Selection(projects=(PROJECT,)), workers=1)
    assert report.exit_code == 0, report
    return report.rows, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def compare_offline() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/.neptune"
        write_log(Path(source))
        baseline = measure("json.loads, nothing written", parse_plainly, source, unit="records")
        results = [
            baseline,
            measure("our reader, nothing written", read_only, source, unit="records"),
            measure("neptune-exporter export", offline_export, source, f"{folder}/out", unit="records"),
        ]
        show(f"Offline log of the 1.x client, {RECORDS:,} records of one point, one worker", results, baseline)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    else:
        for chosen in sys.argv[1:] or ("server", "offline"):
            {"server": compare_servers, "offline": compare_offline}[chosen]()
