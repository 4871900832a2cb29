# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Artifacts of the W&B server: created, filled, committed; the same content under the same name is kept once."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Artifact:
    """An artifact version.

    Attributes:
        manifest: the token under which its manifest is stored.
        files: the tokens of its entries by their MD5 (base64).
    """

    id: str
    entity: str
    project: str
    run: str
    collection: str
    type: str
    digest: str
    version: int
    state: str = "PENDING"
    manifest: str = ""
    manifest_digest: str = ""
    description: str = ""
    metadata: str = "{}"
    aliases: set[str] = field(default_factory=set)
    wanted_aliases: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)


class Artifacts:
    """All artifacts of a server.

    Attributes:
        blobs: what was uploaded, by token.
    """

    def __init__(self, url: Callable[[], str]) -> None:
        self.blobs: dict[str, bytes] = {}
        self._url = url
        self._artifacts: dict[str, Artifact] = {}
        self._manifests: dict[str, Artifact] = {}
        self._numbers = itertools.count(1)

    def all(self) -> list[Artifact]:
        """Every artifact, oldest first."""
        return list(self._artifacts.values())

    def get(self, artifact_id: str) -> Artifact:
        """An artifact, which is there. Raises `LookupError`."""
        return self._artifacts[artifact_id]

    def url_of(self, token: str) -> str:
        """Where something that was uploaded can be fetched."""
        return f"{self._url()}/storage/{token}"

    def of(self, entity: str, project: str, collection: str) -> list[Artifact]:
        """The versions of a collection, deleted ones included: their numbers are never used again."""
        return [a for a in self.all() if (a.entity, a.project, a.collection) == (entity, project, collection)]

    def point(self, alias: str, artifact: Artifact) -> None:
        """Points an alias at a version, and away from any other."""
        for other in self.of(artifact.entity, artifact.project, artifact.collection):
            other.aliases.discard(alias)
        artifact.aliases.add(alias)

    def committed(self, run: str = "") -> list[Artifact]:
        """Those that are whole, of one run or of all."""
        return [a for a in self.all() if a.state == "COMMITTED" and run in ("", a.run)]

    def entries(self, artifact: Artifact) -> dict[str, Any]:
        """The entries of its manifest by path."""
        return json.loads(self.blobs[artifact.manifest])["contents"]

    def content(self, artifact: Artifact) -> dict[str, bytes]:
        """Every file by its path in the artifact; references are not followed."""
        found = {}
        for path, entry in self.entries(artifact).items():
            if entry.get("ref"):
                continue
            blob = self.blobs[artifact.files[entry["digest"]]]
            assert base64.b64encode(hashlib.md5(blob).digest()).decode() == entry["digest"], path
            assert len(blob) == entry["size"], path
            found[path] = blob
        return found

    # --- GraphQL

    def op_FetchArtifactDigestAlgorithm(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"project": {"artifactType": None}}

    def op_ArtifactType(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"project": {"artifact": None}}

    def op_ClientIDMapping(self, _: dict[str, Any]) -> Any:  # noqa: N802
        return {"clientIDMapping": None}

    def op_CreateArtifact(self, v: dict[str, Any]) -> Any:  # noqa: N802
        given = v["input"]
        name = given.get("artifactCollectionName") or given.get("artifactCollectionNames", [""])[0]
        same = self.of(given["entityName"], given["projectName"], name)
        artifact = next((a for a in same if a.digest == given["digest"] and a.state == "COMMITTED"), None)
        if artifact is None:
            artifact = Artifact(
                f"artifact-{next(self._numbers)}",
                given["entityName"],
                given["projectName"],
                given.get("runName") or "",
                name,
                given["artifactTypeName"],
                given["digest"],
                max((a.version + 1 for a in same if a.state != "PENDING"), default=0),
                description=given.get("description") or "",
                metadata=given.get("metadata") or "{}",
            )
            self._artifacts[artifact.id] = artifact
        artifact.wanted_aliases = {alias["alias"] for alias in given.get("aliases") or ()}
        created = {
            "id": artifact.id,
            "state": artifact.state,
            "digest": artifact.digest,
            "artifactSequence": {"id": name, "latestArtifact": None},
        }
        return {"createArtifact": {"artifact": created}}

    def op_CreateArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts[v["artifactID"]]
        token = f"manifest/{next(self._numbers)}"
        self._manifests[token] = artifact
        artifact.manifest, artifact.manifest_digest = token, v["digest"]
        return {"createArtifactManifest": {"artifactManifest": self._manifest(token)}}

    def op_UpdateArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        token = v["artifactManifestID"]
        self._manifests[token].manifest_digest = v["digest"]
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(token)}}

    def _manifest(self, token: str) -> dict[str, Any]:
        file = {"id": token, "uploadUrl": f"{self._url()}/upload/{token}", "uploadHeaders": []}
        return {"id": token, "file": file}

    def op_CreateArtifactFiles(self, v: dict[str, Any]) -> Any:  # noqa: N802
        edges = []
        for spec in v["input"]["artifactFiles"]:
            artifact = self._artifacts[spec["artifactID"]]
            token = f"file/{next(self._numbers)}"
            artifact.files[spec["md5"]] = token
            node = {
                "storagePath": token,
                "uploadUrl": f"{self._url()}/upload/{token}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": artifact.id},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def op_CommitArtifact(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts[v["artifactID"]]
        self.content(artifact)
        artifact.state = "COMMITTED"
        for alias in {"latest", *artifact.wanted_aliases}:
            self.point(alias, artifact)
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def op_RunOutputArtifacts(self, v: dict[str, Any]) -> Any:  # noqa: N802
        mine = [a for a in self.all() if (a.entity, a.project, a.run) == (v["entity"], v["project"], v["run"])]
        start = int(v.get("cursor") or 0)
        page = mine[start : start + v["perPage"]]
        edges = [
            {
                "node": {
                    "id": a.id,
                    "digest": a.digest,
                    "state": a.state,
                    "versionIndex": a.version,
                    "artifactSequence": {"name": a.collection},
                    "artifactType": {"name": a.type},
                }
            }
            for a in page
        ]
        end = start + len(page)
        info = {"endCursor": str(end), "hasNextPage": end < len(mine)}
        return {"project": {"run": {"outputArtifacts": {"edges": edges, "pageInfo": info}}}}

    def op_ArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts[v["artifact_id"]]
        url = f"{self._url()}/storage/{artifact.manifest}"
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    def op_ArtifactFileURLsByManifestEntries(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts[v["id"]]
        edges = [
            {"node": {"name": entry["name"], "directUrl": f"{self._url()}/storage/{artifact.files[entry['digest']]}"}}
            for entry in v["entries"]
            if entry["digest"] in artifact.files
        ]
        page = {"hasNextPage": False, "endCursor": None}
        return {"artifact": {"filesByManifestEntries": {"pageInfo": page, "edges": edges}}}
