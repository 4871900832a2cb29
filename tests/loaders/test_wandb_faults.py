# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures come by their names
"""Servers that fail, at every endpoint: what they took counts once, and nothing unfinished looks finished."""

from __future__ import annotations

from dataclasses import replace

import pytest
from servers.http import Fault
from servers.wandb import WandbServer
from wandb_loads import clean, client_of_its_own, content, end_client, is_marked, root, run_load  # noqa: F401
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.loaders.wandb import sending
from neptune_exporter.loaders.wandb import server as client_of_ours


@pytest.fixture
def quick(monkeypatch) -> None:
    """Retries do not wait long."""
    waits = {name: 0.05 for name in sending._RETRIES if name.endswith("wait_min_seconds")}
    longest = {name: 0.2 for name in sending._RETRIES if name.endswith("wait_max_seconds")}
    monkeypatch.setattr(sending, "_RETRIES", {**sending._RETRIES, **waits, **longest})
    monkeypatch.setattr(client_of_ours, "WAITS", {"wait_initial": 0.01, "wait_jitter": 0.01})


ENDPOINTS = {"graphql": "POST /graphql", "stream": r"POST /files/.*/file_stream", "upload": "PUT /upload", "all": " /"}
FAULTS = {
    "429": Fault("", status=429, headers={"Retry-After": "0"}),
    "500": Fault("", status=500),
    "503": Fault("", status=503),
    "reset": Fault("", "reset"),
    "cut short": Fault("", "truncate"),
}
OTHERS = sorted(FAULTS.keys() - {"500", "cut short"})  # everywhere at once, or in the long runs
PAIRS = [
    pytest.param(endpoint, fault, marks=pytest.mark.soak if endpoint != "all" and fault in OTHERS else ())
    for endpoint in ENDPOINTS
    for fault in FAULTS
]


def every(call: int, of: int, fault: Fault, where: str) -> list[Fault]:
    """The fault at every n-th request."""
    return [replace(fault, match=where, after=after) for after in range(call - 1, of, call)]


def disturb(running: WandbServer, fault: str, endpoint: str) -> None:
    where = ENDPOINTS[endpoint]
    running.http.faults = [replace(FAULTS[fault], match=where)]
    running.http.faults += every(4 if endpoint in ("graphql", "all") else 2, 40, FAULTS[fault], where)


@pytest.mark.parametrize(("endpoint", "fault"), PAIRS)
def test_faults_at_every_endpoint_are_survived(server, target, root, clean, quick, fault, endpoint):
    disturb(server, fault, endpoint)
    report = run_load(target, root, wandb_way="log")
    for _ in range(3):  # so much may be lost at once that W&B does not have everything, and is not trusted
        if report.exit_code == 0:
            break
        assert not is_marked(server)
        report = run_load(target, root, wandb_way="log")
    assert report.exit_code == 0, report.outcomes
    assert any(fault.times == 0 for fault in server.http.faults)
    server.http.faults = []
    assert content(server) == clean


@pytest.mark.parametrize(
    "fault", ["500", "cut short", *(pytest.param(name, marks=pytest.mark.soak) for name in OTHERS)]
)
def test_faults_while_run_log_is_at_work_cost_at_most_another_load(
    server,
    target,
    root,
    clean,
    quick,
    fault,
):
    disturb(server, fault, "all")
    for _ in range(3):
        report = run_load(target, root, wandb_way="client")
        if report.exit_code == 0:
            break
        assert not is_marked(server)
        server.http.faults = []
        end_client()
    assert report.exit_code == 0, report.outcomes
    assert content(server) == clean


def test_a_slow_server_is_waited_for(server, target, root, clean):
    server.http.latency = 0.2
    assert run_load(target, root).exit_code == 0
    assert content(server) == clean


@pytest.mark.parametrize("endpoint", ["stream", "upload"])
def test_what_did_not_arrive_is_not_complete(server, target, root, clean, quick, monkeypatch, endpoint):
    monkeypatch.setattr(
        sending, "_RETRIES", {n: 1 if n.endswith("retry_max") else v for n, v in sending._RETRIES.items()}
    )
    monkeypatch.setattr("neptune_exporter.loaders.wandb.online._WAITS", (0.1,))
    monkeypatch.setattr("neptune_exporter.loaders.wandb.online.QUIET_SECONDS", 0.1)
    server.http.faults = [Fault(ENDPOINTS[endpoint], times=None, status=500)]
    report = run_load(target, root)
    assert report.exit_code == 3
    assert report.outcomes[0].status == "failed"
    assert not is_marked(server)
    server.http.faults = []
    assert run_load(target, root).exit_code == 0
    assert content(server) == clean
