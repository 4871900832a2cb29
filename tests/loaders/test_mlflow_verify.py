# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The commands `load` and `verify` on every kind of back end: what is changed there by hand is found, and only that."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import sqlalchemy as sa
from areas import floats, stage, tags, text
from mlflow import MlflowClient

from neptune_exporter.cli.main import main
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.model import RunRef

START = 1_700_000_000_000


@pytest.fixture
def project(request) -> str:
    """A project of its own: some targets are shared by several tests."""
    return f"acme/{request.node.name}"


@pytest.fixture
def area(tmp_path, project) -> Path:
    """Five runs that look alike."""
    for number in range(5):
        ref = RunRef(project, f"RUN-{number}")
        stage(
            tmp_path,
            ref.run_id,
            floats(ref, "metrics/loss", [1.0, 0.5, 0.25, 0.125]),
            floats(ref, "metrics/acc", [0.1 * n for n in range(300)]),
            text(ref, "params/name", "adam"),
            tags(ref, ["a", "b"]),
            files={"model": b"weights %d" % number, "data/table.csv": b"1,2"},
            project=project,
        )
    return tmp_path


def command(verb: str, area: Path, options: MLflowOptions, *more: str) -> int:
    places = ["--data-path", str(area / "data"), "--files-path", str(area / "files")]
    target = ["--mlflow-tracking-uri", options.mlflow_tracking_uri, "--mlflow-mode", options.mlflow_mode]
    store = options.mlflow_backend_store_uri
    target += ["--mlflow-backend-store-uri", store] if store else []
    return main([verb, "--loader", "mlflow", *target, *places, "--workers", "1", *more])


def database_of(request, options: MLflowOptions) -> sa.Engine:
    """The database behind the target, whatever the target is."""
    uri = options.mlflow_tracking_uri
    if uri.startswith("http"):
        uri = request.getfixturevalue("server_database" if "postgres" not in request.node.name else "postgres_uri")
    return sa.create_engine(uri, poolclass=sa.NullPool)


def artifact_file(request, tmp_path_factory, options: MLflowOptions, run_id: str, artifact: str) -> Path:
    """Where the back end keeps an artifact."""
    uri = MlflowClient(options.mlflow_tracking_uri).get_run(run_id).info.artifact_uri
    if uri.startswith("mlflow-artifacts:"):
        server = "postgres-server" if "postgres" in request.node.name else "server"
        root = next(tmp_path_factory.getbasetemp().glob(f"{server}*/artifacts"))
        return root / urlsplit(uri).path.lstrip("/") / artifact
    return Path(url2pathname(urlsplit(uri).path)) / artifact


def test_what_is_changed_by_hand_is_found_and_nothing_else(
    any_target, area, project, request, tmp_path_factory, monkeypatch, capfd
):
    monkeypatch.chdir(area)
    assert command("load", area, any_target) == 0
    capfd.readouterr()
    assert command("verify", area, any_target, "--json") == 0
    assert json.loads(capfd.readouterr().out)["findings"] == []

    client = MlflowClient(any_target.mlflow_tracking_uri)
    found = client.search_runs([client.get_experiment_by_name(project).experiment_id])
    runs = {run.data.tags["neptune.run_id"]: run.info.run_id for run in found}
    engine = database_of(request, any_target)
    with engine.begin() as connection:
        for statement, run in (
            ("UPDATE metrics SET value = 0.75 WHERE run_uuid = :run AND key = 'metrics/loss' AND step = 1", "RUN-0"),
            ("DELETE FROM metrics WHERE run_uuid = :run AND key = 'metrics/acc' AND step = 150", "RUN-1"),
        ):
            assert connection.execute(sa.text(statement), {"run": runs[run]}).rowcount == 1
    engine.dispose()
    artifact_file(request, tmp_path_factory, any_target, runs["RUN-2"], "files/model").unlink()
    client.log_param(runs["RUN-3"], "params/foreign", "7")

    assert command("verify", area, any_target, "--json") == 4
    told = json.loads(capfd.readouterr().out)["findings"]
    assert sorted((f["run"], f["attribute"], f["kind"]) for f in told) == [
        ("RUN-0", "metrics/loss", "values"),
        ("RUN-1", "metrics/acc", "count"),
        ("RUN-2", "model", "values"),
        ("RUN-3", "params/foreign", "surplus"),
    ]
    messages = {f["run"]: f["message"] for f in told}
    assert "at step 1: 0.5 (" in messages["RUN-0"]
    assert ", 0.75 (" in messages["RUN-0"]
    assert "at step 150: 15" in messages["RUN-1"]
    assert messages["RUN-1"].endswith("nothing in mlflow.")
