# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""How much of a part is read at once: so many rows that their texts and lists take bounded memory.

A part of a few kilobytes can hold gigabytes: a text that occurs a thousand times lies on disk once. Arrow reads as many
rows as it is told to, however long they are, and goes on into the next row group for them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neptune_exporter.model import Int64s
from neptune_exporter.storage.footer import ColumnChunk, RowGroup, read_footer
from neptune_exporter.storage.objects.path import ObjectPath
from neptune_exporter.storage.place import Place

READ_ROWS = 65_536
READ_BYTES = 64 << 20
_MEASURED_ROWS = 64  # at once, of row groups that are large before anything of them repeats
_BOUNDLESS = frozenset({"string_value", "string_set_value", "file_value", "histogram_value"})


def bounded_batches(
    part: pq.ParquetFile, path: Place, columns: Sequence[str], groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of an open part in batches of at most `READ_ROWS` rows and about `READ_BYTES`, but at least one row.

    Raises whatever Arrow raises of a damaged part, and `ValueError` of a damaged footer.

    Args:
        part: the part.
        path: where it lies.
        columns: which columns.
        groups: which row groups; None for all.
    """
    for together, rows in _portions(part, path, columns, range(part.num_row_groups) if groups is None else groups):
        yield from part.iter_batches(rows, row_groups=together, columns=columns)


def _portions(
    part: pq.ParquetFile, path: Place, columns: Sequence[str], groups: Sequence[int]
) -> Iterator[tuple[list[int], int]]:
    """Row groups that may be read as one, and how many rows of them at once."""
    about: list[RowGroup] = []
    together: list[int] = []
    held = 0
    for number in groups:
        group = part.metadata.row_group(number)
        size = group.total_byte_size * group.num_rows  # no value is longer than all of them together
        if not 0 <= size <= READ_BYTES:
            about = about or _footer(part)  # its columns are not asked of Arrow: see there
            size = sum(chunk.decoded for chunk in _boundless(about[number], columns).values())
        if together and held + size > READ_BYTES:
            yield together, READ_ROWS
            together, held = [], 0
        if size <= READ_BYTES:
            together.append(number)
            held += size
        else:
            yield [number], _rows_at_once(part, path, number, about[number].rows, _boundless(about[number], columns))
    if together:
        yield together, READ_ROWS


def _footer(part: pq.ParquetFile) -> list[RowGroup]:
    file = io.BytesIO()
    part.metadata.write_metadata_file(file)
    return read_footer(file)


def _boundless(group: RowGroup, columns: Sequence[str]) -> dict[str, ColumnChunk]:
    """What may be of any length of the columns that are read, by its path."""
    read = _BOUNDLESS.intersection(columns)
    return {path: chunk for path, chunk in group.columns.items() if path.split(".", 1)[0] in read}


def _rows_at_once(part: pq.ParquetFile, path: Place, number: int, count: int, chunks: Mapping[str, ColumnChunk]) -> int:
    """How many rows of a row group are read at once, if so many have these chunks."""
    decoded = sum(chunk.decoded for chunk in chunks.values())
    if decoded <= 2 * READ_BYTES:  # as our own row groups are: not worth to be looked at twice
        return max(1, min(READ_ROWS, count * READ_BYTES // decoded))
    large = sum(chunk.uncompressed if chunk.text else chunk.decoded for chunk in chunks.values()) > 2 * READ_BYTES
    source = path.ranged() if isinstance(path, ObjectPath) else Path(str(path))
    texts = [name for name, chunk in chunks.items() if chunk.text]
    # Texts as codes into those that differ: what occurs often is held once.
    with pq.ParquetFile(source, metadata=part.metadata, read_dictionary=texts, pre_buffer=False) as again:
        columns = sorted({name.split(".", 1)[0] for name in chunks})
        batches = again.iter_batches(_MEASURED_ROWS if large else READ_ROWS, row_groups=[number], columns=columns)
        sizes = [sum(map(_sizes, batch.columns), np.zeros(batch.num_rows, np.int64)) for batch in batches]
    every: Int64s = np.concatenate(sizes) if sizes else np.zeros(1, np.int64)
    rows = READ_ROWS
    while rows > 1 and np.add.reduceat(every, np.arange(0, len(every), rows)).max() > READ_BYTES:
        rows //= 2
    return rows


def _sizes(column: pa.Array) -> Int64s:
    """How many bytes the values of each row take as texts and numbers of their own."""
    if pa.types.is_struct(column.type):
        return sum(map(_sizes, column.flatten()), np.zeros(len(column), np.int64))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), dtype=np.int64)
        running = np.append(0, np.cumsum(_sizes(column.flatten())))
        return np.diff(running[ends], prepend=0)
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary)
        return np.asarray(pc.fill_null(lengths.take(column.indices), 0)).astype(np.int64)
    if column.null_count == len(column):
        return np.zeros(len(column), np.int64)
    return np.full(len(column), 8, np.int64)
