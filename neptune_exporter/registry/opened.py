# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Model versions after Neptune: the same methods over MLflow's registry, a folder in S3, or a staging area."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, Self

from neptune_exporter.errors import UsageError
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings
from neptune_exporter.registry.transfer import Downloads, Receiver, StrPath, Uploads

Backend = Literal["mlflow", "s3", "staging"]


class OpenedModelVersion(Downloads):
    """A model version that lies elsewhere than in Neptune; its files can be fetched.

    Args:
        project: the Neptune project, `workspace/name`.
        version: the model version's id in Neptune.
        settings: how files travel.
    """

    def __init__(self, project: str, version: str, settings: TrackingLibraryBackendSettings) -> None:
        self.project, self.version = project, version
        self._settings = settings

    @property
    def backend_settings(self) -> TrackingLibraryBackendSettings:
        """Where files are stored, and how they travel."""
        return self._settings

    def wait(self) -> None:
        """Nothing is ever queued: there for code that was written for Neptune's client."""

    def stop(self, *, seconds: float | None = None) -> None:
        """Nothing has to be closed: there for code that was written for Neptune's client."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.project}/{self.version}>"


class WritableModelVersion(OpenedModelVersion, Uploads):
    """A model version that takes files, too. `use_s3` means nothing to it.

    Args:
        read_only: refuse to take files, as it was opened with mode="read-only".
    """

    def __init__(
        self, project: str, version: str, settings: TrackingLibraryBackendSettings, *, read_only: bool = False
    ) -> None:
        super().__init__(project, version, settings)
        self._read_only = read_only

    def _receiver(self, use_s3: bool | None) -> Receiver:
        if self._read_only:
            raise UsageError("The model version was opened with mode='read-only'.", "Open it without mode to upload.")
        return self._open_receiver()

    @abstractmethod
    def _open_receiver(self) -> Receiver:
        """Who takes the files."""


def open_model_version(
    with_id: str | None = None,
    *,
    project: str,
    model: str | None = None,
    backend: Backend,
    mode: str | None = None,
    api_token: Any = None,  # noqa: ARG001 - see below
    tracking_uri: str | None = None,
    registered_model: str | None = None,
    data_path: StrPath = "./exports/model_data",
    files_path: StrPath = "./exports/model_files",
    **settings: Any,
) -> Any:
    """Opens a model version where it lies now.

    Args:
        with_id: the id that it has in Neptune, such as DEMO-MOD-3; MLflow: None for a new one.
        project: the Neptune project, `workspace/name`.
        model: MLflow: the id of the Neptune model that a new version belongs to.
        backend: `mlflow`, where `load-models` has brought it; `s3`, the folder that `TrackedModelVersion` has
            filled; `staging`, what `export-models` has written: an archive, whose uploads raise `UsageError`.
        mode: `read-only` refuses uploads; what else Neptune's client understands is ignored.
        api_token: ignored: there for code that was written for Neptune's client.
        tracking_uri: MLflow: where it is, by default MLFLOW_TRACKING_URI.
        registered_model: MLflow: the registered model, where the version is in several.
        data_path: staging: the folder of the Parquet parts, or an address such as `s3://bucket/prefix`.
        files_path: staging: the folder of the files, likewise.
        settings: fields of `TrackingLibraryBackendSettings`: for S3 the bucket, prefix and endpoint.

    Returns:
        An `OpenedModelVersion`; over MLflow and S3 a `WritableModelVersion`.

    Raises:
        UsageError: something is missing or contradicts itself.
        SourceError: the version is not there, or the place does not answer.
    """
    known = TrackingLibraryBackendSettings(**settings)
    read_only = mode == "read-only"
    if backend == "mlflow":
        from neptune_exporter.registry.mlflow import MLflowModelVersion, find_version, new_version

        if with_id is None:
            if model is None or read_only:
                raise UsageError("Say which model version: with_id=…; or for a new one, model=….")
            place = new_version(tracking_uri, project, model, registered_model)
        else:
            place = find_version(tracking_uri, project, with_id, registered_model)
        return MLflowModelVersion(place, known, read_only=read_only)
    if with_id is None:
        raise UsageError(f"Say which model version: with_id=…; the backend {backend} cannot number a new one.")
    if backend == "s3":
        from neptune_exporter.registry.s3_folder import S3ModelVersion

        return S3ModelVersion(project, with_id, known, read_only=read_only)
    if backend == "staging":
        from neptune_exporter.registry.staged import StagedModelVersion
        from neptune_exporter.storage.place import parse_place

        return StagedModelVersion(project, with_id, known, parse_place(str(data_path)), parse_place(str(files_path)))
    raise UsageError(f"There is no backend {backend!r}.", "Use mlflow, s3 or staging.")
