# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Model registry in W&B: an artifact collection for each Neptune model, its versions in their order.

Each model and version is a run in the project `<project>-models`, with what an artifact cannot hold: its series.
A version of the collection is logged by the run of its model version. The numbers are W&B's own; what identifies a
version is in its metadata. Where a version has to be registered anew, those after it are, too, so that the order of
the numbers is always that of creation. W&B keeps equal content of a collection once: a small file in each version
says which one it is, and after which one it comes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.keys import shortened
from neptune_exporter.loaders.loader import (
    LoadOptions,
    ModelToRegister,
    RegistryDifference,
    VersionToRegister,
)
from neptune_exporter.loaders.wandb import WandbOptions, names, sending
from neptune_exporter.loaders.wandb.collections import TYPE, Collections, HeldCollection, HeldVersion
from neptune_exporter.loaders.wandb.forks import INTERNAL
from neptune_exporter.loaders.wandb.loader import WandbLoader
from neptune_exporter.loaders.wandb.model_files import VERSION_FILE, model_files
from neptune_exporter.loaders.wandb.online import Online
from neptune_exporter.loaders.wandb.server import HeldRun, RunName
from neptune_exporter.model import RunInfo, RunRef

STAGES = ("staging", "production", "archived")
NAME_LENGTH = 128
DESCRIPTION_LENGTH = 20_000
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def make_loader(options: WandbOptions, load: LoadOptions | None = None) -> WandbLoader:
    """The loader of runs, or the one of models; logs in a folder cannot hold a registry."""
    if load is None or not load.models:
        return WandbLoader(options, load)
    options = replace(options, wandb_project_by="project")  # the versions of a model belong together
    return WandbLoader(options, load) if options.wandb_mode == "offline" else WandbModelLoader(options, load)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model version as it should be registered."""

    ref: RunRef
    run: HeldRun
    metadata: Mapping[str, Any]
    description: str
    alias: str


class WandbModelLoader(WandbLoader):
    """Loads models and versions as runs, and registers them. See `Registry`."""

    def __init__(self, options: WandbOptions, load: LoadOptions) -> None:
        super().__init__(options, load)
        self._copy = options.copy_artifacts
        self._prefix = load.name_prefix

    def register(self, model: ModelToRegister) -> Sequence[RunRef]:
        """Registers a model and its versions. See `Registry`."""
        changed: list[RunRef] = []
        found, name = self._find(model)
        held = self._register_versions(found, name, model, changed)
        collection = self._collections(model).find(name)
        if collection is None:  # no version is loaded yet
            return changed
        if collection.description != _short(model.description):
            self._collections(model).describe(collection, _short(model.description))
            changed.append(model.info.ref)
        if len(held) == len(model.versions):
            self._set_aliases(collection, model, held)
        for ref, number in held.items():
            for version in _versions_of(collection, ref):
                if version.number != number:  # registered before, out of order or from another run
                    self._collections(model).delete(version)
        return changed

    def compare(self, model: ModelToRegister) -> Iterator[RegistryDifference]:
        """What the collection holds against what `register` would leave. See `Registry`."""
        collection, name = self._find(model)
        if collection is None:
            yield RegistryDifference(model.info.ref, "absent", f"There is no collection {name}: load the model.")
            return
        if collection.description != _short(model.description):
            message = f"The description of the collection is {collection.description!r}."
            yield RegistryDifference(model.info.ref, "values", message)
        last, numbers = -1, {}
        for version in model.versions:
            wanted = self._wanted(version, model)
            if wanted is None:
                continue
            found = _versions_of(collection, wanted.ref)
            yield from _version_differences(wanted, found)
            if found:
                numbers[wanted.ref] = found[0].number
                if found[0].number < last:
                    message = f"It is v{found[0].number} in the collection, but was created after v{last}."
                    yield RegistryDifference(wanted.ref, "values", message)
                last = found[0].number
        for stage, ref in _newest_of_stage(model, numbers).items():
            holder = next((v for v in collection.versions if stage in v.aliases), None)
            if _is_ours(holder, stage) and (holder is None or holder.number != numbers[ref]):
                at = holder and f"v{holder.number}"
                message = f"The alias {stage} points at {at}, not at v{numbers[ref]}."
                yield RegistryDifference(model.info.ref, "values", message)

    # --- versions

    def _register_versions(
        self, found: HeldCollection | None, name: str, model: ModelToRegister, changed: list[RunRef]
    ) -> dict[RunRef, int]:
        """Makes what is not there as it should be; the number of each version up to the first unloaded one."""
        numbers: dict[RunRef, int] = {}
        last = -1
        for version in model.versions:
            wanted = self._wanted(version, model)
            if wanted is None:
                break
            held = _versions_of(found, wanted.ref) if found else []
            same = next((h for h in held if h.number > last and self._is_same(h, wanted)), None)
            if same is None:
                same = self._log(name, version, wanted, model, last)
                changed.append(wanted.ref)
            elif _differs(same, wanted):
                self._collections(model).update(same, wanted.description, _kept(same, wanted))
                changed.append(wanted.ref)
            if wanted.alias not in same.aliases:
                self._collections(model).add_alias(name, same, wanted.alias)
            last = numbers[wanted.ref] = same.number
        return numbers

    def _is_same(self, held: HeldVersion, wanted: Wanted) -> bool:
        """Whether a version was logged by that run, whole, with copies where they are asked for."""
        ours = held.ours
        logged = (ours.get("run"), ours.get("digest")) == (wanted.run.name.id, held.digest)
        return logged and held.whole and (ours.get("artifacts") == "copied" or not self._copy)

    def _wanted(self, version: VersionToRegister, model: ModelToRegister) -> Wanted | None:
        if version.loaded_as is None:
            return None
        run = self._online.server.run(RunName(self._online.entity, self._project(model), version.loaded_as))
        if run is None:
            raise TargetError(f"The W&B run {version.loaded_as} is gone.", "Load the models again.")
        ours = {
            **_identity(version.info),
            "model_id": model.info.ref.run_id,
            "model_name": model.info.name,
            "model_ref": names.ref_digest(model.info.ref),
            "version": version.info.ref.run_id.rpartition("-")[2],
            "run": run.name.id,
            "tags": sorted(version.labels),
        }
        attributes = {key: value for key, value in run.config.items() if key not in (names.OURS, INTERNAL)}
        metadata = {
            "neptune": {key: value for key, value in ours.items() if value is not None},
            "stage": version.stage,
            "attributes": attributes,
        }
        alias = shortened(_clean(version.info.ref.run_id), NAME_LENGTH)
        return Wanted(version.info.ref, run, metadata, _short(version.description), alias)

    def _log(
        self, name: str, version: VersionToRegister, wanted: Wanted, model: ModelToRegister, last: int
    ) -> HeldVersion:
        """Logs a version by the real client, as an output of the version's run; returns it as W&B has it."""
        import wandb

        folder = Path(tempfile.mkdtemp(prefix="neptune-exporter-"))
        try:
            about = {"neptune": wanted.metadata["neptune"], "after": f"v{last}" if last >= 0 else None}
            identity = folder / "version.json"
            identity.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
            metadata = dict(wanted.metadata)
            artifact = wandb.Artifact(name, TYPE, description=wanted.description)
            artifact.add_file(str(identity), name=VERSION_FILE, policy="immutable", skip_cache=True)
            kinds = {_add(artifact, file) for file in model_files(version, copy=self._copy)}
            artifacts = "referenced" if "reference" in kinds else "copied"
            metadata["neptune"] = {**metadata["neptune"], "artifacts": artifacts, "digest": artifact.manifest.digest()}
            artifact.metadata.update(metadata)
            run = wandb.init(
                id=wanted.run.name.id,
                entity=wanted.run.name.entity,
                project=wanted.run.name.project,
                dir=str(folder),
                resume="must",
                settings=sending.settings(self._online.server, reinit="create_new"),
            )
            run.log_artifact(artifact, aliases=[wanted.alias])
            run.finish(exit_code=1 if wanted.run.state == "failed" else 0)
        except (wandb.Error, OSError) as error:
            raise TargetError(
                f"W&B's client gave up on {wanted.ref}: {error}", "Run the same command again."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        digest = metadata["neptune"]["digest"]
        collection = self._collections(model).find(name)
        for held in reversed(collection.versions if collection else ()):
            if held.digest == digest and held.whole and held.number > last:
                return held
        raise TargetError(f"W&B has not taken {wanted.ref} as a version of {name}.", "Run the same command again.")

    # --- aliases

    def _set_aliases(self, collection: HeldCollection, model: ModelToRegister, numbers: Mapping[RunRef, int]) -> None:
        """Points each stage's alias at its newest version, unless somebody has moved it since we last did."""
        by_number = {version.number: version for version in collection.versions}
        newest = _newest_of_stage(model, numbers)
        collections = self._collections(model)
        for stage in STAGES:
            holder = next((version for version in collection.versions if stage in version.aliases), None)
            wanted = by_number[numbers[newest[stage]]] if stage in newest else None
            if not _is_ours(holder, stage) or holder is wanted:
                continue
            if wanted is not None:
                noted = sorted({*wanted.ours.get("aliases", ()), stage})
                metadata = {**wanted.metadata, "neptune": {**wanted.ours, "aliases": noted}}
                collections.update(wanted, wanted.description, metadata)
                by_number[wanted.number] = replace(wanted, metadata=metadata)
                collections.add_alias(collection.name, wanted, stage)
            elif holder is not None:
                collections.delete_alias(collection.name, holder, stage)

    # --- names and places

    @property
    def _online(self) -> Online:
        assert isinstance(self._place, Online)  # offline there is no registry: see make_loader
        return self._place

    def _project(self, model: ModelToRegister) -> str:
        return self._online.projects.base(model.info.ref.project_id)

    def _collections(self, model: ModelToRegister) -> Collections:
        return Collections(self._online.server, self._online.entity, self._project(model))

    def _find(self, model: ModelToRegister) -> tuple[HeldCollection | None, str]:
        """The collection of a model, or the name that it gets: its id, with a digest where others have that name."""
        digest = names.ref_digest(model.info.ref)
        plain = shortened(_clean(self._prefix + model.info.ref.run_id), NAME_LENGTH)
        name = plain
        for name in (plain, f"{plain[: NAME_LENGTH - len(digest) - 1]}-{digest}"):
            found = self._collections(model).find(name)
            if found is None or not found.versions:
                return None, name
            if any(version.ours.get("model_ref") == digest for version in found.versions):
                return found, name
        raise TargetError(f"The collection {name} holds something else.", "Rename it, or use --name-prefix.")


def _add(artifact: Any, file: Any) -> str:
    """Adds a file or a reference; what S3 said of the object is what W&B checks when it fetches it."""
    if file.local is not None:
        artifact.add_file(str(file.local), name=file.path, policy="immutable", skip_cache=True)
        return "file"
    for entry in artifact.add_reference(file.location, name=file.path, checksum=False):
        entry.digest, entry.size, entry.extra = file.hash, file.bytes, {"etag": file.hash}
    return "reference"


def _identity(info: RunInfo) -> dict[str, Any]:
    def time(value: datetime | None) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat()

    return {
        "project_id": info.ref.project_id,
        "run_id": info.ref.run_id,
        "ref": names.ref_digest(info.ref),
        "name": info.name,
        "owner": info.owner,
        "created": time(info.created),
        "modified": time(info.modified),
    }


def _versions_of(collection: HeldCollection, ref: RunRef) -> list[HeldVersion]:
    digest = names.ref_digest(ref)
    return [version for version in collection.versions if version.ours.get("ref") == digest]


def _kept(held: HeldVersion, wanted: Wanted) -> dict[str, Any]:
    """The metadata as wanted, with what only the registration knows."""
    own = {key: held.ours[key] for key in ("artifacts", "digest", "aliases") if key in held.ours}
    return {**wanted.metadata, "neptune": {**wanted.metadata["neptune"], **own}}


def _differs(held: HeldVersion, wanted: Wanted) -> bool:
    return held.description != wanted.description or _plain(held.metadata) != _plain(_kept(held, wanted))


def _plain(metadata: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(metadata))


def _version_differences(wanted: Wanted, found: Sequence[HeldVersion]) -> Iterator[RegistryDifference]:
    if not found:
        yield RegistryDifference(wanted.ref, "absent", "The version is not in the collection: load it.")
        return
    if len(found) > 1:
        numbers = ", ".join(f"v{version.number}" for version in found)
        yield RegistryDifference(wanted.ref, "surplus", f"It is in the collection more than once: {numbers}.")
    first = found[0]
    if first.ours.get("run") != wanted.run.name.id:
        message = f"The collection has it from the run {first.ours.get('run')}, not from {wanted.run.name.id}."
        yield RegistryDifference(wanted.ref, "outdated", message)
    if not first.whole or first.ours.get("digest") != first.digest:
        yield RegistryDifference(wanted.ref, "values", f"The files of v{first.number} are not those that were loaded.")
    there, here = _plain(first.metadata), _plain(_kept(first, wanted))
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key):
            yield RegistryDifference(wanted.ref, "values", f"The metadata {key} of v{first.number} differs.")
    if first.description != wanted.description:
        yield RegistryDifference(wanted.ref, "values", f"The description of v{first.number} is another.")


def _newest_of_stage(model: ModelToRegister, numbers: Mapping[RunRef, int]) -> dict[str, RunRef]:
    """The newest version of each stage."""
    return {v.stage: v.info.ref for v in model.versions if v.info.ref in numbers and v.stage in STAGES}


def _is_ours(holder: HeldVersion | None, stage: str) -> bool:
    """Whether an alias is where we left it, or nowhere."""
    return holder is None or stage in holder.ours.get("aliases", ())


def _clean(text: str) -> str:
    return _NOT_IN_NAMES.sub("-", text).strip("-") or hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _short(text: str) -> str:
    return text[:DESCRIPTION_LENGTH]
