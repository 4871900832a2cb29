# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A model version as the folder in S3 that `TrackedModelVersion` fills: one key per attribute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from neptune_exporter.errors import UsageError
from neptune_exporter.registry.local_files import MARK, is_below
from neptune_exporter.registry.opened import WritableModelVersion
from neptune_exporter.registry.parallel import OnBytes
from neptune_exporter.registry.s3 import S3Storage, check_key, version_prefix, wanted_bucket
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings
from neptune_exporter.registry.transfer import Receiver, Stored


class S3ModelVersion(WritableModelVersion):
    """The objects below `[prefix/]workspace/project/version/`; what was stored with Neptune is not among them."""

    def __init__(
        self, project: str, version: str, settings: TrackingLibraryBackendSettings, *, read_only: bool = False
    ) -> None:
        super().__init__(project, version, settings, read_only=read_only)
        self._bucket = wanted_bucket(settings)
        self._prefix = version_prefix(settings.s3_backend_prefix, project, version) + "/"
        self._s3 = S3Storage(settings)

    def _stored(self, attribute: str) -> list[Stored]:
        found = []
        for item in self._s3.objects(self._bucket, self._prefix):
            path = item.key.removeprefix(self._prefix)
            if path and not path.endswith("/"):
                fetch = partial(self._s3.download, self._bucket, item.key, etag=item.etag, size=item.size)
                found.append(Stored(path, item.size, fetch, is_mark=path.endswith(f"/{MARK}")))
        return found

    def _open_receiver(self) -> Receiver:
        return _Receiver(self._s3, self._bucket, self._prefix)


class _Receiver:
    def __init__(self, s3: S3Storage, bucket: str, prefix: str) -> None:
        self._s3, self._bucket, self._prefix = s3, bucket, prefix

    def check(self, attributes: Sequence[str]) -> None:
        there = [item.key.removeprefix(self._prefix) for item in self._s3.objects(self._bucket, self._prefix)]
        for attribute in attributes:
            check_key(self._prefix + attribute)
            clash = next((path for path in there if is_below(path, attribute) or is_below(attribute, path)), None)
            if clash is not None:
                raise UsageError(f"{attribute} and {clash} cannot both be: one lies in the other.", "Use another path.")

    def put(self, path: Path, attribute: str, extension: str, on_bytes: OnBytes) -> None:
        self._s3.upload(path, self._bucket, self._prefix + attribute, on_bytes)

    def mark(self, attribute: str) -> None:
        self._s3.put_empty(self._bucket, f"{self._prefix}{attribute}/{MARK}")

    def unmark(self, attribute: str) -> None:
        self._s3.delete(self._bucket, f"{self._prefix}{attribute}/{MARK}")
