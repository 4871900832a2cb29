# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Artifact collections of the W&B server: what its public API asks for, and what can be changed afterwards."""

from __future__ import annotations

import re
from typing import Any

from servers.wandb_artifacts import Artifact, Artifacts

_TIME = "2026-01-01T00:00:00Z"


class Collections:
    """Versions, aliases and descriptions of collections.

    Args:
        artifacts: every artifact of the server.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self.descriptions: dict[tuple[str, str, str], str] = {}

    def held(self, entity: str, project: str, name: str) -> list[Artifact]:
        """The whole versions of a collection that were not deleted."""
        return [a for a in self._artifacts.of(entity, project, name) if a.state == "COMMITTED"]

    # --- questions

    def op_ProjectArtifacts(self, v: dict[str, Any]) -> Any:  # noqa: N802
        key = (v["entity"], v["project"], v["collection"])
        mine = [a for a in self._artifacts.of(*key) if a.type == v["type"]]
        if not mine:
            return {"project": {"artifactType": {"artifactCollection": None}}}
        mine = [a for a in mine if a.state == "COMMITTED"]
        start = int(v.get("cursor") or 0)
        end = start + (v.get("perPage") or 50)
        edges = [{"version": f"v{a.version}", "node": self.node(a)} for a in mine[start:end]]
        page = {"__typename": "PageInfo", "endCursor": str(end), "hasNextPage": end < len(mine)}
        artifacts = {"totalCount": len(mine), "pageInfo": page, "edges": edges}
        collection = self._collection(*key, v["type"]) | {"artifacts": artifacts}
        return {"project": {"artifactType": {"artifactCollection": collection}}}

    def op_ProjectArtifactCollection(self, v: dict[str, Any]) -> Any:  # noqa: N802
        found = self.held(v["entity"], v["project"], v["name"])
        collection = self._collection(v["entity"], v["project"], v["name"], found[0].type) if found else None
        return {"project": {"artifactType": {"artifactCollection": collection}}}

    def op_ArtifactMembershipByName(self, v: dict[str, Any]) -> Any:  # noqa: N802
        name, _, which = v["name"].partition(":")
        name = name.rpartition("/")[2]
        for artifact in self.held(v["entity"], v["project"], name):
            if which in {f"v{artifact.version}", *artifact.aliases} or (not which and "latest" in artifact.aliases):
                membership = {
                    "__typename": "ArtifactCollectionMembership",
                    "id": f"membership-{artifact.id}",
                    "createdAt": _TIME,
                    "versionIndex": artifact.version,
                    "aliases": self._aliases(artifact),
                    "artifactCollection": self._collection(v["entity"], v["project"], name, artifact.type),
                    "artifact": self.node(artifact),
                }
                return {"project": {"artifactCollectionMembership": membership}}
        return {"project": {"artifactCollectionMembership": None}}

    def op_ArtifactByID(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"artifact": self.node(self._artifacts.get(v["id"]))}

    def op_FetchArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts.get(v["id"])
        manifest = {"id": artifact.manifest, "file": {"directUrl": self._artifacts.url_of(artifact.manifest)}}
        return {"artifact": {"currentManifest": manifest}}

    def op_GetArtifactMembershipFileUrls(self, v: dict[str, Any]) -> Any:  # noqa: N802
        mine = self.held(v["entity"], v["project"], v["collection"])
        artifact = next(a for a in mine if v["alias"] in {f"v{a.version}", *a.aliases})
        edges = []
        for path, entry in self._artifacts.entries(artifact).items():
            url = entry.get("ref") or self._artifacts.url_of(artifact.files[entry["digest"]])
            edges.append({"node": {"__typename": "File", "name": path, "directUrl": url}})
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        membership = {"files": {"pageInfo": page, "edges": edges}}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": membership}}}

    # --- changes

    def op_UpdateArtifact(self, v: dict[str, Any]) -> Any:  # noqa: N802
        given = v.get("input") or v
        artifact = self._artifacts.get(given["artifactID"])
        for name in ("description", "metadata"):
            if given.get(name) is not None:
                setattr(artifact, name, given[name])
        return {"result": {"artifact": {"id": artifact.id}}, "updateArtifact": {"artifact": {"id": artifact.id}}}

    def op_DeleteArtifact(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts.get(v["input"]["artifactID"])
        assert v["input"].get("deleteAliases") or not artifact.aliases
        artifact.state, artifact.aliases = "DELETED", set()
        return {"result": {"artifact": {"id": artifact.id}}}

    def op_AddAliases(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts.get(v["input"]["artifactID"])
        for alias in v["input"]["aliases"]:
            assert not re.search("[/:]", alias["alias"])
            assert alias["artifactCollectionName"] == artifact.collection
            self._artifacts.point(alias["alias"], artifact)
        return {"result": {"success": True}}

    def op_DeleteAliases(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifacts.get(v["input"]["artifactID"])
        artifact.aliases -= {alias["alias"] for alias in v["input"]["aliases"]}
        return {"result": {"success": True}}

    def op_UpdateArtifactSequence(self, v: dict[str, Any]) -> Any:  # noqa: N802
        entity, project, name = v["input"]["artifactSequenceID"].split("/", 2)
        if v["input"].get("description") is not None:
            self.descriptions[entity, project, name] = v["input"]["description"]
        return {"result": {"artifactCollection": {"__typename": "ArtifactSequence", "id": name}}}

    # --- fragments

    def node(self, artifact: Artifact) -> dict[str, Any]:
        """An artifact with all the fields that the client's fragments name."""
        return {
            "__typename": "Artifact",
            "id": artifact.id,
            "artifactSequence": {
                "__typename": "ArtifactSequence",
                "name": artifact.collection,
                "project": self._project(artifact.entity, artifact.project),
            },
            "versionIndex": artifact.version,
            "artifactType": {"name": artifact.type},
            "description": artifact.description,
            "metadata": artifact.metadata,
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": artifact.state,
            "size": sum(entry.get("size") or 0 for entry in self._artifacts.entries(artifact).values()),
            "digest": artifact.digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": artifact.id,
            "fileCount": len(self._artifacts.entries(artifact)),
            "createdAt": _TIME,
            "updatedAt": _TIME,
            "aliases": self._aliases(artifact),
        }

    def _aliases(self, artifact: Artifact) -> list[dict[str, Any]]:
        where = {
            "__typename": "ArtifactSequence",
            "name": artifact.collection,
            "project": self._project(artifact.entity, artifact.project),
        }
        return [
            {"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": where}
            for alias in sorted(artifact.aliases)
        ]

    def _collection(self, entity: str, project: str, name: str, kind: str) -> dict[str, Any]:
        return {
            "__typename": "ArtifactSequence",
            "id": f"{entity}/{project}/{name}",
            "name": name,
            "description": self.descriptions.get((entity, project, name), ""),
            "createdAt": _TIME,
            "updatedAt": _TIME,
            "project": self._project(entity, project),
            "type": {"name": kind},
            "tags": {"edges": []},
        }

    def _project(self, entity: str, project: str) -> dict[str, Any]:
        return {
            "__typename": "Project",
            "id": project,
            "internalId": project,
            "name": project,
            "entity": {"name": entity},
        }
