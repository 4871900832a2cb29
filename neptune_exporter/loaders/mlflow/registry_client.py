# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The calls that we make to MLflow's model registry, with its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from neptune_exporter.loaders.mlflow.tracking import Tracking

PAGE = 100


class RegistryClient:
    """The registry beside a tracking server or database. Every method raises like those of `Tracking`."""

    def __init__(self, tracking: Tracking) -> None:
        self._client = tracking._client  # noqa: SLF001 - one connection for both
        self._explained = tracking.explained

    # --- models

    def models(self, tag: str, value: str) -> Iterator[Any]:
        """The registered models with a tag."""
        yield from self._pages(self._client.search_registered_models, f"tags.`{tag}` = '{value}'")

    def has_model(self, name: str) -> bool:
        """Whether the name is taken; the name must not hold a quote."""
        return any(self._pages(self._client.search_registered_models, f"name = '{name}'"))

    def model(self, name: str) -> Any:
        """A registered model with its tags and aliases."""
        with self._explained():
            return self._client.get_registered_model(name)

    def create_model(self, name: str, tags: Mapping[str, str], description: str) -> None:
        """Makes a registered model."""
        with self._explained():
            self._client.create_registered_model(name, dict(tags), description)

    def set_model(self, name: str, tags: Mapping[str, str], description: str) -> bool:
        """Sets what is not as it should be; returns whether anything was."""
        found = list(self.model_differences(name, tags, description))
        with self._explained():
            for what, _ in found:
                if what == "description":
                    self._client.update_registered_model(name, description)
                else:
                    self._client.set_registered_model_tag(name, what, tags[what])
        return bool(found)

    def model_differences(
        self, name: str, tags: Mapping[str, str], description: str
    ) -> Iterator[tuple[str, str | None]]:
        """The tags, and perhaps the description, that differ, with what is there."""
        model = self.model(name)
        for key, value in tags.items():
            if model.tags.get(key) != value:
                yield key, model.tags.get(key)
        if (model.description or "") != description:
            yield "description", model.description

    def set_model_tag(self, name: str, key: str, value: str, known: str | None) -> None:
        """Sets a tag unless it is known to be so; an empty one that is not there stays away."""
        if value != (known or ""):
            with self._explained():
                self._client.set_registered_model_tag(name, key, value)

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Points an alias at a version."""
        with self._explained():
            self._client.set_registered_model_alias(name, alias, str(number))

    def delete_alias(self, name: str, alias: str) -> None:
        """Removes an alias."""
        with self._explained():
            self._client.delete_registered_model_alias(name, alias)

    # --- versions

    def versions(self, name: str, tag: str, value: str) -> list[Any]:
        """The versions of a registered model that have a tag, by number."""
        found = self._pages(self._client.search_model_versions, f"tags.`{tag}` = '{value}'")
        return sorted((v for v in found if v.name == name), key=lambda v: int(v.version))

    def create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str], description: str) -> int:
        """Makes a version, tags and all in one call, and returns its number."""
        with self._explained():
            made = self._client.create_model_version(
                name, source, run_id, tags=dict(tags), description=description, await_creation_for=0
            )
        return int(made.version)

    def set_version(self, name: str, version: Any, tags: Mapping[str, str], description: str) -> bool:
        """Sets what is not as it should be; returns whether anything was."""
        different = [key for key, value in tags.items() if version.tags.get(key) != value]
        told = (version.description or "") != description
        with self._explained():
            for key in different:
                self._client.set_model_version_tag(name, version.version, key, tags[key])
            if told:
                self._client.update_model_version(name, version.version, description)
        return bool(different or told)

    def delete_version(self, name: str, version: str) -> None:
        """Removes a version."""
        with self._explained():
            self._client.delete_model_version(name, version)

    def _pages(self, search: Any, condition: str) -> Iterator[Any]:
        token = None
        while True:
            with self._explained():
                page = search(filter_string=condition, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return
