# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run on their way into Pluto: announced by the score, uploaded a few at a time."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from neptune_exporter.loaders.attachments import FOLDER, AttributeRecord
from neptune_exporter.loaders.keys import ArtifactPaths, suffixed, target_key
from neptune_exporter.loaders.pluto import marks
from neptune_exporter.loaders.pluto.api import LogType, NewFile
from neptune_exporter.loaders.pluto.outlets import Destination
from neptune_exporter.loaders.pluto.places import shown_steps, shown_times
from neptune_exporter.model import NO_VALUE, step_micros, step_text

FILES_PER_CALL = 20
FILES_PER_NAME = 1_000  # what Pluto lists under one name
UPLOADS = 4
_EXTENSION = re.compile(r"\.\w{1,16}", re.ASCII)
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
    """

    def __init__(self, to: Destination, announced: Mapping[tuple[str, str], int]) -> None:
        self._to, self._announced = to, announced
        self._paths = ArtifactPaths()
        self._named: set[str] = set()
        self._pending: list[tuple[NewFile, Path, str]] = []

    def write(self, record: AttributeRecord, rows: pa.RecordBatch) -> None:
        """Takes rows of one attribute."""
        to = self._to
        steps, times = shown_steps(rows, to.multiplier).tolist(), shown_times(rows, to.start_ms).tolist()
        exact = step_micros(rows.column("step")).tolist()
        paths = rows.column("file_value").field("path").to_pylist()
        to.attachments.add_rows(record, rows)
        for path, micros, step, time in zip(paths, exact, steps, times, strict=True):
            log_name = self._log_name(record)
            wanted = f"{log_name}/{self._file_name(record, path, micros)}"
            artifact = self._paths.take(wanted, f"{record.path}\0{record.type}\0{micros}\0{path}")
            local, size = to.loading.files.local(path), to.loading.files.size(path)
            to.attachments.add_file(record, path, artifact, to.loading.files.sha256(path), size)
            caption = record.path if record.path != record.key else None
            self._add(log_name, artifact.rpartition("/")[2], local, size, step, time, caption)
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

    def _log_name(self, record: AttributeRecord) -> str:
        """The attribute's key; of many files some have a name beside it."""
        if self._announced[record.path, record.type] <= FILES_PER_NAME:
            return record.key
        return suffixed(record.key, f"{record.path}\0{record.type}\0{record.native // FILES_PER_NAME}", marks.KEY_RULE)

    def _file_name(self, record: AttributeRecord, path: str, micros: int) -> str:
        name = posixpath.basename(path)
        extension = posixpath.splitext(name)[1]
        extension = extension if _EXTENSION.fullmatch(extension) else ""
        if record.type == "file_series":
            return f"step_{'none' if micros == NO_VALUE else step_text(micros)}{extension}"
        if self._announced[record.path, record.type] > 1:
            return target_key(name, marks.FILE_RULE)
        own = target_key(record.key.rpartition("/")[2], marks.FILE_RULE)
        return own if own.lower().endswith(extension.lower()) else own + extension
