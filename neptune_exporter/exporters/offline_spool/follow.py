# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Follows a run of the spool while it is being written: what is new, as batches, and how far that reaches."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from neptune_exporter.errors import DamagedDataError, Problem
from neptune_exporter.exporters.exporter import LiveStatus
from neptune_exporter.exporters.offline_scale.run import RunReader
from neptune_exporter.exporters.offline_spool.legacy import LegacyPartReader, legacy_info
from neptune_exporter.exporters.offline_spool.run import LEGACY_CLIENT, info_of
from neptune_exporter.exporters.offline_spool.segment import SegmentPart, is_alive
from neptune_exporter.mirror import spool
from neptune_exporter.model import OutsideValue, RunInfo, RunRef
from neptune_exporter.selection import EVERYTHING

PART_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """Some of what was logged, in order.

    Attributes:
        rows: batches in the fixed schema; a single value comes anew whenever it has changed.
        again: whether this was delivered before and is only repeated, so that the target can know its own state.
        offsets: how far each segment has been read afterwards.
    """

    rows: list[pa.RecordBatch]
    again: bool
    offsets: dict[str, int]


class LiveFiles:
    """The files of the parts that are being delivered, in a folder of their own.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.skipping = False

    def add(self, attribute: str, name: str, chunks: Iterable[bytes], *, step: Decimal | None = None) -> str:
        """Takes one file, see `Files`. Of a part that is only repeated nothing is kept."""
        self._count += 1
        suffix = Path(name).suffix
        path = f"{self._count:08d}{suffix if len(suffix) < 20 else ''}"
        with (self._folder / path).open("wb") as file:
            for chunk in chunks:
                if not self.skipping:
                    file.write(chunk)
        return path

    def clear(self) -> None:
        """What was delivered is not needed here any more."""
        for path in self._folder.iterdir():
            path.unlink()

    def open(self, path: str) -> BinaryIO:
        """The content, see `RunFiles`."""
        return self.local(path).open("rb")

    def local(self, path: str) -> Path:
        """Where the content is, see `RunFiles`."""
        found = self._folder / Path(path).name
        if not found.is_file():
            raise DamagedDataError(f"{path} is not among the files of this run.")
        return found

    def sha256(self, path: str) -> str:
        """The SHA-256 of the content, see `RunFiles`."""
        with self.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def size(self, path: str) -> int:
        """The size, see `RunFiles`."""
        return self.local(path).stat().st_size


class _Findings:
    """What cannot be carried over live is in the spool, and `export` names it."""

    def problem(self, problem: Problem) -> None:
        """Nothing to do here."""

    def outside(self, value: OutsideValue) -> None:
        """Nothing to do here."""

    def empty(self, path: str, attribute_type: str) -> None:
        """Nothing to do here."""


class SpoolFollower:
    """Reads a run of the spool from wherever a target has got to.

    Args:
        folder: the run's folder in the spool.
        delivered: how far each segment was delivered before, by its name.
        work: an empty folder for the content of files.

    Attributes:
        info: the run's identity.
        files: the content of the files in the last part.
        status: `running`, or how it ended.
    """

    def __init__(self, folder: Path, delivered: Mapping[str, int], work: Path) -> None:
        paths = spool.segments(folder)
        header = next(filter(None, map(spool.read_header, paths)))
        ref = RunRef(header.project, header.run_id)
        of_legacy = header.client == LEGACY_CLIENT
        self.info: RunInfo = legacy_info(ref, paths) if of_legacy else info_of(ref, paths)
        kept, logs = work / "files", work / "logs"
        kept.mkdir()
        logs.mkdir()
        self.files = LiveFiles(kept)
        self._folder, self._delivered = folder, dict(delivered)
        self._reader = RunReader(ref, EVERYTHING, self.files, _Findings(), (), include_previews=False)
        self._legacy = (
            LegacyPartReader(ref, header.container, EVERYTHING, self.files, _Findings(), logs) if of_legacy else None
        )
        self._offsets: dict[str, int] = {}
        self._sent: dict[str, Any] = {}
        self._closed: dict[str, str] = {}

    def parts(self) -> Iterator[Part]:
        """What has been written since the last call."""
        for path in spool.segments(self._folder):
            while True:
                offset = self._offsets.get(path.name, 0)
                before = self._delivered.get(path.name, 0)
                again = offset < before
                part = SegmentPart(path, offset, PART_BYTES, before if again else None).load()
                if part.end == offset:
                    break
                self.files.skipping = again
                rows = list(self._rows(path, part))
                self._offsets[path.name] = part.end
                if part.closed is not None:
                    self._closed[path.name] = str(part.closed.get("status", "finished"))
                yield Part(rows, again, dict(self._offsets))

    @property
    def status(self) -> LiveStatus:
        """Whether anybody may still write; else how it ended."""
        found: list[LiveStatus] = []
        paths = spool.segments(self._folder)
        for path in paths:
            header = spool.read_header(path)
            if path.name in self._closed:
                found.append("failed" if self._closed[path.name] == "failed" else "finished")
            elif header is not None and is_alive(header, _begun_ns(path) // 1_000_000):
                return "running"
            elif all(_begun_ns(other) < path.stat().st_mtime_ns for other in paths):  # otherwise it was resumed
                found.append("killed")
        return next((status for status in ("failed", "killed") if status in found), "finished")

    def _rows(self, path: Path, part: SegmentPart) -> Iterator[pa.RecordBatch]:
        if self._legacy is not None:
            yield from self._legacy.read_part(path, part.records())
            return
        yield from self._reader.read(part)
        yield from self._reader.held_back()
        yield from self._changed_values()

    def _changed_values(self) -> Iterator[pa.RecordBatch]:
        changed = {}
        for path, (kind, value) in self._reader.single_values().items():
            now = (kind, frozenset(value) if kind == "string_set" else value)
            if self._sent.get(path) != now:
                self._sent[path] = now
                changed[path] = (kind, value)
        yield from self._reader.value_batches(changed)

    def close(self) -> None:
        """Nothing is held open."""
        shutil.rmtree(self.files._folder, ignore_errors=True)  # noqa: SLF001 - its own


def _begun_ns(segment: Path) -> int:
    """When a segment was begun, nanoseconds since the epoch."""
    return int(segment.name.partition("_")[0])
