# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Artifact collections of a W&B project: what versions they hold, and what is known of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neptune_exporter.loaders.wandb.server import PAGE_RUNS, Server

TYPE = "model"
_COLLECTION = """query ProjectArtifacts($entity: String!, $project: String!, $type: String!, $collection: String!,
    $cursor: String, $perPage: Int = 50) {
  project(entityName: $entity, name: $project) { artifactType(name: $type) {
    artifactCollection(name: $collection) { __typename id name description
      artifacts(after: $cursor, first: $perPage) { pageInfo { endCursor hasNextPage }
        edges { version node { id versionIndex digest state description metadata
          aliases { alias artifactCollection { name } } } } } } } } }"""
_INPUTS = {
    "updateArtifact": ("UpdateArtifact", "UpdateArtifactInput", "artifact { id }"),
    "deleteArtifact": ("DeleteArtifact", "DeleteArtifactInput", "artifact { id }"),
    "addAliases": ("AddAliases", "AddAliasesInput", "success"),
    "deleteAliases": ("DeleteAliases", "DeleteAliasesInput", "success"),
    "updateArtifactSequence": (
        "UpdateArtifactSequence",
        "UpdateArtifactSequenceInput",
        "artifactCollection { __typename id }",
    ),
}


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """A version of a collection.

    Attributes:
        id: W&B's own.
        number: n of `vn`.
        digest: of its content.
        whole: whether everything has arrived.
        description: its description.
        metadata: its metadata.
        aliases: its aliases.
    """

    id: str
    number: int
    digest: str
    whole: bool
    description: str
    metadata: Mapping[str, Any]
    aliases: tuple[str, ...]

    @property
    def ours(self) -> Mapping[str, Any]:
        """What says which model version of Neptune it is; empty if it is none of ours."""
        ours = self.metadata.get("neptune")
        return ours if isinstance(ours, dict) else {}


@dataclass(frozen=True, slots=True)
class HeldCollection:
    """A collection.

    Attributes:
        id: W&B's own.
        name: its name.
        description: its description.
        versions: what it holds, by number.
    """

    id: str
    name: str
    description: str
    versions: Sequence[HeldVersion]


class Collections:
    """The collections of models of one project.

    Args:
        server: where.
        entity: whose project.
        project: its name.
    """

    def __init__(self, server: Server, entity: str, project: str) -> None:
        self._server, self._entity, self._project = server, entity, project

    def find(self, name: str) -> HeldCollection | None:
        """A collection by its name."""
        about: dict[str, Any] = {}

        def page(data: Any) -> Any:
            kind = data["project"] and data["project"]["artifactType"]
            found = kind and kind["artifactCollection"]
            if not found:
                return None
            about.update(id=found["id"], description=found.get("description") or "")
            return found["artifacts"]

        where = {"entity": self._entity, "project": self._project, "type": TYPE, "collection": name}
        nodes = self._server.pages(_COLLECTION, {**where, "perPage": PAGE_RUNS}, page)
        versions = sorted((_version(node) for node in nodes), key=lambda version: version.number)
        return HeldCollection(about["id"], name, about["description"], versions) if about else None

    def describe(self, collection: HeldCollection, description: str) -> None:
        """Sets the description of a collection."""
        self._change("updateArtifactSequence", artifactSequenceID=collection.id, description=description)

    def update(self, version: HeldVersion, description: str, metadata: Mapping[str, Any]) -> None:
        """Sets the description and metadata of a version."""
        text = json.dumps(metadata, allow_nan=False)
        self._change("updateArtifact", artifactID=version.id, description=description, metadata=text)

    def delete(self, version: HeldVersion) -> None:
        """Removes a version with its aliases."""
        self._change("deleteArtifact", artifactID=version.id, deleteAliases=True)

    def add_alias(self, name: str, version: HeldVersion, alias: str) -> None:
        """Points an alias of a collection at a version, wherever it pointed before."""
        self._change("addAliases", artifactID=version.id, aliases=[self._alias(name, alias)])

    def delete_alias(self, name: str, version: HeldVersion, alias: str) -> None:
        """Takes an alias away from a version."""
        self._change("deleteAliases", artifactID=version.id, aliases=[self._alias(name, alias)])

    def _alias(self, name: str, alias: str) -> dict[str, str]:
        where = {"entityName": self._entity, "projectName": self._project}
        return {**where, "artifactCollectionName": name, "alias": alias}

    def _change(self, what: str, **given: Any) -> None:
        operation, kind, fields = _INPUTS[what]
        query = f"mutation {operation}($input: {kind}!) {{ result: {what}(input: $input) {{ {fields} }} }}"
        self._server.ask(query, {"input": given})


def _version(node: Mapping[str, Any]) -> HeldVersion:
    metadata = node.get("metadata")
    if isinstance(metadata, str):
        metadata = json.loads(metadata or "{}")
    return HeldVersion(
        str(node["id"]),
        int(node["versionIndex"]),
        str(node["digest"]),
        node["state"] == "COMMITTED",
        node.get("description") or "",
        metadata or {},
        tuple(sorted(alias["alias"] for alias in node.get("aliases") or ())),
    )
