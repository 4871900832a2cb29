# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a Neptune 2.x server answers to readers."""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

from .http import HttpError, Reply, Request
from .neptune2_nql import SyntaxProblemError, parse
from .neptune2_store import Attribute, Container, Project, Store, attribute_dto, iso, properties, wire_float

WINDOW = 10_000
_TYPE_OF_ENDPOINT = {
    "floats": "float",
    "integers": "int",
    "booleans": "bool",
    "strings": "string",
    "datetimes": "datetime",
    "files": "file",
    "artifacts": "artifact",
    "stringSets": "stringSet",
    "floatSeries": "floatSeries",
    "stringSeries": "stringSeries",
}
_SERIES = {"float": "floatSeries", "string": "stringSeries", "image": "imageSeries"}


def failure(status: int, kind: str, title: str = "") -> HttpError:
    """An error as the server words it."""
    return HttpError(Reply.json({"code": status, "errorType": kind, "title": title or kind}, status))


class Reading:
    """Answers from a store.

    Args:
        store: what the server holds.
        page: the most points of a series that one request gives; more are refused.
        rows: the most rows of a listing that one request gives; more are refused.
    """

    def __init__(self, store: Store, *, page: int = 10_000, rows: int = 10_000, projects: int = 1_000) -> None:
        self.store = store
        self.page, self.rows, self.projects = page, rows, projects
        self.value_length: int | None = None

    # --- projects and containers

    def project_dto(self, project: Project) -> dict[str, Any]:
        return {
            "id": project.id,
            "name": project.name,
            "organizationName": project.workspace,
            "organizationId": project.workspace,
            "projectKey": project.key,
            "version": 2,
        }

    def project(self, request: Request) -> Reply:
        return Reply.json(self.project_dto(self._project(request)))

    def _project(self, request: Request) -> Project:
        project = self.store.project(request.one("projectIdentifier"))
        if project is None:
            raise failure(404, "PROJECT_NOT_FOUND")
        return project

    def list_projects(self, request: Request) -> Reply:
        found = [
            project
            for project in self.store.projects.values()
            if request.one("searchTerm") in project.name
            and request.one("organizationIdentifier") in ("", project.workspace)
        ]
        start = int(request.one("offset", "0"))
        limit = min(int(request.one("limit", str(self.projects))), self.projects)
        entries = [self.project_dto(project) for project in found[start : start + limit]]
        return Reply.json({"entries": entries, "matchingItemCount": len(found), "totalItemCount": len(found)})

    def organizations(self, request: Request) -> Reply:
        names = sorted({project.workspace for project in self.store.projects.values()})
        return Reply.json([{"id": name, "name": name} for name in names])

    def container(self, request: Request) -> Container:
        found = self.store.container(request.one("experimentId") or request.one("experimentIdentifier"))
        if found is None:
            raise failure(404, "EXPERIMENT_NOT_FOUND")
        return found

    def experiment(self, request: Request) -> Reply:
        return Reply.json(experiment_dto(self.container(request)))

    def attributes(self, request: Request) -> Reply:
        container = self.container(request)
        found = [attribute_dto(name, attribute) for name, attribute in container.attributes.items()]
        return Reply.json({"id": container.id, "trashed": container.trashed, "attributes": found})

    def attribute(self, request: Request) -> Attribute:
        found = self.container(request).attributes.get(request.one("attribute"))
        if found is None:
            raise failure(404, "ATTRIBUTE_NOT_FOUND")
        return found

    def single(self, request: Request) -> Reply:
        attribute = self.attribute(request)
        if attribute.type != _TYPE_OF_ENDPOINT[request.path.rsplit("/", 1)[1]]:
            raise failure(404, "ATTRIBUTE_NOT_FOUND")
        return Reply.json(properties(request.one("attribute"), attribute))

    # --- the leaderboard

    def columns(self, request: Request) -> Reply:
        project, types = self._project(request), request.query.get("type", [])
        pattern = re.compile(request.one("search"))
        found = {
            (name, attribute.type)
            for container in self._of(project, types)
            for name, attribute in container.attributes.items()
            if pattern.search(name)
        } | {("sys/creation_time", "datetime")}
        return Reply.json({"entries": [{"name": name, "type": kind} for name, kind in sorted(found)]})

    def _of(self, project: Project, types: list[str]) -> list[Container]:
        everything = list(self.store.containers.values())
        return [c for c in everything if c.project is project and c.type in types]

    def entries(self, request: Request) -> Reply:
        wanted = request.json()
        limit, offset = wanted["pagination"]["limit"], wanted["pagination"]["offset"]
        if limit > self.rows or limit + offset > WINDOW:
            raise failure(400, "BAD_REQUEST", "limit or offset too large")
        try:
            condition = parse(wanted["query"]["query"])
        except SyntaxProblemError:
            raise failure(400, "BAD_REQUEST", "Syntax error") from None
        found = [c for c in self._of(self._project(request), request.query.get("type", [])) if condition(c)]
        if sorting := wanted.get("sorting"):
            name = sorting["sortBy"]["name"]
            found.sort(key=lambda c: c.attributes[name].value, reverse=sorting["dir"] == "descending")
        columns = [item["path"] for item in wanted.get("attributeFilters", [])]
        page = [self._entry(container, columns) for container in found[offset : offset + limit]]
        return Reply.json({"matchingItemCount": len(found), "totalItemCount": len(found), "entries": page})

    def _entry(self, container: Container, columns: list[str]) -> dict[str, Any]:
        shown = columns or list(container.attributes)
        return {
            "experimentId": container.id,
            "organizationName": container.project.workspace,
            "projectName": container.project.name,
            "attributes": [attribute_dto(n, container.attributes[n]) for n in shown if n in container.attributes],
        }

    # --- series

    def series(self, request: Request) -> Reply:
        kind = request.path.rsplit("/", 1)[1]
        points = self._points(request, _SERIES[kind])
        if kind == "image":
            return Reply.json({"totalItemCount": len(points)})
        limit, offset = int(request.one("limit")), int(request.one("offset"))
        if limit > self.page:
            raise failure(400, "BAD_REQUEST", f"limit must not exceed {self.page}")
        cut = int(request.one("maxSingleValueLength", str(self.value_length))) if self.value_length else None
        pages = self.attribute(request).pages
        key = (len(points), offset, limit, cut)
        if key not in pages:
            pages[key] = _page(points, offset, limit, cut)
        return Reply(pages[key], headers={"Content-Type": "application/json"})

    def _points(self, request: Request, kind: str) -> list[Any]:
        attribute = self.attribute(request)
        if attribute.type != kind:
            raise failure(404, "ATTRIBUTE_NOT_FOUND")
        points: list[Any] = attribute.value
        return points

    def series_csv(self, request: Request) -> Reply:
        points = self._points(request, "floatSeries")
        lines = [f"{step!r},{time},{wire_float(value)}\n" for step, time, value in points]
        return Reply("".join(lines).encode(), headers={"Content-Type": "text/csv"})

    def image(self, request: Request) -> Reply:
        points = self._points(request, "imageSeries")
        index = int(request.one("index"))
        if index >= len(points):
            raise failure(404, "ATTRIBUTE_NOT_FOUND")
        image = points[index][2]
        return Reply(image.content, headers={"Content-Type": image.mime})

    # --- files

    def download(self, request: Request) -> Reply:
        attribute = self.attribute(request)
        if attribute.type == "fileSet":
            return _as_file(attribute.value[request.one("path")], request.one("path"))
        if attribute.type != "file":
            raise failure(404, "ATTRIBUTE_NOT_FOUND")
        content, ext = attribute.value
        name = request.one("attribute").rsplit("/", 1)[-1]
        return _as_file(content, f"{name}.{ext}" if ext else name)

    def list_files(self, request: Request) -> Reply:
        attribute = self.attribute(request)
        prefix = request.one("path").strip("/")
        prefix = f"{prefix}/" if prefix else ""
        found: dict[str, dict[str, Any]] = {}
        for name, content in attribute.value.items():
            if name.startswith(prefix):
                head, _, below = name[len(prefix) :].partition("/")
                kind = "directory" if below else "file"
                entry = {"name": head, "size": 0, "mtime": iso(0), "fileType": kind}
                found.setdefault(head, entry)["size"] += len(content)
        return Reply.json(list(found.values()))

    def prepare_zip(self, request: Request) -> Reply:
        attribute = self.attribute(request)
        if attribute.type != "fileSet":
            raise failure(404, "ATTRIBUTE_NOT_FOUND")
        identifier = f"{self.container(request).id}:{request.one('attribute')}"
        return Reply.json({"id": identifier, "downloadUrl": None})

    def zip(self, identifier: str) -> Reply:
        container, _, name = identifier.partition(":")
        attribute = self.store.containers[container].attributes[name]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(attribute.value.items()):
                archive.writestr(zipfile.ZipInfo(path), content)
        return Reply(buffer.getvalue(), headers={"Content-Type": "application/zip"})

    def artifact_files(self, request: Request) -> Reply:
        files = self.store.artifacts.get(request.one("hash"))
        if files is None:
            raise failure(404, "ARTIFACT_NOT_FOUND")
        return Reply.json({"files": files})


def _page(points: list[Any], offset: int, limit: int, cut: int | None) -> bytes:
    values = [
        {"timestampMillis": time, "step": step, "value": wire_float(value) if isinstance(value, float) else value[:cut]}
        for step, time, value in points[offset : offset + limit]
    ]
    return json.dumps({"totalItemCount": len(points), "values": values}).encode()


def experiment_dto(container: Container) -> dict[str, Any]:
    """A run, model or version as the server describes it."""
    return {
        "id": container.id,
        "type": container.type,
        "shortId": container.short_id,
        "organizationName": container.project.workspace,
        "organizationId": container.project.workspace,
        "projectName": container.project.name,
        "projectId": container.project.id,
        "parentId": container.parent_id,
        "trashed": container.trashed,
    }


def _as_file(content: bytes, name: str) -> Reply:
    kind = {"Content-Type": "application/octet-stream"}
    return Reply(
        content, headers={**kind, "Content-Disposition": f'attachment; filename="{name}"'.encode().decode("latin-1")}
    )
