# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which projects an area holds, and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neptune_exporter.errors import DamagedDataError, StagingError
from neptune_exporter.model import Kind
from neptune_exporter.storage import names
from neptune_exporter.storage.disk_folder import DiskFolder
from neptune_exporter.storage.folder import Failed, ProjectFolder
from neptune_exporter.storage.manifest import AREA, MANIFESTS, read_json
from neptune_exporter.storage.objects.path import ObjectPath
from neptune_exporter.storage.parquet import open_part, part_batches
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.shapes import is_area


class Area(Protocol):
    """All projects of a staging area."""

    def folder(self, project_id: str, kind: Kind) -> ProjectFolder:
        """The folder of a project, whether it exists or not."""

    def projects(self, kind: Kind, failed: Failed) -> list[ProjectFolder]:
        """All projects, by name; see `Staging.projects`."""


def area_at(data: Place, files: Place) -> Area:
    """The area in these folders."""
    if isinstance(data, Path) and isinstance(files, Path):
        return DiskArea(data, files)
    from neptune_exporter.storage.objects.area import ObjectArea

    assert isinstance(data, ObjectPath)
    assert isinstance(files, ObjectPath)
    return ObjectArea(data, files)


@dataclass(frozen=True)
class DiskArea:
    """All projects of a staging area in a file system."""

    data: Path
    files: Path

    def folder(self, project_id: str, kind: Kind) -> DiskFolder:
        """See `Area`."""
        project = self._folder_name(project_id)
        data = self.data / project
        below = names.KIND_FOLDERS[kind]
        return DiskFolder(project_id, kind, data / below if below else data, self.files / project)

    def _folder_name(self, project_id: str) -> str:
        """The name of a project's folder; of another tool's, if it spells the readable half otherwise."""
        project = names.stem(project_id)
        if not (self.data / project).exists() and self.data.is_dir():
            ending = f"-{names.digest(project_id)}"
            return next((p.name for p in sorted(self.data.iterdir()) if p.name.endswith(ending)), project)
        return project

    def projects(self, kind: Kind, failed: Failed) -> list[ProjectFolder]:
        """See `Area`."""
        try:
            found = sorted(path for path in self.data.iterdir() if path.is_dir())
        except FileNotFoundError:
            raise no_area(self.data) from None
        except OSError as error:
            raise StagingError(f"Cannot read {self.data}: {error.strerror}.", "Check its permissions.") from error
        folders: list[ProjectFolder] = []
        for path in found:
            below = path / names.KIND_FOLDERS[kind]
            try:
                project_id = _project_id(below)
                if project_id is None:
                    continue
                folder = DiskFolder(project_id, kind, below, self.files / path.name)
                self._check_alone(folder)
            except StagingError as error:
                failed(error)
            else:
                folders.append(folder)
        return folders

    def _check_alone(self, folder: DiskFolder) -> None:
        """Raises `DamagedDataError` if another folder is the one that a run of this project would be read from."""
        first = self.folder(folder.project_id, folder.kind).data
        if first != folder.data and first.is_dir():
            raise DamagedDataError(
                f"{folder.data} holds project {folder.project_id}, as {first} does.",
                "Move one of them into an area of its own: they may hold different states of the same runs.",
            )


def no_area(data: Place) -> StagingError:
    """What is said where nothing is."""
    return StagingError(
        f"There is no staging area at {data}.",
        "Run neptune-exporter export first, or name the folder with --data-path.",
    )


def project_of_area(value: object, area: Place) -> str:
    """The project that an `area.json` names. Raises `DamagedDataError`."""
    if not isinstance(value, dict) or not is_area(value):
        raise DamagedDataError(f"{area} is damaged.", "Restore it from a backup.")
    return str(value["project_id"])


def _project_id(folder: Path) -> str | None:
    """The project of a folder, from `area.json` or the first row found; None if it holds no runs."""
    area = folder / MANIFESTS / AREA
    if area.exists() or area.is_symlink():
        return project_of_area(read_json(area), area)
    if not folder.is_dir():
        return None
    damaged = None
    for path in sorted(folder.iterdir()):
        if names.parse_part(path.name):
            try:
                project_id = _project_of_part(path)
            except DamagedDataError as error:  # the other runs are not to blame
                damaged = damaged or error
                continue
            if project_id is not None:
                return project_id
    if damaged is not None:
        raise damaged
    return None


def _project_of_part(path: Path) -> str | None:
    for batch in part_batches(open_part(path), path):
        if batch.num_rows:
            return str(batch.column("project_id")[0].as_py())
    return None
