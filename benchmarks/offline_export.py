# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Offline data of neptune-scale into the staging area, logged by the real client.

python -m benchmarks.offline_export [POINTS]
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import measure, show

METRICS = 100


def log_points(folder: str, points: int, per_call: int) -> None:
    """Logs with the real client: `per_call` metrics a call."""
    logging.disable(logging.WARNING)
    from neptune_scale import Run

    with Run(
        project="acme/benchmark",
        run_id="RUN-1",
        mode="offline",
        log_directory=folder,
        enable_console_log_capture=False,
        source_tracking_config=None,
    ) as run:
        paths = [f"metrics/group_{i % 7}/name_{i}" for i in range(per_call)]
        for step in range(points // per_call):
            run.log_metrics({path: step * 0.001 + i for i, path in enumerate(paths)}, step=step)


def export_all(source: str, target: str) -> tuple[int, dict[str, float]]:
    """The verb export, one run in one thread."""
    from neptune_exporter.export import export
    from neptune_exporter.exporters.offline import OfflineOptions
    from neptune_exporter.selection import Selection
    from neptune_exporter.storage.staging import Staging

    shutil.rmtree(target, ignore_errors=True)
    staging = Staging(Path(target) / "data", Path(target) / "files")
    start, cpu = time.perf_counter(), time.process_time()
    report = export("offline", OfflineOptions(offline_path=(source,)), staging, Selection(), workers=1)
    assert report.exit_code == 0, report
    return report.rows, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def parse_plainly(source: str) -> tuple[int, dict[str, float]]:
    """The baseline: sqlite3 and protobuf, every value looked at once, nothing written."""
    from neptune_api.proto.neptune_pb.ingest.v1.common_pb2 import UpdateRunSnapshot

    (database,) = Path(source).rglob("*.sqlite3")
    start, cpu = time.perf_counter(), time.process_time()
    points = 0
    total = 0.0
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for (blob,) in connection.execute("select operation from run_operations where operation_type = 0"):
            for value in UpdateRunSnapshot.FromString(blob).append.values():
                total += value.float64
                points += 1
    return points, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def main(points: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for per_call, count in ((METRICS, points), (1, points // 50)):
            source = f"{folder}/{per_call}"
            log_points(source, count, per_call)
            baseline = measure("sqlite3 + protobuf, nothing written", parse_plainly, source, unit="points")
            ours = measure(
                "neptune-exporter export, staging written", export_all, source, f"{folder}/out", unit="points"
            )
            show(f"Offline export of {count:,} points, {per_call} a call, one worker", [baseline, ours], baseline)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
