# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Sorts the rows of one run with bounded memory.

Rows are kept in a compact form: a code for (path, type), step and time as whole numbers, and only the value
columns that hold anything. Full chunks are sorted and spilled as Arrow files, then merged block by block. Of many
chunks every `MERGED_AT_ONCE` become one first, so that memory does not grow with the run.
The sort is stable: rows with equal keys keep the order in which they came.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter import free_space
from neptune_exporter.model import (
    BATCH_SCHEMA,
    VALUE_COLUMNS,
    Int64s,
    RunRef,
    codes_of,
    constant,
    names,
    normalize,
    step_array,
    step_micros,
    time_array,
    time_millis,
)
from neptune_exporter.storage import disk

Order = Literal["attribute", "step"]
Keys = list[npt.NDArray[Any]]

CHUNK_ROWS = 1_000_000
CHUNK_BYTES = 128 << 20
MERGED_AT_ONCE = 32
BLOCK_ROWS = 16_384
BLOCK_BYTES = 2 << 20


class ExternalSort:
    """Takes the rows of one run in any order and gives them back sorted.

    Args:
        ref: the run; what the rows say of their project and run is not kept.
        order: `attribute` sorts by (path, type, step), `step` by (step, time, path, type). Null comes first.
        folder: where chunks are spilled; made when it is needed.
        origin: whether rows carry a number (0 to 127) that says where they came from.
    """

    def __init__(self, ref: RunRef, order: Order, folder: Path, *, origin: bool = False) -> None:
        self._ref = ref
        self._order = order
        self._folder = folder
        self._with_origin = origin
        self._codes: dict[tuple[str, str], int] = {}
        self._names: list[tuple[str, str]] = []
        self._ranks: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._buffer: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._levels: list[list[Path]] = []  # spilled chunks; those of a level are made of a group of the level before
        self._spilled = 0
        self._own_folder: Path | None = None

    @property
    def attributes(self) -> set[tuple[str, str]]:
        """Every (path, type) that has rows so far."""
        return set(self._codes)

    def add(self, batch: pa.RecordBatch, origin: int = 0) -> None:
        """Takes rows."""
        batch = normalize(batch)
        if batch.num_rows == 0:
            return
        compact = self._compact(batch, origin)
        self._buffer.append(compact)
        self._rows += compact.num_rows
        self._bytes += compact.nbytes
        if self._rows >= CHUNK_ROWS or self._bytes >= CHUNK_BYTES:
            self._spill()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, sorted, as batches in `BATCH_SCHEMA`."""
        for table in self._merged():
            yield self._expand(table)

    def batches_with_origin(self) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.int8]]]:
        """All rows, sorted, with the origin of each row."""
        for table in self._merged():
            yield self._expand(table), np.asarray(table.column("origin").combine_chunks())

    def close(self) -> None:
        """Removes what was spilled. Raises `StagingError` if that cannot be."""
        self._buffer.clear()
        if self._own_folder is not None:
            disk.remove_tree(self._own_folder)
            disk.remove_empty_folder(self._folder)
            self._own_folder = None

    # --- the compact form

    def _compact(self, batch: pa.RecordBatch, origin: int) -> pa.Table:
        columns: dict[str, Any] = {
            "code": self._encode(batch.column("attribute_path"), batch.column("attribute_type")),
            "step": step_micros(batch.column("step")),
            "time": time_millis(batch.column("timestamp")),
        }
        if self._with_origin:
            columns["origin"] = np.full(batch.num_rows, origin, np.int8)
        for name in VALUE_COLUMNS:
            column = batch.column(name)
            if column.null_count != len(column):
                columns[name] = column
        return pa.table(columns)

    def _encode(self, path_column: pa.DictionaryArray, type_column: pa.DictionaryArray) -> npt.NDArray[np.int32]:
        types = type_column.dictionary.to_pylist()
        paths = path_column.dictionary
        key = codes_of(path_column).astype(np.int64) * len(types) + codes_of(type_column)
        size = len(paths) * len(types)
        if size > 4 * len(key) + 65536:
            present, position = np.unique(key, return_inverse=True)
        else:
            seen = np.zeros(size, np.bool_)
            seen[key] = True
            present = np.flatnonzero(seen)
            position = None
        texts = paths.take(pa.array(present // len(types))).to_pylist()
        kinds = (present % len(types)).tolist()
        found = [
            self._codes.setdefault((path, types[kind]), len(self._codes))
            for path, kind in zip(texts, kinds, strict=True)
        ]
        if position is not None:
            return np.array(found, np.int32)[position].astype(np.int32, copy=False)
        table = np.zeros(size, np.int32)
        table[present] = found
        encoded: npt.NDArray[np.int32] = table.take(key)
        return encoded

    def _expand(self, table: pa.Table) -> pa.RecordBatch:
        rows = table.num_rows
        present, attribute = self._distinct(np.asarray(table.column("code").combine_chunks()))
        found = [self._names[code] for code in present]
        kinds = sorted({kind for _, kind in found})
        kind_of = np.array([kinds.index(kind) for _, kind in found], np.int32)
        given: dict[str, Any] = {
            "project_id": constant(self._ref.project_id, rows),
            "run_id": constant(self._ref.run_id, rows),
            "attribute_path": names(attribute, [path for path, _ in found]),
            "attribute_type": names(kind_of[attribute], kinds),
            "step": step_array(np.asarray(table.column("step").combine_chunks())),
            "timestamp": time_array(np.asarray(table.column("time").combine_chunks())),
        }
        for name in VALUE_COLUMNS:
            if name in table.column_names:
                given[name] = table.column(name).combine_chunks()
        columns = [given[field.name] if field.name in given else pa.nulls(rows, field.type) for field in BATCH_SCHEMA]
        return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)

    def _distinct(self, codes: npt.NDArray[np.int32]) -> tuple[list[int], npt.NDArray[np.int32]]:
        """The codes that occur, in the order of their names, and for each row which of them it has."""
        if self._order == "attribute":  # equal codes stand together
            starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
            lengths = np.diff(np.append(starts, len(codes)))
            return codes[starts].tolist(), np.repeat(np.arange(len(starts), dtype=np.int32), lengths)
        seen = np.zeros(len(self._names), np.bool_)
        seen[codes] = True
        present = np.flatnonzero(seen)
        present = present[np.argsort(self._ranks[present])]
        position = np.empty(len(seen), np.int32)
        position[present] = np.arange(len(present), dtype=np.int32)
        return present.tolist(), position[codes]

    # --- sorting and merging

    def _keys(self, table: pa.Table) -> Keys:
        """The sort keys of compact rows, most significant first."""
        if len(self._ranks) != len(self._codes):
            self._rank_attributes()
        rank = self._ranks[np.asarray(table.column("code").combine_chunks())]
        step = np.asarray(table.column("step").combine_chunks())
        if self._order == "attribute":
            return [rank, step]
        return [step, np.asarray(table.column("time").combine_chunks()), rank]

    def _rank_attributes(self) -> None:
        self._names = list(self._codes)
        order = sorted(range(len(self._names)), key=self._names.__getitem__)
        self._ranks = np.empty(len(order), np.int32)
        self._ranks[order] = np.arange(len(order), dtype=np.int32)

    def _sorted_buffer(self) -> pa.Table:
        table = pa.concat_tables(self._buffer, promote_options="default").combine_chunks()
        self._buffer.clear()
        self._rows = self._bytes = 0
        order = stable_order(self._keys(table))
        return table if order is None else table.take(pa.array(order))

    def _spill(self) -> None:
        table = self._sorted_buffer()
        free_space.check(self._folder, table.nbytes)
        if self._own_folder is None:
            disk.make_folder(self._folder)
            with disk.explained("write into", self._folder):
                self._own_folder = Path(tempfile.mkdtemp(prefix="sort-", suffix=".tmp", dir=self._folder))
        self._store(0, table.schema, [table])
        self._merge_groups()

    def _store(self, level: int, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        assert self._own_folder is not None
        path = self._own_folder / f"{self._spilled}.arrow"
        self._spilled += 1
        with (
            disk.explained("write", path),
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, schema) as writer,
        ):
            for table in tables:
                rows = int(max(1, min(BLOCK_ROWS, BLOCK_BYTES * table.num_rows // max(table.nbytes, 1))))
                writer.write_table(table, max_chunksize=rows)
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(path)

    def _merge_groups(self) -> None:
        """Makes one of the chunks of each level that has enough of them."""
        level = 0
        while level < len(self._levels) and len(self._levels[level]) >= MERGED_AT_ONCE:
            group = self._levels[level]
            free_space.check(self._folder, sum(path.stat().st_size for path in group))
            with self._opened(group) as cursors:
                schema = pa.unify_schemas([cursor.schema for cursor in cursors])
                self._store(level + 1, schema, (_with_columns(table, schema) for table in _merge(cursors)))
            self._levels[level] = []
            for path in group:
                disk.remove(path)
            level += 1

    @contextmanager
    def _opened(self, paths: Sequence[Path]) -> Iterator[list[_Cursor]]:
        with ExitStack() as stack:
            files = [stack.enter_context(pa.OSFile(str(path), "rb")) for path in paths]
            yield [_Cursor(pa.ipc.open_file(file), self) for file in files]

    def _merged(self) -> Iterator[pa.Table]:
        if not self._levels:
            if self._buffer:
                yield from _blocks(self._sorted_buffer())
            return
        if self._buffer:
            self._spill()
        in_order = [path for level in reversed(self._levels) for path in level]  # as the rows came
        with self._opened(in_order) as cursors:
            yield from _merge(cursors)

    def keys_of(self, table: pa.Table) -> Keys:
        """The sort keys of compact rows; for cursors."""
        return self._keys(table)


class _Cursor:
    """Where the merge stands in one spilled chunk: the rest of the block it has loaded."""

    def __init__(self, reader: Any, sort: ExternalSort) -> None:
        self._reader = reader
        self._sort = sort
        self._next = 0
        self.block: pa.Table = None
        self.keys: Keys = []
        self.advance(0)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the chunk."""
        return self._reader.schema

    @property
    def more(self) -> bool:
        """Whether blocks follow the loaded one."""
        return self._next < int(self._reader.num_record_batches)

    @property
    def last(self) -> tuple[int, ...]:
        """The largest key that is loaded."""
        return tuple(int(key[-1]) for key in self.keys)

    def advance(self, rows: int) -> None:
        """Drops rows from the front; loads the next block when none are left."""
        if self.block is not None and rows < self.block.num_rows:
            self.block = self.block.slice(rows)
            self.keys = [key[rows:] for key in self.keys]
            return
        self.block, self.keys = None, []
        if self.more:
            self.block = pa.Table.from_batches([self._reader.get_batch(self._next)])
            self.keys = self._sort.keys_of(self.block)
            self._next += 1


def _merge(cursors: list[_Cursor]) -> Iterator[pa.Table]:
    """Merges sorted chunks. Each turn takes what is certainly smaller than everything not yet loaded."""
    while live := [cursor for cursor in cursors if cursor.block is not None]:
        bound, bounding = min(
            ((cursor.last, i) for i, cursor in enumerate(live) if cursor.more), default=(None, len(live))
        )
        pieces, keys = [], []
        for i, cursor in enumerate(live):
            # Equal keys of later chunks wait, so that rows with equal keys keep their order.
            rows = cursor.block.num_rows if bound is None else count_below(cursor.keys, bound, equal=i <= bounding)
            if rows:
                pieces.append(cursor.block.slice(0, rows))
                keys.append([key[:rows] for key in cursor.keys])
                cursor.advance(rows)
        table = pieces[0]
        if len(pieces) > 1:
            table = pa.concat_tables(pieces, promote_options="default").combine_chunks()
            order = stable_order([np.concatenate(columns) for columns in zip(*keys, strict=True)])
            table = table if order is None else table.take(pa.array(order))
        yield from _blocks(table)


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with all columns of a schema, null where the table has none."""
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _blocks(table: pa.Table) -> Iterator[pa.Table]:
    """Cuts a table into pieces of bounded rows and bytes."""
    rows = int(max(1, min(4 * BLOCK_ROWS, 8 * BLOCK_BYTES * table.num_rows // max(table.nbytes, 1))))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def count_below(keys: Keys, bound: Sequence[int], *, equal: bool) -> int:
    """How many rows of a sorted block have a key below `bound`, or equal to it."""
    low, high = 0, len(keys[0])
    for key, value in zip(keys, bound, strict=True):
        window = key[low:high]
        low, high = (
            low + int(np.searchsorted(window, value, "left")),
            low + int(np.searchsorted(window, value, "right")),
        )
    return high if equal else low


def stable_order(keys: Keys) -> Int64s | None:
    """The order that sorts rows by keys, most significant first; None if they are sorted already."""
    if _is_sorted(keys):
        return None
    first = keys[0]
    if first.dtype == np.int32 and len(first) and int(first.max()) < 2**16:
        order = np.argsort(first.astype(np.uint16), kind="stable")  # numpy sorts uint16 by radix
        if _is_sorted([key[order] for key in keys]):
            return order
    return np.lexsort(keys[::-1])


def _is_sorted(keys: Keys) -> bool:
    tied: npt.NDArray[np.bool_] | None = None
    for key in keys:
        falls = key[1:] < key[:-1]
        if np.any(falls if tied is None else falls & tied):
            return False
        equal = key[1:] == key[:-1]
        tied = equal if tied is None else equal & tied
    return True
