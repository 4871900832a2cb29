# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of the 1.x client in the spool: written out as that client's own log, and read as such."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.exporters.offline_legacy.fold import FileSet, FileSetChange, Tracked
from neptune_exporter.exporters.offline_legacy.log import Log
from neptune_exporter.exporters.offline_legacy.run import RunReader
from neptune_exporter.exporters.offline_scale.attachments import parse_path_map
from neptune_exporter.exporters.offline_scale.rows import atom_batches
from neptune_exporter.exporters.offline_spool.run import FORMAT, LEGACY_CLIENT, report
from neptune_exporter.exporters.offline_spool.segment import Segment, request_of
from neptune_exporter.exporters.tracked_files import TrackedFiles
from neptune_exporter.mirror import spool
from neptune_exporter.mirror.spool import Record
from neptune_exporter.model import RunInfo, RunRef, utc
from neptune_exporter.selection import Selection

_LOG = "data-1.log"
_BYTES_PER_RECORD = 200


def write_log(segment: Path, records: Iterable[Record], folder: Path, version: int, kept: dict[str, str]) -> int:
    """Writes records as a log of the client into a folder.

    Args:
        segment: where they come from.
        records: the records.
        folder: an empty folder.
        version: the last version given out before.
        kept: where files are kept, by what operations name them by; added to.

    Returns:
        The last version given out.
    """
    with (folder / _LOG).open("wb") as log:
        for record in records:
            if record.kind == spool.FILE:
                request = request_of(segment, record.payload)
                kept[request.destination] = request.source
            elif record.kind == spool.LEGACY:
                version += 1
                log.write(_with_version(record.payload, version, kept) + b"\n")
    return version


def _with_version(payload: bytes, version: int, kept: dict[str, str]) -> bytes:
    """The line of an operation; an upload names the copies that the spool keeps."""
    if b'"kept": ' not in payload and b'"members": ' not in payload:
        head, mark, tail = payload.rpartition(b'"version": 0')
        if mark:
            return head + b'"version": %d' % version + tail
    value = json.loads(payload)
    value["version"] = version
    operation = value["obj"]
    path = kept.get(str(operation.pop("kept", "")))
    if path:
        operation.update(file_path=path, tmp_file_name=None)
    if operation["type"] == "UploadFileSet" and "members" in operation:
        operation["members"] = {name: kept.get(str(key), "") for name, key in operation["members"]}
    return json.dumps(value).encode()


@dataclass(frozen=True, slots=True)
class LegacySpoolRun:
    """One run of the 1.x client in the spool.

    Attributes:
        ref: the run.
        segments: what its processes wrote, oldest first.
    """

    ref: RunRef
    segments: tuple[Segment, ...]

    def source_run(self) -> SourceRun:
        """The run as it is listed."""
        state = {"format": FORMAT, "stores": [segment.to_json() for segment in self.segments]}
        rows = sum(segment.bytes for segment in self.segments) // _BYTES_PER_RECORD
        return SourceRun(legacy_info(self.ref, [s.path for s in self.segments]), state, self._last(), rows)

    def _last(self) -> datetime:
        return utc(max(segment.last for segment in self.segments))

    def batches(
        self,
        selection: Selection,
        files: Files,
        findings: Findings,
        *,
        path_map: Sequence[str],
        include_previews: bool,
    ) -> Iterator[pa.RecordBatch]:
        """All selected rows of the run; this client has no previews."""
        pairs = parse_path_map(tuple(path_map))
        with tempfile.TemporaryDirectory(prefix="neptune-exporter-spool-") as work:
            folders = []
            for number, segment in enumerate(self.segments):
                folder = Path(work, f"{number:06d}")
                folder.mkdir()
                whole = (r for r in spool.read_records(segment.path) if r.end <= segment.bytes)
                write_log(segment.path, whole, folder, 0, {})
                folders.append(folder)
            container = self.segments[0].header.container
            reader = RunReader(self.ref, container, folders, selection, files, findings, pairs, TrackedFiles(""))
            yield from reader.batches(utc(self.segments[0].first), [0] * len(folders))
        for segment in self.segments:
            report(segment, findings)


def legacy_info(ref: RunRef, paths: Sequence[Path]) -> RunInfo:
    """The identity of a run, from its operations."""
    name: str | None = None
    failed: bool | None = None
    created: datetime | None = None
    for path in paths:
        for record in spool.read_records(path):
            created = created or utc(record.time)
            if record.kind == spool.LEGACY and b'"sys"' in record.payload[:200]:
                operation = json.loads(record.payload)["obj"]
                if operation["path"] == ["sys", "name"] and operation["type"] == "AssignString":
                    name = str(operation["value"])
                elif operation["path"] == ["sys", "failed"] and operation["type"] == "AssignBool":
                    failed = bool(operation["value"])
    return RunInfo(ref, name=name, created=created, failed=failed)


def group_legacy_runs(segments: Sequence[Segment]) -> list[LegacySpoolRun]:
    """The runs that segments of the 1.x client belong to, sorted by name."""
    by_ref: dict[RunRef, list[Segment]] = {}
    for segment in segments:
        if segment.header.client == LEGACY_CLIENT:
            by_ref.setdefault(RunRef(segment.header.project, segment.header.run_id), []).append(segment)
    return [
        LegacySpoolRun(ref, tuple(sorted(by_ref[ref], key=lambda s: (s.first, s.path.name)))) for ref in sorted(by_ref)
    ]


class LegacyPartReader(RunReader):
    """Reads a run of the 1.x client part by part, for those who follow it while it is written."""

    def __init__(
        self, ref: RunRef, container: str, selection: Selection, files: Files, findings: Findings, work: Path
    ) -> None:
        super().__init__(ref, container, [], selection, files, findings, (), TrackedFiles(""))
        self._work = work
        self._kept: dict[str, str] = {}
        self._version = 0
        self._sent: dict[str, Any] = {}
        self._changes: dict[str, list[FileSetChange]] = {}
        self._lists: dict[str, Tracked] = {}

    def read_part(self, segment: Path, records: Iterable[Record]) -> Iterator[pa.RecordBatch]:
        """The rows of some records: series points, and single values and files that have changed."""
        with tempfile.TemporaryDirectory(dir=self._work) as name:
            folder = Path(name)
            self._version = write_log(segment, records, folder, self._version, self._kept)
            log = Log(folder)
            self._logs = [log]
            for record in log.decisions():
                self._state.apply(record, folder, record.version)
            for kind in ("LogFloats", "LogStrings"):
                for points in log.points(kind):
                    yield from self._series(kind, points, 0)
            yield from self._images()
            changed = {p: v for p, v in self._state.values.items() if self._sent.get(p) != v}
            self._sent.update(changed)
            values = {p: (k, float(v) if k == "float" else v) for p, (k, v) in changed.items()}
            yield from atom_batches(self._ref, values)
            for path, upload in self._state.files.items():
                if self._sent.get(path) is not upload:
                    self._sent[path] = upload
                    yield from self._attached.file(path, upload, synced=False)
            yield from self._new_members()

    def _new_members(self) -> Iterator[pa.RecordBatch]:
        """What was added to file sets, and the lists of artifacts that have changed; their contents come later."""
        for path, file_set in self._state.file_sets.items():
            seen = self._changes.setdefault(path, [])
            news = [change for change in file_set.changes if not any(change is before for before in seen)]
            seen += news
            if any(change.globs or change.kept for change in news):
                yield from self._attached.file_set(path, FileSet(news))
        for path, artifact in self._state.artifacts.items():
            if self._lists.get(path) != artifact:
                self._lists[path] = replace(artifact, entries=list(artifact.entries))
                yield from TrackedFiles("").rows(
                    self._ref, path, artifact.hash, artifact.places(), self._files, self._findings, lambda _file: False
                )
