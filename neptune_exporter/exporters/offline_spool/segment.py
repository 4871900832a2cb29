# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A segment of the spool, or the new part of one, as an operation log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.offline_scale.database import BLOCK_BYTES, CREATE, Block, FileRequest
from neptune_exporter.mirror import spool
from neptune_exporter.mirror.spool import Header, Record

_CLOCKS_APART_MS = 300_000


def request_of(segment: Path, payload: bytes) -> FileRequest:
    """The file that a `FILE` record keeps; where it could not be kept, the one that was logged."""
    value: dict[str, Any] = json.loads(payload)
    size = int(value["size"])
    if value["stored"]:
        # The kept copy lies beside the segment, under a name that tells it from all others.
        source = segment.with_suffix(".files") / str(value["stored"]).rpartition("/")[2]
        return FileRequest(str(source), str(value["destination"]), size, temporary=False)
    return FileRequest(str(value["source"] or value["name"]), str(value["destination"]), size, temporary=False)


class SegmentPart:
    """The records of a segment behind an offset, as `RunReader` reads them.

    Args:
        path: the segment.
        offset: where to begin.
        most_bytes: after how much to stop, None for the end; files stay with the operation that names them.
        until: where to stop at the latest, None for the end.

    Attributes:
        path: the segment.
        end: how far it was read; known once `blocks` is exhausted.
        closed: the payload of the last `CLOSE` record, None if there was none.
        dropped: calls that found the queue full.
    """

    def __init__(self, path: Path, offset: int = 0, most_bytes: int | None = None, until: int | None = None) -> None:
        self.path = path
        self.ever: int | None = None
        self.lost = self.lost_transactions = self.dropped = 0
        self.damaged = False
        self.end = offset
        self.closed: dict[str, Any] | None = None
        self._offset, self._most, self._until = offset, most_bytes, until
        self._requests: list[FileRequest] = []
        self._records: list[Record] | None = None

    def load(self) -> SegmentPart:
        """Reads the part into memory: files must be known before the operations that name them."""
        self._records = []
        held: list[Record] = []  # files whose operation has not been seen yet
        for record in spool.read_records(self.path, self._offset):
            held.append(record)
            at_the_end = self._until is not None and record.end >= self._until
            if record.kind == spool.FILE and not at_the_end:
                continue
            for known in held:
                self._note(known)
            self._records += held
            held = []
            if at_the_end or (self._most is not None and record.end - self._offset >= self._most):
                break
        return self

    def _note(self, record: Record) -> None:
        self.end = record.end
        if record.kind == spool.FILE:
            self._requests.append(request_of(self.path, record.payload))
        elif record.kind == spool.DROPPED:
            self.dropped += int(json.loads(record.payload)["calls"])
        elif record.kind == spool.CLOSE:
            self.closed = json.loads(record.payload)

    def records(self) -> Iterator[Record]:
        """The records."""
        return iter(self._records) if self._records is not None else spool.read_records(self.path, self._offset)

    def blocks(self, after: int = 0) -> Iterator[Block]:
        """The operations, in blocks. `after` is not used: a segment is never read from its middle by number."""
        updates: list[bytes] = []
        others: list[tuple[int, bytes]] = []
        size = number = 0
        for record in self.records():
            if record.kind == spool.UPDATE:
                updates.append(record.payload)
            elif record.kind == spool.CREATE:
                others.append((CREATE, record.payload))
            else:
                continue
            number += 1
            size += len(record.payload)
            if size >= BLOCK_BYTES:
                yield Block(number, number, updates, others)
                updates, others, size = [], [], 0
        if updates or others:
            yield Block(number, number, updates, others)

    def file_requests(self) -> list[FileRequest]:
        """The files that were logged."""
        return self._requests

    def refusals(self) -> list[str]:
        """Nothing: the spool asks nobody."""
        return []


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as it was when it was listed.

    Attributes:
        path: the file.
        header: whose it is.
        first: when it was begun, milliseconds.
        last: when its last record was written, milliseconds.
        records: how many there are.
        files: how many of them are files.
        calls: how many calls are missing because the queue was full.
        closed: what its last `CLOSE` says, None without one.
        bytes: how much of the file is whole.
        size: how big the file is.
    """

    path: Path
    header: Header
    first: int
    last: int
    records: int
    files: int
    calls: int
    closed: dict[str, Any] | None
    bytes: int
    size: int

    @property
    def ended(self) -> bool:
        """Whether nobody writes to it any more."""
        return self.closed is not None or not is_alive(self.header, self.first)

    @property
    def requests(self) -> list[FileRequest]:
        """The files that it keeps."""
        return [request_of(self.path, r.payload) for r in spool.read_records(self.path) if r.kind == spool.FILE]

    def to_json(self) -> dict[str, Any]:
        """What is recorded to tell later whether it has grown."""
        return {
            "name": self.path.name,
            "first": 1 if self.records else None,
            "last": self.records,
            "operations": self.records,
            "files": self.files,
        }


def read_store(path: Path) -> Segment | None:
    """Lists one segment; None if it is none.

    Raises:
        SourceError: it cannot be read, or does not say whose it is.
    """
    try:
        header = spool.read_header(path)
        if header is None:
            raise SourceError(f"{path} does not say which run it belongs to.")
        first = last = records = files = calls = end = 0
        closed = None
        for record in spool.read_records(path):
            first, last, end = first or record.time, record.time, record.end
            records += record.kind in (spool.CREATE, spool.UPDATE, spool.LEGACY)
            files += record.kind == spool.FILE
            if record.kind == spool.DROPPED:
                calls += int(json.loads(record.payload)["calls"])
            elif record.kind == spool.CLOSE:
                closed = json.loads(record.payload)
        return Segment(path, header, first, last, records, files, calls, closed, end, path.stat().st_size)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from None


def is_alive(header: Header, begun_ms: int) -> bool:
    """Whether the process that wrote a segment still runs, as far as this machine can tell.

    Args:
        header: of the segment.
        begun_ms: when it was begun; a process that is younger merely has the same number.
    """
    if header.host != spool.host_name():
        return True
    try:
        os.kill(header.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    started = _started_ms(header.pid)
    return started is None or started < begun_ms + _CLOCKS_APART_MS


def _started_ms(pid: int) -> int | None:
    """When a process began, milliseconds since the epoch; None where this cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(booted.split()[1]) * 1000 + int(fields[19]) * 1000 // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return True
