# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: what is compared to prove that nothing was lost.

The digest of an attribute is the sum, modulo 2^64, of one 64-bit hash per row over (type, step in
micro-units, time in milliseconds, value). It does not depend on the order of rows or on how they were
cut into batches, and is the same on every machine. NaN has one form, -0.0 is not 0.0, strings count as
UTF-8, sets without order, histograms with type, edges and values, files by their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.model import (
    NO_VALUE,
    VALUE_COLUMN,
    Int64s,
    codes_of,
    group,
    normalize,
    step_micros,
    time_millis,
)

Hashes = npt.NDArray[np.uint64]

_NAN_BITS = np.uint64(0x7FF8000000000000)
_STEP, _TIME, _POSITION = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_BLOCK_ROWS = 16_384  # of 8 bytes: stays in the processor's cache, which makes mixing three times as fast
_LARGEST = np.iinfo(np.int64).max


class Attribute(NamedTuple):
    """What is known of one attribute of one run. This is a row of the attribute index.

    Attributes:
        path: the attribute path.
        type: the attribute type.
        rows: the number of values; 0 for a series that is known to be empty.
        nan_count: how many of them are NaN.
        first_step: the smallest step in micro-units, None without steps.
        last_step: the largest step.
        step_decimals: decimal places (0 to 6) that all its steps need.
        first_time: the earliest time in milliseconds since the epoch, None without times.
        last_time: the latest time.
        digest: the 64-bit digest over all rows.
    """

    path: str
    type: str
    rows: int = 0
    nan_count: int = 0
    first_step: int | None = None
    last_step: int | None = None
    step_decimals: int = 0
    first_time: int | None = None
    last_time: int | None = None
    digest: int = 0

    def joined(self, other: Attribute) -> Attribute:
        """Both sets of rows together."""
        return Attribute(
            self.path,
            self.type,
            self.rows + other.rows,
            self.nan_count + other.nan_count,
            _lower(self.first_step, other.first_step),
            _upper(self.last_step, other.last_step),
            max(self.step_decimals, other.step_decimals),
            _lower(self.first_time, other.first_time),
            _upper(self.last_time, other.last_time),
            (self.digest + other.digest) % 2**64,
        )


class Fingerprint:
    """A sink that digests every attribute of one run and keeps no rows.

    Args:
        file_sha256: gives the SHA-256 (hex) of a file by the path in `file_value`.
    """

    def __init__(self, file_sha256: Callable[[str], str] | None = None) -> None:
        self._file_sha256 = file_sha256 or _no_files
        self._attributes: dict[tuple[str, str], Attribute] = {}
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows of one run. Rows whose value is null must have been dropped before."""
        batch = normalize(batch)
        if batch.num_rows == 0:
            return
        self.rows += batch.num_rows
        for attribute in fingerprints(batch, self._file_sha256):
            self.add(attribute)

    def add(self, attribute: Attribute) -> None:
        """Adds what is known of an attribute already."""
        key = (attribute.path, attribute.type)
        known = self._attributes.get(key)
        self._attributes[key] = attribute if known is None else known.joined(attribute)

    def commit(self) -> None:
        """Nothing to do: the fingerprint is complete after every batch."""

    def abort(self) -> None:
        """Nothing to undo."""

    def attributes(self) -> list[Attribute]:
        """All attributes so far, sorted by path and type."""
        return [self._attributes[key] for key in sorted(self._attributes)]


def run_digest(attributes: Iterable[Attribute], extra_sha256: str = "") -> str:
    """The digest of a run: over the fingerprints of its attributes and the values outside the schema.

    Returns:
        32 hex digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for attribute in sorted(attributes):
        digest.update(json.dumps(attribute, ensure_ascii=True).encode() + b"\n")
    digest.update(extra_sha256.encode())
    return digest.hexdigest()


def fingerprints(batch: pa.RecordBatch, file_sha256: Callable[[str], str]) -> list[Attribute]:
    """The fingerprint of each attribute of one batch, in `BATCH_SCHEMA`."""
    path_column, type_column = batch.column("attribute_path"), batch.column("attribute_type")
    paths, types = path_column.dictionary.to_pylist(), type_column.dictionary.to_pylist()
    path_codes, type_codes = codes_of(path_column), codes_of(type_column)
    order, starts = group(path_codes, type_codes, len(types))
    steps, times = step_micros(batch.column("step")), time_millis(batch.column("timestamp"))
    hashes, is_nan = _value_hashes(batch, types, type_codes, file_sha256)
    seeds = np.array([_text_hash(t) for t in types], np.uint64)
    _combine(hashes, seeds, type_codes, steps, times)
    first_rows = starts
    if order is not None:
        hashes, steps, times, is_nan = hashes[order], steps[order], times[order], is_nan[order]
        first_rows = order[starts]
    columns = (
        np.diff(np.append(starts, batch.num_rows)),
        np.add.reduceat(is_nan, starts, dtype=np.int64),
        *_range(steps, starts),
        _decimals(steps, starts),
        *_range(times, starts),
        np.add.reduceat(hashes, starts),
    )
    first_paths, first_types = path_codes[first_rows].tolist(), type_codes[first_rows].tolist()
    return [
        Attribute(paths[p], types[t], rows, nans, *_present(low, high), decimals, *_present(early, late), digest)
        for p, t, rows, nans, low, high, decimals, early, late, digest in zip(
            first_paths, first_types, *(c.tolist() for c in columns), strict=True
        )
    ]


def value_hashes(batch: pa.RecordBatch, file_sha256: Callable[[str], str]) -> Hashes:
    """One 64-bit hash per row over type and value, without step and time. The batch is in `BATCH_SCHEMA`."""
    types, codes = batch.column("attribute_type").dictionary.to_pylist(), codes_of(batch.column("attribute_type"))
    hashes, _ = _value_hashes(batch, types, codes, file_sha256)
    return _mix(hashes + np.array([_text_hash(t) for t in types], np.uint64)[codes])


def _combine(hashes: Hashes, seeds: Hashes, type_codes: npt.NDArray[np.int32], steps: Int64s, times: Int64s) -> None:
    """Mixes type, time and step into the value hashes, in place."""
    for start in range(0, len(hashes), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = hashes[rows]
        block += seeds[type_codes[rows]]
        _mix(block)
        block += times[rows].view(np.uint64) * _TIME
        _mix(block)
        block += steps[rows].view(np.uint64) * _STEP
        _mix(block)


def _mix(x: Hashes) -> Hashes:
    """The finalizer of splitmix64, in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


@cache
def _text_hash(text: str) -> int:
    return _bytes_hash(text.encode())


def _bytes_hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _value_hashes(
    batch: pa.RecordBatch, types: list[str], codes: npt.NDArray[np.int32], file_sha256: Callable[[str], str]
) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """One hash per row of the value that the row's type says, and where that is NaN."""
    count = batch.num_rows
    present = np.flatnonzero(np.bincount(codes, minlength=len(types)))
    columns = {VALUE_COLUMN.get(types[code], "string_value") for code in present}
    hashes, is_nan = np.zeros(count, np.uint64), np.zeros(count, np.bool_)
    for column in columns:
        of_column = [c for c in present if VALUE_COLUMN.get(types[c], "string_value") == column]
        if len(columns) == 1:
            hashes, is_nan = _column_hashes(column, batch.column(column), file_sha256)
        else:
            rows = np.flatnonzero(np.isin(codes, of_column))
            hashes[rows], is_nan[rows] = _column_hashes(column, batch.column(column).take(pa.array(rows)), file_sha256)
    return hashes, is_nan


def _column_hashes(
    name: str, column: pa.Array, file_sha256: Callable[[str], str]
) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    nothing_nan = np.zeros(len(column), np.bool_)
    if column.null_count:
        raise ValueError(f"null in {name}: rows without a value carry nothing and must be dropped first")
    if name == "float_value":
        return _float_hashes(np.asarray(column))
    if name == "int_value":
        return np.asarray(column).astype(np.int64).view(np.uint64), nothing_nan
    if name == "bool_value":
        return np.asarray(column.cast(pa.uint8())).astype(np.uint64), nothing_nan
    if name == "datetime_value":
        return time_millis(column).astype(np.int64).view(np.uint64), nothing_nan
    if name == "string_set_value":
        return _set_hashes(column), nothing_nan
    if name == "histogram_value":
        return _histogram_hashes(column), nothing_nan
    if name == "file_value":
        paths = column.field("path")
        return _distinct_hashes(paths, lambda path: int(file_sha256(path)[:16], 16)), nothing_nan
    return _distinct_hashes(column, lambda text: _bytes_hash(text.encode())), nothing_nan


def _float_hashes(values: npt.NDArray[np.float64]) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    is_nan = np.isnan(values)
    bits = values.view(np.uint64)
    return (np.where(is_nan, _NAN_BITS, bits) if is_nan.any() else bits.copy()), is_nan


def _distinct_hashes(column: pa.Array, hash_one: Callable[[str], int]) -> Hashes:
    _refuse_nulls(column)
    encoded = column.dictionary_encode()
    table = np.array([hash_one(value) for value in encoded.dictionary.to_pylist()], np.uint64)
    hashes: Hashes = table[np.asarray(encoded.indices)]
    return hashes


def _set_hashes(column: pa.Array) -> Hashes:
    elements = _distinct_hashes(column.flatten(), lambda text: _bytes_hash(text.encode()))
    return _list_sums(_mix(elements), np.asarray(pc.list_value_length(column)))


def _histogram_hashes(column: pa.Array) -> Hashes:
    kinds = _distinct_hashes(column.field("type"), lambda text: _bytes_hash(text.encode()))
    edges = _sequence_hashes(column.field("edges"))
    values = _sequence_hashes(column.field("values"))
    return _mix(kinds + _mix(edges + _STEP)) + _mix(values + _TIME)


def _sequence_hashes(column: pa.Array) -> Hashes:
    numbers = column.flatten()
    _refuse_nulls(column)
    _refuse_nulls(numbers)
    lengths = np.asarray(pc.list_value_length(column))
    flat, _ = _float_hashes(np.asarray(numbers))
    position = np.arange(len(flat), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return _list_sums(_mix(flat + _mix((position + 1).view(np.uint64) * _POSITION)), lengths)


def _list_sums(elements: Hashes, lengths: npt.NDArray[Any]) -> Hashes:
    """Sums the hashes of each list's elements and mixes in its length."""
    ends = np.cumsum(lengths, dtype=np.int64)
    running = np.concatenate((np.zeros(1, np.uint64), np.cumsum(elements, dtype=np.uint64)))
    sums = running[ends] - running[ends - lengths]
    return _mix(sums + lengths.astype(np.uint64) * _POSITION)


def _refuse_nulls(column: pa.Array) -> None:
    if column.null_count:
        raise ValueError("null inside a value: a set, histogram or file must be whole or null itself")


def _range(values: Int64s, starts: Int64s) -> tuple[Int64s, Int64s]:
    """The smallest and largest present value of each group; `NO_VALUE` as the largest if there is none."""
    missing = values == NO_VALUE
    low = np.where(missing, _LARGEST, values) if missing.any() else values
    return np.minimum.reduceat(low, starts), np.maximum.reduceat(values, starts)


def _decimals(steps: Int64s, starts: Int64s) -> Int64s:
    needed = np.zeros(len(starts), np.int64)
    missing = steps == NO_VALUE
    present = np.where(missing, 0, steps) if missing.any() else steps
    for decimals in range(6):
        unit = 10 ** (6 - decimals)
        finer = present // unit * unit != present  # numpy divides 3 times as fast as it takes remainders
        if not finer.any():
            break
        needed += np.logical_or.reduceat(finer, starts)
    return needed


def _present(low: int, high: int) -> tuple[int | None, int | None]:
    return (None, None) if high == NO_VALUE else (low, high)


def _lower(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _upper(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _no_files(path: str) -> str:
    raise ValueError(f"no files are known here: {path}")
