# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run of the 1.x client: where they lie now, and their rows."""

from __future__ import annotations

import base64
import binascii
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from neptune_exporter.errors import ExporterError, Problem
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.exporters.offline_legacy.fold import FileSet, Tracked, Upload
from neptune_exporter.exporters.offline_scale.attachments import Located
from neptune_exporter.exporters.offline_scale.transfer import Transfer
from neptune_exporter.exporters.tracked_files import (
    ContentError,
    TrackedFile,
    TrackedFiles,
    list_local,
    local_path,
    member_rows,
)
from neptune_exporter.model import RunRef, rows_batch

UPLOADS = "upload_path"
RECOVERED = "recovered"

PathMap = tuple[tuple[str, str], ...]


class Attached:
    """Brings the files of a run home.

    Args:
        ref: the run.
        files: takes them.
        findings: takes what is missing.
        path_map: where files have moved to, from `parse_path_map`.
        tracked: fetches what artifacts point at.
    """

    def __init__(self, ref: RunRef, files: Files, findings: Findings, path_map: PathMap, tracked: TrackedFiles) -> None:
        self._ref, self._files, self._findings, self._path_map = ref, files, findings, path_map
        self._transfer = Transfer(files, findings)
        self._tracked = tracked
        self._used: set[Path] = set()

    def file(self, path: str, upload: Upload, *, synced: bool) -> Iterator[pa.RecordBatch]:
        """A single file; `synced` says that the server had confirmed its operation."""
        detail = upload.detail
        name = f"file.{detail['ext']}" if detail.get("ext") else "file"
        if detail.get("file_content") is not None:
            stored = self.content(path, detail["file_content"], name)
        else:
            stored = self._transfer.add(path, Located(self._candidates(upload), name, None, synced), None)
        if stored is not None:
            yield self._row(path, "file", stored)

    def content(self, path: str, encoded: str, name: str, step: Decimal | None = None) -> str | None:
        """Stores content from the log itself; None if it is damaged, which is reported."""
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self._findings.problem(Problem("The content in the log is damaged.", path))
            return None
        return self._files.add(path, name, [content], step=step)

    def _candidates(self, upload: Upload) -> tuple[Path, ...]:
        detail = upload.detail
        if detail.get("file_path"):
            return tuple(self._moved(str(detail["file_path"])))
        buffer = upload.folder / UPLOADS / os.path.basename(str(detail.get("tmp_file_name")))  # noqa: PTH119 - hostile
        self._used.add(buffer)
        return (buffer,)

    def _moved(self, path: str) -> Iterator[Path]:
        """Where a path of the logging machine may be here, best first."""
        for old, new in self._path_map:
            rest = path[len(old) :]
            if path.startswith(old) and (not rest or old.endswith(("/", "\\")) or rest[0] in "/\\"):
                yield Path(new.rstrip("/") + "/" + rest.replace("\\", "/").lstrip("/"))
        yield Path(path)

    # --- file sets

    def file_set(self, path: str, file_set: FileSet) -> Iterator[pa.RecordBatch]:
        """A file set: what was kept of it, or its globs as they expand now, with the names that the client gives."""
        members: dict[str, Path] = {}
        for change in file_set.changes:
            if change.kept is None:
                members.update(self._expanded(path, change.folder, change.globs))
            else:
                members.update((name, Path(place)) for name, place in change.kept.items())
            for name in change.removed:
                members.pop(name, None)
        paths, names = [], []
        for name, place in sorted(members.items()):
            stored = self._transfer.add(f"{path}/{name}", Located((place,), name, None, was_uploaded=False), None)
            if stored is not None:
                paths.append(stored)
                names.append(name)
        if paths:
            yield member_rows(self._ref, path, "file_set", paths, names)
        elif not members:
            self._findings.empty(path, "file_set")

    def _expanded(self, path: str, folder: Path, globs: Sequence[str]) -> dict[str, Path]:
        found: set[str] = set()
        for pattern in globs:
            places = (set(glob.glob(str(place), recursive=True)) for place in self._moved(pattern))  # noqa: PTH207
            matched = next((place for place in places if place), set())
            found |= matched
            if not matched:
                message = f"Nothing matches {pattern}. If it has moved, name its new place with --path-map OLD=NEW."
                self._findings.problem(Problem(message, path, "retry"))
        if not found:
            return {}
        absolute = [os.path.abspath(place) for place in sorted(found)]  # noqa: PTH100 - as the client does it
        root = _common_root(absolute, working_folder(folder))
        members: dict[str, Path] = {}
        for place in absolute:
            below = [os.path.join(at, name) for at, _, names in os.walk(place) for name in names]  # noqa: PTH118
            for file in below if os.path.isdir(place) else [place]:  # noqa: PTH112
                members[os.path.relpath(file, root).replace(os.sep, "/")] = Path(file)
        return members

    # --- artifacts

    def artifact(self, path: str, artifact: Tracked) -> Iterator[pa.RecordBatch]:
        """An artifact: its list, and the contents that are still to be had."""
        found: dict[str, TrackedFile] = {}
        for folder, uri, destination in artifact.entries:
            try:
                listed = self._listed(folder, uri, destination)
            except (ContentError, ExporterError) as error:
                self._findings.problem(Problem(str(error), path, "retry"))
            else:
                found.update((file.name, file) for file in listed)
        if artifact.hash is not None:
            self._findings.problem(Problem(f"The log holds only its hash, {artifact.hash}.", path))
        elif not artifact.entries:
            self._findings.empty(path, "artifact")
            return
        tracked = [found[name] for name in sorted(found)] or artifact.places()
        fetch: Callable[[TrackedFile], bool] = lambda file: file.name in found  # noqa: E731
        yield from self._tracked.rows(self._ref, path, artifact.hash, tracked, self._files, self._findings, fetch)

    def _listed(self, folder: Path, uri: str, destination: str | None) -> list[TrackedFile]:
        if uri.startswith("s3://"):
            return self._tracked.list_s3(uri, destination)
        path = os.path.expanduser(local_path(uri))  # noqa: PTH111 - text until it is mapped
        if not os.path.isabs(path):  # noqa: PTH117
            path = str(working_folder(folder) / path)
        places = list(self._moved(path))
        return list_local(next((place for place in places if place.exists()), places[-1]), destination)

    # --- what nobody names

    def leftovers(self, folder: Path) -> Iterator[pa.RecordBatch]:
        """Buffers of a store that no operation names: their operation is lost, or was done."""
        buffers = folder / UPLOADS
        if not buffers.is_dir():
            return
        for place in sorted(path for path in buffers.rglob("*") if path.is_file() and path not in self._used):
            path = f"{RECOVERED}/{place.name}"
            stored = self._transfer.add(path, Located((place,), place.name, None, was_uploaded=False), None)
            if stored is not None:
                message = f"{place} belongs to an attribute that the log does not name any more."
                self._findings.problem(Problem(message, path))
                yield self._row(path, "file", stored)

    def _row(self, path: str, kind: str, stored: str) -> pa.RecordBatch:
        column = pa.StructArray.from_arrays([pa.array([stored], pa.string())], ["path"])
        return rows_batch(self._ref, path, kind, file_value=column)


def working_folder(store: Path) -> Path:
    """Where the script most likely ran: its data went to `.neptune` below."""
    for folder in store.parents:
        if folder.name == ".neptune":
            return folder.parent
    return store.parent


def _common_root(places: Sequence[str], working: Path) -> str:
    """What the client takes off the names of a file set's members."""
    root = os.path.commonpath(places)
    if os.path.isfile(root):  # noqa: PTH113
        root = os.path.dirname(root)  # noqa: PTH120
    inside = root.startswith(str(working.absolute()) + os.sep)
    return str(working.absolute()) if inside else root


def step_of(value: Any) -> Decimal | None:
    """An explicit step of a point, exactly."""
    return None if value is None else Decimal(repr(float(value)))
