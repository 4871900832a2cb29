# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a Neptune 2.x server does for writers."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from typing import Any

from .http import Reply, Request
from .neptune2_reading import Reading, experiment_dto, failure
from .neptune2_store import Attribute


class Writing:
    """Changes a store on behalf of clients.

    Args:
        reading: finds containers.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._store = reading.store
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._extensions: dict[str, str] = {}

    def create(self, request: Request) -> Reply:
        wanted = request.json()
        project = self._store.project(wanted["projectIdentifier"])
        if project is None:
            raise failure(404, "PROJECT_NOT_FOUND")
        kind, key = wanted["type"], wanted.get("key") or ""
        if kind == "model" and (project.id, f"{project.key}-{key}") in self._store.by_short_id:
            raise failure(409, "EXPERIMENT_EXISTS")
        parent = self._store.containers.get(wanted["parentId"])
        made = self._store.create(project, kind, parent=parent if kind == "modelVersion" else None, key=key)
        if wanted.get("customId"):
            made.set("sys/custom_run_id", "string", wanted["customId"])
        if wanted.get("gitInfo"):
            made.set("source_code/git", "gitRef", wanted["gitInfo"])
        if wanted.get("notebookId"):
            reference = {"notebookId": wanted["notebookId"], "checkpointId": wanted["checkpointId"]}
            made.set("source_code/notebook", "notebookRef", {**reference, "notebookDeleted": False})
        return Reply.json(experiment_dto(made))

    def trash(self, request: Request) -> Reply:
        moved = [container for name in request.json() if (container := self._store.container(name)) is not None]
        for container in moved:
            self._store.trash(container)
        return Reply.json({"errors": [], "updatedExperimentIdentifiers": [container.id for container in moved]})

    def checkpoint(self, request: Request) -> Reply:
        return Reply.json({"id": str(uuid.uuid4())})

    def operations(self, request: Request) -> Reply:
        container = self._reading.container(request)
        wrong = [error for operation in request.json() if (error := self._store.apply(container, operation))]
        return Reply.json([{"errorType": "METADATA_INCONSISTENCY", "errorDescription": error} for error in wrong])

    # --- uploads

    def upload(self, request: Request) -> Reply:
        _, _, tail = request.path.partition("/storage/")
        kind, _, step = tail.partition("/upload")
        if step == "/start":
            identifier = str(uuid.uuid4())
            self._uploads[identifier] = {}
            self._extensions[identifier] = request.one("ext")
            return Reply.json({"uploadId": identifier, "errors": []})
        if step == "/part":
            self._uploads[request.one("uploadId")][int(request.one("uploadPartIdx"))] = request.body
            return Reply.json({"errors": []})
        content, ext = request.body, request.one("ext")
        if step == "/finish":
            parts = self._uploads.pop(request.one("uploadId"))
            content = b"".join(parts[index] for index in sorted(parts))
            ext = self._extensions.pop(request.one("uploadId"))
        container, path = self._reading.container(request), request.one("attribute")
        if kind == "file":
            container.set(path, "file", (content, ext))
        else:
            files = container.attributes.setdefault(path, Attribute("fileSet", {})).value
            files[request.one("subPath")] = content
        container.touch()
        return Reply.json({"errors": []})

    def upload_tar(self, request: Request) -> Reply:
        container, path = self._reading.container(request), request.one("attribute")
        if request.one("reset") == "True":
            container.attributes.pop(path, None)
        files: dict[str, bytes] = container.attributes.setdefault(path, Attribute("fileSet", {})).value
        with tarfile.open(fileobj=io.BytesIO(request.body), mode="r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    files[member.name] = content.read()
        container.touch()
        return Reply.json({"errors": []})

    # --- artifacts

    def new_artifact(self, request: Request) -> Reply:
        known = request.one("hash") in self._store.artifacts
        return Reply.json(self._artifact(request.one("hash"), received=known))

    def artifact_version(self, request: Request) -> Reply:
        files = {file["filePath"]: file for file in self._store.artifacts.get(request.one("hash"), [])}
        files.update({file["filePath"]: file for file in request.json()["files"]})
        ordered = [files[name] for name in sorted(files)]
        made = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(ordered)).hex * 2
        self._store.artifacts[made] = ordered
        return Reply.json(self._artifact(made, received=True))

    def artifact_files(self, request: Request) -> Reply:
        self._store.artifacts[request.one("hash")] = request.json()["files"]
        return Reply.json(self._artifact(request.one("hash"), received=True))

    def _artifact(self, identifier: str, *, received: bool) -> dict[str, Any]:
        files = self._store.artifacts.get(identifier, [])
        size = sum(file["size"] or 0 for file in files)
        return {"artifactHash": identifier, "receivedMetadata": received, "size": size, "projectId": ""}
