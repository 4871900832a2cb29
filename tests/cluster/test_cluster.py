# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Export, load and verify on a real Dask cluster of two workers: the same result as on one machine."""

from __future__ import annotations

import json
import re

import pytest
from cluster_source import PROJECT, places
from servers.mlflow_server import serving

from neptune_exporter import __version__
from neptune_exporter.cli.main import main


def test_there_and_back_again(two_workers, source, area, tmp_path, capsys):
    """From the server into the staging area, into MLflow, and proven against both, all of it by the workers."""
    dask = ["--executor", f"dask:{two_workers.address}"]
    assert main(["export", "-p", PROJECT, *places(area), *dask]) == 0
    assert "Export: 6 done." in capsys.readouterr().out
    source.assert_staged(area)
    assert main(["export", "-p", PROJECT, *places(area), *dask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"skipped": 6}
    (tmp_path / "mlflow").mkdir()
    with serving(tmp_path / "mlflow", f"sqlite:///{tmp_path / 'mlflow.db'}") as uri:
        target = ["--loader", "mlflow", "--mlflow-tracking-uri", uri]
        assert main(["load", *target, *places(area), *dask]) == 0
        assert "Load: 6 done." in capsys.readouterr().out
        assert main(["verify", "--read-data", "--exporter", "neptune3", *target, *places(area), *dask]) == 0
        said = capsys.readouterr().out
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(PROJECT)
        runs = client.search_runs([experiment.experiment_id])
        assert {run.data.params["config/seed"] for run in runs} == {str(n) for n in range(6)}
        assert all(len(client.get_metric_history(run.info.run_id, "metrics/loss")) == 2000 for run in runs)
        assert len(runs) == 6
    assert "Compared with neptune3: 6 of 6 runs." in said
    assert "Compared with mlflow: 6 of 6 runs." in said
    assert "No differences." in said
    assert not [path for path in area.data_path.iterdir() if path.is_file()]  # no sign is left


def test_both_workers_had_a_part(two_workers, source, area):
    assert main(["export", "-p", PROJECT, *places(area), "--executor", f"dask:{two_workers.address}"]) == 0
    assert source.server.counts()["token"] == 3  # this process, which lists, and each worker once


def test_secrets_show_nowhere(two_workers, source, area, monkeypatch, capsys):
    """Also not where a task fails, which Dask logs with its arguments."""
    token = source.server.api_token
    source.server.revoke()
    run = ["export", "-p", PROJECT, *places(area), "--executor", f"dask:{two_workers.address}"]
    assert main(run) == 1
    source.server._revoked = False
    monkeypatch.setattr("neptune_exporter.export._listed", _listed_then_revoked(source.server))
    assert "On the worker" not in capsys.readouterr().err  # it was this machine that was refused
    assert main(run) == 1
    one_line(capsys, r"^Error: On the worker tcp://127\.0\.0\.1:\d+: ")
    log = two_workers.log()
    assert "AccessError" in log  # the workers failed, and Dask has said so
    assert token not in log
    assert token[20:60] not in log


def _listed_then_revoked(server):
    from neptune_exporter import export

    real = export._listed

    def listed(*arguments):
        yield from list(real(*arguments))
        server.revoke()

    return listed


def one_line(capsys, pattern: str) -> None:
    found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error:")]
    assert len(found) == 1, found
    assert re.search(pattern, found[0]), found


@pytest.fixture
def odd_cluster(tmp_path):
    from servers.dask_cluster import DaskCluster

    folder = tmp_path / "odd"
    folder.mkdir()
    with DaskCluster(folder) as running:
        yield running


@pytest.mark.parametrize(
    ("preload", "pattern"),
    [
        (
            "import neptune_exporter\nneptune_exporter.__version__ = '0.0.9'\n",
            rf"has neptune-exporter 0\.0\.9, and this machine {re.escape(__version__)}\.",
        ),
        ("import sys\nsys.modules['neptune_exporter'] = None\n", r"has no neptune-exporter: .*neptune_exporter"),
        (
            (
                "import pathlib\nreal = pathlib.Path.iterdir\n"
                "pathlib.Path.iterdir = lambda self: iter(()) if self.name == 'data' else real(self)\n"
            ),
            r"does not see .*data as this machine does",
        ),
    ],
    ids=["version", "package", "folder"],
)
def test_workers_that_cannot(odd_cluster, source, area, capsys, preload, pattern):
    odd_cluster.start("odd", preload=preload)
    assert main(["export", "-p", PROJECT, *places(area), "--executor", f"dask:{odd_cluster.address}"]) == 1
    one_line(capsys, pattern)


def test_a_cluster_without_workers(odd_cluster, source, area, capsys, monkeypatch):
    monkeypatch.setattr("neptune_exporter.cluster.CONNECT_SECONDS", 1)
    assert main(["export", "-p", PROJECT, *places(area), "--executor", f"dask:{odd_cluster.address}"]) == 1
    one_line(capsys, "has no workers")
