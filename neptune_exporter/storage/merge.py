# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Brings two exports of one run together: the union of points, one winner for single values.

Both come as one stream sorted by (path, type, step), each row with its origin. A point that both have counts
once, also if their clocks rounded its time to neighbouring milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.fingerprint import Hashes, value_hashes
from neptune_exporter.model import BATCH_SCHEMA, NO_VALUE, SERIES_TYPES, codes_of, step_micros, time_millis

TAG_SETS = frozenset({"sys/tags", "sys/group_tags"})
OLD, NEW = 0, 1

Origins = npt.NDArray[np.int8]
Block = tuple[pa.RecordBatch, Origins]


def merged(
    blocks: Iterable[Block], file_sha256: Callable[[str], str], *, winner: int, contested: AbstractSet[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of both origins without doubles.

    Args:
        blocks: batches sorted by (path, type, step), with the origin of each row.
        file_sha256: the content of files, to tell whether two are the same.
        winner: the origin whose single values win.
        contested: the paths of which both origins have a single value, be it of another type.
    """
    rest: Block | None = None
    for block in blocks:
        batch, origins = block if rest is None else _joined(rest, block)
        cut = _last_group(batch)
        yield from _resolved(batch.slice(0, cut), origins[:cut], file_sha256, winner, contested)
        rest = batch.slice(cut), origins[cut:]
    if rest is not None:
        yield from _resolved(*rest, file_sha256, winner, contested)


def _joined(first: Block, second: Block) -> Block:
    table = pa.Table.from_batches([first[0], second[0]], schema=BATCH_SCHEMA).unify_dictionaries().combine_chunks()
    return table.to_batches()[0], np.concatenate((first[1], second[1]))


def _last_group(batch: pa.RecordBatch) -> int:
    """Where the last (path, type, step) begins: the next block may go on with it."""
    same = np.ones(batch.num_rows, np.bool_)
    for key in (
        codes_of(batch.column("attribute_path")),
        codes_of(batch.column("attribute_type")),
        step_micros(batch.column("step")),
    ):
        same &= key == key[-1]
    return int(np.flatnonzero(~same)[-1]) + 1 if not same.all() else 0


def _resolved(
    batch: pa.RecordBatch,
    origins: Origins,
    file_sha256: Callable[[str], str],
    winner: int,
    contested: AbstractSet[str],
) -> Iterator[pa.RecordBatch]:
    if batch.num_rows == 0:
        return
    drop = _losing_values(batch, origins, winner, contested)
    if np.any(origins != origins[0]):
        drop |= _doubled_points(batch, origins, file_sha256)
        batch = _with_joined_tags(batch, drop)
    yield batch.filter(pa.array(~drop)) if drop.any() else batch


def _losing_values(
    batch: pa.RecordBatch, origins: Origins, winner: int, contested: AbstractSet[str]
) -> npt.NDArray[np.bool_]:
    """Single values of which the other origin has a later one. Its type, and so its place, may be another."""
    paths = batch.column("attribute_path").dictionary.to_pylist()
    in_both = np.array([path in contested for path in paths], np.bool_)[codes_of(batch.column("attribute_path"))]
    lost: npt.NDArray[np.bool_] = ~_are_series(batch) & in_both & (origins != winner)
    return lost


def _are_series(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    types = batch.column("attribute_type").dictionary.to_pylist()
    return np.array([t in SERIES_TYPES for t in types], np.bool_)[codes_of(batch.column("attribute_type"))]


def _doubled_points(
    batch: pa.RecordBatch, origins: Origins, file_sha256: Callable[[str], str]
) -> npt.NDArray[np.bool_]:
    """New points that the old export has too: same path, type, step and value, times within a millisecond.

    An old point at the very same time counts first; only those without one are looked for a millisecond beside.
    """
    steps, times = step_micros(batch.column("step")), time_millis(batch.column("timestamp"))
    paths = codes_of(batch.column("attribute_path")).astype(np.uint64)
    point = value_hashes(batch, file_sha256) + paths * np.uint64(0x9E3779B97F4A7C15)
    point = _spread(_spread(point) + steps.view(np.uint64))
    old = origins == OLD
    timed = _spread(point + times.view(np.uint64))
    doubled = ~old & np.isin(timed, timed[old])
    unmatched = timed[old & ~np.isin(timed, timed[doubled])]
    for shift in (-1, 1) if len(unmatched) else ():
        moved = np.where(times == NO_VALUE, times, times + shift).view(np.uint64)
        doubled |= ~old & np.isin(_spread(point + moved), unmatched)
    lost: npt.NDArray[np.bool_] = doubled & _are_series(batch)
    return lost


def _spread(hashes: Hashes) -> Hashes:
    mixed = hashes ^ (hashes >> np.uint64(31))
    mixed = mixed * np.uint64(0x9FB21C651E98DF25)
    spread: Hashes = mixed ^ (mixed >> np.uint64(28))
    return spread


def _with_joined_tags(batch: pa.RecordBatch, drop: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """Tags of both exports together in one row (a set is not a single value); marks the row that goes."""
    paths = batch.column("attribute_path").dictionary.to_pylist()
    codes = codes_of(batch.column("attribute_path"))
    position = BATCH_SCHEMA.get_field_index("string_set_value")
    sets: list[list[str] | None] | None = None
    for code in (c for c, path in enumerate(paths) if path in TAG_SETS):
        rows = np.flatnonzero((codes == code) & np.asarray(batch.column(position).is_valid())).tolist()
        if len(rows) > 1:
            sets = sets or batch.column(position).to_pylist()
            sets[rows[0]] = sorted({tag for row in rows for tag in sets[row] or ()})
            drop[rows[0]], drop[rows[1:]] = False, True
    if sets is None:
        return batch
    columns = list(batch.columns)
    columns[position] = pa.array(sets, BATCH_SCHEMA.field(position).type)
    return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)
