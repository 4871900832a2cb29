# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A model version as `export-models` has written it, ours or the official exporter's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neptune_exporter.errors import DamagedDataError, SourceError, UsageError
from neptune_exporter.model import RunRef
from neptune_exporter.registry.archived import FILE_TYPES, ArchivedFile, copy, stored_files
from neptune_exporter.registry.opened import OpenedModelVersion
from neptune_exporter.registry.parallel import OnBytes
from neptune_exporter.registry.s3 import file_sha256
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings
from neptune_exporter.registry.transfer import Receiver, Stored, Uploads
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import Staging


class StagedModelVersion(OpenedModelVersion, Uploads):
    """The files of a staged model version. A staging area is an archive, proven against its source: uploads raise.

    Raises:
        SourceError: the staging area does not hold it.
    """

    def __init__(
        self,
        project: str,
        version: str,
        settings: TrackingLibraryBackendSettings,
        data_path: Place,
        files_path: Place,
    ) -> None:
        super().__init__(project, version, settings)
        run = Staging(data_path, files_path).run(RunRef(project, version, "model_version"))
        if run is None:
            raise SourceError(
                f"{data_path} does not hold the model version {project}/{version}.",
                "See what it holds with: neptune-exporter summary --data-path …",
            )
        self._run: StagedRun = run
        self._files: list[Stored] | None = None

    def _receiver(self, use_s3: bool | None) -> Receiver:
        raise UsageError(
            "A staging area is an archive of what Neptune held: it takes no uploads.",
            "Open the model version with backend='mlflow' (after load-models) or backend='s3', and upload there.",
        )

    def _stored(self, attribute: str) -> list[Stored]:
        if self._files is None:
            self._files = stored_files(self._archived(), self._settings)
        return self._files

    def _archived(self) -> Iterator[ArchivedFile]:
        for batch in self._run.read("attribute", lambda _path, kind: kind in FILE_TYPES):
            rows = batch.select(["attribute_path", "attribute_type", "string_value", "file_value"]).to_pylist()
            for row in rows:
                fetch = _Fetch(self._run, row["file_value"]["path"])
                yield ArchivedFile(
                    row["attribute_path"], row["attribute_type"], row["string_value"], fetch.size(), fetch
                )


class _Fetch:
    """Copies one file of a run."""

    def __init__(self, run: StagedRun, path: str) -> None:
        self._run, self._path = run, path

    def size(self) -> int:
        return self._run.files.size(self._path)

    def __call__(self, target: Path, on_bytes: OnBytes) -> None:
        copy(self._run.files.open(self._path), target, on_bytes)
        if self._run.manifest is not None and file_sha256(target) != self._run.files.sha256(self._path):
            raise DamagedDataError(
                f"{self._path} is not what its manifest says.",
                "Restore it from a backup, or export the model version again with --overwrite.",
            )
