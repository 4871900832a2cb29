# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet parts and the attribute index: how rows lie on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neptune_exporter import free_space
from neptune_exporter.errors import DamagedDataError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import BATCH_SCHEMA, NAME_COLUMNS, SCHEMA, VALUE_COLUMN, normalize
from neptune_exporter.storage import disk
from neptune_exporter.storage.footer import RowGroup, read_footer
from neptune_exporter.storage.manifest import FileEntry
from neptune_exporter.storage.misplaced import Misplaced
from neptune_exporter.storage.objects.path import ObjectPath
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.portions import bounded_batches

PART_BYTES = 50 << 20
GROUP_ROWS = 1_000_000
GROUP_BYTES = 128 << 20
# What Arrow raises of bytes that are no Parquet any more; a text that is not UTF-8 is a ValueError.
UNREADABLE = (OSError, pa.ArrowException, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError)

INDEX_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("type", pa.string()),
        ("rows", pa.int64()),
        ("nan_count", pa.int64()),
        ("first_step", pa.int64()),
        ("last_step", pa.int64()),
        ("step_decimals", pa.int64()),
        ("first_time", pa.int64()),
        ("last_time", pa.int64()),
        ("digest", pa.uint64()),
    ]
)

_ENCODING = {
    "use_dictionary": [*NAME_COLUMNS, "string_value", "histogram_value.edges.list.element"],
    "column_encoding": {
        "step": "DELTA_BINARY_PACKED",
        "timestamp": "DELTA_BINARY_PACKED",
        "datetime_value": "DELTA_BINARY_PACKED",
        "float_value": "BYTE_STREAM_SPLIT",
    },
    "compression": "zstd",
    "compression_level": 3,
    "store_decimal_as_integer": True,
    "store_schema": False,  # otherwise readers would get our in-memory dictionaries instead of strings
}


class PartWriter:
    """Writes sorted rows into parts of about 50 MB, each under the path that `path_of` gives for its number.

    Each part is told to `whole` with its rows, as soon as it is.

    Rows are encoded a group at a time by a thread of its own, while the next group is gathered: Arrow does not need
    the interpreter for it.
    """

    def __init__(self, path_of: Callable[[int], Path], whole: Callable[[Path, int], None] = lambda *_: None) -> None:
        self._path_of = path_of
        self._whole = whole
        self._open: tuple[Any, Any, Any] | None = None  # the context, the file, the Parquet writer
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._encoding: Future[None] | None = None
        self._group: list[pa.RecordBatch] = []
        self._group_rows = self._group_bytes = self._part_rows = 0
        self.parts: list[tuple[Path, int]] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes rows in `BATCH_SCHEMA`."""
        self._group.append(batch)
        self._group_rows += batch.num_rows
        self._group_bytes += batch.nbytes
        if self._group_rows >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> list[tuple[Path, int]]:
        """Ends the last part and returns all of them with their rows. There is always at least one part."""
        if self._group:
            self._flush()
        self._settle()
        if not self.parts:
            self._open_part()
        self._close_part()
        self._encoder.shutdown()
        return self.parts

    def abort(self) -> None:
        """Closes what is open."""
        self._encoder.shutdown()
        if self._open is not None:
            context, _, writer = self._open
            self._open = None
            failure = DamagedDataError("The part was given up.")
            context.__exit__(type(failure), failure, None)
            writer.is_open = False  # its file is gone: it must not write a footer

    def _flush(self) -> None:
        self._settle()
        if self._open is None:
            self._open_part()
        assert self._open is not None
        free_space.check(self.parts[-1][0], self._group_bytes // 4)  # they take less on disk than in memory
        table = pa.Table.from_batches(self._group, schema=BATCH_SCHEMA)
        self._encoding = self._encoder.submit(_encode, table, self._open[2])
        self._part_rows += table.num_rows
        self._group.clear()
        self._group_rows = self._group_bytes = 0

    def _settle(self) -> None:
        """Waits for the group that is being encoded; ends the part if it is big enough."""
        if self._encoding is None or self._open is None:
            return
        encoding, self._encoding = self._encoding, None
        with disk.explained("write", self.parts[-1][0]):
            encoding.result()
        if self._open[1].tell() >= PART_BYTES:
            self._close_part()

    def _open_part(self) -> None:
        path: Path = self._path_of(len(self.parts))
        context = disk.create(path)
        file = context.__enter__()
        try:
            with disk.explained("write", path):
                writer = pq.ParquetWriter(file, BATCH_SCHEMA, **_ENCODING)
        except BaseException as error:
            context.__exit__(type(error), error, error.__traceback__)
            raise
        self.parts.append((path, 0))
        self._part_rows = 0
        self._open = (context, file, writer)

    def _close_part(self) -> None:
        if self._open is None:
            return
        context, _, writer = self._open
        path = self.parts[-1][0]
        with disk.explained("write", path):
            writer.close()
        context.__exit__(None, None, None)
        self._open = None
        self.parts[-1] = (path, self._part_rows)
        self._whole(path, self._part_rows)


def _encode(group: pa.Table, writer: Any) -> None:
    writer.write_table(group.unify_dictionaries().combine_chunks(), row_group_size=GROUP_ROWS)


def entry(path: Path, name: str, rows: int = 0) -> FileEntry:
    """The manifest entry of a file: of one that was just written, or of a part that is to be checked."""
    disk.check_regular(path)
    with disk.explained("read", path), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(name, file.tell(), sha256, rows)


def open_part(path: Place) -> pq.ParquetFile:
    """Opens a part. Raises `DamagedDataError`, naming it, if it is missing, cut short or not ours to read."""
    if isinstance(path, Path):
        disk.check_regular(path)
    try:
        if isinstance(path, ObjectPath):  # the columns of a row group in one request
            part = pq.ParquetFile(path.ranged(), read_dictionary=list(NAME_COLUMNS), pre_buffer=True)
        else:
            # What is buffered ahead is kept until the file is closed: the whole part.
            part = pq.ParquetFile(path, read_dictionary=list(NAME_COLUMNS), pre_buffer=False)
        found = Counter(part.schema_arrow.names)
    except KeyError as error:  # a name column is missing
        name = error.args[0]
        raise _not_a_part(path, name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)) from error
    except UNREADABLE as error:
        raise damaged(path, error) from error
    for name in SCHEMA.names:
        if name not in found:
            raise _not_a_part(path, name)
        if found[name] > 1:  # nobody can say which one counts
            raise DamagedDataError(
                f"{path} is not a part of a Neptune export: it has {found[name]} columns {name}.",
                "Restore it from a backup, or export the run again.",
            )
    return part


def row_groups(path: Place) -> list[RowGroup]:
    """What the footer of a part says. Raises like `open_part`."""
    if isinstance(path, Path):
        disk.check_regular(path)
    try:
        with path.ranged() if isinstance(path, ObjectPath) else Path(str(path)).open("rb") as file:
            return read_footer(file)
    except UNREADABLE as error:
        raise damaged(path, error) from error


def bytes_by_column(path: Place) -> dict[str, int]:
    """The bytes on disk of each column of a part, from its footer. Raises like `open_part`."""
    found: dict[str, int] = {}
    for group in row_groups(path):
        for name, chunk in group.columns.items():
            column = name.split(".", 1)[0]
            found[column] = found.get(column, 0) + chunk.bytes
    return found


def check_part(path: Place, expected: FileEntry, rows: int, size: int) -> None:
    """Raises `DamagedDataError` if a part is not what the manifest says."""
    if (rows, size) != (expected.rows, expected.bytes):
        raise DamagedDataError(
            f"{path} is not what the manifest says: it has {rows} rows in {size} bytes "
            f"instead of {expected.rows} in {expected.bytes}.",
            "Restore it from a backup, or export the run again with --overwrite.",
        )


def _not_a_part(path: Place, column: str) -> DamagedDataError:
    return DamagedDataError(
        f"{path} is not a part of a Neptune export: it has no column {column}.", "Remove it from the data folder."
    )


def part_batches(
    part: pq.ParquetFile, path: Place, *, vouched: bool = False, misplaced: Misplaced | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of an open part, in file order, rows without a value left out. Raises like `open_part`.

    Args:
        part: the part.
        path: where it lies.
        vouched: whether a checksum says that it is what was written; else texts may be no texts.
        misplaced: is told of rows that are left out although they hold something.
    """
    try:
        for batch in bounded_batches(part, path, SCHEMA.names):
            rows = normalize(batch)
            if not vouched:
                rows.validate(full=True)
            if any(rows.column(name).null_count for name in NAME_COLUMNS):
                raise DamagedDataError(
                    f"{path} holds rows without a name or a type.", "Restore it from a backup, or export the run again."
                )
            yield without_placeholders(rows, misplaced)
    except UNREADABLE as error:
        raise damaged(path, error) from error


def damaged(path: Place, error: Exception) -> DamagedDataError:
    """What is said of a part that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DamagedDataError(f"{path} is missing.", "Restore it from a backup, or export the run again.")
    return DamagedDataError(
        f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}.",
        "It may be cut short. Restore it from a backup, or export the run again.",
    )


def without_placeholders(batch: pa.RecordBatch, misplaced: Misplaced | None = None) -> pa.RecordBatch:
    """Drops the rows whose value is null: they carry nothing, or not where their type says and are told of."""
    type_column = batch.column("attribute_type")
    types = type_column.dictionary.to_pylist()
    codes = np.asarray(type_column.indices)
    keep: Any = None
    for code in np.flatnonzero(np.bincount(codes)).tolist():
        column = batch.column(VALUE_COLUMN.get(types[code], "string_value"))
        if pa.types.is_struct(column.type) and "path" in {f.name for f in column.type}:
            column = column.field("path") if column.null_count == 0 else pa.compute.struct_field(column, "path")
        if column.null_count == 0:
            continue
        null_here = np.asarray(column.is_null()) & (codes == code)
        if null_here.any():
            keep = ~null_here if keep is None else keep & ~null_here
    if keep is None:
        return batch
    if misplaced is not None:
        misplaced.add(batch.filter(pa.array(~keep)))
    return batch.filter(pa.array(keep))


def write_index(path: Path, attributes: Sequence[Attribute]) -> None:
    """Writes the attribute index."""
    columns = zip(*attributes, strict=True) if attributes else [[]] * len(INDEX_SCHEMA)
    table = pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, INDEX_SCHEMA, strict=True)],
        schema=INDEX_SCHEMA,
    )
    with disk.create(path) as file, disk.explained("write", path):
        pq.write_table(table, file, compression="zstd")


def read_index(path: Place, data: bytes) -> list[Attribute]:
    """Reads the attribute index from the content of its file. Raises `DamagedDataError`, naming it."""
    try:
        # Not pq.read_table: that imports pandas, which takes longer than everything else here.
        table = pq.ParquetFile(pa.BufferReader(data)).read().select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    columns: Iterable[list[Any]] = (table.column(name).to_pylist() for name in INDEX_SCHEMA.names)
    return [Attribute(*row) for row in zip(*columns, strict=True)]
