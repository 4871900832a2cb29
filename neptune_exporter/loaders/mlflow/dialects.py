# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What SQLite and PostgreSQL do differently: how to begin, how to insert points fast, how to stream them back.

Measured with MLflow's three indexes on the table of metrics, two cores, 500,000 points: in SQLite a statement for each
row takes 110,000 points/s, one for 150 rows 300,000; in PostgreSQL `COPY` in its binary form is the fastest there is,
and exact without a word about text. The indexes stay: without them SQLite would gain a tenth.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import sqlalchemy as sa

from neptune_exporter.loaders.mlflow.points import Points

COLUMNS = ("key", "value", "timestamp", "run_uuid", "step", "is_nan")
BUSY_SECONDS = 60  # how long to wait for another process that writes into a SQLite database
CACHE_KIB = 64 * 1024
READ_ROWS = 50_000
_ROWS = 150  # 900 parameters; old builds of SQLite take 999
_COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"

KeyedPoints = Iterable[tuple[str, Points]]


class Dialect(Protocol):
    """One kind of database."""

    def engine(self, url: sa.URL) -> sa.Engine:
        """A SQLAlchemy engine."""

    def writing(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """A context manager around a connection: one transaction that writes."""

    def insert(self, connection: sa.Connection, run_id: str, metrics: KeyedPoints) -> None:
        """Inserts points of a run, none of them twice, into the table of metrics."""

    def history(self, connection: sa.Connection, run_id: str, key: str) -> Iterator[Sequence[Any]]:
        """All points of a metric as rows of (step, time, value, is NaN), in pages."""


class SQLite:
    """A database in a file."""

    def engine(self, url: sa.URL) -> sa.Engine:
        """Connections are kept: a new one reads the whole schema again, which takes longer than a metric."""
        return sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"timeout": BUSY_SECONDS})

    @contextmanager
    def writing(self, connection: sa.Connection) -> Iterator[None]:
        """Takes the lock for writing at once: waiting for it is possible only at the beginning."""
        connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            # After some failures, a full disk for one, SQLite has rolled back already.
            driver: Any = connection.connection.driver_connection
            if driver.in_transaction:
                connection.exec_driver_sql("ROLLBACK")
            raise

    def insert(self, connection: sa.Connection, run_id: str, metrics: KeyedPoints) -> None:
        """Many rows in each statement."""
        cursor: Any = connection.connection.cursor()
        width = _ROWS * len(COLUMNS)
        many, one = _insert_of(_ROWS), _insert_of(1)
        waiting: list[Any] = []
        for key, points in metrics:
            waiting += _flat(run_id, key, points)
            full = len(waiting) // width * width
            cursor.executemany(many, (waiting[at : at + width] for at in range(0, full, width)))
            del waiting[:full]
        cursor.executemany(one, (waiting[at : at + len(COLUMNS)] for at in range(0, len(waiting), len(COLUMNS))))
        cursor.close()

    def history(self, connection: sa.Connection, run_id: str, key: str) -> Iterator[Sequence[Any]]:
        """Streamed by SQLite itself."""
        cursor: Any = connection.connection.cursor()
        cursor.execute(
            # The order makes SQLite use the index of the run; without it, it reads the metric in all runs.
            "SELECT step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step",
            (run_id, key),
        )
        while rows := cursor.fetchmany(READ_ROWS):
            yield rows
        cursor.close()


class PostgreSQL:
    """A database behind a server, by psycopg2 or psycopg."""

    def engine(self, url: sa.URL) -> sa.Engine:
        """A pool of connections, each looked at before it is used again."""
        return sa.create_engine(url, pool_pre_ping=True)

    @contextmanager
    def writing(self, connection: sa.Connection) -> Iterator[None]:
        """One transaction."""
        with connection.begin():
            yield

    def insert(self, connection: sa.Connection, run_id: str, metrics: KeyedPoints) -> None:
        """One `COPY` of all points in the binary form."""
        statement = f"COPY metrics ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
        chunks = _copied(run_id, metrics)
        driver: Any = connection.connection
        with driver.cursor() as cursor:
            if hasattr(cursor, "copy_expert"):  # psycopg2
                cursor.copy_expert(statement, _Reading(chunks), size=1 << 20)
                return
            with cursor.copy(statement) as copy:
                for chunk in chunks:
                    copy.write(chunk)

    def history(self, connection: sa.Connection, run_id: str, key: str) -> Iterator[Sequence[Any]]:
        """Streamed by a cursor of the server's."""
        driver: Any = connection.connection
        with driver.cursor(name="history") as cursor:
            cursor.execute(
                "SELECT step, timestamp, value, is_nan FROM metrics WHERE run_uuid = %s AND key = %s", (run_id, key)
            )
            while rows := cursor.fetchmany(READ_ROWS):
                yield rows


DIALECTS: dict[str, Dialect] = {"sqlite": SQLite(), "postgresql": PostgreSQL()}


def _insert_of(rows: int) -> str:
    row = f"({', '.join('?' * len(COLUMNS))})"
    columns, values = ", ".join(COLUMNS), ", ".join([row] * rows)
    return f"INSERT INTO metrics ({columns}) VALUES {values}"  # noqa: S608 - names of ours and question marks


def _flat(run_id: str, key: str, points: Points) -> list[Any]:
    """The rows of some points, one value after the other."""
    count = len(points.steps)
    is_nan = np.isnan(points.values)
    flat: list[Any] = [None] * (count * len(COLUMNS))
    columns = (
        [key] * count,
        np.where(is_nan, 0.0, points.values).tolist(),
        points.times.tolist(),
        [run_id] * count,
        points.steps.tolist(),
        is_nan.astype(np.int64).tolist(),
    )
    for number, column in enumerate(columns):
        flat[number :: len(COLUMNS)] = column
    return flat


def _copied(run_id: str, metrics: KeyedPoints) -> Iterator[bytes]:
    yield _COPY_BEGIN
    for key, points in metrics:
        yield copy_rows(run_id, key, points)
    yield _COPY_END


def copy_rows(run_id: str, key: str, points: Points) -> bytes:
    """The rows of some points in PostgreSQL's binary form: each value after its length, big-endian."""
    is_nan = np.isnan(points.values)
    name, run = key.encode(), run_id.encode()
    values: list[tuple[str, Any]] = [
        (f"S{len(name)}", name),
        (">f8", np.where(is_nan, 0.0, points.values)),
        (">i8", points.times),
        (f"S{len(run)}", run),
        (">i8", points.steps),
        ("u1", is_nan),
    ]
    layout: list[tuple[str, str]] = [("columns", ">i2")]
    for column, (form, _) in zip(COLUMNS, values, strict=True):
        layout += [(f"{column} length", ">i4"), (column, form)]
    rows = np.empty(len(points.steps), np.dtype(layout))
    rows["columns"] = len(COLUMNS)
    for column, (form, value) in zip(COLUMNS, values, strict=True):
        rows[f"{column} length"] = np.dtype(form).itemsize
        rows[column] = value
    return rows.tobytes()


class _Reading(io.RawIOBase):
    """Chunks of bytes as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        while not len(self._rest):
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        given, self._rest = self._rest[:size], self._rest[size:]
        return bytes(given)
