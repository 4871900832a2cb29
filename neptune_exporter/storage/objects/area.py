# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The projects of a staging area on an object store."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.errors import StagingError
from neptune_exporter.model import Kind
from neptune_exporter.storage import names
from neptune_exporter.storage.area import no_area, project_of_area
from neptune_exporter.storage.folder import Failed, ProjectFolder
from neptune_exporter.storage.manifest import AREA, MANIFESTS
from neptune_exporter.storage.objects.folder import ObjectFolder, first_value
from neptune_exporter.storage.objects.path import ObjectPath, folders_in, projects_in


@dataclass(frozen=True)
class ObjectArea:
    """All projects of a staging area on an object store; see `Area`."""

    data: ObjectPath
    files: ObjectPath

    def folder(self, project_id: str, kind: Kind) -> ObjectFolder:
        """See `Area`."""
        return self._folder(self._folder_name(project_id), project_id, kind)

    def _folder(self, project: str, project_id: str, kind: Kind) -> ObjectFolder:
        below = names.KIND_FOLDERS[kind]
        data = self.data / project
        return ObjectFolder(project_id, kind, data / below if below else data, self.files / project)

    def _folder_name(self, project_id: str) -> str:
        """The name of a project's folder; of another tool's, if it spells the readable half otherwise."""
        project = names.stem(project_id)
        if (self.data / project).listing().is_empty:
            ending = f"-{names.digest(project_id)}"
            return next((name for name in folders_in(self.data) if name.endswith(ending)), project)
        return project

    def projects(self, kind: Kind, failed: Failed) -> list[ProjectFolder]:
        """See `Area`."""
        found = projects_in(self.data)
        if not found:
            raise no_area(self.data)
        folders: list[ProjectFolder] = []
        for project in found:
            folder = self._folder(project, "", kind)
            try:
                project_id = _project_id(folder)
            except StagingError as error:
                failed(error)
                continue
            if project_id is not None:
                folders.append(self._folder(project, project_id, kind))
        return folders


def _project_id(folder: ObjectFolder) -> str | None:
    """The project of a folder, from `area.json` or the first row found; None if it holds no runs."""
    if folder.ours:
        return project_of_area(folder.area(), folder.data / MANIFESTS / AREA)
    found = (first_value(folder.data / name, "project_id") for name in folder.part_names())
    return next((value for value in found if value is not None), None)
