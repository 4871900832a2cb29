# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The staging area: the only door to the directory that exporters fill and loaders read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from neptune_exporter.model import Kind, RunInfo, RunRef
from neptune_exporter.selection import Selection
from neptune_exporter.storage.area import area_at
from neptune_exporter.storage.folder import Failed, ProjectFolder, raised
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.place import Place, check_places
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.writer import Policy, RunWriter

__all__ = ["ProjectFolder", "StagedRun", "Staging"]


class Staging:
    """A staging area.

    Args:
        data_path: the folder with one folder of Parquet parts per project.
        files_path: the folder with one folder of files per project; on an object store if the other one is.

    Raises:
        UsageError: one is on disk and the other one is not.
    """

    def __init__(self, data_path: Place, files_path: Place) -> None:
        check_places(data_path, files_path)
        self.data_path = data_path
        self.files_path = files_path
        self._area = area_at(data_path, files_path)

    def folder(self, project_id: str, kind: Kind = "run") -> ProjectFolder:
        """The folder of a project, whether it exists or not."""
        return self._area.folder(project_id, kind)

    def projects(self, kind: Kind = "run", failed: Failed = raised) -> list[ProjectFolder]:
        """All projects, by name.

        Args:
            kind: what the project is asked for.
            failed: takes what is wrong with a project that cannot be opened. Raises it by default.

        Raises:
            StagingError: the data folder does not exist or cannot be read.
        """
        return self._area.projects(kind, failed)

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
