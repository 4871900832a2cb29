# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The staging area: the only door to the directory that exporters fill and loaders read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from neptune_exporter.errors import DamagedDataError, StagingError
from neptune_exporter.model import Kind, RunInfo, RunRef
from neptune_exporter.selection import Selection
from neptune_exporter.storage import names
from neptune_exporter.storage.folder import KIND_FOLDERS, Failed, ProjectFolder, raised
from neptune_exporter.storage.manifest import AREA, MANIFESTS, SourceRecord, read_json
from neptune_exporter.storage.parquet import open_part, part_batches
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.writer import Policy, RunWriter

__all__ = ["ProjectFolder", "StagedRun", "Staging"]


class Staging:
    """A staging area.

    Args:
        data_path: the folder with one folder of Parquet parts per project.
        files_path: the folder with one folder of files per project.
    """

    def __init__(self, data_path: Path, files_path: Path) -> None:
        self.data_path = data_path
        self.files_path = files_path

    def folder(self, project_id: str, kind: Kind = "run") -> ProjectFolder:
        """The folder of a project, whether it exists or not."""
        project = self._folder_name(project_id)
        data = self.data_path / project
        below = KIND_FOLDERS[kind]
        return ProjectFolder(project_id, kind, data / below if below else data, self.files_path / project)

    def _folder_name(self, project_id: str) -> str:
        """The name of a project's folder; of another tool's, if it spells the readable half otherwise."""
        project = names.stem(project_id)
        if not (self.data_path / project).exists() and self.data_path.is_dir():
            ending = f"-{names.digest(project_id)}"
            return next((p.name for p in sorted(self.data_path.iterdir()) if p.name.endswith(ending)), project)
        return project

    def projects(self, kind: Kind = "run", failed: Failed = raised) -> list[ProjectFolder]:
        """All projects, by name.

        Args:
            kind: what the project is asked for.
            failed: takes what is wrong with a project that cannot be opened. Raises it by default.

        Raises:
            StagingError: the data folder does not exist or cannot be read.
        """
        try:
            found = sorted(path for path in self.data_path.iterdir() if path.is_dir())
        except FileNotFoundError:
            raise StagingError(
                f"There is no staging area at {self.data_path}.",
                "Run neptune-exporter export first, or name the folder with --data-path.",
            ) from None
        except OSError as error:
            raise StagingError(f"Cannot read {self.data_path}: {error.strerror}.", "Check its permissions.") from error
        folders = []
        for path in found:
            below = path / KIND_FOLDERS[kind]
            try:
                project_id = _project_id(below)
            except StagingError as error:
                failed(error)
                continue
            if project_id is not None:
                folders.append(ProjectFolder(project_id, kind, below, self.files_path / path.name))
        return folders

    def runs(self, selection: Selection, kind: Kind = "run") -> Iterator[StagedRun]:
        """The runs that are selected, project by project."""
        for folder in self.projects(kind):
            if selection.wants_project(folder.project_id):
                yield from (run for run in folder.runs() if selection.wants_run(run.ref.run_id))

    def run(self, ref: RunRef) -> StagedRun | None:
        """One run, or None if it does not exist."""
        return self.folder(ref.project_id, ref.kind).run(ref.run_id)

    def writer(
        self,
        info: RunInfo,
        source: SourceRecord,
        base: StagedRun | None = None,
        policy: Policy = "replace",
        stop: Callable[[], bool] | None = None,
    ) -> RunWriter:
        """Begins to write a run; see `RunWriter`."""
        return RunWriter(self.folder(info.ref.project_id, info.ref.kind), info, source, base, policy, stop)


def _project_id(folder: Path) -> str | None:
    """The project of a folder, from `area.json` or the first row found; None if it holds no runs."""
    area = folder / MANIFESTS / AREA
    if area.exists():
        value = read_json(area)
        if not isinstance(value, dict) or not isinstance(value.get("project_id"), str):
            raise DamagedDataError(f"{area} is damaged.", "Restore it from a backup.")
        return str(value["project_id"])
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if names.parse_part(path.name):
            for batch in part_batches(open_part(path), path):
                if batch.num_rows:
                    project_id: str = batch.column("project_id")[0].as_py()
                    return project_id
    return None
