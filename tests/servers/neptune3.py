# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 3.x server at wire level: what neptune-query reads from and neptune-scale writes into."""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import jwt
import numpy as np
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.attributes_pb2 import (
    ProtoQueryAttributesResultDTO,
)
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.leaderboard_entries_pb2 import (
    ProtoLeaderboardEntriesSearchResultDTO,
)
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.series_values_pb2 import (
    ProtoSeriesValuesResponseDTO,
)
from neptune_query.generated.neptune_api.proto.neptune_pb.ingest.v1 import ingest_pb2
from neptune_query.generated.neptune_api.proto.neptune_pb.ingest.v1.pub.client_pb2 import (
    BulkRequestStatus,
    RequestIdList,
    SubmitResponse,
)
from neptune_query.generated.neptune_api.proto.neptune_pb.ingest.v1.pub.ingest_pb2 import RunOperation

from servers.http import HttpError, HttpServer, Reply, Request
from servers.neptune3_blobs import Blobs
from servers.neptune3_nql import QueryError, compile_query
from servers.neptune3_store import SERIES, FloatSeries, Run, Store
from servers.neptune3_wire import attribute_dto, field, point_dto

API, LEADERBOARD = "/api/backend/v1", "/api/leaderboard/v1"
ENDPOINTS = {
    "token": f"GET {API}/authorization/oauth-token",
    "projects": f"GET {API}/projects",
    "entries": f"POST {LEADERBOARD}/proto/leaderboard/entries/search/",
    "definitions": f"POST {LEADERBOARD}/leaderboard/attributes/definitions/query",
    "values": f"POST {LEADERBOARD}/proto/leaderboard/attributes/query",
    "floats": f"POST {LEADERBOARD}/proto/attributes/series/float",
    "series": f"POST {LEADERBOARD}/proto/attributes/series",
    "sign": "POST /api/storagebridge/v1/signedUrl",
    "download": "GET /storage/",
}


class Neptune3Server:
    """Serves a `Store`. Faults that look like network trouble go to `http.faults`, see `servers.http`.

    Attributes:
        store: what it holds.
        http: the HTTP server; its `faults`, `latency` and `log`.
        blobs: the file storage behind signed URLs.
        dead: names of attributes for which every request fails with status 500.
        token_seconds: how long an access token says that it is valid.
        values_page: attribute values per page at most.
        series_page: points of other series per page at most.
        errors: what went wrong in the server itself: none of it is meant.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.http = HttpServer(self._handle)
        self.blobs = Blobs(self.store, lambda: self.url)
        self.dead: set[str] = set()
        self.token_seconds = 3600.0
        self.values_page = 10_000
        self.series_page = 1_000
        self.errors: list[Exception] = []
        self._revoked = False
        self._access: set[str] = set()
        self._numbers = itertools.count(1)
        self._codes: dict[str, str] = {}
        self._routes: dict[str, Callable[[Request], Reply]] = {
            ENDPOINTS["token"]: self._token,
            f"GET {API}/clients/config": self._config,
            "GET /openid": self._openid,
            "POST /auth/protocol/openid-connect/token": self._refresh,
            ENDPOINTS["projects"]: self._projects,
            f"POST {API}/projects": self._create_project,
            ENDPOINTS["entries"]: self._entries,
            ENDPOINTS["definitions"]: self._definitions,
            ENDPOINTS["values"]: self._values,
            ENDPOINTS["floats"]: self._float_series,
            ENDPOINTS["series"]: self._other_series,
            ENDPOINTS["sign"]: self.blobs.sign,
            "POST /api/storagebridge/v1/s3/completeMultipartUpload": self.blobs.complete,
            "POST /api/client/v1/ingest": self._ingest,
            "POST /api/client/v1/ingest/check": self._check,
        }

    def __enter__(self) -> Self:
        self.http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.stop()

    @property
    def url(self) -> str:
        """The address."""
        return self.http.url

    @property
    def api_token(self) -> str:
        """A token that this server accepts."""
        content = {"api_address": self.url, "api_url": self.url, "api_key": "key-of-the-tests"}
        return base64.b64encode(json.dumps(content).encode()).decode()

    def counts(self) -> Counter[str]:
        """Requests by name of the endpoint."""
        names = {line: name for name, line in ENDPOINTS.items()}
        return Counter(
            names.get(line, "download" if line.startswith("GET /storage/") else line) for line in self.http.log
        )

    def revoke(self) -> None:
        """From now on the token is refused, everywhere."""
        self._revoked = True

    def forget_sessions(self) -> None:
        """The access tokens given so far are refused; the API token is not."""
        self._access.clear()

    def _handle(self, request: Request) -> Reply:
        if request.path.startswith("/storage/"):
            return self.blobs.serve(request)
        if len(request.body) < int(request.headers.get("content-length", 0)):  # its client died while it sent this
            return Reply(b"", 400)
        route = self._routes.get(f"{request.method} {request.path}")
        if route is None:
            return Reply.json({"message": f"no such endpoint: {request.method} {request.path}"}, 404)
        open_to_all = route in (self._token, self._config, self._openid, self._refresh)
        session = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not open_to_all and (self._revoked or session not in self._access):
            return Reply.json({"message": "unauthorized"}, 401)
        with self.store.lock:
            try:
                return route(request)
            except Exception as error:
                if not isinstance(error, HttpError):
                    self.errors.append(error)
                    raise HttpError(Reply.json({"message": repr(error)}, 500)) from error
                raise

    def _new_tokens(self) -> tuple[str, str]:
        claims = {
            "exp": time.time() + self.token_seconds,
            "azp": "neptune-cli",
            "iss": f"{self.url}/auth",
            "jti": str(next(self._numbers)),
        }
        access = jwt.encode(claims, "a key that nobody checks, of some length", algorithm="HS256")
        self._access.add(access)
        return access, f"refresh-{claims['jti']}"

    def _token(self, request: Request) -> Reply:
        if self._revoked or request.headers.get("x-neptune-api-token") != self.api_token:
            return Reply.json({"message": "unauthorized"}, 401)
        access, refresh = self._new_tokens()
        return Reply.json({"accessToken": access, "refreshToken": refresh, "username": "tester"})

    def _refresh(self, request: Request) -> Reply:
        if self._revoked:
            return Reply.json({"error": "invalid_grant"}, 400)
        access, refresh = self._new_tokens()
        return Reply.json({"access_token": access, "refresh_token": refresh})

    def _config(self, request: Request) -> Reply:
        security = {"clientId": "neptune-cli", "openIdDiscovery": f"{self.url}/openid"}
        return Reply.json({"apiUrl": self.url, "applicationUrl": self.url, "pyLibVersions": {}, "security": security})

    def _openid(self, request: Request) -> Reply:
        url = f"{self.url}/auth/protocol/openid-connect/token"
        return Reply.json({"authorization_endpoint": url, "token_endpoint": url})

    def _projects(self, request: Request) -> Reply:
        pairs = [name.split("/", 1) for name in sorted(set(self.store.projects) - self.store.forbidden)]
        return Reply.json({"entries": [{"organizationName": w, "name": n, "id": f"{w}-{n}"} for w, n in pairs]})

    def _create_project(self, request: Request) -> Reply:
        body = request.json()
        name = f"{body['organizationIdentifier']}/{body['name']}"
        if name in self.store.projects:
            return Reply.json({"message": "exists"}, 409)
        self.store.projects[name] = {}
        return Reply.json({"organizationName": body["organizationIdentifier"], "name": body["name"]})

    def _project(self, name: str) -> dict[str, Run]:
        if name in self.store.forbidden:
            raise HttpError(Reply.json({"errorType": "ACCESS_DENIED", "message": "access denied"}, 403))
        if name not in self.store.projects:
            raise HttpError(Reply.json({"errorType": "PROJECT_NOT_FOUND", "message": f"no project {name}"}, 404))
        return self.store.projects[name]

    def _runs(self, project: str, identifiers: list[str] | None) -> list[Run]:
        runs = self._project(project)
        if identifiers is None:
            return list(runs.values())
        return [run for run in map(self.store.run, identifiers) if run is not None]

    def _fail_if_dead(self, names: Any) -> None:
        if self.dead.intersection(names):
            raise HttpError(Reply.json({"message": "internal error"}, 500))

    # --- runs

    def _entries(self, request: Request) -> Reply:
        body = request.json()
        runs = list(self._project(request.one("projectIdentifier")).values())
        if body.get("query"):
            try:
                test = compile_query(body["query"]["query"])
            except QueryError as error:
                return Reply.json({"errorType": "INVALID_QUERY", "message": str(error)}, 400)
            runs = [run for run in runs if test(_lookup(run))]
        if body.get("experimentLeader"):
            runs = [run for run in runs if run.attributes["sys/experiment/is_head"].value]
        sorting = body.get("sorting") or {"sortBy": {"name": "sys/creation_time"}, "dir": "descending"}
        name = sorting["sortBy"]["name"]
        key = {run.sys_id: _lookup(run)(name, None, sorting.get("aggregationMode")) for run in runs}
        runs.sort(
            key=lambda run: (key[run.sys_id] is not None, key[run.sys_id]), reverse=sorting["dir"] == "descending"
        )
        start = body["pagination"].get("offset", 0)
        page = runs[start : start + body["pagination"]["limit"]]
        result = ProtoLeaderboardEntriesSearchResultDTO(matching_item_count=len(runs))
        names = [item["path"] for item in body.get("attributeFilters", [])]
        for run in page:
            entry = result.entries.add(experiment_id=run.sys_id, type="run")
            visible = run.visible()
            entry.attributes.extend(_attribute(run, n, visible[n].type) for n in names if n in visible)
        return Reply(result.SerializeToString())

    # --- attributes

    def _definitions(self, request: Request) -> Reply:
        body = request.json()
        found: set[tuple[str, str]] = set()
        for project in body["projectIdentifiers"]:
            for run in self._runs(project, body.get("experimentIdsFilter")):
                found.update((name, a.type) for name, a in run.visible().items() if _matches(name, a.type, body))
        ordered = sorted(found)
        start, end, token = _page(body, len(ordered))
        entries = [{"name": name, "type": kind} for name, kind in ordered[start:end]]
        return Reply.json(
            {"entries": entries, "nextPage": {"limit": body["nextPage"]["limit"], "nextPageToken": token}}
        )

    def _values(self, request: Request) -> Reply:
        body = request.json()
        self._fail_if_dead(body.get("attributeNamesFilter") or [])
        runs = self._runs(request.one("projectIdentifier"), body.get("experimentIdsFilter"))
        names = body.get("attributeNamesFilter")
        found = []
        for run in runs:
            visible = run.visible()
            chosen = visible if names is None else [name for name in dict.fromkeys(names) if name in visible]
            found += [(run, name, visible[name].type) for name in chosen if _matches(name, visible[name].type, body)]
        body["nextPage"]["limit"] = min(body["nextPage"]["limit"], self.values_page)
        start, end, token = _page(body, len(found))
        result = ProtoQueryAttributesResultDTO()
        for run, group in itertools.groupby(found[start:end], key=lambda item: item[0]):
            entry = result.entries.add(experimentId=run.sys_id, experimentShortId=run.sys_id)
            entry.attributes.extend(_attribute(run, name, kind) for _, name, kind in group)
        if token:
            result.nextPage.nextPageToken = token
        return Reply(result.SerializeToString())

    def _points(self, request: dict[str, Any]) -> Any:
        run = self.store.run(request["series"]["holder"]["identifier"])
        if run is not None:
            self._project(run.project)
        return run and run.lineage(request["series"]["attribute"], full=request["series"]["lineage"] == "FULL")

    def _float_series(self, request: Request) -> Reply:
        body = request.json()
        self._fail_if_dead(r["series"]["attribute"] for r in body["requests"])
        descending, limit = body["order"] == "descending", body["perSeriesPointsLimit"]
        low, high = (body.get("stepRange") or {}).get("from"), (body.get("stepRange") or {}).get("to")
        chunks = []
        for item in body["requests"]:
            points = self._points(item)
            if not isinstance(points, FloatSeries):
                continue
            previews = bool(item["series"].get("includePreview"))
            steps, data, offsets = points.encoded(descending=descending, previews=previews)
            order = -steps if descending else steps
            start, end = 0, len(steps)
            if low is not None:
                start, end = (start, _upto(order, -low)) if descending else (_before(order, low), end)
            if high is not None:
                start, end = (_before(order, -high), end) if descending else (start, _upto(order, high))
            if item.get("afterStep") is not None:
                start = max(start, _upto(order, -item["afterStep"] if descending else item["afterStep"]))
            end = max(start, min(end, start + limit))
            content = data[int(offsets[start]) : int(offsets[end])]
            series = field(1, item["requestId"].encode()) + field(2, content)
            chunks.append(field(1, series))
        return Reply(b"".join(chunks))

    def _other_series(self, request: Request) -> Reply:
        body = request.json()
        self._fail_if_dead(r["series"]["attribute"] for r in body["requests"])
        result = ProtoSeriesValuesResponseDTO()
        room = self.series_page
        for item in body["requests"]:
            points = self._points(item)
            if points is None or isinstance(points, FloatSeries):
                continue
            entry = result.series.add(requestId=item["requestId"])
            if room <= 0:
                continue
            if body.get("order") == "descending":
                points = points[::-1]
            points = points[: body.get("perSeriesPointsLimit") or None]
            run = self.store.run(item["series"]["holder"]["identifier"])
            kind = run.visible()[item["series"]["attribute"]].type
            start = int((item.get("searchAfter") or {}).get("token") or 0)
            page = points[start : start + room]
            room -= len(page)
            entry.seriesValues.values.extend(point_dto(kind, millis, step, value) for step, millis, value in page)
            entry.searchAfter.finished = start + len(page) >= len(points)
            entry.searchAfter.token = str(start + len(page))
        return Reply(result.SerializeToString())

    # --- writing

    def _ingest(self, request: Request) -> Reply:
        code = self.store.apply(RunOperation.FromString(request.body))
        request_id = f"request-{next(self._numbers)}"
        self._codes[request_id] = code
        return Reply(SubmitResponse(request_id=request_id, request_ids=[request_id]).SerializeToString())

    def _check(self, request: Request) -> Reply:
        result = BulkRequestStatus()
        for request_id in RequestIdList.FromString(request.body).ids:
            code = self._codes.get(request_id.value, "OK")
            counted = result.statuses.add().code_by_count.add(count=1)
            counted.code = 0 if code == "OK" else 3
            counted.detail = ingest_pb2.IngestCode.Value(code)
        return Reply(result.SerializeToString())


def _before(order: Any, step: float) -> int:
    return int(np.searchsorted(order, step, side="left"))


def _upto(order: Any, step: float) -> int:
    return int(np.searchsorted(order, step, side="right"))


def _page(body: dict[str, Any], count: int) -> tuple[int, int, str]:
    page = body["nextPage"]
    start = int(page.get("nextPageToken") or 0)
    end = start + page["limit"]
    return start, end, str(end) if end < count else ""


def _matches(name: str, kind: str, body: dict[str, Any]) -> bool:
    types = [item["attributeType"] for item in body.get("attributeFilter") or []]
    if types and kind not in types:
        return False
    filters = (body.get("attributeNameFilter") or {}).get("mustMatchAny")
    return not filters or any(
        all(re.search(r, name) for r in f.get("mustMatchRegexes") or [])
        and not any(re.search(r, name) for r in f.get("mustNotMatchRegexes") or [])
        for f in filters
    )


def _lookup(run: Run) -> Callable[[str, str | None, str | None], Any]:
    def value(name: str, kind: str | None, aggregate: str | None) -> Any:
        attribute = run.visible().get(name)
        if attribute is None or (kind is not None and attribute.type != kind):
            return None
        if attribute.type not in SERIES:
            return attribute.value
        if aggregate in (None, "last"):
            last = run.last(name)
            return last and last[1]
        numbers = run.lineage(name, full=True).columns()[2]
        return {"min": np.min, "max": np.max, "average": np.mean, "variance": np.var}[aggregate](numbers)

    return value


def _attribute(run: Run, name: str, kind: str) -> Any:
    own = run.attributes.get(name)
    return attribute_dto(name, kind, run.last(name) if kind in SERIES else (own or run.visible()[name]).value)
