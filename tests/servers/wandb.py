# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A W&B server at wire level: what the real client, wandb-core and `wandb sync` post, kept as it was posted.

GraphQL, the file stream with its offsets, artifacts, and uploads to addresses of its own. What it cannot answer it
refuses and remembers, so that nothing is passed over in silence.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from servers.http import HttpError, HttpServer, Reply, Request
from servers.wandb_artifacts import Artifacts
from servers.wandb_registry import Collections
from servers.wandb_runs import Run, Runs

ENTITY = "tester"
API_KEY = "k" * 40

_OPERATION = re.compile(r"\b(query|mutation)\s+(\w+)")


class WandbServer:
    """One server with one user.

    Attributes:
        http: address, faults, latency and log of requests.
        runs: every run by (entity, project, id).
        artifacts: every artifact.
        unknown: operations that nobody wrote an answer for.
        keys: the API keys that are accepted.
    """

    def __init__(self) -> None:
        self.http = HttpServer(self._answer)
        self.runs = Runs()
        self.artifacts = Artifacts(lambda: self.http.url)
        self.collections = Collections(self.artifacts)
        self.unknown: list[str] = []
        self.keys = {API_KEY}
        self.operations: list[str] = []
        self._lock = threading.RLock()
        self._file_numbers = itertools.count()

    @property
    def url(self) -> str:
        """The address."""
        return self.http.url

    def run(self, name: str = "") -> Run:
        """The only run, or the one of that id."""
        found = [run for run in self.runs.all() if name in ("", run.name)]
        assert len(found) == 1, [run.name for run in self.runs.all()]
        return found[0]

    # --- requests

    def _answer(self, request: Request) -> Reply:
        path = request.path
        if path.startswith(("/upload/", "/storage/")):
            return self._content(request)
        if path.startswith(("/sdk/otel", "/otel")):
            return Reply.json({})
        self._authenticate(request)
        if path == "/graphql":
            body = request.json()
            return self._graphql(body["query"], body.get("variables") or {})
        match = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
        if match and request.method == "POST":
            with self._lock:
                return Reply.json(self.runs.stream(match.groups(), request.json()))
        with self._lock:
            self.unknown.append(f"{request.method} {path}")
        return Reply.json({"error": "not found"}, 404)

    def _authenticate(self, request: Request) -> None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        key = base64.b64decode(value).decode().partition(":")[2] if scheme == "Basic" else value
        if key not in self.keys:
            raise HttpError(Reply.json({"errors": [{"message": "user is not logged in"}]}, 401))

    def _content(self, request: Request) -> Reply:
        kind, token = request.path[1:].split("/", 1)
        with self._lock:
            if kind == "upload" and request.method == "PUT":
                self.artifacts.blobs[token] = request.body
                return Reply(b"", 200, {"ETag": '"1"'})
            content = self.artifacts.blobs.get(token)
        return Reply(b"", 404) if content is None else Reply(content)

    def _graphql(self, query: str, variables: dict[str, Any]) -> Reply:
        match = _OPERATION.search(query)
        name = match.group(2) if match else "?"
        handler = getattr(self, f"_op_{name}", None) or getattr(self.artifacts, f"op_{name}", None)
        handler = handler or getattr(self.runs, f"op_{name}", None) or getattr(self.collections, f"op_{name}", None)
        with self._lock:
            self.operations.append(name)
            if handler is None:
                self.unknown.append(f"{name}: {query}")
                return Reply.json({"errors": [{"message": f"unknown operation {name}"}]}, 400)
            try:
                return Reply.json({"data": handler(variables)})
            except LookupError as error:
                return Reply.json({"data": None, "errors": [{"message": f"not found: {error}"}]}, 404)

    # --- operations that belong to nothing

    def _op_Viewer(self, _: dict[str, Any]) -> Any:  # noqa: N802
        viewer = {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def _op_GetDefaultEntity(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return self._op_Viewer(v)

    def _op_ServerFeaturesQuery(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _op_XXHashDigestsEnabled(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _op_OrgFeatureFlags(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"organization": None}

    def _op_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"entity": {"organization": None}}

    def _op_CreateRunFiles(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self.runs.of(v["entity"], v["project"], v["run"])
        files = []
        for name in v["files"]:
            token = f"run/{next(self._file_numbers)}"
            run.files[name] = token
            files.append({"name": name, "uploadUrl": f"{self.url}/upload/{token}"})
        return {"createRunFiles": {"runID": run.storage_id, "uploadHeaders": [], "files": files}}

    def _op_RunFiles(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self.runs.of(v["entity"], v["project"], v["name"])
        held = {name: token for name, token in run.files.items() if token in self.artifacts.blobs}
        wanted = v.get("fileNames") or list(held)
        edges = [
            {
                "node": {
                    "id": held[name],
                    "name": name,
                    "url": f"{self.url}/storage/{held[name]}",
                    "directUrl": f"{self.url}/storage/{held[name]}",
                    "sizeBytes": len(self.artifacts.blobs[held[name]]),
                    "mimetype": "",
                    "updatedAt": None,
                    "md5": "",
                },
                "cursor": name,
            }
            for name in wanted[: v.get("fileLimit") or 50]
            if name in held
        ]
        page = {"endCursor": None, "hasNextPage": False}
        files = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "run": {"fileCount": len(held), "files": files}}}

    def _op_MarkRunFilesUploaded(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"markRunFilesUploaded": {"success": True}}

    def run_file(self, run: Run, name: str) -> bytes:
        """The content of a file of a run."""
        return self.artifacts.blobs[run.files[name]]


@contextmanager
def serving() -> Iterator[WandbServer]:
    """A server for the length of a with block."""
    server = WandbServer()
    server.http.start()
    try:
        yield server
    finally:
        server.http.stop()


def main() -> None:
    """Serves until the end of standard input and prints its address; for benchmarks, which want it out of the way."""
    import sys

    with serving() as server:
        print(json.dumps({"url": server.url, "key": API_KEY}), flush=True)
        for line in sys.stdin:
            if line.strip() == "counts":
                counts = {run.name: len(run.history) for run in server.runs.all()}
                print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
