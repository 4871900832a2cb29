# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A private, consistent copy of an SQLite database that somebody may be writing to.

Opened in place, even read-only, SQLite creates or changes the files beside the database; opened as immutable it
ignores the write-ahead log. So the database and its log are copied, and only the copy is opened.
"""

from __future__ import annotations

import errno
import shutil
import struct
import tempfile
from pathlib import Path

from neptune_exporter.errors import SourceError

_ATTEMPTS = 20
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_SALTS = slice(16, 24)
_SPARE_BYTES = 16 * 2**20  # what SQLite itself and its wal-index may need


def copy_database(source: Path, folder: Path) -> Path:
    """Copies a database and its write-ahead log into a folder, as of one moment.

    A writer that empties the log between the two copies would leave a hole: that changes the size or time of the
    database or the salts in the log's header, and the copy is made again.

    Raises:
        SourceError: there is no room for the copy, or the writer is always faster.
        OSError: the source cannot be read.
    """
    target = folder / "copy.sqlite3"
    try:
        for _ in range(_ATTEMPTS):
            before = _mark(source)
            _require_space(before[0] + _size(_wal(source)), folder)
            _copy_both(source, target)
            if _mark(source) == before:
                return target
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(folder) from None
        raise
    raise SourceError(
        f"{source} is being written to faster than it can be copied.", "Export again when the run has ended."
    )


def _wal(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _copy_both(source: Path, target: Path) -> None:
    target.with_name(target.name + "-shm").unlink(missing_ok=True)
    shutil.copyfile(source, target)
    try:
        shutil.copyfile(_wal(source), _wal(target))
    except FileNotFoundError:
        _wal(target).unlink(missing_ok=True)


def _mark(source: Path) -> tuple[int, int, int, bytes]:
    """What changes whenever the log is emptied into the database."""
    status = source.stat()
    try:
        with _wal(source).open("rb") as wal:
            salts = wal.read(_WAL_HEADER_BYTES)[_SALTS]
    except FileNotFoundError:
        salts = b"none"
    return status.st_size, status.st_mtime_ns, status.st_ino, salts


def _require_space(needed: int, folder: Path) -> None:
    if shutil.disk_usage(folder).free < needed + _SPARE_BYTES:
        raise _no_space(folder, needed)


def _no_space(folder: Path, needed: int = 0) -> SourceError:
    amount = f" ({needed / 1e6:,.0f} MB are needed)" if needed else ""
    return SourceError(
        f"There is not enough room in {folder.parent} for a temporary copy of an offline database{amount}.",
        "Set TMPDIR to a folder on a bigger disk.",
    )


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of our own for one copy; a context manager that removes it."""
    return tempfile.TemporaryDirectory(prefix="neptune-exporter-", ignore_cleanup_errors=True)


def mend_header(copy: Path) -> bool:
    """Lets SQLite read what is left of a truncated copy; returns whether it was truncated.

    SQLite refuses a database that is shorter than its header says. An empty one gets a page of zeros, so that
    the write-ahead log beside it is still looked at: until the first checkpoint everything is there.
    """
    with copy.open("r+b") as file:
        header = file.read(100)
        size = copy.stat().st_size
        if not header and _size(_wal(copy)) > _WAL_HEADER_BYTES:
            file.write(bytes(_wal_page_size(copy)))
            return True
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            return False
        page_size = _page_size(struct.unpack(">H", header[16:18])[0])
        pages = struct.unpack(">I", header[28:32])[0]
        if pages * page_size <= size or not page_size:
            return False
        file.seek(28)
        file.write(struct.pack(">I", size // page_size))
        return True


def _page_size(stored: int) -> int:
    return 65536 if stored == 1 else stored


def _wal_page_size(copy: Path) -> int:
    with _wal(copy).open("rb") as wal:
        size = int(struct.unpack(">I", wal.read(12)[8:12])[0])
    return size if 512 <= size <= 65536 else 4096


def committed_frames(copy: Path) -> list[int]:
    """The numbers (from 1) of the frames that end a transaction, as the write-ahead log itself claims.

    Frames left over from before the log was last emptied carry other salts and do not count. Read before SQLite
    opens the copy: how many of these it accepts says whether the log is damaged.
    """
    path = _wal(copy)
    size = _size(path)
    if size <= _WAL_HEADER_BYTES:
        return []
    stride = _FRAME_HEADER_BYTES + _wal_page_size(copy)
    with path.open("rb") as wal:
        salts = wal.read(_WAL_HEADER_BYTES)[_SALTS]
        ends = []
        for number in range(1, (size - _WAL_HEADER_BYTES) // stride + 1):
            wal.seek(_WAL_HEADER_BYTES + (number - 1) * stride)
            header = wal.read(16)
            if header[8:16] != salts:
                break
            if header[4:8] != b"\0\0\0\0":
                ends.append(number)
    return ends
