# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of an archived model version, by the attributes that they had in Neptune."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from neptune_exporter.registry.parallel import OnBytes
from neptune_exporter.registry.s3 import S3Storage, split_location
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings
from neptune_exporter.registry.transfer import Stored

FILE_TYPES = ("file", "file_set", "artifact")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One row of a file attribute.

    Attributes:
        attribute: the attribute path.
        type: `file`, `file_set` or `artifact`.
        name: what the file is called in a set or an artifact; None for a file, and for the list of an artifact.
        size: in bytes.
        fetch: writes the content to a path, or raises.
    """

    attribute: str
    type: str
    name: str | None
    size: int | None
    fetch: Callable[[Path, OnBytes], None]


def stored_files(files: Iterable[ArchivedFile], settings: TrackingLibraryBackendSettings) -> list[Stored]:
    """What `TrackedModelVersion` would say of the same attributes.

    An artifact of one file lies under its attribute, one of several below it. Where only the list of an artifact was
    archived, its files are looked for where the list says.
    """
    by_attribute: dict[tuple[str, str], list[ArchivedFile]] = defaultdict(list)
    for file in files:
        by_attribute[file.attribute, file.type].append(file)
    found: list[Stored] = []
    for (attribute, kind), members in by_attribute.items():
        named = [member for member in members if member.name is not None]
        if kind == "file":
            found += [Stored(attribute, member.size, member.fetch) for member in members]
        elif kind == "artifact" and not named:
            found += _listed(attribute, members[0], settings)
        elif kind == "artifact" and len(named) == 1:
            found.append(Stored(attribute, named[0].size, named[0].fetch))
        else:
            found += [Stored(f"{attribute}/{member.name}", member.size, member.fetch) for member in named]
    return found


def _listed(attribute: str, listing: ArchivedFile, settings: TrackingLibraryBackendSettings) -> list[Stored]:
    """The files of an artifact of which only the list is archived, in S3."""
    with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as folder:
        path = Path(folder) / "list.json"
        listing.fetch(path, lambda _count: None)
        value = json.loads(path.read_bytes())
    entries = value.get("files", []) if isinstance(value, dict) else value
    files = [_Entry.of(entry) for entry in entries]
    in_s3 = [file for file in files if file.location.startswith("s3://")]
    alone = len(files) == 1
    return [
        Stored(attribute if alone else f"{attribute}/{file.name}", file.size, partial(file.fetch, settings))
        for file in in_s3
    ]


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    location: str
    etag: str | None
    size: int | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Entry:
        """An entry as Neptune's server writes it, or as its Python client names the same fields."""
        metadata = entry.get("metadata") or {}
        if not isinstance(metadata, dict):
            metadata = {item["key"]: item["value"] for item in metadata}
        name = entry.get("filePath") or entry.get("file_path") or ""
        etag = entry.get("fileHash") or entry.get("file_hash")
        return cls(str(name), str(metadata.get("location", "")), etag, entry.get("size"))

    def fetch(self, settings: TrackingLibraryBackendSettings, target: Path, on_bytes: OnBytes) -> None:
        bucket, key = split_location(self.location)
        S3Storage(settings).download(bucket, key, target, on_bytes, etag=self.etag, size=self.size)


def copy(source: Any, target: Path, on_bytes: OnBytes) -> None:
    """Copies an open file to a path."""
    with source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            sink.write(chunk)
            on_bytes(len(chunk))


def move(source: Path, target: Path, on_bytes: OnBytes) -> None:
    """Moves a file that was fetched to somewhere else."""
    size = source.stat().st_size
    shutil.move(source, target)
    on_bytes(size)
