# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A tracking server that answers 500, drops connections, loses answers or disappears for a while."""

from __future__ import annotations

import gc
import http.client
import random
from urllib.parse import urlsplit

import pytest
from logged_run import REF, LoggedRun, attempted, load, read_back
from mlflow import MlflowClient
from mlflow.entities import ViewType
from servers.http import Fault, HttpServer, Reply, Request

from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import RunRef
from neptune_exporter.pace import Pace

START = 1_700_000_000_000
WRITING = r"^(POST|PUT|PATCH|DELETE) "


class Proxy(HttpServer):
    """Between the loader and a real server.

    Attributes:
        away: how many requests from now on are dropped before they reach the server.
        seen: requests that came.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(self._forward)
        self._host = urlsplit(uri).netloc
        self.away = range(0)
        self.seen = 0

    def _forward(self, request: Request) -> Reply:
        self.seen += 1
        if self.seen in self.away:
            raise ConnectionResetError
        connection = http.client.HTTPConnection(self._host, timeout=60)
        headers = {k: v for k, v in request.headers.items() if k not in ("host", "connection", "transfer-encoding")}
        headers["content-length"] = str(len(request.body))
        connection.request(request.method, request.target, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        kept = {k: v for k, v in answer.getheaders() if k.lower() in ("content-type", "content-disposition")}
        return Reply(body, answer.status, kept)


@pytest.fixture(params=["server", "postgres_server"])
def behind(request) -> str:
    """A real server, on SQLite and on PostgreSQL."""
    return request.getfixturevalue(f"{request.param}_uri")


@pytest.fixture
def proxy(behind, monkeypatch):
    for name in ("BACKOFF_FACTOR", "BACKOFF_JITTER"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    proxy = Proxy(behind)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def logged(tmp_path, request) -> LoggedRun:
    run = LoggedRun(tmp_path / "files", RunRef(f"team/{request.node.name}", "run-1"))
    run.single("f", "file", run.file("p/f", b"f" * 3000))
    for number in range(110):  # more parameters than one call takes
        run.single(f"p/{number}", "int", number)
    return run.series("loss", "float_series", [(n, START + n, n / 7) for n in range(1500)])


def all_runs(uri: str, project: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(project)
    return client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)


def test_every_request_of_a_load_waits_for_its_turn(proxy, logged, monkeypatch):
    turns = []
    monkeypatch.setattr(Pace, "take", lambda self: turns.append(self))
    loader = MLflowLoader(MLflowOptions(proxy.url), LoadOptions(max_requests_per_second=1000.0))
    load(loader, logged)
    assert len(turns) == proxy.seen > 8
    loader.close()
    del loader
    turns.clear()
    gc.collect()
    load(MLflowLoader(MLflowOptions(proxy.url)), logged)
    assert not turns


@pytest.mark.parametrize("rounds", [8, pytest.param(20, marks=pytest.mark.soak)])
def test_a_server_that_fails_in_every_way(proxy, behind, logged, rounds):
    chance = random.Random(7)
    project = logged.ref.project_id
    failed = 0
    for number in range(rounds):
        logged.single("p/0", "int", 1000 + number)
        after, kind = chance.randint(0, 9), number % 4
        if kind == 0:  # an error for a while
            proxy.faults = [Fault(WRITING, status=500, after=after, times=chance.choice([1, 8]))]
        elif kind == 1:  # what was asked is done, but nobody hears of it
            proxy.faults = [Fault(WRITING, "reset", after=after, times=chance.choice([1, 8]))]
        elif kind == 2:  # it is gone for a while
            proxy.away = range(proxy.seen + after + 1, proxy.seen + after + 1 + chance.choice([2, 12]))
        else:  # half an answer
            proxy.faults = [Fault(WRITING, "truncate", after=after, times=chance.choice([1, 8]))]
        done = attempted(lambda: MLflowLoader(MLflowOptions(proxy.url)), logged)
        failed += not done
        proxy.faults, proxy.away = [], range(0)
        loader = MLflowLoader(MLflowOptions(behind))
        state = loader.states(project).runs.get(logged.ref)
        if done:
            assert state.complete
            assert state.digest == logged.digest
        elif state is not None and state.complete and state.digest == logged.digest:
            pytest.fail("a load that failed looks complete")
        if not done:
            load(loader, logged)
        (run,) = all_runs(behind, project)
        assert run.info.status == "FINISHED"
        assert read_back(loader, logged.ref) == logged.attributes()
    assert 0 < failed < rounds


def test_a_run_whose_making_was_not_answered_is_not_made_twice(proxy, behind, logged):
    proxy.faults = [Fault("runs/create", "reset")]
    assert attempted(lambda: MLflowLoader(MLflowOptions(proxy.url)), logged)
    (run,) = all_runs(behind, logged.ref.project_id)
    assert run.data.tags["neptune.load"] == f"complete:{logged.digest}"


def test_a_half_loaded_run_beside_a_complete_one_is_tidied_up(loader, sqlite_uri, tmp_path):
    run = LoggedRun(tmp_path / "files").single("a", "int", 1)
    run_id = load(loader, run)
    client = MlflowClient(sqlite_uri)
    kept = {k: v for k, v in client.get_run(run_id).data.tags.items() if k.startswith("neptune.")}
    experiment = client.get_experiment_by_name(REF.project_id).experiment_id
    client.create_run(experiment, tags={**kept, "neptune.load": "started"})
    assert not loader.states(REF.project_id).runs[REF].complete
    load(loader, run)
    assert loader.states(REF.project_id).runs[REF].complete
    assert len(all_runs(sqlite_uri, REF.project_id)) == 1
