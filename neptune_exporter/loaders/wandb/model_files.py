# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a version of a model holds in W&B: its files under their attribute paths, and references to what is in S3."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neptune_exporter.loaders.attachments import AttributeRecord
from neptune_exporter.loaders.file_names import FILE_TYPES, FileRow, artifact_path, file_rows
from neptune_exporter.loaders.keys import ArtifactPaths, KeyRule, target_key
from neptune_exporter.loaders.loader import VersionToRegister
from neptune_exporter.model import Series, normalize, series_of

VERSION_FILE = "neptune/version.json"
_PATH_RULE = KeyRule(illegal=r"[\x00-\x1f\x7f\\]", length=800, segment_bytes=200)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a version.

    Attributes:
        path: in the artifact.
        local: on this machine, None for a reference.
        location: where a reference points to, such as `s3://bucket/key`.
        hash: of what is there, as S3 tells it (ETag).
        bytes: its size, None if unknown.
    """

    path: str
    local: Path | None
    location: str = ""
    hash: str = ""
    bytes: int | None = None


def model_files(version: VersionToRegister, *, copy: bool) -> Iterator[ModelFile]:
    """The files of a version.

    Args:
        version: the version.
        copy: whether what Neptune only tracked in S3 is copied, too, where the export has it.

    Raises:
        DamagedDataError: a file cannot be read.
    """
    paths = ArtifactPaths()
    counts: dict[tuple[str, str], int] = {}
    for batch in version.rows() if version.rows else ():
        for series in series_of(normalize(batch)):
            if series.type in FILE_TYPES:
                counts[series.path, series.type] = counts.get((series.path, series.type), 0) + series.rows.num_rows
    tracked: dict[str, dict[str, ModelFile]] = {}
    for batch in version.rows() if version.rows else ():
        for series in series_of(normalize(batch)):
            if series.type in FILE_TYPES:
                several = counts[series.path, series.type] > 1
                yield from _files(version, series, paths, tracked, several=several, copy=copy)


def _files(
    version: VersionToRegister,
    series: Series,
    paths: ArtifactPaths,
    tracked: dict[str, dict[str, ModelFile]],
    *,
    several: bool,
    copy: bool,
) -> Iterator[ModelFile]:
    assert version.files is not None
    record = AttributeRecord(series.path, series.type, "artifact", target_key(series.path, _PATH_RULE))
    for row in file_rows(record, series.rows):
        local = version.files.local(row.path)
        is_list = series.type == "artifact" and row.member is None
        if is_list and not copy:
            referred = tracked[series.path] = _references(json.loads(local.read_bytes()))
            for name, file in referred.items():
                member = FileRow("", row.micros, name)
                path = paths.take(
                    artifact_path(record, member, _PATH_RULE, several=True), member.identity(record) + name
                )
                yield ModelFile(path, None, file.location, file.hash, file.bytes)
        if row.member is not None and row.member in tracked.get(series.path, ()):
            continue
        wanted = artifact_path(record, row, _PATH_RULE, several=several)
        yield ModelFile(paths.take(wanted, row.identity(record)), local)


def _references(listed: Mapping[str, Any]) -> dict[str, ModelFile]:
    """What lies in S3 of a list of tracked files, by name."""
    found = {}
    for file in listed.get("files") or ():
        metadata = {item["key"]: item["value"] for item in file.get("metadata") or ()}
        location = str(metadata.get("location") or metadata.get("file_path") or "")
        if location.startswith("s3://") and file.get("fileHash"):
            size = file.get("size")
            name = str(file["filePath"])
            found[name] = ModelFile(name, None, location, str(file["fileHash"]), None if size is None else int(size))
    return found
