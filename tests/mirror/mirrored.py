# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of dual logging look at: the spool, Neptune's own logs, scripts in processes of their own, MLflow."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from unittest import mock

from neptune_exporter.cli.main import main
from neptune_exporter.mirror import mirror, spool
from neptune_exporter.mirror.worker import only_one

NOWHERE = "nowhere"  # no loader has that name: the spool is all there is, and no process is started

OF_ITS_OWN = ("run", "doctor")  # commands that change the process they run in, or look for what is installed


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


def steps(root: Path) -> list[int]:
    """The steps of the operations in a spool."""
    return sorted(s.step.whole for s in snapshots(updates(root)))


def warnings(caplog) -> list[str]:
    """What dual logging has warned of."""
    found = (r for r in caplog.records if r.name == "neptune_exporter.mirror" and r.levelno == logging.WARNING)
    return [record.getMessage() for record in found]


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
        """Starts the script from a file; with the argument `-c`, without one."""
        path = self.folder / "train.py"
        path.write_text(text, encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, *arguments, text if "-c" in arguments else str(path)],
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
        """Runs a command of ours, in this process where that is the same; returns its stdout."""
        given = {**self.environment, **environment}
        if arguments[0] in OF_ITS_OWN:
            command = [sys.executable, "-m", "neptune_exporter", *arguments]
            done = subprocess.run(
                command, cwd=self.folder, env=given, capture_output=True, text=True, timeout=120, check=False
            )
            returned, out, err = done.returncode, done.stdout, done.stderr
        else:
            streams = io.StringIO(), io.StringIO()
            with (
                mock.patch.dict(os.environ, given, clear=True),
                contextlib.chdir(self.folder),
                contextlib.redirect_stdout(streams[0]),
                contextlib.redirect_stderr(streams[1]),
            ):
                returned = main(list(arguments))
            out, err = (stream.getvalue() for stream in streams)
        assert returned == code, (out + err)[-3000:]
        return out

    def replay(self, target: str = "mlflow", **environment: str) -> str:
        """Feeds a target with what is missing, once the process that was started for it has ended."""
        for folder in spool.run_folders(self.spool):
            with only_one(folder, target, lambda: False):
                pass
        return self.command("replay", "--target", target, **environment)

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
