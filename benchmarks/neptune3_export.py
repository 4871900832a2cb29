# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Float series of a Neptune 3.x server into the staging area, against the client's data frames written as Parquet.

python -m benchmarks.neptune3_export [CASE ...]

The server of the tests runs in a process of its own on this machine; each variant runs in another.
"""

from __future__ import annotations

import json
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
CASES = {  # runs, metrics, points of each, whether metrics have steps of their own
    "wide": (50, 100, 1_000, False),
    "disjoint": (16, 128, 488, True),
    "long": (1, 1, 5_000_000, False),
}


def serve(case: str) -> None:
    """A server with the data of one case; answers `counts` on each line of stdin and ends with it."""
    import numpy as np

    sys.path.insert(0, str(TESTS))
    from servers.neptune3 import Neptune3Server

    runs, metrics, points, disjoint = CASES[case]
    random = np.random.default_rng(1)
    with Neptune3Server() as server:
        for number in range(runs):
            run = server.store.add_run(PROJECT, f"run-{number}")
            for metric in range(metrics):
                steps = np.arange(points) + (metric / 1_000 if disjoint else 0.0)
                series = run.series(f"metrics/group_{metric % 7}/name_{metric}", "floatSeries")
                series.extend(steps, 1_700_000_000_000 + np.arange(points) * 250, random.normal(size=points))
                for descending in (False, True):
                    series.encoded(descending=descending, previews=False)
        print(server.api_token, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.counts()), flush=True)
            server.http.log.clear()


def plainly(token: str, folder: str) -> tuple[int, dict[str, float]]:
    """The baseline: one call of the public API, its frame as a Parquet file."""
    import neptune_query
    from neptune_query import runs

    neptune_query.set_api_token(token)
    start, cpu = time.perf_counter(), time.process_time()
    frame = runs.fetch_metrics(project=PROJECT, runs=".*", attributes="^metrics/", include_time="absolute")
    frame.columns = ["/".join(column) for column in frame.columns]
    frame.reset_index().to_parquet(f"{folder}/frame.parquet")
    values = [name for name in frame.columns if name.endswith("/value")]
    count = int(frame[values].count().sum())
    return count, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def exported(token: str, folder: str, workers: int) -> tuple[int, dict[str, float]]:
    """The verb export, as the command line runs it: sorted parts, fingerprints, manifests."""
    import neptune_exporter.exporters.neptune3.exporter  # noqa: F401 - imports are not timed on either side
    from neptune_exporter.export import export
    from neptune_exporter.exporters.neptune3 import Neptune3Options
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    shutil.rmtree(f"{folder}/area", ignore_errors=True)
    staging = Staging(Path(folder) / "area" / "data", Path(folder) / "area" / "files")
    selection = Selection(projects=(PROJECT,), classes=frozenset({"metrics"}))
    start, cpu = time.perf_counter(), time.process_time()
    report = export("neptune3", Neptune3Options(api_token=token), staging, selection, workers=workers)
    assert report.exit_code == 0, report.outcomes[:1]
    return report.rows, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def compare(case: str) -> None:
    runs, metrics, points, disjoint = CASES[case]
    command = [sys.executable, "-m", "benchmarks.neptune3_export", "serve", case]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        token = server.stdout.readline().strip()

        def requests() -> str:
            server.stdin.write("counts\n")
            server.stdin.flush()
            counts = Counter(json.loads(server.stdout.readline()))
            return f"{counts.total() / runs:.1f} requests a run"

        baseline = measure("fetch_metrics, then Parquet", plainly, token, folder, unit="points", repeat=1)
        baseline.extra["cost"] = requests()
        results = [baseline]
        for workers in (1, 4):
            name = f"neptune-exporter export, {workers} worker{'s' * (workers > 1)}"
            ours = measure(name, exported, token, folder, workers, unit="points", repeat=1)
            assert ours.count == baseline.count == runs * metrics * points, (ours.count, baseline.count)
            ours.extra["cost"] = requests()
            results.append(ours)
        steps = ", disjoint steps" if disjoint else ""
        show(f"Neptune 3.x, {case}: {runs} runs, {metrics} metrics, {points:,} points each{steps}", results, baseline)
        server.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        for chosen in sys.argv[1:] or CASES:
            compare(chosen)
