# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run on their way into Pluto: announced by the score, uploaded a few at a time."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from neptune_exporter.loaders.attachments import FOLDER, AttributeRecord
from neptune_exporter.loaders.file_names import FileRow, file_rows, with_extension
from neptune_exporter.loaders.keys import ArtifactPaths, suffixed, target_key
from neptune_exporter.loaders.pluto import marks
from neptune_exporter.loaders.pluto.api import LogType, NewFile
from neptune_exporter.loaders.pluto.outlets import Destination
from neptune_exporter.loaders.pluto.places import shown_steps, shown_times

FILES_PER_CALL = 20
FILES_PER_NAME = 1_000  # what Pluto lists under one name
UPLOADS = 4
# What Pluto signs an address for, by the extension; any other type it takes for the content type itself.
_TYPES: Mapping[str, tuple[LogType, str]] = {
    "png": ("IMAGE", "image/png"),
    "jpg": ("IMAGE", "image/jpeg"),
    "jpeg": ("IMAGE", "image/jpeg"),
    "gif": ("IMAGE", "image/gif"),
    "svg": ("IMAGE", "image/svg+xml"),
    "webp": ("IMAGE", "image/webp"),
    "mp4": ("VIDEO", "video/mp4"),
    "webm": ("VIDEO", "video/webm"),
    "mp3": ("AUDIO", "audio/mpeg"),
    "ogg": ("AUDIO", "audio/ogg"),
    "txt": ("TEXT", "text/plain"),
    "json": ("ARTIFACT", "application/json"),
    "csv": ("ARTIFACT", "text/csv"),
    "pdf": ("ARTIFACT", "application/pdf"),
}
_BYTES = "application/octet-stream"


class Files:
    """Takes the files of attributes and of the folder `neptune/`. All rows are attached: their names are only there.

    Args:
        to: where they go.
        announced: how many rows each attribute will have.
        keys: the names of all attributes.
    """

    def __init__(self, to: Destination, announced: Mapping[tuple[str, str], int], keys: AbstractSet[str]) -> None:
        self._to, self._announced, self._keys = to, announced, keys
        self._counts: Counter[str] = Counter()
        self._paths = ArtifactPaths()
        self._named: set[str] = set()
        self._pending: list[tuple[NewFile, Path, str]] = []

    def write(self, record: AttributeRecord, rows: pa.RecordBatch) -> None:
        """Takes rows of one attribute."""
        to = self._to
        steps, times = shown_steps(rows, to.multiplier).tolist(), shown_times(rows, to.start_ms).tolist()
        to.attachments.add_rows(record, rows)
        for row, step, time in zip(file_rows(record, rows), steps, times, strict=True):
            log_name, name = self._names(record, row)
            artifact = self._paths.take(f"{log_name}/{name}", row.identity(record))
            local, size = to.loading.files.local(row.path), to.loading.files.size(row.path)
            to.attachments.add_file(record, row.path, artifact, to.loading.files.sha256(row.path), size)
            place = record.path if row.member is None else f"{record.path}/{row.member}"
            caption = place if place not in (record.key, artifact) else None
            folder, _, name = artifact.rpartition("/")
            self._add(folder, name, local, size, step, time, caption)
            record.native += 1

    def add_folder(self, folder: Path) -> None:
        """Takes the folder `neptune/`."""
        for path in sorted(folder.iterdir()):
            self._add(FOLDER, path.name, path, path.stat().st_size, 0, self._to.start_ms)

    def finish(self) -> None:
        """Uploads what is left. Raises `StartAgainError` like `Pluto.announce`."""
        if not self._pending:
            return
        to, files = self._to, [file for file, _, _ in self._pending]
        urls = to.api.announce(to.run, files)
        with ThreadPoolExecutor(min(UPLOADS, len(files))) as pool:
            uploads = [
                pool.submit(to.api.files.put, urls[file.logName, file.fileName], path, kind)
                for file, path, kind in self._pending
            ]
            for upload in uploads:
                upload.result()
        self._pending = []

    def _add(
        self, log_name: str, name: str, path: Path, size: int, step: int, time: int, caption: str | None = None
    ) -> None:
        extension = posixpath.splitext(name)[1][1:].lower()
        log_type, content_type = _TYPES.get(extension, ("ARTIFACT", _BYTES))
        file_type = extension if extension in _TYPES else content_type
        if log_name not in self._named:
            self._named.add(log_name)
            self._to.api.add_names(self._to.run, log_type, [log_name])
        file = NewFile(name, size, file_type, max(time, 0), log_name, step, 0, caption)
        self._pending.append((file, path, content_type))
        if len(self._pending) >= FILES_PER_CALL:
            self.finish()

    def _names(self, record: AttributeRecord, row: FileRow) -> tuple[str, str]:
        """The log name that a file goes under, and its own name there."""
        log_name = record.key
        if record.type == "file_series":
            name = row.series_name
        elif row.member is not None:
            folder, _, name = row.member.rpartition("/")
            log_name = self._below(record, folder) if folder else log_name
            name = target_key(name, marks.FILE_RULE)
        elif self._announced[record.path, record.type] > 1:
            name = target_key(posixpath.basename(row.path), marks.FILE_RULE)
        else:
            name = with_extension(target_key(record.key.rpartition("/")[2], marks.FILE_RULE), row.extension)
        number, self._counts[log_name] = self._counts[log_name] // FILES_PER_NAME, self._counts[log_name] + 1
        if number:
            log_name = suffixed(log_name, f"{log_name}\0{number}", marks.KEY_RULE)
        return log_name, name

    def _below(self, record: AttributeRecord, folder: str) -> str:
        """The log name of a folder in a set of files: Pluto knows one kind of thing by a name."""
        log_name = f"{record.key}/{target_key(folder, marks.KEY_RULE)}"
        if log_name in self._keys or len(log_name) > marks.KEY_RULE.length:
            return suffixed(log_name, f"{record.path}\0{record.type}\0{folder}", marks.KEY_RULE)
        return log_name
