# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`TrackedModelVersion`: the client's `ModelVersion`, with files, directories and configs in Neptune or in S3."""

from __future__ import annotations

from typing import Any

try:
    from neptune import ModelVersion
except ImportError:
    from neptune_exporter.errors import MissingExtraError

    raise MissingExtraError("registry", "neptune") from None

from neptune_exporter.registry.neptune import NeptuneFiles, NeptuneReceiver, S3Receiver
from neptune_exporter.registry.s3 import S3Storage, version_prefix, wanted_bucket
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings, tracking_logger
from neptune_exporter.registry.transfer import Receiver, Stored, Uploads


class TrackedModelVersion(Uploads, ModelVersion):  # type: ignore[misc]
    """A model version of a Neptune 2.x registry; see `neptune.ModelVersion` for what it takes.

    The storage is configured by the environment (`TrackingLibraryBackendSettings`), per object by
    `configure_s3_storage_backend`, and per call by `use_s3`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._backend_settings = TrackingLibraryBackendSettings()
        super().__init__(*args, **kwargs)
        self._files = NeptuneFiles(self, self._backend_settings)
        tracking_logger().debug("Opened the model version %s.", self._sys_id)

    def configure_s3_storage_backend(self, **kwargs: Any) -> TrackingLibraryBackendSettings:
        """Configures the storage of this object alone.

        Args:
            kwargs: `use_s3_backend`, `s3_backend_bucket`, `s3_backend_prefix` and the other fields of
                `TrackingLibraryBackendSettings`; what is not named comes from the environment.

        Returns:
            The settings from now on.
        """
        self._backend_settings = TrackingLibraryBackendSettings(**kwargs)
        self._files = NeptuneFiles(self, self._backend_settings)
        return self._backend_settings

    @property
    def backend_settings(self) -> TrackingLibraryBackendSettings:
        """Where files are stored, and how they travel."""
        return self._backend_settings

    @property
    def use_s3_backend(self) -> bool:
        """Whether files go to S3 where a call does not say."""
        return self._backend_settings.use_s3_backend

    @property
    def s3_backend_bucket(self) -> str:
        """The bucket, "" if none is set."""
        return self._backend_settings.s3_backend_bucket

    @property
    def s3_backend_prefix(self) -> str:
        """What all keys begin with."""
        return self._backend_settings.s3_backend_prefix

    def derive_model_version_s3_prefix(self, s3_prefix: str = "") -> str:
        """`[prefix/]workspace/project/version`: what the keys of this model version begin with.

        Args:
            s3_prefix: instead of the configured one, if not empty.
        """
        prefix = s3_prefix.strip("/") or self.s3_backend_prefix
        return version_prefix(prefix, f"{self._workspace}/{self._project_name}", self._sys_id)

    def get_s3_bucket_client(self, bucket: str = "") -> Any:
        """boto3's object for a bucket, the configured one by default."""
        return S3Storage(self._backend_settings).bucket(bucket or wanted_bucket(self._backend_settings))

    def _stored(self, attribute: str) -> list[Stored]:
        return self._files.stored(attribute)

    def _receiver(self, use_s3: bool | None) -> Receiver:
        wanted = self.use_s3_backend if use_s3 is None else use_s3
        if not wanted:
            return NeptuneReceiver(self._files)
        bucket = wanted_bucket(self._backend_settings)
        return S3Receiver(self._files, bucket, self.derive_model_version_s3_prefix() + "/")
