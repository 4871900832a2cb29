# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Pluto's calls, as far as loading and reading back need them. Paths and members are Pluto's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.pluto import PlutoOptions, marks
from neptune_exporter.loaders.pluto.client import Client
from neptune_exporter.pace import Pace
from neptune_exporter.stored_keys import PLUTO, stored_key

LogType = Literal["METRIC", "HISTOGRAM", "DATA", "IMAGE", "AUDIO", "VIDEO", "TEXT", "ARTIFACT"]
Ingest = Literal["metrics", "data", "logs"]

PAGE_RUNS = 200  # what Pluto gives at most
PAGE_POINTS = 10_000
PAGE_LINES = 10_000
NAMES_PER_CALL = 500
CONFIG_BYTES = 512 << 10
_TAKEN = re.compile(r"(\d+) records?\b")
_PORTS = {"app": 3000, "api": 3001, "ingest": 3003}


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that takes data.

    Attributes:
        id: Pluto's number of it.
        name: its name, as it stands in headers.
        project: the name of its project.
    """

    id: int
    name: str
    project: str

    def headers(self, content_type: str) -> dict[str, str]:
        """What says where sent data belongs."""
        return {
            "Content-Type": content_type,
            "X-Run-Id": str(self.id),
            "X-Run-Name": marks.ascii_name(self.name),
            "X-Project-Name": self.project,
        }


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to announce: members as Pluto spells them."""

    fileName: str  # noqa: N815
    fileSize: int  # noqa: N815
    fileType: str  # noqa: N815
    time: int
    logName: str  # noqa: N815
    step: int
    sampleIndex: int  # noqa: N815
    caption: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The file as a JSON object."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return {name: member for name, member in value.items() if member is not None}


class Pluto:
    """The API of one Pluto server with one key; see `Client` for what calls raise.

    Args:
        options: where it is.
        pace: how many requests it gets.
    """

    def __init__(self, options: PlutoOptions, pace: Pace | None = None) -> None:
        app, api, ingest = addresses(options)
        key = options.pluto_api_key.strip() or stored_key(*PLUTO)
        self._client = Client(app, api, ingest, key, pace or Pace())
        self._client.post("/api/slug", attempts=5)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    # --- runs

    def create(self, project: str, name: str, external_id: str, **more: Any) -> tuple[OpenRun, bool]:
        """Makes a run, and its project if need be.

        Args:
            project: its name.
            name: of the run.
            external_id: finds the run again; one that exists is opened instead.
            more: members of the call; `config` and `loggerSettings` as Python values.

        Returns:
            The run, and whether it was there already.
        """
        for member in ("config", "loggerSettings"):
            more[member] = json.dumps(more.get(member, {}))
        value = {"runName": name, "projectName": project, "externalId": external_id, **more}
        made = self._client.post("/api/runs/create", value)
        return OpenRun(int(made["runId"]), name, project), bool(made.get("resumed"))

    def resume(self, run: OpenRun) -> None:
        """Opens a run that has ended."""
        self._client.post("/api/runs/resume", {"runId": run.id})

    def runs(self, project: str) -> Iterator[dict[str, Any]]:
        """The runs of a project, with their configs; none if there is no such project.

        Raises:
            TargetError: the server is too old to list more than one page.
        """
        seen: set[int] = set()
        while True:
            params = {"projectName": project, "limit": PAGE_RUNS, "offset": len(seen)}
            page = self._client.get("/api/runs/list", params)["runs"]
            new = [run for run in page if run["id"] not in seen]
            for run in new:
                seen.add(run["id"])
                yield run if "config" in run else self.details(run["id"])
            if len(page) < PAGE_RUNS:
                return
            if not new:
                raise TargetError(
                    f"The Pluto server lists no more than {PAGE_RUNS} runs of {project}.", "Update the Pluto server."
                )

    def details(self, run_id: int) -> dict[str, Any]:
        """All that Pluto says of a run: status, tags, config, log names."""
        found: dict[str, Any] = self._client.get(f"/api/runs/details/{run_id}", {})
        return found

    def add_names(self, run: OpenRun, log_type: LogType, names: Sequence[str]) -> None:
        """Announces the names of metrics, series or files, without which Pluto does not show them."""
        for start in range(0, len(names), NAMES_PER_CALL):
            value = {"runId": run.id, "logType": log_type, "logName": list(names[start : start + NAMES_PER_CALL])}
            self._client.post("/api/runs/logName/add", value)

    def set_config(self, run_id: int, entries: Mapping[str, Any]) -> None:
        """Adds entries to a run's config, or changes them."""
        pending: dict[str, Any] = {}
        size = 0
        for key, value in entries.items():
            pending[key] = value
            size += len(json.dumps(value)) + len(key)
            if size >= CONFIG_BYTES:
                self._client.post("/api/runs/config/update", {"runId": run_id, "config": json.dumps(pending)})
                pending, size = {}, 0
        if pending:
            self._client.post("/api/runs/config/update", {"runId": run_id, "config": json.dumps(pending)})

    def set_tags(self, run_id: int, tags: Sequence[str]) -> None:
        """Replaces the tags of a run."""
        self._client.post("/api/runs/tags/update", {"runId": run_id, "tags": list(tags)})

    def set_status(self, run_id: int, status: str, when_ms: int | None = None) -> None:
        """Ends a run, at a time of the past if one is given."""
        value = {"runId": run_id, "status": status, "statusMetadata": None, "statusUpdated": when_ms}
        self._client.post("/api/runs/status/update", value)

    def abandon(self, run_id: int) -> None:
        """Says of a half-loaded run that it does not count. Does not wait long for a server that is gone."""
        entries = json.dumps({marks.LOAD: marks.ABANDONED})
        for path, value in (
            ("config", {"config": entries}),
            ("tags", {"tags": [marks.TAG, marks.SUPERSEDED_TAG]}),
            ("status", {"status": "TERMINATED", "statusMetadata": None}),
        ):
            self._client.post(f"/api/runs/{path}/update", {"runId": run_id, **value}, attempts=2, seconds=10)

    def supersede(self, run_id: int, tags: Sequence[str]) -> None:
        """Says of a complete run that another one has taken its place."""
        self.set_config(run_id, {marks.LOAD: marks.SUPERSEDED})
        self.set_tags(run_id, [*tags, marks.SUPERSEDED_TAG])

    # --- data

    def send(self, run: OpenRun, kind: Ingest, lines: bytes, records: int) -> None:
        """Sends lines of JSON.

        Args:
            run: whose they are.
            kind: of what.
            lines: each ended by a line feed.
            records: how many things they hold.

        Raises:
            StartAgainError: nobody knows whether they were taken, and they may not be sent twice.
            TargetError: Pluto says that it took another number of them.
        """
        headers = run.headers("application/x-ndjson")
        answer = self._client.take(f"/ingest/{kind}", lines, headers, repeatable=kind == "metrics")
        taken = _TAKEN.search(answer.text[:200])
        if taken and int(taken[1]) != records:
            raise TargetError(f"Pluto took {taken[1]} of {records} {kind}.", "Run the same command again.")

    def announce(self, run: OpenRun, files: Sequence[NewFile]) -> dict[tuple[str, str], str]:
        """Announces files. Gives by log name and file name where to upload each. Raises `StartAgainError`."""
        content = json.dumps({"files": [file.to_json() for file in files]}).encode()
        answer = self._client.take("/files", content, run.headers("application/json"), repeatable=False)
        found = {
            (log_name, name): url
            for log_name, entries in answer.json().items()
            for entry in entries
            for name, url in entry.items()
        }
        missing = [file for file in files if (file.logName, file.fileName) not in found]
        if missing:
            raise TargetError(f"Pluto gives no address to upload {missing[0].logName}/{missing[0].fileName} to.")
        return found

    @property
    def files(self) -> Client:
        """Uploads to and downloads from presigned addresses."""
        return self._client

    # --- reading back

    def points(self, run: OpenRun, name: str, first: int | None = None, last: int | None = None) -> list[Any]:
        """Points of a metric within steps, in order of steps: all of them, or a sample if they are many."""
        params: dict[str, Any] = {**_of(run), "logName": name, "limit": PAGE_POINTS}
        if first is not None and last is not None:
            params.update(stepMin=first, stepMax=last)
        found: list[Any] = self._client.get("/api/runs/metrics", params)["metrics"]
        return found

    def log_lines(self, run: OpenRun) -> Iterator[list[dict[str, Any]]]:
        """The console log, in pages."""
        offset = 0
        while True:
            page = self._client.get("/api/runs/logs", {**_of(run), "limit": PAGE_LINES, "offset": offset})["logs"]
            yield page
            offset += len(page)
            if len(page) < PAGE_LINES:
                return

    def listed_files(self, run: OpenRun, log_name: str) -> dict[str, str]:
        """The files under a log name, with where to download each."""
        found = self._client.get("/api/runs/files", {**_of(run), "logName": log_name})["files"]
        return {file["fileName"]: file.get("downloadUrl") or file.get("url") for file in found}


def _of(run: OpenRun) -> dict[str, Any]:
    return {"runId": run.id, "projectName": run.project}


def addresses(options: PlutoOptions) -> tuple[str, str, str]:
    """The addresses of the app, the API and the ingest service, without a slash at the end."""
    host = options.pluto_host.strip().rstrip("/")
    if not host:
        urls = (options.pluto_url_app, options.pluto_url_api, options.pluto_url_ingest)
        app, api, ingest = (url.strip().rstrip("/") for url in urls)
        return app, api, ingest
    if "://" in host:
        return host, host, host
    if urlsplit(f"//{host}").port is not None:
        return f"http://{host}", f"http://{host}", f"http://{host}"
    app, api, ingest = (f"http://{host}:{_PORTS[name]}" for name in ("app", "api", "ingest"))
    return app, api, ingest


def millis(text: str | float) -> int:
    """A time as Pluto gives it, in milliseconds: `2024-01-31 12:00:00.000` or ISO 8601, UTC, or a number."""
    if isinstance(text, int | float):
        return int(text)
    when = datetime.fromisoformat(text)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp() * 1000)
