# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""An S3 server with one empty bucket, and the program in this process."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import boto3
import pytest
from servers.s3 import S3Server

from neptune_exporter.storage.objects.path import forget_lists
from neptune_exporter.storage.objects.store import forget_connections
from neptune_exporter.storage.place import parse_place
from neptune_exporter.storage.staging import Staging

for name in ("exporters", "mirror"):  # a 3.x server with known runs, and scripts that log
    sys.path.append(str(Path(__file__).parents[1] / name))

_numbers = itertools.count()


class Bucket:
    """A bucket of its own for a test.

    Attributes:
        server: the server.
        name: the bucket.
        s3: boto3's client, for the test's own look.
    """

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = f"bucket-{next(_numbers)}"
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(Bucket=self.name)

    @property
    def data(self) -> str:
        return f"s3://{self.name}/exports/data"

    @property
    def files(self) -> str:
        return f"s3://{self.name}/exports/files"

    @property
    def places(self) -> tuple[str, ...]:
        """The options that say where the staging area lies."""
        return ("--data-path", self.data, "--files-path", self.files, "--no-progress")

    @property
    def staging(self) -> Staging:
        return Staging(parse_place(self.data), parse_place(self.files))

    def content(self, prefix: str = "") -> dict[str, bytes]:
        """All objects."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: self.s3.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}

    def unfinished_uploads(self) -> list[str]:
        found = self.s3.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        return [item["Key"] for item in found]


@pytest.fixture(scope="session")
def s3_server():
    server = S3Server()
    with server.environment():
        yield server
    server.close()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    for name, value in s3_server.variables().items():
        monkeypatch.setenv(name, value)
    forget_connections()
    forget_lists()
    yield Bucket(s3_server)
    s3_server.fault = lambda _number, _request: None
    forget_connections()
