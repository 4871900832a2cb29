# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 2.x server, an S3 server, and the real clients in between."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator

import boto3
import pytest
from logged_registry import Area, export_registry
from registry_state import BUCKET, PROJECT
from servers.neptune2 import Neptune2Server


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Nothing of the user's own S3 and CI; the client's data in a folder of the test."""
    for name in list(os.environ):
        if name.upper().startswith(("AWS_", "S3_", "ONCLUSIVEML_", "GITHUB_", "RUNNER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("NEPTUNE_DATA_DIRECTORY", str(tmp_path / ".neptune"))
    logging.getLogger("neptune").setLevel(logging.CRITICAL)


def serving_s3() -> Iterator[str]:
    """moto's S3 on a free port; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_server():
    """An S3 that tests fill, and empty at their end."""
    yield from serving_s3()


@pytest.fixture(scope="session")
def exported_s3():
    """An S3 for what `exported` has there, which no test empties."""
    yield from serving_s3()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """boto3's client for an S3 that holds one empty bucket; credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key-of-the-tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for bucket in client.list_buckets()["Buckets"]:
        for item in client.list_objects_v2(Bucket=bucket["Name"]).get("Contents", ()):
            client.delete_object(Bucket=bucket["Name"], Key=item["Key"])
        client.delete_bucket(Bucket=bucket["Name"])


@pytest.fixture
def server():
    """A Neptune server with one project, and one model in it."""
    with Neptune2Server() as server, server.environment():
        project = server.store.add_project(PROJECT, "DEMO")
        server.store.create(project, "model", key="MOD")
        yield server


@pytest.fixture
def s3_settings(s3_server, monkeypatch):
    """The environment that says: files go to the bucket."""
    monkeypatch.setenv("ONCLUSIVEML_TRACKING_BACKEND_S3_BACKEND_BUCKET", BUCKET)
    monkeypatch.setenv("onclusiveml_tracking_backend_s3_endpoint_url", s3_server)


@pytest.fixture
def version(server, s3, s3_settings):
    """A new model version, written to by the real client."""
    from neptune_exporter.registry import TrackedModelVersion

    made = TrackedModelVersion(model="DEMO-MOD", project=PROJECT)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def exported(tmp_path_factory, exported_s3) -> Area:
    """3 models of 5 versions: with stages, files and directories in Neptune and in S3, series and descriptions."""
    return export_registry(tmp_path_factory.mktemp("registry"), exported_s3)


@pytest.fixture
def area(exported, tmp_path, monkeypatch) -> Area:
    """A copy of the exported registry, for one test to change."""
    for name in ("data", "files"):
        shutil.copytree(exported.root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Area(tmp_path, exported.versions)
