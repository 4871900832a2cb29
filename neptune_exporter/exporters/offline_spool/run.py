# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A run of the spool, and what the client itself may still have of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.exporters.offline_scale import find as scale
from neptune_exporter.exporters.offline_scale.attachments import parse_path_map
from neptune_exporter.exporters.offline_scale.database import Block, Database, open_copy
from neptune_exporter.exporters.offline_scale.fold import Created
from neptune_exporter.exporters.offline_scale.run import RunReader
from neptune_exporter.exporters.offline_scale.wire import CreateRun, DecodeError, step_decimal
from neptune_exporter.exporters.offline_spool.segment import Segment, SegmentPart
from neptune_exporter.mirror import spool
from neptune_exporter.model import RunInfo, RunRef, utc
from neptune_exporter.selection import Selection

FORMAT = "neptune-exporter-spool"
LEGACY_CLIENT = "neptune"
_BYTES_PER_POINT = 25


@dataclass(frozen=True, slots=True)
class SpoolRun:
    """One run of the spool.

    Attributes:
        ref: the run.
        segments: what its processes wrote, oldest first.
        logs: the client's own logs of the same run, which may hold what was logged without the mirror.
    """

    ref: RunRef
    segments: tuple[Segment, ...]
    logs: tuple[scale.Store, ...] = field(default=())

    def source_run(self) -> SourceRun:
        """The run as it is listed."""
        stores = [segment.to_json() for segment in self.segments] + [log.to_json() for log in self.logs]
        state = {"format": FORMAT, "stores": stores}
        last = max(segment.last for segment in self.segments)
        rows = sum(segment.bytes for segment in self.segments) // _BYTES_PER_POINT
        return SourceRun(info_of(self.ref, [s.path for s in self.segments]), state, utc(last), rows)

    def batches(
        self,
        selection: Selection,
        files: Files,
        findings: Findings,
        *,
        path_map: Sequence[str],
        include_previews: bool,
    ) -> Iterator[pa.RecordBatch]:
        """All selected rows of the run."""
        pairs = parse_path_map(tuple(path_map))
        reader = RunReader(self.ref, selection, files, findings, pairs, include_previews=include_previews)
        for segment in self.segments:
            yield from reader.read(_Whole(segment))
            report(segment, findings)
        with ExitStack() as stack:
            seen = _digests(self.segments) if self.logs else np.empty(0, np.uint64)
            for log in self.logs:
                yield from reader.read(_Unseen(stack.enter_context(open_copy(log.path)), seen))
            yield from reader.finish(partly_synced=False)


def info_of(ref: RunRef, paths: Sequence[Path]) -> RunInfo:
    """The identity of a run, from the first records of its segments."""
    created = Created()
    for path in paths:
        for record in spool.read_records(path):
            if record.kind == spool.CREATE:
                try:
                    created = created.joined(Created.from_message(CreateRun.FromString(record.payload)))
                except DecodeError:
                    continue
            elif record.kind != spool.HEADER:
                break
    parent = RunRef(created.parent_project or ref.project_id, created.parent) if created.parent else None
    return RunInfo(
        ref,
        name=created.experiment,
        experiment=created.experiment,
        parent=parent,
        fork_step=step_decimal(created.fork_step) if parent else None,
        created=None if created.time is None else utc(created.time),
    )


def group_runs(segments: Sequence[Segment]) -> list[SpoolRun]:
    """The runs that segments of neptune-scale belong to, sorted by name."""
    by_ref: dict[RunRef, list[Segment]] = {}
    for segment in segments:
        if segment.header.client == LEGACY_CLIENT:
            continue
        by_ref.setdefault(RunRef(segment.header.project, segment.header.run_id), []).append(segment)
    return [SpoolRun(ref, tuple(sorted(by_ref[ref], key=lambda s: (s.first, s.path.name)))) for ref in sorted(by_ref)]


def report(segment: Segment, findings: Findings) -> None:
    """What a segment must have held and does not."""
    if segment.calls:
        message = f"{segment.calls:,} calls came faster than they could be written to {segment.path} and are not there."
        findings.problem(Problem(message, count=segment.calls))
    if segment.size > segment.bytes and segment.ended:
        message = f"The end of {segment.path} is damaged: {segment.size - segment.bytes:,} bytes cannot be read."
        findings.problem(Problem(message))


class _Whole(SegmentPart):
    """A segment up to where it was listed."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment.path)
        self._end = segment.bytes
        self._requests = segment.requests

    def records(self) -> Iterator[spool.Record]:
        for record in spool.read_records(self.path):
            if record.end > self._end:
                return
            yield record


class _Unseen(Database):
    """A log of the client without the operations that the spool has, too: they are the same bytes."""

    def __init__(self, database: Database, seen: npt.NDArray[np.uint64]) -> None:
        vars(self).update(vars(database))
        self._seen = seen

    def blocks(self, after: int = 0) -> Iterator[Block]:
        for block in super().blocks(after):
            known = np.isin(_hashes(block.updates), self._seen)
            updates = [blob for blob, skip in zip(block.updates, known.tolist(), strict=True) if not skip]
            yield block._replace(updates=updates)


def _digests(segments: Sequence[Segment]) -> npt.NDArray[np.uint64]:
    found = [_hashes(block.updates) for segment in segments for block in _Whole(segment).blocks()]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *found]))


def _hashes(blobs: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(blob, digest_size=8).digest() for blob in blobs)
    return np.frombuffer(digests, np.uint64)
