# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 2.x server on the wire, in memory: the real `neptune` client writes to it and reads from it.

    with Neptune2Server() as server:
        server.store.add_project("team/demo", "DEMO")
        with server.environment():
            run = neptune.init_run(project="team/demo")

Everything but signatures of tokens is checked as the server does: who comes without a valid access token is sent away.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from .http import HttpServer, Reply, Request
from .neptune2_reading import Reading, failure
from .neptune2_store import Store
from .neptune2_swagger import A, B, L, R, documents
from .neptune2_writing import Writing

Handler = Callable[[Request], Reply]


class Neptune2Server:
    """The server.

    Args:
        csv: whether series can be had as CSV.
        page: the most points of a series in one reply.
        value_length: string series values are cut to this length unless the request says otherwise, None for never.
        rows: the most rows of a listing in one reply.
        projects: the most projects in one reply.
        latency: seconds that every reply is held back.
        token_seconds: how long an access token lives.

    Attributes:
        store: what the server holds.
        http: faults, latency and the log of requests.
    """

    def __init__(
        self,
        *,
        csv: bool = True,
        page: int = 10_000,
        rows: int = 10_000,
        projects: int = 1_000,
        value_length: int | None = None,
        latency: float = 0.0,
        token_seconds: float = 3600,
    ) -> None:
        self.store = Store()
        self.http = HttpServer(self._answer, latency=latency)
        self.token_seconds = token_seconds
        self._csv = csv
        self._documents = documents(csv=csv, value_length=value_length is not None)
        self._reading = Reading(self.store, page=page, rows=rows, projects=projects)
        self._reading.value_length = value_length
        self._valid: set[str] = set()
        self._revoked = False
        self._issued = 0
        self._lock = threading.Lock()
        self._polled: set[str] = set()
        self._open, self._routes = self._make_routes()

    def __enter__(self) -> Self:
        self.http.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.http.stop()

    @property
    def api_token(self) -> str:
        """What a user puts into NEPTUNE_API_TOKEN."""
        content = {"api_address": self.http.url, "api_url": self.http.url, "api_key": "key-of-the-tests"}
        return base64.b64encode(json.dumps(content).encode()).decode()

    @contextmanager
    def environment(self) -> Iterator[None]:
        """What the clients need to find the server, in the environment for the length of a with block."""
        values = {"NEPTUNE_API_TOKEN": self.api_token, "OAUTHLIB_INSECURE_TRANSPORT": "1"}
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def expire_tokens(self) -> None:
        """All access tokens are forgotten; the API token still gives new ones."""
        self._valid.clear()

    def revoke(self) -> None:
        """The API token counts no more."""
        self._revoked = True
        self._valid.clear()

    # --- tokens

    def _access_token(self) -> str:
        def part(value: dict[str, Any]) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

        with self._lock:
            self._issued += 1
            claims = {"exp": int(time.time() + self.token_seconds), "azp": "client", "iss": f"{self.http.url}/realm"}
            token = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({**claims, 'jti': self._issued})}.c2ln"
            self._valid.add(token)
        return token

    def _exchange(self, request: Request) -> Reply:
        if self._revoked or request.headers.get("x-neptune-api-token") != self.api_token:
            raise failure(401, "UNAUTHORIZED")
        return Reply.json({"accessToken": self._access_token(), "refreshToken": "refresh", "username": "somebody"})

    def _refresh(self, request: Request) -> Reply:
        if self._revoked:
            return Reply.json({"error": "invalid_grant"}, 400)
        tokens = {"access_token": self._access_token(), "refresh_token": "refresh"}
        return Reply.json({**tokens, "expires_in": self.token_seconds, "token_type": "Bearer"})

    # --- requests

    def _config(self, request: Request) -> Reply:
        parts = {"minChunkSize": 5 << 20, "maxChunkSize": 100 << 20, "maxChunkCount": 1000}
        return Reply.json(
            {
                "apiUrl": self.http.url,
                "applicationUrl": self.http.url,
                "sysNameSetByBackend": False,
                "pyLibVersions": {},
                "artifacts": {"enabled": True, "apiVersion": 2},
                "multiPartUpload": {"enabled": True, "maxSinglePartSize": 5 << 20, **parts},
            }
        )

    def _answer(self, request: Request) -> Reply:
        key = (request.method, request.path)
        with self.store.lock:
            if key in self._open:
                return self._open[key](request)
            if request.headers.get("authorization", "").removeprefix("Bearer ") not in self._valid:
                raise failure(401, "UNAUTHORIZED")
            if request.path.startswith(f"{L}/notebooks/"):
                return self._writing.checkpoint(request)
            if request.path.startswith("/download/"):
                return self._reading.zip(request.path.removeprefix("/download/"))
            handler = self._routes.get(key)
            if handler is None:
                raise failure(404, "NO_SUCH_ENDPOINT")
            return handler(request)

    def _download_request(self, request: Request) -> Reply:
        """Not ready when first asked for, as on the real server."""
        identifier = request.one("id")
        if identifier not in self._polled:
            self._polled.add(identifier)
            return Reply.json({"id": identifier, "downloadUrl": None})
        return Reply.json({"id": identifier, "downloadUrl": f"{self.http.url}/download/{identifier}"})

    def _make_routes(self) -> tuple[dict[tuple[str, str], Handler], dict[tuple[str, str], Handler]]:
        reading = self._reading
        writing = self._writing = Writing(reading)
        said = {f"/api/{name}/swagger.json": document for name, document in self._documents.items()}
        swagger: Handler = lambda request: Reply.json(said[request.path])  # noqa: E731
        opened: dict[tuple[str, str], Handler] = {("GET", path): swagger for path in said}
        opened[("GET", f"{B}/clients/config")] = self._config
        opened[("GET", f"{B}/authorization/oauth-token")] = self._exchange
        opened[("POST", "/realm/protocol/openid-connect/token")] = self._refresh
        singles = "floats integers booleans strings datetimes files artifacts stringSets floatSeries stringSeries"
        routes: dict[tuple[str, str], Handler] = {
            ("GET", f"{B}/projects/get"): reading.project,
            ("GET", f"{B}/projects"): reading.list_projects,
            ("GET", f"{B}/myOrganizations"): reading.organizations,
            ("GET", f"{L}/experiments"): reading.experiment,
            ("GET", A): reading.attributes,
            ("POST", f"{L}/leaderboard/attributes/search"): reading.columns,
            ("POST", f"{L}/leaderboard/entries/search"): reading.entries,
            **{("GET", f"{A}/{name}"): reading.single for name in singles.split()},
            **{("GET", f"{A}/series/{name}"): reading.series for name in ("float", "string", "image")},
            ("GET", f"{A}/series/image/single"): reading.image,
            ("GET", f"{A}/download"): reading.download,
            ("GET", f"{A}/ls"): reading.list_files,
            ("POST", f"{A}/downloadFileSetZipRequest"): reading.prepare_zip,
            ("GET", f"{L}/download/downloadRequest"): self._download_request,
            ("GET", f"{R}/artifact/files"): reading.artifact_files,
            ("POST", f"{L}/experiments"): writing.create,
            ("PUT", f"{L}/experiments/trash"): writing.trash,
            ("POST", f"{A}/operations"): writing.operations,
            ("POST", f"{A}/ping"): lambda _request: Reply.json(None),
            ("POST", f"{A}/uploadFileSetTar"): writing.upload_tar,
            **{
                ("POST", f"{A}/storage/{kind}/upload{step}"): writing.upload
                for kind in ("file", "fileset")
                for step in ("", "/start", "/part", "/finish")
            },
            ("PUT", f"{R}/artifact"): writing.new_artifact,
            ("POST", f"{R}/artifact"): writing.artifact_version,
            ("PUT", f"{R}/artifact/files"): writing.artifact_files,
        }
        if self._csv:
            routes[("GET", f"{A}/floatSeries/csv")] = reading.series_csv
        return opened, routes
