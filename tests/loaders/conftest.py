# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Targets for the tests of the loaders: MLflow on SQLite, behind a server, and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@contextmanager
def serving(folder: Path, database: str, port: int | None = None):
    """A real `mlflow server`, stopped by its process id."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


@pytest.fixture(scope="session")
def postgres_uri(tmp_path_factory):
    """A PostgreSQL server of our own, as an ordinary user; skipped where it is not installed."""
    binaries = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin")]
    home = next((folder for folder in binaries if (folder / "initdb").exists()), None)
    if home is None:
        pytest.skip("PostgreSQL is not installed (no initdb)")
    as_user = []
    folder = tmp_path_factory.mktemp("postgres")
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and setpriv is missing")
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        folder = Path("/tmp") / f"neptune-exporter-postgres-{os.getpid()}"
        folder.mkdir()
        os.chown(folder, 65534, 65534)
    port = free_port()
    data = folder / "data"
    run = [*as_user, str(home / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run([*run, "--locale=C"], check=True, capture_output=True, cwd=folder)
    serve = [*as_user, str(home / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        server = subprocess.Popen(
            [*serve, "-c", "listen_addresses=127.0.0.1", "-F"], stdout=log, stderr=log, cwd=folder
        )
    try:
        address = f"tester@127.0.0.1:{port}/postgres"
        wait_for_database(f"postgresql://{address}", server)
        yield f"postgresql+psycopg2://{address}"
    finally:
        server.send_signal(signal.SIGINT)  # which does not wait for MLflow's pooled connections
        server.wait(20)
        if as_user:
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"{folder}.log").unlink(missing_ok=True)


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")


def wait_for_database(uri: str, server: subprocess.Popen) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            psycopg2.connect(uri).close()
        except psycopg2.OperationalError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("PostgreSQL did not come up")
