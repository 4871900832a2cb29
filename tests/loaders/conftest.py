# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Targets for the tests of the loaders: MLflow on SQLite, behind a server, and on PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from servers.mlflow_server import serving
from servers.postgres import postgres, why_not

from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path_factory, monkeypatch) -> Path:
    """Loads that a test leaves half done leave their temporary files here."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """An MLflow database with its tables made; making them takes seconds, copying it does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MLflowLoader(MLflowOptions(f"sqlite:///{path}")).prepare("none", 1)
    client = MlflowClient(f"sqlite:///{path}")
    client.delete_experiment(client.get_experiment_by_name("none").experiment_id)
    return path


@pytest.fixture
def sqlite_uri(empty_database, tmp_path) -> str:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def server_uri(empty_database, tmp_path_factory):
    """A real `mlflow server` on SQLite, on a free port."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_database, folder / "mlflow.db")
    with serving(folder, f"sqlite:///{folder / 'mlflow.db'}") as uri:
        yield uri


@pytest.fixture(scope="session")
def server_database(server_uri, tmp_path_factory) -> str:
    """The database behind that server."""
    return f"sqlite:///{next(tmp_path_factory.getbasetemp().glob('server*/mlflow.db'))}"


@pytest.fixture(scope="session")
def postgres_server_uri(postgres_uri, tmp_path_factory):
    """A real `mlflow server` on PostgreSQL."""
    MLflowLoader(MLflowOptions(postgres_uri)).states("none")  # makes the tables
    with serving(tmp_path_factory.mktemp("postgres-server"), postgres_uri) as uri:
        yield uri


@pytest.fixture(scope="session")
def postgres_uri():
    """A PostgreSQL server of our own; skipped where it is not installed."""
    if why_not():
        pytest.skip(why_not())
    with postgres() as uri:
        yield uri


TARGETS = ["sqlite sql", "sqlite rest", "server rest", "server sql", "postgres sql", "postgres rest"]


@pytest.fixture(params=[*TARGETS, "postgres_server rest", "postgres_server sql"])
def any_target(request) -> MLflowOptions:
    """Every kind of tracking URI, in every way of writing."""
    place, mode = request.param.split()
    uri = request.getfixturevalue(f"{place}_uri")
    store = ""
    if mode == "sql" and "server" in place:
        store = request.getfixturevalue("server_database" if place == "server" else "postgres_uri")
    return MLflowOptions(uri, mlflow_mode=mode, mlflow_backend_store_uri=store)


@pytest.fixture(params=["sql", "rest"])
def mode(request) -> str:
    """Both ways of writing."""
    return request.param


@pytest.fixture
def make_loader(tmp_path, monkeypatch):
    """Makes loaders. Artifacts of a database without a place of its own go below the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(uri: str, mode: str = "auto", by: str = "project", **options) -> MLflowLoader:
        return MLflowLoader(MLflowOptions(uri, mlflow_mode=mode, mlflow_experiment_by=by), LoadOptions(**options))

    return make


@pytest.fixture
def loader(sqlite_uri, make_loader, mode) -> MLflowLoader:
    """A loader into SQLite, in both ways of writing."""
    return make_loader(sqlite_uri, mode)
