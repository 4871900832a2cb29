# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One operation log: a copy of its database, open for reading, with whatever can be saved of a damaged one."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.offline_scale.copy import (
    committed_frames,
    copy_database,
    mend_header,
    temporary_folder,
)

logger = logging.getLogger(__name__)

UPDATE, CREATE = 0, 1  # run_operations.operation_type
BLOCK_BYTES = 2 * 2**20
_ATTEMPTS = 3
UNREADABLE = (sqlite3.Error, UnicodeError)  # sqlite3 fails to decode its own message where names are damaged

# What the client records when it could not reach the server: it tries again, nothing was refused.
_RETRIED_ERRORS = frozenset(
    {
        "NeptuneConnectionLostError",
        "NeptuneUnexpectedResponseError",
        "NeptuneTooManyRequestsResponseError",
        "NeptuneInternalServerError",
        "NeptuneUnableToAuthenticateError",
        "NeptuneFileUploadTemporaryError",
        "NeptuneRetryableError",
    }
)


class UnreadableStoreError(SourceError):
    """A file that should be an operation log, but does not say whose."""


# A row of run_operations: the sequence id, which counts up from 1 in each log; when it was logged, in milliseconds;
# UPDATE, CREATE or something unknown; the protobuf message.
Operation = tuple[int, int, int, bytes]


class Block(NamedTuple):
    """Consecutive operations.

    Attributes:
        first: the first sequence id.
        last: the last one.
        updates: the messages of type `UPDATE`, in order.
        others: type and message of all others.
    """

    first: int
    last: int
    updates: list[bytes]
    others: list[tuple[int, bytes]]


class FileRequest(NamedTuple):
    """One row of `file_upload_requests`: a file that was to be uploaded.

    Attributes:
        source: the absolute path at the time of logging.
        destination: the key that operations name it by.
        size: bytes at the time of logging.
        temporary: whether the client itself wrote it, beside the database.
    """

    source: str
    destination: str
    size: int
    temporary: bool


class Database:
    """A copy of one operation log.

    Attributes:
        path: where the original lies.
        project: the project id.
        run_id: the run id.
        first: the first sequence id that is there, None if none is.
        last: the last one.
        count: how many operations there are; less than the range if some are lost.
        size: bytes of all operations, 0 if unknown.
        ever: the last sequence id ever given out; None if unknown.
        files: how many files were ever to be uploaded.
        lost_transactions: committed transactions in the write-ahead log that SQLite cannot use.
        damaged: whether any page that was asked for could not be read.
        lost: operations that are missing; known once `blocks` is exhausted.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, truncated: bool, lost_transactions: int) -> None:
        self.path = path
        self.lost_transactions = lost_transactions
        self.lost = 0
        self._connection = connection
        self.damaged = truncated or lost_transactions > 0
        self._tables = self._read_tables()
        self.project, self.run_id = self._identity()
        self.ever: int | None = self._number("SELECT seq FROM sqlite_sequence WHERE name = 'run_operations'")
        self.first = self._number("SELECT MIN(sequence_id) FROM run_operations")
        self.last = self._number("SELECT MAX(sequence_id) FROM run_operations")
        self.count = self._number("SELECT COUNT(*) FROM run_operations") or 0
        self.size = self._number("SELECT SUM(operation_size_bytes) FROM run_operations") or 0
        self.files = self._files_ever()

    def _read_tables(self) -> set[str]:
        try:
            rows = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        except UNREADABLE as error:
            raise UnreadableStoreError(f"{self.path} cannot be read as a database: {error}.") from None
        if not rows:
            raise UnreadableStoreError(f"{self.path} is an empty database: whose it was is not recorded.")
        return {name for (name,) in rows}

    @property
    def is_log(self) -> bool:
        """Whether this is an operation log at all."""
        return "run_operations" in self._tables

    def _identity(self) -> tuple[str, str]:
        if not self.is_log:
            return "", ""
        try:
            row = self._connection.execute("SELECT project, run_id FROM metadata ORDER BY id LIMIT 1").fetchone()
        except UNREADABLE as error:
            raise UnreadableStoreError(f"{self.path} does not say which run it belongs to: {error}.") from None
        if row is None or not all(isinstance(name, str) and name for name in row):
            raise UnreadableStoreError(f"{self.path} does not say which run it belongs to.")
        return row[0], row[1]

    def _number(self, query: str) -> int | None:
        """The one number that a query gives; None, and `damaged`, if the pages it needs cannot be read."""
        if not self.is_log:
            return None
        try:
            row = self._connection.execute(query).fetchone()
        except UNREADABLE:
            self.damaged = True
            return None
        return row[0] if row and isinstance(row[0], int) else None

    def _files_ever(self) -> int:
        if "file_upload_requests" not in self._tables:
            return 0
        return self._number("SELECT seq FROM sqlite_sequence WHERE name = 'file_upload_requests'") or 0

    def operation(self, sequence_id: int) -> Operation | None:
        """One operation, None if it is not there or cannot be read."""
        query = _SELECT + "WHERE sequence_id = ?"
        try:
            row = self._connection.execute(query, (sequence_id,)).fetchone()
        except UNREADABLE:
            return None
        return row if row and isinstance(row[1], int) and isinstance(row[3], bytes) else None

    def blocks(self, after: int = 0) -> Iterator[Block]:
        """All operations above a sequence id that can be read, ascending, in blocks of about `BLOCK_BYTES`.

        Where a page is damaged, every operation behind it is asked for on its own. Afterwards `lost` is the number of
        operations that should have been there; synced ones, which the client deletes from the front, are not lost.
        """
        self.lost = 0
        previous: int | None = None
        for block in self._readable(after):
            self.lost += block.last - block.first + 1 - len(block.updates) - len(block.others)
            if previous is not None:
                self.lost += block.first - previous - 1
            previous = block.last
            yield block
        if self.ever is not None and (previous is not None or self.damaged):
            self.lost += max(0, self.ever - (after if previous is None else previous))

    def _readable(self, after: int) -> Iterator[Block]:
        last = after
        try:
            cursor = self._connection.execute(_SELECT + "WHERE sequence_id > ? ORDER BY sequence_id", (after,))
            for block in _blocks(cursor):
                last = block.last
                yield block
        except (*UNREADABLE, TypeError) as error:  # a damaged row may hold something else than bytes
            self.damaged = True
            logger.info("%s: %s; salvaging operation by operation", self.path, error)
            yield from _blocks(self._one_by_one(last))

    def _one_by_one(self, after: int) -> Iterator[Operation]:
        end = max(filter(None, (self.ever, self.last)), default=after)
        start = max(after + 1, self.first or 0)
        end = min(end, start + self.path.stat().st_size)  # whatever the numbers say: an operation takes some bytes
        for sequence_id in range(start, end + 1):
            operation = self.operation(sequence_id)
            if operation is not None:
                yield operation

    def file_requests(self) -> list[FileRequest]:
        """The files that were still to be uploaded, in the order in which they were logged."""
        if "file_upload_requests" not in self._tables:
            return []
        rows = self._rows(
            "SELECT source_path, destination, size_bytes, is_temporary FROM file_upload_requests ORDER BY id"
        )
        return [
            FileRequest(str(source), str(destination), size if isinstance(size, int) else -1, bool(temporary))
            for source, destination, size, temporary in rows
        ]

    def refusals(self) -> list[str]:
        """What the server answered to operations that it refused and that are no longer in the log.

        The recorded exceptions themselves are pickles and are never looked at.
        """
        if "operation_errors" not in self._tables:
            return []
        rows = self._rows("SELECT sequence_id, error_type, error_details FROM operation_errors ORDER BY error_id")
        gone = self.first if self.first is not None else (self.ever or 0) + 1
        return [
            f"operation {sequence_id}: {kind}: {details}"
            for sequence_id, kind, details in rows
            if isinstance(sequence_id, int) and sequence_id < gone and kind not in _RETRIED_ERRORS
        ]

    def _rows(self, query: str) -> list[Any]:
        rows: list[Any] = []
        try:
            rows.extend(self._connection.execute(query))
        except UNREADABLE as error:
            self.damaged = True
            logger.info("%s: %s", self.path, error)
        return rows


_SELECT = "SELECT sequence_id, timestamp, operation_type, operation FROM run_operations "


@contextmanager
def open_copy(path: Path) -> Iterator[Database]:
    """Opens a copy of an operation log for the length of a with block.

    Raises:
        UnreadableStoreError: it is damaged beyond knowing whose it is, or not a database at all.
        SourceError: it cannot be copied.
    """
    with temporary_folder() as folder:
        for attempt in range(_ATTEMPTS):
            connection, truncated, lost = _copied(path, Path(folder))
            with closing(connection):
                if lost and attempt < _ATTEMPTS - 1:
                    continue  # a transaction may have been half written when the log was copied
                yield Database(path, connection, truncated=truncated, lost_transactions=lost)
                return


def _copied(path: Path, folder: Path) -> tuple[sqlite3.Connection, bool, int]:
    """A connection to a copy, whether it was truncated, and how many transactions its log has lost."""
    try:
        copy = copy_database(path, folder)
    except OSError as error:
        raise UnreadableStoreError(f"{path} cannot be read: {error.strerror or error}.") from None
    claimed = committed_frames(copy)
    if copy.stat().st_size == 0 and not claimed:
        raise UnreadableStoreError(f"{path} is an empty file: whose it was is not recorded.")
    truncated = mend_header(copy)
    connection = sqlite3.connect(copy, isolation_level=None, check_same_thread=False)
    usable = _usable_frames(connection)
    return connection, truncated, sum(number > usable for number in claimed)


def _blocks(operations: Iterable[Operation]) -> Iterator[Block]:
    """Groups operations by size. Keeps no tuple of them: a list of a hundred thousand busies the garbage collector."""
    updates: list[bytes] = []
    others: list[tuple[int, bytes]] = []
    first, size, sequence_id = 0, 0, 0
    for sequence_id, _, kind, blob in operations:
        if not first:
            first = sequence_id
        if kind == UPDATE:
            updates.append(blob)
        else:
            others.append((kind, blob))
        size += len(blob)
        if size >= BLOCK_BYTES:
            yield Block(first, sequence_id, updates, others)
            updates, others = [], []
            first, size = 0, 0
    if first:
        yield Block(first, sequence_id, updates, others)


def _usable_frames(connection: sqlite3.Connection) -> int:
    """How many frames of the write-ahead log SQLite accepts: up to the last whole transaction."""
    with suppress(*UNREADABLE):
        row = connection.execute("PRAGMA wal_checkpoint").fetchone()
        return int(row[1])
    return 0
