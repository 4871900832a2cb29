# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of dual logging share: a mirrored client in this process, and scripts in processes of their own."""

from __future__ import annotations

import shutil

import pytest
from mirrored import NOWHERE, MLflowRuns, Script

from neptune_exporter import dual_logging
from neptune_exporter.mirror import mirror


@pytest.fixture
def spool_root(tmp_path, monkeypatch):
    """Dual logging is on in this process; what is logged ends in the spool."""
    root = tmp_path / "spool"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEPTUNE_EXPORTER_TARGET", NOWHERE)
    monkeypatch.setenv("NEPTUNE_EXPORTER_SPOOL", str(root))
    monkeypatch.setattr(mirror, "_current", None)
    monkeypatch.setattr(dual_logging, "_switched_on", False)
    dual_logging.switch_on()
    yield root
    current = mirror._current
    if current is not None:
        current.recorder.flush(5)


@pytest.fixture
def new_run(spool_root, tmp_path):
    """Makes offline runs of the real client; closes what the test leaves open."""
    from neptune_scale import Run

    runs = []

    def make(kind=Run, **more):
        defaults = {"project": "team/project", "mode": "offline", "log_directory": tmp_path / "neptune"}
        quiet = {"enable_console_log_capture": False, "source_tracking_config": None}
        runs.append(kind(**{**defaults, **quiet, **more}))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """An MLflow database without runs: making its tables takes far longer than copying them."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MLflowRuns(f"sqlite:///{path}")
    return path


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)


@pytest.fixture
def with_mlflow(script, empty_mlflow):
    """The script's MLflow has its tables."""
    shutil.copyfile(empty_mlflow, script.database)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("DISABLE_NEPTUNE_LOGGING", "MLOP_PROJECT", "PLUTO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
