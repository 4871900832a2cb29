# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of dual logging look at: the spool, Neptune's own logs, scripts in processes of their own, MLflow."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from neptune_exporter.mirror import mirror, spool

NOWHERE = "nowhere"  # no loader has that name: the spool is all there is, and no process is started


def records(root: Path, *kinds: int) -> list[bytes]:
    """The payloads in a spool, oldest segment first."""
    if mirror._current is not None:
        assert mirror._current.recorder.flush(10)
    return [
        record.payload
        for folder in spool.run_folders(root)
        for path in spool.segments(folder)
        for record in spool.read_records(path)
        if record.kind in kinds
    ]


def neptunes_own(folder: Path) -> list[bytes]:
    """The operations that Neptune's client has stored itself: the other side of the comparison."""
    found = []
    for path in sorted(folder.rglob("*.sqlite3")):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT operation_type, operation FROM run_operations ORDER BY sequence_id")
            found += [blob for kind, blob in rows if kind == 0]
    return found


def updates(root: Path) -> list[bytes]:
    """The operations in a spool."""
    return records(root, spool.UPDATE)


def snapshots(blobs: list[bytes]) -> list:
    """Operations, decoded by the client's own classes."""
    from neptune_api.proto.neptune_pb.ingest.v1.common_pb2 import UpdateRunSnapshot

    return [UpdateRunSnapshot.FromString(blob) for blob in blobs]


class Script:
    """A training script in a folder of its own.

    Args:
        folder: where it runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "mlflow.db"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NEPTUNE_")},
            "NEPTUNE_PROJECT": "team/project",
            "NEPTUNE_MODE": "offline",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.database}",
            "NEPTUNE_EXPORTER_SPOOL": str(folder / "spool"),
        }

    def start(self, text: str, *arguments: str, **environment: str) -> subprocess.Popen:
        path = self.folder / "train.py"
        path.write_text(text, encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, *arguments, str(path)],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, text: str, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(text, *arguments, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err[-3000:]
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def command(self, *arguments: str, code: int = 0, **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "neptune_exporter", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == code, (result.stdout + result.stderr)[-3000:]
        return result.stdout

    def replay(self, **environment: str) -> str:
        """Feeds MLflow with what is missing, once the process that was started for it has ended."""
        while "being fed" in (out := self.command("replay", "--target", "mlflow", **environment)):
            pass
        return out

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def own(self) -> list[bytes]:
        return neptunes_own(self.folder / ".neptune")

    def progress(self, target: str = "mlflow") -> list[spool.Progress]:
        return [spool.Progress.load(folder, target) for folder in spool.run_folders(self.spool)]

    def mlflow(self) -> MLflowRuns:
        return MLflowRuns(f"sqlite:///{self.database}")


class MLflowRuns:
    """What MLflow's own client says."""

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        self.runs = list(self.client.search_runs(experiments))

    @property
    def only(self):
        assert len(self.runs) == 1
        return self.runs[0]

    def points(self, key: str, run=None) -> list[tuple[int, float]]:
        history = self.client.get_metric_history((run or self.only).info.run_id, key)
        return sorted((point.step, point.value) for point in history)

    def content(self, artifact: str) -> bytes:
        return Path(self.client.download_artifacts(self.only.info.run_id, artifact)).read_bytes()

    def text(self, artifact: str) -> str:
        return self.content(artifact).decode()
