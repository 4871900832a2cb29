# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Bad targets: one clear error, quickly, and with the next thing to do."""

from __future__ import annotations

import http.server
import re
import sqlite3
import subprocess
import sys
import threading

import pytest
from logged_run import REF
from mlflow import MlflowClient
from servers.http import Fault, HttpServer, Reply

from neptune_exporter import plugins
from neptune_exporter.errors import MissingExtraError, TargetAccessError, TargetError, UsageError
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.tracking import without_password


@pytest.mark.parametrize(
    "uri", ["", "./mlruns", "file:///tmp/mlruns", "ftp://host", "postgres://host/db", "sqlite://", "sqlite:///:memory:"]
)
def test_a_uri_that_cannot_be_loaded_into_is_a_usage_error(make_loader, uri):
    with pytest.raises(UsageError) as caught:
        make_loader(uri)
    assert "sqlite:///mlflow.db" in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://no.such.host.invalid:5000", "(Name or service not known|Temporary failure in name resolution)"),
        (
            "postgresql://u:secret@127.0.0.1:9/db",
            'connection to server at "127.0.0.1", port 9 failed: Connection refused',
        ),
    ],
)
def test_a_target_that_does_not_answer_is_named_in_one_line_without_its_password(make_loader, uri, why):
    with pytest.raises(TargetError) as caught:
        make_loader(uri).states(REF.project_id)
    assert not isinstance(caught.value, TargetAccessError)
    shown = uri.replace("u:secret", r"\*\*\*")
    assert re.fullmatch(f"Nothing answers at {shown}, where MLflow should be: {why}.", caught.value.message)
    assert "--mlflow-tracking-uri" in caught.value.hint
    assert "secret" not in caught.value.hint


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(".*", "reset", times=99), "(Connection reset by peer|Remote end closed connection without response)"),
        (Fault(".*", status=503, times=99), "too many 503 error responses"),
    ],
)
def test_a_server_that_only_fails_is_named_with_its_failure(make_loader, monkeypatch, fault, why):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    server = HttpServer(lambda _: Reply())
    server.faults = [fault]
    server.start()
    try:
        with pytest.raises(TargetError, match=f"^Nothing answers at {server.url}, where MLflow should be: {why}.$"):
            make_loader(server.url).states(REF.project_id)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("status", "body"), [(401, "no"), (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}')]
)
def test_wrong_credentials_end_the_command(make_loader, status, body):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 - the library's own name

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(TargetAccessError) as caught:
                make_loader(f"http://127.0.0.1:{server.server_port}").states(REF.project_id)
        finally:
            server.shutdown()
    assert caught.value.fatal
    assert "MLFLOW_TRACKING_USERNAME" in caught.value.hint


def test_an_outdated_database_says_how_to_upgrade_it(make_loader, sqlite_uri, tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = 'f5a4f2784254'")
    database.close()
    with pytest.raises(TargetError) as caught:
        make_loader(sqlite_uri).states(REF.project_id)
    assert f"mlflow db upgrade {sqlite_uri}" in caught.value.hint


def test_a_file_that_is_no_database_is_an_error(make_loader, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TargetError, match="not a database"):
        make_loader(f"sqlite:///{tmp_path}/mlflow.db").states(REF.project_id)


def test_a_deleted_experiment_says_how_to_restore_it(loader, sqlite_uri):
    loader.prepare(REF.project_id, 1)
    client = MlflowClient(sqlite_uri)
    client.delete_experiment(client.get_experiment_by_name(REF.project_id).experiment_id)
    for ask in (lambda: loader.states(REF.project_id), lambda: loader.prepare(REF.project_id, 1)):
        with pytest.raises(TargetError, match="was deleted") as caught:
            ask()
        assert "mlflow experiments restore -x" in caught.value.hint


def test_an_experiment_that_was_there_before_is_used(loader, sqlite_uri):
    client = MlflowClient(sqlite_uri)
    experiment = client.create_experiment(REF.project_id)
    client.create_run(experiment)
    loader.prepare(REF.project_id, 100)
    assert loader.states(REF.project_id).step_multiplier == 100
    assert not loader.states(REF.project_id).runs


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError):
        plugins.find(plugins.LOADERS, "mlflow").make(MLflowOptions(), LoadOptions())


def test_the_options_can_be_shown_without_importing_mlflow():
    code = "import sys, neptune_exporter.loaders.mlflow; print('mlflow' in sys.modules, 'pyarrow' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == ["False", "False"]


def test_sqlite_has_one_writer(make_loader, tmp_path):
    assert make_loader(f"sqlite:///{tmp_path}/x.db").limits.writers == 1
    assert make_loader("http://127.0.0.1:9").limits.writers is None


def test_a_postgres_uri_need_not_name_a_driver(make_loader, postgres_uri):
    assert not make_loader(postgres_uri.replace("+psycopg2", "")).states("team/none").runs


def test_passwords_are_not_shown(make_loader):
    assert without_password("postgresql://u:p@h:5/d") == "postgresql://u:***@h:5/d"
    assert without_password("http://h:5000") == "http://h:5000"
    assert "geheim" not in make_loader("http://u:geheim@127.0.0.1:9").describe()
