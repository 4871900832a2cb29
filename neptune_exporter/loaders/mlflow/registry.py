# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow's model registry: a registered model for each Neptune model, its versions in their order.

Each model and version is a run in the experiment `<project>/models`; a registered version points at the files of its
run. The numbers are MLflow's own: what identifies a version is in its tags. Where a version has to be registered
anew, those after it are, too, so that the order of the numbers is always that of creation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from neptune_exporter.loaders.loader import (
    LoadOptions,
    ModelToRegister,
    RegistryDifference,
    VersionToRegister,
)
from neptune_exporter.loaders.mlflow import MLflowOptions, tags
from neptune_exporter.loaders.mlflow.experiments import Experiments
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.loaders.mlflow.registry_client import RegistryClient
from neptune_exporter.loaders.mlflow.registry_tags import MODEL_REF, PREFIX, STAGE, STAGES, model_tags, version_tags
from neptune_exporter.model import RunRef

FILES = "files"  # the folder of a run's artifacts in which its files are
_NOT_IN_NAMES = re.compile(r"[/:%'\"`\x00-\x1f]")


def make_loader(options: MLflowOptions, load: LoadOptions | None = None) -> MLflowLoader:
    """The loader of runs, or the one of models."""
    return MLflowModelLoader(options, load) if load is not None and load.models else MLflowLoader(options, load)


class ModelExperiments(Experiments):
    """One experiment for the models of a project, apart from its runs."""

    def _name(self, name: str) -> str:
        return super()._name(f"{name}/models")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model version as it should be registered."""

    ref: RunRef
    run_id: str
    source: str
    tags: Mapping[str, str]
    description: str


class MLflowModelLoader(MLflowLoader):
    """Loads models and versions as runs, and registers them. See `Registry`."""

    def register(self, model: ModelToRegister) -> Sequence[RunRef]:
        """Registers a model and its versions. See `Registry`."""
        changed: list[RunRef] = []
        name = self._find(model)
        if name is None:
            name = self._free_name(model)
            wanted = model_tags(model, self._load.name_prefix)
            self._registry.create_model(name, wanted, tags.note(model.description))
            changed.append(model.info.ref)
        elif self._registry.set_model(name, model_tags(model, self._load.name_prefix), tags.note(model.description)):
            changed.append(model.info.ref)
        numbers = self._register_versions(name, model, changed)
        if len(numbers) == len(model.versions):
            self._set_aliases(name, _newest_of_stage(model, numbers))
        held = self._registered(name, model)
        for ref, number in numbers.items():
            for old in held.get(tags.ref_digest(ref), []):
                if int(old.version) != number:
                    self._registry.delete_version(name, old.version)
        return changed

    def compare(self, model: ModelToRegister) -> Iterator[RegistryDifference]:
        """What the registry holds against what `register` would leave. See `Registry`."""
        name = self._find(model)
        if name is None:
            yield RegistryDifference(model.info.ref, "absent", "The model is not in the registry: load it.")
            return
        for what, there in self._registry.model_differences(
            name, model_tags(model, self._load.name_prefix), tags.note(model.description)
        ):
            yield RegistryDifference(model.info.ref, "values", f"The {what} in the registry is {there!r}.")
        held = self._registered(name, model)
        last, numbers = 0, {}
        for version in model.versions:
            found = held.get(tags.ref_digest(version.info.ref), [])
            wanted = self._wanted(version, model)
            if wanted is None:
                continue
            yield from self._version_differences(wanted, found)
            if found:
                number = int(found[0].version)
                if number < last:
                    message = f"It is version {number} in the registry, but was created after version {last}."
                    yield RegistryDifference(wanted.ref, "values", message)
                last = number
                numbers[wanted.ref] = number
        yield from self._alias_differences(name, model, numbers)

    # --- versions

    def _register_versions(self, name: str, model: ModelToRegister, changed: list[RunRef]) -> dict[RunRef, int]:
        """Makes what is not there as it should be; returns the number of each version up to the first unloaded one."""
        held = self._registered(name, model)
        numbers: dict[RunRef, int] = {}
        last = 0
        for version in model.versions:
            wanted = self._wanted(version, model)
            if wanted is None:
                break
            same = [
                found
                for found in held.get(tags.ref_digest(wanted.ref), [])
                if (found.run_id, found.source) == (wanted.run_id, wanted.source) and int(found.version) > last
            ]
            if same:
                last = int(same[0].version)
                if self._registry.set_version(name, same[0], wanted.tags, wanted.description):
                    changed.append(wanted.ref)
            else:
                last = self._registry.create_version(
                    name, wanted.source, wanted.run_id, wanted.tags, wanted.description
                )
                changed.append(wanted.ref)
            numbers[wanted.ref] = last
        return numbers

    def _wanted(self, version: VersionToRegister, model: ModelToRegister) -> Wanted | None:
        if version.loaded_as is None:
            return None
        root = str(self._tracking.run(version.loaded_as).info.artifact_uri)
        source = f"{root}/{FILES}" if version.has_files else root
        made = version_tags(version, model.info.ref, self._load.name_prefix)
        return Wanted(version.info.ref, version.loaded_as, source, made, tags.note(version.description))

    def _registered(self, name: str, model: ModelToRegister) -> dict[str, list[Any]]:
        """The registered versions of ours by the digest of what they are, each list by number."""
        found: dict[str, list[Any]] = {}
        for version in self._registry.versions(name, MODEL_REF, tags.ref_digest(model.info.ref)):
            found.setdefault(version.tags.get(tags.REF, ""), []).append(version)
        return found

    def _version_differences(self, wanted: Wanted, found: Sequence[Any]) -> Iterator[RegistryDifference]:
        if not found:
            yield RegistryDifference(wanted.ref, "absent", "The version is not in the registry: load it.")
            return
        if len(found) > 1:
            numbers = ", ".join(version.version for version in found)
            yield RegistryDifference(wanted.ref, "surplus", f"It is in the registry more than once: {numbers}.")
        first = found[0]
        if (first.run_id, first.source) != (wanted.run_id, wanted.source):
            message = f"The registry points at {first.source}, not at {wanted.source}."
            yield RegistryDifference(wanted.ref, "outdated", message)
        for key, value in wanted.tags.items():
            if first.tags.get(key) != value:
                message = f"The tag {key} in the registry is {first.tags.get(key)!r}, not {value!r}."
                yield RegistryDifference(wanted.ref, "values", message)
        if (first.description or "") != wanted.description:
            yield RegistryDifference(wanted.ref, "values", "The description in the registry is another.")

    # --- aliases

    def _set_aliases(self, name: str, wanted: Mapping[str, int]) -> None:
        """Points each stage's alias at its newest version, unless somebody has moved it since we last did."""
        model = self._registry.model(name)
        aliases = {alias: int(number) for alias, number in model.aliases.items()}
        for stage in STAGES:
            recorded, current = model.tags.get(_alias_tag(stage)), aliases.get(stage)
            if not _is_ours(current, recorded, wanted.get(stage)):
                continue
            if stage in wanted and current != wanted[stage]:
                self._registry.set_alias(name, stage, wanted[stage])
            elif stage not in wanted and current is not None:
                self._registry.delete_alias(name, stage)
            self._registry.set_model_tag(name, _alias_tag(stage), str(wanted.get(stage, "")), recorded)

    def _alias_differences(
        self, name: str, model: ModelToRegister, numbers: Mapping[RunRef, int]
    ) -> Iterator[RegistryDifference]:
        held = self._registry.model(name)
        wanted = _newest_of_stage(model, numbers)
        for stage in STAGES:
            current = held.aliases.get(stage)
            current = None if current is None else int(current)
            if current != wanted.get(stage) and _is_ours(current, held.tags.get(_alias_tag(stage)), wanted.get(stage)):
                message = f"The alias {stage} points at {current}, not at {wanted.get(stage)}."
                yield RegistryDifference(model.info.ref, "values", message)

    # --- names

    def _find(self, model: ModelToRegister) -> str | None:
        """The registered model of a Neptune model, whatever it is called by now."""
        for found in self._registry.models(tags.REF, tags.ref_digest(model.info.ref)):
            if found.tags.get(PREFIX, "") == self._load.name_prefix:
                return str(found.name)
        return None

    def _free_name(self, model: ModelToRegister) -> str:
        """The model's id; where another model has that name, the id with the project, or with a digest."""
        ref = model.info.ref
        plain = _NOT_IN_NAMES.sub(".", f"{self._load.name_prefix}{ref.run_id}")
        names = [plain, _NOT_IN_NAMES.sub(".", f"{plain} ({ref.project_id})"), f"{plain} {tags.ref_digest(ref)}"]
        return next((name for name in names if not self._registry.has_model(name)), names[-1])

    # --- connections

    @cached_property
    def _registry(self) -> RegistryClient:
        return RegistryClient(self._tracking)

    @cached_property
    def _experiments(self) -> Experiments:
        file = self._database_file
        return ModelExperiments(
            self._tracking,
            prefix=self._load.name_prefix,
            by_name=False,
            location=self._options.mlflow_artifact_location,
            beside=None if file is None else file.parent,
            address_length=self._address_length,
        )

    def close(self) -> None:
        """Lets go of connections."""
        super().close()
        self.__dict__.pop("_registry", None)


def _newest_of_stage(model: ModelToRegister, numbers: Mapping[RunRef, int]) -> dict[str, int]:
    """The number of the newest version of each stage."""
    return {v.stage: numbers[v.info.ref] for v in model.versions if v.info.ref in numbers and v.stage in STAGES}


def _alias_tag(stage: str) -> str:
    return f"{STAGE}.alias.{stage}"


def _is_ours(current: int | None, recorded: str | None, wanted: int | None) -> bool:
    """Whether an alias is as we left it, or as it should be."""
    if recorded is None:
        return current is None or current == wanted
    return current == wanted or ("" if current is None else str(current)) == recorded
