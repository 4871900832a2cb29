# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a Neptune 2.x server remembers: projects, their runs, models and versions, and their attributes."""

from __future__ import annotations

import base64
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Point = tuple[float, int, Any]  # step, milliseconds since the epoch, value
SERIES = {"logFloats": "floatSeries", "logStrings": "stringSeries", "logImages": "imageSeries"}
SET_TYPES = {"insertStrings": "stringSet", "removeStrings": "stringSet"}
ASSIGNED = {
    "assignFloat": ("float", "value"),
    "assignInt": ("int", "value"),
    "assignBool": ("bool", "value"),
    "assignString": ("string", "value"),
    "assignDatetime": ("datetime", "valueMilliseconds"),
    "assignArtifact": ("artifact", "hash"),
}


def iso(millis: int) -> str:
    """A time as the server writes it."""
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{millis % 1000:03d}Z"


@dataclass
class Attribute:
    """One attribute.

    Attributes:
        type: as on the wire.
        value: of a series, its points; of a file, (content, extension); of a file set, content by name.
        config: minimum, maximum and unit of a float series.
        pages: replies that were made of a series of so many points, by what was asked.
    """

    type: str
    value: Any
    config: dict[str, Any] = field(default_factory=dict)
    pages: dict[Any, bytes] = field(default_factory=dict)


@dataclass
class Image:
    """One element of an image series."""

    content: bytes
    name: str | None = None
    description: str | None = None
    mime: str = "image/png"


@dataclass
class Container:
    """A run, model, model version or project."""

    id: str
    type: str
    short_id: str
    project: Project
    parent_id: str | None = None
    trashed: bool = False
    attributes: dict[str, Attribute] = field(default_factory=dict)
    versions: int = 0

    def set(self, path: str, kind: str, value: Any) -> None:
        """Makes or replaces an attribute."""
        self.attributes[path] = Attribute(kind, value)

    def touch(self) -> None:
        """Something was written now."""
        self.set("sys/modification_time", "datetime", self.project.store.now())


@dataclass
class Project:
    """A project; its models and runs are numbered in one row."""

    id: str
    workspace: str
    name: str
    key: str
    store: Store
    runs: int = 0

    @property
    def full_name(self) -> str:
        """Workspace and name."""
        return f"{self.workspace}/{self.name}"


class Store:
    """All that the server holds. Guarded by `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.projects: dict[str, Project] = {}
        self.containers: dict[str, Container] = {}
        self.by_short_id: dict[tuple[str, str], Container] = {}
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        self._last_time = 0

    def now(self) -> int:
        """Milliseconds since the epoch, later at each call."""
        self._last_time = max(self._last_time + 1, int(time.time() * 1000))
        return self._last_time

    def add_project(self, full_name: str, key: str) -> Project:
        """A new project, empty."""
        workspace, name = full_name.split("/")
        project = Project(str(uuid.uuid4()), workspace, name, key, self)
        self.projects[project.id] = project
        self.containers[project.id] = Container(project.id, "project", key, project)
        return project

    def project(self, identifier: str) -> Project | None:
        """A project by id or by full name."""
        if identifier in self.projects:
            return self.projects[identifier]
        return next((p for p in self.projects.values() if p.full_name == identifier), None)

    def container(self, identifier: str) -> Container | None:
        """A container by id or by `workspace/project/RUN-1`."""
        if identifier in self.containers:
            return self.containers[identifier]
        project, _, short_id = identifier.rpartition("/")
        found = self.project(project)
        return self.by_short_id.get((found.id, short_id)) if found else None

    def create(self, project: Project, kind: str, *, parent: Container | None = None, key: str = "") -> Container:
        """A new run, model or model version with its `sys` attributes, as the server makes them."""
        if kind == "modelVersion":
            assert parent is not None
            parent.versions += 1
            short_id = f"{parent.short_id}-{parent.versions}"
        elif kind == "model":
            short_id = f"{project.key}-{key}"
        else:
            project.runs += 1
            short_id = f"{project.key}-{project.runs}"
        made = Container(str(uuid.uuid4()), kind, short_id, project, parent.id if parent else project.id)
        self.containers[made.id] = made
        self.by_short_id[project.id, short_id] = made
        now = self.now()
        made.set("sys/id", "string", short_id)
        for name in ("creation_time", "modification_time", "ping_time"):
            made.set(f"sys/{name}", "datetime", now)
        made.set("sys/owner", "string", "somebody")
        made.set("sys/trashed", "bool", False)
        made.set("sys/size", "float", 0.0)
        made.set("sys/tags", "stringSet", set())
        if kind == "run":
            made.set("sys/state", "experimentState", "idle")
            made.set("sys/failed", "bool", False)
        if kind == "modelVersion" and parent is not None:
            made.set("sys/model_id", "string", parent.short_id)
            made.set("sys/stage", "string", "none")
        return made

    def trash(self, container: Container) -> None:
        """Moves it into the trash."""
        container.trashed = True
        container.set("sys/trashed", "bool", True)

    def apply(self, container: Container, operation: dict[str, Any]) -> str | None:
        """Carries out one operation of `executeOperations`; returns what is wrong with it, if anything."""
        path = operation["path"]
        name, detail = next((k, v) for k, v in operation.items() if k != "path")
        container.touch()
        if name in ASSIGNED:
            kind, member = ASSIGNED[name]
            return self._assign(container, path, kind, detail[member])
        if name in SERIES:
            return self._log(container, path, SERIES[name], detail["entries"])
        if name == "configFloatSeries":
            found = container.attributes.setdefault(path, Attribute("floatSeries", []))
            found.config = {k: v for k, v in detail.items() if v is not None}
        elif name in SET_TYPES:
            found = container.attributes.setdefault(path, Attribute("stringSet", set()))
            values = set(detail["values"])
            found.value = found.value | values if name == "insertStrings" else found.value - values
        elif name in ("clearFloatSeries", "clearStringSeries", "clearImageSeries"):
            container.set(path, name[5].lower() + name[6:], [])
        elif name == "clearStringSet":
            container.attributes.setdefault(path, Attribute("stringSet", set())).value = set()
        elif name == "deleteFiles":
            for file in detail["filePaths"]:
                container.attributes[path].value.pop(file, None)
        elif name == "deleteAttribute":
            container.attributes.pop(path, None)
        elif name == "clearArtifact":
            container.set(path, "artifact", "")
        else:
            return f"unknown operation {name}"
        return None

    def _assign(self, container: Container, path: str, kind: str, value: Any) -> str | None:
        known = container.attributes.get(path)
        if known is not None and known.type != kind:
            return f"{path} is a {known.type}, not a {kind}"
        container.set(path, kind, value)
        return None

    def _log(self, container: Container, path: str, kind: str, entries: list[dict[str, Any]]) -> str | None:
        series = container.attributes.setdefault(path, Attribute(kind, []))
        if series.type != kind:
            return f"{path} is a {series.type}, not a {kind}"
        for entry in entries:
            last = series.value[-1][0] if series.value else -1.0
            step = last + 1 if entry.get("step") is None else float(entry["step"])
            if series.value and step <= last:
                return f"steps of {path} must grow"
            value = entry["value"]
            if kind == "imageSeries":
                value = Image(base64.b64decode(value["data"]), value.get("name"), value.get("description"))
            series.value.append((step, entry["timestampMilliseconds"], value))
        return None


def properties(name: str, attribute: Attribute) -> dict[str, Any]:
    """What the server says of an attribute."""
    kind, value = attribute.type, attribute.value
    said: dict[str, Any] = {"attributeName": name, "attributeType": kind}
    if kind == "datetime":
        said["value"] = iso(value)
    elif kind in ("float", "int", "bool", "string", "experimentState"):
        said["value"] = wire_float(value) if isinstance(value, float) else value
    elif kind == "stringSet":
        said["values"] = sorted(value)
    elif kind in ("floatSeries", "stringSeries", "imageSeries"):
        said.update(_series_properties(kind, attribute))
    elif kind == "file":
        said.update(name=name.rsplit("/", 1)[-1], ext=value[1], size=len(value[0]))
    elif kind == "fileSet":
        said["size"] = sum(map(len, value.values()))
    elif kind == "artifact":
        said["hash"] = value
    else:  # gitRef, notebookRef, and whatever a later server may have
        said.update(value)
    return said


def _series_properties(kind: str, attribute: Attribute) -> dict[str, Any]:
    said: dict[str, Any] = {"config": attribute.config} if kind == "floatSeries" else {}
    if attribute.value:
        said["lastStep"] = attribute.value[-1][0]
        if kind != "imageSeries":
            last = attribute.value[-1][2]
            said["last"] = wire_float(last) if isinstance(last, float) else last
    return said


def wire_float(value: float) -> float | str:
    """A double as Java writes it into JSON."""
    if value != value:  # noqa: PLR0124 - NaN is the one value that differs from itself
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)


def attribute_dto(name: str, attribute: Attribute) -> dict[str, Any]:
    """An attribute as the server sends it."""
    return {"name": name, "type": attribute.type, f"{attribute.type}Properties": properties(name, attribute)}
