# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster, a Neptune 3.x server with known runs, and a staging area."""

from __future__ import annotations

import itertools

import pytest
from cluster_source import Source
from servers.dask_cluster import DaskCluster
from servers.neptune3 import Neptune3Server

from neptune_exporter.storage.staging import Staging

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def two_workers(cluster, request):
    """Two workers, those that died in an earlier test made good for."""
    for name in [name for name, process in cluster.workers.items() if process.poll() is not None]:
        del cluster.workers[name]
    while len(cluster.workers) < 2:
        cluster.start(f"worker-{next(_numbers)}")
    return cluster


@pytest.fixture
def source(monkeypatch):
    with Neptune3Server() as server:
        monkeypatch.setenv("NEPTUNE_API_TOKEN", server.api_token)
        yield Source(server, runs=6, points=2000)
        assert server.errors == []


@pytest.fixture
def area(tmp_path) -> Staging:
    return Staging(tmp_path / "data", tmp_path / "files")
