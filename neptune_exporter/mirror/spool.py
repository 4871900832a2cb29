# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The spool: what was logged, on disk, as it was given to Neptune.

    ROOT/PROJECT-DIGEST/RUN-DIGEST/NANOSECONDS_PID_HOST.nxspool     a segment: one process, one run, only appended to
    ROOT/PROJECT-DIGEST/RUN-DIGEST/NANOSECONDS_PID_HOST.files/      the files that were logged, copied
    ROOT/PROJECT-DIGEST/RUN-DIGEST/targets/TARGET.json              how far a target has got

A segment is a magic line and then records: length and CRC-32 (of what follows them), kind, time in milliseconds,
payload. The payload of an operation is what the client itself has stored: neptune-scale's protobuf messages, or the
JSON of the 1.x client. A record that was being written when the process or the machine died fails its checksum; a
reader stops there. Every drain of the queue ends in a write to the operating system, so a killed process loses
nothing that was written; `fsync` follows at most `FSYNC_SECONDS` later, and at the end.

Only the standard library is used: this is imported by training scripts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

MAGIC = b"neptune-exporter spool 1\n"
SUFFIX = ".nxspool"
FSYNC_SECONDS = 5.0
HEADER, CREATE, UPDATE, FILE, LEGACY, DROPPED, CLOSE = range(7)
_FRAME = struct.Struct("<IIBQ")
_CHECKED = struct.Struct("<BQ")
LARGEST_RECORD = 2**30


class Record(NamedTuple):
    """One record.

    Attributes:
        end: the offset behind it.
        kind: `HEADER`, `CREATE`, `UPDATE`, `FILE`, `LEGACY`, `DROPPED` or `CLOSE`.
        time: when it was logged, milliseconds since the epoch.
        payload: protobuf for `CREATE` and `UPDATE`, else JSON.
    """

    end: int
    kind: int
    time: int
    payload: bytes


def record(kind: int, time_ms: int, payload: bytes) -> bytes:
    """A record as bytes."""
    checksum = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, time_ms)))
    return _FRAME.pack(len(payload), checksum, kind, time_ms) + payload


@dataclass(frozen=True, slots=True)
class Header:
    """Whose segment it is.

    Attributes:
        project: the project id.
        run_id: the run id.
        client: `neptune-scale` or `neptune`.
        version: of that client.
        host: the machine.
        pid: the process.
        container: the id that the 1.x client gave the run, "" otherwise.
        custom_run_id: what the user called the run of the 1.x client, "" otherwise.
    """

    project: str
    run_id: str
    client: str
    version: str
    host: str
    pid: int
    container: str = ""
    custom_run_id: str = ""

    def to_bytes(self) -> bytes:
        """As the payload of the first record."""
        return json_bytes({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_bytes(cls, payload: bytes) -> Header:
        """The inverse. Raises ValueError for anything else."""
        value = json.loads(payload)
        if not isinstance(value, dict) or not {"project", "run_id", "client"} <= value.keys():
            raise ValueError("not the header of a segment")
        return cls(
            project=str(value["project"]),
            run_id=str(value["run_id"]),
            client=str(value["client"]),
            version=str(value.get("version", "")),
            host=str(value.get("host", "")),
            pid=int(value.get("pid", 0)),
            container=str(value.get("container", "")),
            custom_run_id=str(value.get("custom_run_id", "")),
        )


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """JSON; lone surrogates are kept as escapes."""
    return json.dumps(value).encode()


def folder_name(name: str) -> str:
    """A name for a folder, unique for the text it stands for."""
    readable = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:80]
    return f"{readable}-{hashlib.blake2b(name.encode(errors='surrogatepass'), digest_size=8).hexdigest()}"


def run_folder(root: Path, project: str, run_id: str) -> Path:
    """The folder of a run."""
    return root / folder_name(project) / folder_name(run_id)


class SegmentWriter:
    """Appends records to a new segment.

    Args:
        folder: the run's folder; made if need be.
        header: whose segment it is.
        started: nanoseconds since the epoch; part of the name.

    Attributes:
        path: the segment.
        size: bytes that are whole and written.
    """

    def __init__(self, folder: Path, header: Header, started: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9.-]", "_", header.host)[:40]
        self.path = folder / f"{started}_{header.pid}_{host}{SUFFIX}"
        self.files = self.path.with_suffix(".files")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(self.path, flags, 0o644)
        self.size = 0
        self._kept = 0
        self._synced = 0
        self.write(MAGIC + record(HEADER, started // 1_000_000, header.to_bytes()))

    def write(self, data: bytes) -> None:
        """Writes whole records. What a full disk cuts off is cut off again. Raises OSError."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Makes sure that what was written survives a power cut. Raises OSError."""
        if self._synced < self.size:
            size = self.size
            os.fsync(self._file)
            self._synced = size

    def file_path(self, extension: str) -> Path:
        """A path for the next file that is kept."""
        self.files.mkdir(exist_ok=True)
        self._kept += 1
        clean = extension if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", extension) else ""
        return self.files / f"{self._kept:08d}{clean}"

    def close(self) -> None:
        """Closes the file. Raises OSError."""
        self.sync()
        os.close(self._file)


def read_records(path: Path, offset: int = 0) -> Iterator[Record]:
    """The whole records from an offset on; stops quietly at one that is not whole. Raises OSError."""
    with path.open("rb") as file:
        if offset == 0:
            if file.read(len(MAGIC)) != MAGIC:
                return
            offset = len(MAGIC)
        else:
            file.seek(offset)
        while True:
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                return
            length, checksum, kind, time_ms = _FRAME.unpack(head)
            if length > LARGEST_RECORD:
                return
            payload = file.read(length)
            if len(payload) < length or zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, time_ms))) != checksum:
                return
            offset += _FRAME.size + length
            yield Record(offset, kind, time_ms, payload)


def read_header(path: Path) -> Header | None:
    """Whose segment it is; None if it does not say. Raises OSError."""
    for first in read_records(path):
        try:
            return Header.from_bytes(first.payload) if first.kind == HEADER else None
        except (ValueError, TypeError):
            return None
    return None


def segments(folder: Path) -> list[Path]:
    """The segments of a run, oldest first."""
    return sorted((p for p in folder.glob(f"*{SUFFIX}")), key=lambda p: (int(p.name.partition("_")[0]), p.name))


def run_folders(root: Path) -> list[Path]:
    """The folders of all runs below a spool's root."""
    return sorted({path.parent for path in root.rglob(f"*{SUFFIX}")})


def host_name() -> str:
    """This machine."""
    return socket.gethostname()


# --- how far a target has got


@dataclass(slots=True)
class Progress:
    """What a target has of a run.

    Attributes:
        offsets: how far each segment was delivered, in bytes, by its name.
        state: `feeding`, `failing` (it is tried again), `refused` (it is not), `done`.
        error: what went wrong last.
        target_id: the run's id in the target.
    """

    offsets: dict[str, int]
    state: str = "feeding"
    error: str = ""
    target_id: str = ""

    @classmethod
    def load(cls, folder: Path, target: str) -> Progress:
        """What was recorded; nothing if nothing was."""
        try:
            value = json.loads(progress_path(folder, target).read_bytes())
            return cls(
                {str(name): int(offset) for name, offset in value["offsets"].items()},
                str(value.get("state", "feeding")),
                str(value.get("error", "")),
                str(value.get("target_id", "")),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls({})

    def save(self, folder: Path, target: str) -> None:
        """Records it, atomically. Raises OSError."""
        path = progress_path(folder, target)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(json_bytes({name: getattr(self, name) for name in self.__slots__}))
        temporary.replace(path)


def progress_path(folder: Path, target: str) -> Path:
    """Where the progress of a target is recorded."""
    return folder / "targets" / f"{folder_name(target)}.json"
