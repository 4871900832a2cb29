# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Files that were logged, kept in the spool: what they were when they were logged, whatever becomes of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from neptune_exporter.mirror.spool import SegmentWriter, json_bytes

LINK_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class FileToKeep:
    """One file that was logged.

    Attributes:
        destination: what the operation names it by.
        source: where it lies, or its content.
        name: what the user knows it by.
        size: bytes when it was logged, -1 if unknown.
        mime: its MIME type.
    """

    destination: str
    source: str | bytes
    name: str
    size: int = -1
    mime: str = ""


class FilesToKeep:
    """The files that an operation of the client stands for, looked for when they are kept.

    Args:
        key: what tells them from those of other operations.
        find: finds them: what they are called within the attribute, and where they lie.

    Attributes:
        members: what they are called, and what the spool names them by; None if they were not found.
    """

    def __init__(self, key: str, find: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._key, self._find = key, find
        self.members: list[tuple[str, str]] | None = None

    def keep(self, segment: SegmentWriter) -> list[bytes]:
        """Puts them into the spool; returns the payloads of their records."""
        found = sorted(self._find())
        self.members = [(name, f"{self._key}-{number}") for number, (name, _) in enumerate(found)]
        return [
            keep(FileToKeep(destination, path, name.rpartition("/")[2]), segment)
            for (name, destination), (_, path) in zip(self.members, found, strict=True)
        ]


def keep(file: FileToKeep, segment: SegmentWriter) -> bytes:
    """Puts a file into the spool; returns the payload of its record. What cannot be kept is named there."""
    stored, error = None, ""
    try:
        target = segment.file_path(os.path.splitext(file.name)[1])  # noqa: PTH122 - the name may be anything
        _copy(file.source, target)
        stored = f"{segment.files.name}/{target.name}"
    except (OSError, ValueError) as failure:
        error = str(failure)
    return json_bytes(
        {
            "destination": file.destination,
            "source": file.source if isinstance(file.source, str) else None,
            "name": file.name,
            "size": file.size,
            "mime": file.mime,
            "stored": stored,
            "error": error,
        }
    )


def _copy(source: str | bytes, target: Path) -> None:
    if isinstance(source, bytes):
        target.write_bytes(source)
        return
    path = Path(source)
    if not path.is_file():  # a folder, a pipe, a device: opening it could block
        raise OSError(f"{source} is not a file")
    if path.stat().st_size > LINK_BYTES:  # huge: no second copy where the disk allows that
        try:
            os.link(path, target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(path, target)
