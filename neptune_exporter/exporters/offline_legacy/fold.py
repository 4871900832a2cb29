# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What is left of a run when all its operations have been carried out: the single values, and what clears series."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neptune_exporter.exporters.offline_legacy.log import Record
from neptune_exporter.exporters.tracked_files import TrackedFile

_ASSIGN = {
    "AssignFloat": "float",
    "AssignInt": "int",
    "AssignBool": "bool",
    "AssignString": "string",
    "AssignDatetime": "datetime",
}
_CLEARS = {"ClearFloatLog": "float_series", "ClearStringLog": "string_series", "ClearImageLog": "file_series"}
_SERIES_TYPES = ("float_series", "string_series", "file_series")
_SET_CHANGES = {"AddStrings", "RemoveStrings", "ClearStringSet"}
_FILE_SET_CHANGES = {"UploadFileSet", "DeleteFiles"}
_ARTIFACT_CHANGES = {"TrackFilesToArtifact", "AssignArtifact", "ClearArtifact"}
_POINTS = {"LogFloats", "LogStrings", "LogImages"}  # read in a second pass


@dataclass(frozen=True, slots=True)
class FileSetChange:
    """Something that was done to a file set.

    Attributes:
        folder: of the store.
        globs: what was added.
        removed: the names of members that were removed.
        kept: what was added, where it was kept: places by the names of the members; None if there are only globs.
    """

    folder: Path
    globs: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: dict[str, str] | None = None


@dataclass
class FileSet:
    """What was done to a file set and still counts, in order."""

    changes: list[FileSetChange] = field(default_factory=list)


@dataclass
class Tracked:
    """An artifact.

    Attributes:
        entries: what is tracked: the folder of the store, the place, and where it goes in the artifact.
        hash: the hash that was assigned, if that was all.
    """

    entries: list[tuple[Path, str, str | None]] = field(default_factory=list)
    hash: str | None = None

    def places(self) -> list[TrackedFile]:
        """What is tracked, where nobody has looked into it."""
        return [
            TrackedFile(uri, uri, None, None, "S3" if uri.startswith("s3://") else "Local", {"location": uri})
            for _, uri, _ in self.entries
        ]


@dataclass
class Upload:
    """A single file.

    Attributes:
        folder: of the store.
        at: which operation it came with.
        detail: the client's operation.
    """

    folder: Path
    at: int
    detail: dict[str, Any]


class State:
    """The state of a run.

    Args:
        container_id: the run's own.

    Attributes:
        values: by path: type and value of single values; values are as the log has them.
        files: single files by path.
        file_sets: by path.
        artifacts: by path.
        series: paths that were ever a series of a type, empty ones too.
        cleared: by type and path: operations up to this one do not count.
        unknown: types of operations that this version does not know, with how often.
        unresolved: attributes that were copied from a run that is not here.
    """

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        self.values: dict[str, tuple[str, Any]] = {}
        self.files: dict[str, Upload] = {}
        self.file_sets: dict[str, FileSet] = {}
        self.artifacts: dict[str, Tracked] = {}
        self.series: set[tuple[str, str]] = set()
        self.cleared: dict[tuple[str, str], int] = {}
        self.unknown: dict[str, int] = {}
        self.unresolved: dict[str, str] = {}

    def apply(self, record: Record, folder: Path, at: int) -> None:
        """Carries out an operation; `at` orders it among those of all stores."""
        kind, path, detail = record.type, record.path, record.detail
        if kind in _ASSIGN:
            self.values[path] = (_ASSIGN[kind], detail.get("value"))
        elif kind in _CLEARS:
            self.cleared[path, _CLEARS[kind]] = at
            self.series.add((path, _CLEARS[kind]))
        elif kind in _SET_CHANGES:
            self._change_set(kind, path, detail)
        elif kind in _FILE_SET_CHANGES:
            self._change_files(kind, path, detail, folder)
        elif kind in _ARTIFACT_CHANGES:
            self._change_artifact(kind, path, detail, folder)
        elif kind in ("UploadFile", "UploadFileContent"):
            self.files[path] = Upload(folder, at, detail)
        else:
            self._apply_rare(record, at)

    def _apply_rare(self, record: Record, at: int) -> None:
        kind, path = record.type, record.path
        if kind == "DeleteAttribute":
            self._delete(path, at)
        elif kind == "ConfigFloatSeries":
            self.series.add((path, "float_series"))
        elif kind == "CopyAttribute":
            self._copy(path, record.detail)
        elif kind not in _POINTS:
            self.unknown[kind] = self.unknown.get(kind, 0) + 1

    def counts(self, path: str, series_type: str, at: int) -> bool:
        """Whether a point of an operation was not cleared later."""
        return at > self.cleared.get((path, series_type), -1)

    def _delete(self, path: str, at: int) -> None:
        everything: tuple[dict[str, Any], ...] = (self.values, self.files, self.file_sets, self.artifacts)
        for found in (*everything, self.unresolved):
            found.pop(path, None)
        for series_type in _SERIES_TYPES:
            self.cleared[path, series_type] = at
            self.series.discard((path, series_type))

    def _change_set(self, kind: str, path: str, detail: dict[str, Any]) -> None:
        known = self.values.get(path)
        before: frozenset[str] = known[1] if known is not None and known[0] == "string_set" else frozenset()
        given = frozenset(detail.get("values") or ())
        after = {"AddStrings": before | given, "RemoveStrings": before - given}.get(kind, frozenset())
        self.values[path] = ("string_set", after)

    def _change_files(self, kind: str, path: str, detail: dict[str, Any], folder: Path) -> None:
        found = self.file_sets.setdefault(path, FileSet())
        if kind == "DeleteFiles":
            found.changes.append(FileSetChange(folder, removed=tuple(detail.get("file_paths") or ())))
            return
        if str(detail.get("reset")) == "True":
            found.changes.clear()
        found.changes.append(FileSetChange(folder, tuple(detail.get("file_globs") or ()), kept=detail.get("members")))

    def _change_artifact(self, kind: str, path: str, detail: dict[str, Any], folder: Path) -> None:
        if kind == "TrackFilesToArtifact":
            found = self.artifacts.setdefault(path, Tracked())
            found.entries += [(folder, str(uri), target) for uri, target in detail.get("entries") or ()]
        else:
            self.artifacts[path] = Tracked(hash=str(detail["hash"]) if kind == "AssignArtifact" else None)

    def _copy(self, path: str, detail: dict[str, Any]) -> None:
        source = "/".join(detail.get("source_path") or ())
        if detail.get("container_id") == self._container_id and source in self.values:
            self.values[path] = self.values[source]
        else:
            self.unresolved[path] = f"{detail.get('container_id')} {source}"
