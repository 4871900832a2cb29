# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Pluto server on the wire: what Trainy's server takes and gives, for its own client and for ours.

What it is built from: the requests of pluto-ml 0.0.29, and how the public server handles them. Steps and times are
unsigned; of a metric's points at one step the latest counts; rows of series and announced files are only ever added;
an upload must have the content type that its address was signed for; more points than asked for are sampled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote, unquote

from servers.http import Fault, HttpError, HttpServer, Reply, Request
from servers.pluto_store import RefusedError, Run, Store, as_stored, checked_tags, merged

KEY = "plt_" + "k" * 40
SLUG = "acme"
MOST_POINTS, MOST_RUNS, MOST_FILES, MOST_NAMES = 10_000, 200, 1_000, 1_000
_CONTENT_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "svg": "image/svg+xml",
    "webp": "image/webp", "mp4": "video/mp4", "webm": "video/webm", "mp3": "audio/mpeg", "ogg": "audio/ogg",
    "wav": "audio/x-wav", "pdf": "application/pdf", "txt": "text/plain", "json": "application/json",
    "csv": "text/csv", "xml": "application/xml", "yaml": "application/x-yaml", "yml": "application/x-yaml",
}  # fmt: skip


class PlutoServer:
    """Serves the API, the ingest service and the store of files at one address.

    Args:
        strict: see `Store`.
        keeps_all: see `Store`.
        signs_types: whether an upload must have the content type that its address was signed for.
        lists_configs: whether the list of runs has their configs; without, an older server.
        records: whether every request is kept, in `requests`.
    """

    def __init__(
        self,
        *,
        strict: bool = True,
        keeps_all: bool = False,
        signs_types: bool = True,
        lists_configs: bool = True,
        records: bool = False,
    ) -> None:
        self.records = records
        self.store = Store(strict=strict, keeps_all=keeps_all)
        self.requests: list[Request] = []
        self._signs_types, self._lists_configs = signs_types, lists_configs
        self.http = HttpServer(self._handle)
        self._posts: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/api/slug": lambda _: {"organization": {"slug": SLUG}},
            "/api/runs/create": self._create,
            "/api/runs/resume": self._resume,
            "/api/runs/status/update": self._status,
            "/api/runs/tags/update": self._tags,
            "/api/runs/config/update": self._config,
            "/api/runs/logName/add": self._names,
            "/api/runs/trigger": lambda value: {"status": self.store.run(value["runId"]).status},
        }
        self._gets: dict[str, Callable[[Request], Any]] = {
            "/api/runs/list": self._list,
            "/api/runs/metrics": self._metrics,
            "/api/runs/logs": self._logs,
            "/api/runs/files": self._files,
        }

    def __enter__(self) -> Self:
        self.http.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.stop()

    @property
    def url(self) -> str:
        return self.http.url

    def fault(self, match: str, action: Any = "status", **how: Any) -> Fault:
        """Something that goes wrong from now on."""
        self.http.faults.append(Fault(match, action, **how))
        return self.http.faults[-1]

    def complete_runs(self, project: str) -> list[Run]:
        """The runs that count."""
        return [r for r in self.store.of_project(project) if str(r.config.get("neptune.load")).startswith("complete:")]

    def content(self, run: Run, name: str) -> bytes:
        """An uploaded file by log name and file name."""
        return self.store.objects[f"{run.project}/{run.id}/{name}"]

    # --- requests

    def _handle(self, request: Request) -> Reply:
        if self.records:
            self.requests.append(request)
        try:
            if request.path.startswith("/s3/"):
                return self._object(request)
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return Reply.json({"error": "Unauthorized", "message": "Invalid API key"}, 401)
            if request.path.startswith("/ingest/"):
                return self._ingest(request)
            if request.path == "/files":
                return self._announce(request)
            if found := re.fullmatch(r"/api/runs/details/(\d+)", request.path):
                return Reply.json(self._described(self.store.run(found[1])))
            if request.method == "GET" and request.path in self._gets:
                return Reply.json(self._gets[request.path](request))
            if request.method == "POST" and request.path in self._posts:
                return Reply.json(self._posts[request.path](json.loads(request.body or b"{}")))
        except RefusedError as error:
            raise HttpError(Reply.json({"error": error.message}, error.status)) from None
        return Reply.json({"error": f"no such path: {request.path}"}, 404)

    def _create(self, value: dict[str, Any]) -> dict[str, Any]:
        run, resumed = self.store.create(value)
        return {
            "runId": run.id,
            "displayId": f"P-{run.id}",
            "url": f"{self.url}/o/{SLUG}/runs/{run.id}",
            "resumed": resumed,
        }

    def _resume(self, value: dict[str, Any]) -> dict[str, Any]:
        run = self.store.run(value["runId"])
        run.status = "RUNNING"
        return {"runId": run.id, "url": f"{self.url}/o/{SLUG}/runs/{run.id}", "resumed": True}

    def _status(self, value: dict[str, Any]) -> dict[str, Any]:
        self.store.set_status(self.store.run(value["runId"]), value["status"], value.get("statusUpdated"))
        return {"success": True}

    def _tags(self, value: dict[str, Any]) -> dict[str, Any]:
        self.store.run(value["runId"]).tags = checked_tags(value["tags"])
        return {"success": True}

    def _config(self, value: dict[str, Any]) -> dict[str, Any]:
        run = self.store.run(value["runId"])
        with self.store.lock:
            run.config = merged(run.config, as_stored(value["config"]) or {})
        return {"success": True}

    def _names(self, value: dict[str, Any]) -> dict[str, Any]:
        self.store.add_names(self.store.run(value["runId"]), value["logType"], value["logName"])
        return {"success": True}

    def _ingest(self, request: Request) -> Reply:
        kind = request.path.removeprefix("/ingest/")
        if kind not in ("metrics", "data", "logs") or not request.headers.get("x-project-name"):
            raise RefusedError(400, "missing header or unknown kind")
        records = self.store.take(kind, request.headers["x-run-id"], request.body)
        return Reply(f"Stream processed successfully: {records} records".encode())

    # --- files

    def _announce(self, request: Request) -> Reply:
        run, project = self.store.run(request.headers["x-run-id"]), request.headers["x-project-name"]
        addresses: dict[str, list[dict[str, str]]] = {}
        for file in json.loads(request.body)["files"]:
            file_type = file["fileType"].lower()
            key = self.store.announce(run, project, file, _CONTENT_TYPES.get(file_type, file["fileType"]))
            addresses.setdefault(file["logName"], []).append({file["fileName"]: f"{self.url}/s3/{quote(key, safe='')}"})
        return Reply.json(addresses)

    def _object(self, request: Request) -> Reply:
        key = unquote(request.path.removeprefix("/s3/"))
        if request.headers.get("authorization"):
            raise RefusedError(400, "only one way to authenticate is allowed")
        if request.method == "GET":
            found = self.store.objects.get(key)
            return Reply(b"NoSuchKey", 404) if found is None else Reply(found)
        if request.headers.get("transfer-encoding"):
            raise RefusedError(501, "NotImplemented: chunks")
        content_type = request.headers.get("content-type", "")
        if not self._signs_types:
            content_type = self.store._signed.get(key, "")
        self.store.upload(key, request.body, content_type)
        return Reply(b"")

    def _files(self, request: Request) -> Any:
        run = self.store.run(request.one("runId"))
        found = [file for file in run.files if not request.one("logName") or file["logName"] == request.one("logName")]
        found.sort(key=lambda file: (file["step"], file.get("sampleIndex", 0), file["fileName"]))
        keys = [quote(f"{run.project}/{run.id}/{file['logName']}/{file['fileName']}", safe="") for file in found]
        shown = [{**file, "url": f"{self.url}/s3/{key}"} for file, key in zip(found, keys, strict=True)]
        return {"files": shown[:MOST_FILES]}

    # --- reading

    def _list(self, request: Request) -> Any:
        runs = sorted(self.store.of_project(request.one("projectName")), key=lambda run: (-run.created_ms, -run.id))
        start, count = int(request.one("offset", "0")), min(int(request.one("limit", "50")), MOST_RUNS)
        page = [self._listed(run) for run in runs[start : start + count]]
        return {"runs": page, "total": len(runs)}

    def _listed(self, run: Run) -> dict[str, Any]:
        shown = {"id": run.id, "name": run.name, "displayId": f"P-{run.id}", "status": run.status, "tags": run.tags}
        return {**shown, "config": run.config} if self._lists_configs else shown

    def _described(self, run: Run) -> dict[str, Any]:
        names = [{"logName": n, "logType": t, "logGroup": n.rpartition("/")[0]} for n, t in run.log_names.items()]
        return {
            **self._listed(run),
            "config": run.config,
            "loggerSettings": run.settings,
            "externalId": run.external_id,
            "projectName": run.project,
            "createdAt": datetime.fromtimestamp(run.created_ms / 1000, UTC).isoformat(),
            "logNames": names[:MOST_NAMES],
        }

    def _metrics(self, request: Request) -> Any:
        run, limit = self.store.run(request.one("runId")), min(int(request.one("limit", "2000")), MOST_POINTS)
        found: list[dict[str, Any]] = []
        names = [request.one("logName")] if request.one("logName") else sorted(run.metrics)
        for name in names:
            if name in run.metrics:
                rows = self._within(run, name, request)
                if len(rows) > limit:
                    stride = -(-len(rows) // limit)
                    rows = [row for i, row in enumerate(rows, 1) if i % stride == 1 or i == len(rows)]
                found += [_point(name, *row) for row in rows]
        return {"metrics": found}

    def _within(self, run: Run, name: str, request: Request) -> list[tuple[int, int, float]]:
        first, last = int(request.one("stepMin", "0")), int(request.one("stepMax", str(2**64)))
        if self.store.keeps_all:
            rows = [(step, *row) for step, rows in sorted(run.metrics[name].items()) for row in rows]
        else:
            rows = run.points(name)
        return [row for row in rows if first <= row[0] <= last]

    def _logs(self, request: Request) -> Any:
        run = self.store.run(request.one("runId"))
        start, count = int(request.one("offset", "0")), min(int(request.one("limit", "1000")), 10_000)
        lines = sorted(run.logs, key=lambda line: line["lineNumber"])
        page = [{**line, "time": clickhouse_time(line["time"]), "step": None} for line in lines[start : start + count]]
        return {"logs": page, "total": len(lines)}


def _point(name: str, step: int, time: int, value: float) -> dict[str, Any]:
    flag = "NaN" if value != value else "Inf" if value == float("inf") else "-Inf" if value == -float("inf") else ""  # noqa: PLR0124
    shown = {"logName": name, "logGroup": name.rpartition("/")[0], "time": clickhouse_time(time), "valueFlag": flag}
    # 64-bit numbers are text in ClickHouse's JSON.
    return {**shown, "step": str(step), "value": 0 if flag else value + 0.0}


def clickhouse_time(millis: int) -> str:
    """A DateTime64(3) as ClickHouse writes it."""
    seconds, rest = divmod(millis, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:03d}"
