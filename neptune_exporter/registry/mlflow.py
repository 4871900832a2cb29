# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A model version in MLflow's registry: what `load-models` has brought, and what was uploaded since."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from neptune_exporter.errors import AccessError, MissingExtraError, SourceError, UsageError
from neptune_exporter.registry.archived import FILE_TYPES, ArchivedFile, move, stored_files
from neptune_exporter.registry.local_files import MARK, is_below
from neptune_exporter.registry.opened import WritableModelVersion
from neptune_exporter.registry.parallel import OnBytes
from neptune_exporter.registry.s3 import file_sha256
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings
from neptune_exporter.registry.transfer import Receiver, Stored

PROJECT, VERSION, MODEL, KIND = "neptune.project_id", "neptune.run_id", "neptune.model_id", "neptune.kind"
UPLOAD, UPLOADING = "neptune.upload.", "neptune.uploading."  # and the digest of an attribute path
_ILLEGAL = re.compile(r"[^\w./\- +=@,()\[\]]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model version is.

    Attributes:
        client: MLflow's client.
        uri: for humans.
        project: the Neptune project.
        version: its id in Neptune.
        run_id: its run in MLflow.
    """

    client: Any
    uri: str
    project: str
    version: str
    run_id: str


def find_version(tracking_uri: str | None, project: str, version: str, registered_model: str | None) -> Place:
    """The registered version of a Neptune model version.

    Raises:
        SourceError: it is not in the registry, or MLflow does not answer.
        UsageError: it is in several registered models.
    """
    client, uri = _connected(tracking_uri)
    with explained(uri):
        found = [
            held
            for held in client.search_model_versions(f"tags.`{VERSION}` = '{_quoted(version)}'")
            if held.tags.get(PROJECT) == project and registered_model in (None, held.name)
        ]
    if not found:
        raise SourceError(
            f"{project}/{version} is not in the model registry of MLflow at {uri}.",
            "Load it with: neptune-exporter load-models",
        )
    names = {held.name for held in found}
    if len(names) > 1:
        raise UsageError(f"{version} is in several registered models: {names}.", "Name one: registered_model=….")
    newest = max(found, key=lambda held: int(held.version))
    return Place(client, uri, project, version, str(newest.run_id))


def new_version(tracking_uri: str | None, project: str, model: str, registered_model: str | None) -> Place:
    """A new version of a registered model, numbered after Neptune's last one.

    Raises:
        SourceError: the model is not in the registry, or MLflow does not answer.
    """
    client, uri = _connected(tracking_uri)
    with explained(uri):
        models = [
            held
            for held in client.search_registered_models(f"tags.`{VERSION}` = '{_quoted(model)}'")
            if held.tags.get(PROJECT) == project and registered_model in (None, held.name)
        ]
        if len(models) != 1:
            raise SourceError(
                f"There are {len(models)} registered models for {project}/{model} in MLflow at {uri}.",
                "Load it with neptune-exporter load-models, or name one of several: registered_model=….",
            )
        name = models[0].name
        held = client.search_model_versions(f"name = '{_quoted(name)}'")
        numbers = [v.tags.get(VERSION, "").removeprefix(f"{model}-") for v in held]
        version = f"{model}-{max((int(n) for n in numbers if n.isdecimal()), default=0) + 1}"
        tags = {PROJECT: project, VERSION: version, MODEL: model, KIND: "model_version"}
        experiment = f"{project}/models"
        known = client.get_experiment_by_name(experiment)
        experiment_id = known.experiment_id if known else client.create_experiment(experiment)
        run = client.create_run(experiment_id, tags=tags, run_name=version)
        client.create_model_version(name, run.info.artifact_uri, run.info.run_id, tags=tags, await_creation_for=0)
    return Place(client, uri, project, version, str(run.info.run_id))


class MLflowModelVersion(WritableModelVersion):
    """The files of a registered model version, under the attribute paths that they had in Neptune.

    What is uploaded lies in the run's artifacts under `uploads/` and counts once a tag of the run names it.
    """

    def __init__(self, place: Place, settings: TrackingLibraryBackendSettings, *, read_only: bool = False) -> None:
        super().__init__(place.project, place.version, settings, read_only=read_only)
        self._place = place
        self._loaded: list[Stored] | None = None

    def _stored(self, attribute: str) -> list[Stored]:
        with explained(self._place.uri):
            tags = self._place.client.get_run(self._place.run_id).data.tags
        if self._loaded is None:
            self._loaded = stored_files(self._of_the_load(), self._settings)
        found = {file.attribute: file for file in self._loaded}
        for key, value in tags.items():
            if key.startswith(UPLOAD):
                entry = json.loads(value)
                fetch = partial(self._fetch, entry["artifact"], entry["sha256"])
                found[entry["attribute"]] = Stored(entry["attribute"], entry["bytes"], fetch)
            elif key.startswith(UPLOADING):
                mark = f"{value}/{MARK}"
                found[mark] = Stored(mark, 0, partial(self._fetch, mark, ""), is_mark=True)
        return list(found.values())

    def _of_the_load(self) -> Iterator[ArchivedFile]:
        """What load-models has uploaded: the artifacts in the order of the rows, the names in the rows."""
        import pyarrow.parquet as pq

        with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as folder:
            lines, rows = self._beside("files.jsonl", folder), self._beside("data.parquet", folder)
            if lines is None or rows is None:
                return
            names: dict[tuple[str, str], list[str | None]] = defaultdict(list)
            columns = ["attribute_path", "attribute_type", "string_value"]
            for batch in pq.ParquetFile(rows, pre_buffer=False).iter_batches(columns=columns):
                for row in batch.to_pylist():
                    if row["attribute_type"] in FILE_TYPES:
                        names[row["attribute_path"], row["attribute_type"]].append(row["string_value"])
            for line in lines.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                key = (entry["attribute"], entry["type"])
                if entry["type"] in FILE_TYPES:
                    fetch = partial(self._fetch, entry["artifact"], entry["sha256"])
                    yield ArchivedFile(*key, names[key].pop(0), entry["bytes"], fetch)

    def _beside(self, name: str, folder: str) -> Path | None:
        with explained(self._place.uri):
            held = {item.path for item in self._place.client.list_artifacts(self._place.run_id, "neptune")}
            if f"neptune/{name}" not in held:
                return None
            return Path(self._place.client.download_artifacts(self._place.run_id, f"neptune/{name}", folder))

    def _fetch(self, artifact: str, sha256: str, target: Path, on_bytes: OnBytes) -> None:
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=target.parent) as folder:
            with explained(self._place.uri):
                local = Path(self._place.client.download_artifacts(self._place.run_id, artifact, folder))
            if not local.is_file() or file_sha256(local) != sha256:
                raise SourceError(f"The artifact {artifact} is not what was uploaded: its SHA-256 differs.")
            # A download may be the artifact itself, where that is on this machine.
            if Path(folder).resolve() in local.resolve().parents:
                move(local, target, on_bytes)
            else:
                shutil.copyfile(local, target)
                on_bytes(target.stat().st_size)

    def _open_receiver(self) -> Receiver:
        return _Receiver(self._place, self)


class _Receiver:
    def __init__(self, place: Place, version: MLflowModelVersion) -> None:
        self._place, self._version = place, version

    def check(self, attributes: Sequence[str]) -> None:
        there = [file.attribute for file in self._version._stored("") if not file.is_mark]  # noqa: SLF001
        for attribute in attributes:
            clash = next((path for path in there if is_below(path, attribute) or is_below(attribute, path)), None)
            if clash is not None:
                raise UsageError(f"{attribute} and {clash} cannot both be: one lies in the other.", "Use another path.")

    def put(self, path: Path, attribute: str, extension: str, on_bytes: OnBytes) -> None:
        on_bytes(0)
        sha256 = file_sha256(path)
        artifact = _artifact(attribute, sha256)
        with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as folder:
            place = Path(folder) / artifact
            place.parent.mkdir(parents=True)
            place.symlink_to(path.resolve())
            with explained(self._place.uri):
                self._place.client.log_artifacts(self._place.run_id, folder)
        size = path.stat().st_size
        entry = {"attribute": attribute, "artifact": artifact, "sha256": sha256, "bytes": size}
        self._set_tag(UPLOAD + _digest(attribute), json.dumps(entry))
        on_bytes(size)

    def mark(self, attribute: str) -> None:
        self._set_tag(UPLOADING + _digest(attribute), attribute)

    def unmark(self, attribute: str) -> None:
        with explained(self._place.uri):
            self._place.client.delete_tag(self._place.run_id, UPLOADING + _digest(attribute))

    def _set_tag(self, key: str, value: str) -> None:
        if len(value) > 8000:  # where MLflow would cut it
            raise UsageError("The attribute path is too long for MLflow.")
        with explained(self._place.uri):
            self._place.client.set_tag(self._place.run_id, key, value)


def _digest(attribute: str) -> str:
    return hashlib.blake2b(attribute.encode(), digest_size=16).hexdigest()


def _artifact(attribute: str, sha256: str) -> str:
    """A path of its own for each content of each attribute: what is there is never overwritten half way."""
    readable = "/".join(part[:100].strip(". ") or "_" for part in _ILLEGAL.sub("_", attribute).split("/"))[-300:]
    return f"uploads/{_digest(attribute)[:8]}-{sha256[:8]}/{readable.strip('/')}"


def _quoted(text: str) -> str:
    if "'" in text:
        raise UsageError(f"{text!r} cannot be searched for in MLflow: it holds a quote.")
    return text


def _connected(tracking_uri: str | None) -> tuple[Any, str]:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow
    except ImportError:
        raise MissingExtraError("mlflow", "mlflow") from None
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or mlflow.get_tracking_uri()
    with explained(uri):
        return mlflow.MlflowClient(tracking_uri=uri), re.sub(r"//([^@/:]*):[^@/]*@", r"//\1:***@", uri)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into ours."""
    try:
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise MissingExtraError("mlflow", "mlflow") from None
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        text = " ".join(str(error).split())[:300]
        if re.search(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED", text):
            raise AccessError(
                f"MLflow at {uri} refuses our credentials: {text}",
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
            ) from error
        raise SourceError(f"MLflow at {uri}: {text}", "Is the address right, and is it running?") from error
