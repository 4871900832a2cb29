# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The one currency: rows of a run as Arrow record batches in one fixed schema.

`SCHEMA` is what a Parquet part holds. In memory the four name columns are dictionary-encoded
(`BATCH_SCHEMA`), so that a million rows do not carry a million copies of a path; both forms hold
the same values and `normalize` brings any batch into the second.

Steps are decimal(18,6). All arithmetic on them is on whole numbers of micro-units (int64), times are
milliseconds since the epoch, UTC (int64).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.casting import exactly

Kind = Literal["run", "model", "model_version"]
Int64s = npt.NDArray[np.int64]

HISTOGRAM_TYPE = pa.struct(
    [("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]
)
FILE_TYPE = pa.struct([("path", pa.string())])
STEP_TYPE = pa.decimal128(18, 6)
TIME_TYPE = pa.timestamp("ms", tz="UTC")

SCHEMA = pa.schema(
    [
        ("project_id", pa.string()),
        ("run_id", pa.string()),
        ("attribute_path", pa.string()),
        ("attribute_type", pa.string()),
        ("step", STEP_TYPE),
        ("timestamp", TIME_TYPE),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("string_value", pa.string()),
        ("bool_value", pa.bool_()),
        ("datetime_value", TIME_TYPE),
        ("string_set_value", pa.list_(pa.string())),
        ("file_value", FILE_TYPE),
        ("histogram_value", HISTOGRAM_TYPE),
    ]
)
NAME_COLUMNS = ("project_id", "run_id", "attribute_path", "attribute_type")
NAME_TYPE = pa.dictionary(pa.int32(), pa.string())
BATCH_SCHEMA = pa.schema([pa.field(f.name, NAME_TYPE if f.name in NAME_COLUMNS else f.type) for f in SCHEMA])

VALUE_COLUMN = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    "float_series": "float_value",
    "string_series": "string_value",
    "histogram_series": "histogram_value",
    "file": "file_value",
    "file_series": "file_value",
    "file_set": "file_value",
    "artifact": "file_value",
    "git_ref": "string_value",
    "notebook_ref": "string_value",
    "run_state": "string_value",
}
VALUE_COLUMNS = tuple(f.name for f in SCHEMA)[6:]
SERIES_TYPES = frozenset({"float_series", "string_series", "histogram_series", "file_series"})

MICRO = 1_000_000
STEP_LIMIT_MICROS = 10**18  # decimal(18,6) holds steps below 1e12
NO_VALUE = np.iinfo(np.int64).min  # stands for a null step or time in int64 arrays
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class RunRef:
    """Names one run, model or model version of a project."""

    project_id: str
    run_id: str
    kind: Kind = "run"

    def __str__(self) -> str:
        return f"{self.project_id}/{self.run_id}"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The identity of a run, independent of which attributes were selected.

    Attributes:
        ref: project, id and kind. The id is the custom run id on 3.x and offline, `sys/id` on 2.x.
        name: `sys/name`.
        sys_id: `sys/id`, the id that the server gave.
        experiment: the experiment that the run belongs to (3.x: `sys/experiment/name`).
        parent: the run that this one was forked from.
        fork_step: the step of the fork.
        created: `sys/creation_time`, UTC.
        modified: `sys/modification_time`, UTC.
        owner: `sys/owner`.
        state: `sys/state`, as the source spells it.
        failed: `sys/failed`, where the source has it.
    """

    ref: RunRef
    name: str | None = None
    sys_id: str | None = None
    experiment: str | None = None
    parent: RunRef | None = None
    fork_step: Decimal | None = None
    created: datetime | None = None
    modified: datetime | None = None
    owner: str | None = None
    state: str | None = None
    failed: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The identity as a JSON object; times are ISO 8601 in UTC."""
        value: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        value["ref"] = [self.ref.project_id, self.ref.run_id, self.ref.kind]
        value["parent"] = self.parent and [self.parent.project_id, self.parent.run_id, self.parent.kind]
        value["fork_step"] = None if self.fork_step is None else str(self.fork_step)
        for name in ("created", "modified"):
            value[name] = value[name] and value[name].astimezone(UTC).isoformat()
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Unknown members are ignored."""
        known: dict[str, Any] = {f.name: value.get(f.name) for f in fields(cls)}
        known["ref"] = RunRef(*value["ref"])
        known["parent"] = RunRef(*value["parent"]) if value.get("parent") else None
        step = Decimal(value["fork_step"]) if value.get("fork_step") is not None else None
        known["fork_step"] = step if step is not None and step.is_finite() else None
        for name in ("created", "modified"):
            known[name] = datetime.fromisoformat(value[name]) if value.get(name) else None
        return cls(**known)


@dataclass(frozen=True, slots=True)
class OutsideValue:
    """A value that the schema refuses: a step of 1e12, one finer than 1e-6, text with a lone surrogate.

    Kept exactly, as JSON, beside the run.

    Attributes:
        attribute: the attribute path.
        type: the attribute type.
        reason: what the schema refuses about it.
        value: the value as JSON can hold it exactly (a float as its `repr`, bytes as hex).
        step: the step as exact decimal text, or None.
        time: ISO 8601 in UTC, or None.
    """

    attribute: str
    type: str
    reason: str
    value: Any
    step: str | None = None
    time: str | None = None


def normalize(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in `BATCH_SCHEMA`: absent columns become null, plain name columns dictionaries.

    Raises pyarrow's own errors where a column cannot be cast without loss.
    """
    if batch.schema.equals(BATCH_SCHEMA):
        return batch
    columns = []
    for field in BATCH_SCHEMA:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(index)
        columns.append(column if column.type == field.type else exactly(column, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)


def names(codes: npt.NDArray[np.integer[Any]], values: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """A name column from codes into a list of names."""
    dictionary = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary)


def constant(value: str, rows: int) -> pa.DictionaryArray:
    """A name column that holds one value in every row."""
    return names(np.zeros(rows, np.int32), [value])


_null = lru_cache(maxsize=64)(pa.nulls)  # a run has as many batches of a single row as it has parameters
_single = lru_cache(maxsize=1024)(constant)


def rows_batch(
    ref: RunRef,
    path: str | pa.Array,
    attribute_type: str | pa.Array,
    *,
    step_micros: Int64s | None = None,
    time_ms: Int64s | None = None,
    rows: int | None = None,
    **values: pa.Array,
) -> pa.RecordBatch:
    """A batch in `BATCH_SCHEMA` from the columns that an exporter has; everything else is null.

    Args:
        ref: the run.
        path: one attribute path for all rows, or a column of them (string or dictionary).
        attribute_type: likewise.
        step_micros: steps in micro-units, `NO_VALUE` for null.
        time_ms: milliseconds since the epoch, UTC, `NO_VALUE` for null.
        rows: the number of rows; needed only if no value column is given.
        values: value columns of `SCHEMA` by name, as Arrow arrays.
    """
    if unknown := values.keys() - set(VALUE_COLUMNS):
        raise TypeError(f"not value columns: {', '.join(sorted(unknown))}")
    count = len(next(iter(values.values()))) if values else (rows or 0)
    columns = []
    given: dict[str, Any] = {
        "project_id": ref.project_id,
        "run_id": ref.run_id,
        "attribute_path": path,
        "attribute_type": attribute_type,
        "step": None if step_micros is None else step_array(step_micros),
        "timestamp": None if time_ms is None else time_array(time_ms),
        **values,
    }
    for field in BATCH_SCHEMA:
        value = given.get(field.name)
        if value is None:
            columns.append(pa.nulls(count, field.type) if count > 1 else _null(count, field.type))
        elif isinstance(value, str):
            columns.append(constant(value, count) if count > 1 else _single(value, count))
        elif field.type == NAME_TYPE and not pa.types.is_dictionary(value.type):
            columns.append(value.cast(pa.string()).dictionary_encode())
        else:
            columns.append(value if value.type == field.type else value.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)


def step_array(micros: Int64s) -> pa.Array:
    """decimal128(18,6) from micro-units; `NO_VALUE` becomes null. Raises ValueError from `STEP_LIMIT_MICROS` on."""
    if np.any((micros >= STEP_LIMIT_MICROS) | (micros <= -STEP_LIMIT_MICROS) & (micros != NO_VALUE)):
        raise ValueError("a step of 1e12 or beyond does not fit decimal(18,6): keep it as an OutsideValue")
    words = np.empty((len(micros), 2), np.int64)
    words[:, 0] = micros
    np.right_shift(micros, 63, out=words[:, 1])
    validity, nulls = _validity(micros)
    return pa.Array.from_buffers(STEP_TYPE, len(micros), [validity, pa.py_buffer(words)], nulls)


def time_array(millis: Int64s) -> pa.Array:
    """timestamp[ms, UTC] from milliseconds since the epoch; `NO_VALUE` becomes null."""
    validity, nulls = _validity(millis)
    data = np.ascontiguousarray(millis, np.int64)
    return pa.Array.from_buffers(TIME_TYPE, len(millis), [validity, pa.py_buffer(data)], nulls)


def _validity(values: Int64s) -> tuple[pa.Buffer | None, int]:
    missing = values == NO_VALUE
    nulls = int(np.count_nonzero(missing))
    if not nulls:
        return None, 0
    return pa.py_buffer(np.packbits(~missing, bitorder="little")), nulls


def step_micros(column: pa.Array) -> Int64s:
    """The steps of a decimal128(18,6) column in micro-units; null becomes `NO_VALUE`.

    The unscaled value of such a decimal is the step in micro-units and fits the low 8 of its 16 bytes.
    """
    return _every_int64(column, 2)


def time_millis(column: pa.Array) -> Int64s:
    """The times of a timestamp[ms] column in milliseconds since the epoch; null becomes `NO_VALUE`."""
    return _every_int64(column, 1)


def _every_int64(column: pa.Array, stride: int) -> Int64s:
    if column.null_count == len(column):
        return np.full(len(column), NO_VALUE, np.int64)
    words = np.frombuffer(column.buffers()[1], np.int64)
    values = words[stride * column.offset : stride * (column.offset + len(column)) : stride]
    return np.where(column.is_null(), NO_VALUE, values) if column.null_count else values


def step_text(micros: int) -> str:
    """A step in micro-units as the shortest exact decimal text: 290000 is `0.29`, 3000000 is `3`."""
    sign, magnitude = ("-", -micros) if micros < 0 else ("", micros)
    whole, part = divmod(magnitude, MICRO)
    return f"{sign}{whole}" + (f".{part:06d}".rstrip("0") if part else "")


def step_decimals(micros: Int64s) -> int:
    """How many decimal places (0 to 6) are needed to write all these steps; null steps need none."""
    present = micros[micros != NO_VALUE]
    for decimals in range(6):
        if not np.any(present % 10 ** (6 - decimals)):
            return decimals
    return 6


def codes_of(column: pa.DictionaryArray) -> npt.NDArray[np.int32]:
    """The codes of a dictionary column without nulls, as a view where that is possible."""
    return np.asarray(column.indices.to_numpy(zero_copy_only=False), np.int32)


class Series(NamedTuple):
    """All rows of one attribute in one batch, in the batch's order.

    Attributes:
        path: the attribute path.
        type: the attribute type.
        rows: a batch in `BATCH_SCHEMA`.
    """

    path: str
    type: str
    rows: pa.RecordBatch

    @property
    def values(self) -> pa.Array:
        """The column that holds this type's values."""
        return self.rows.column(VALUE_COLUMN[self.type])


def series_of(batch: pa.RecordBatch) -> Iterator[Series]:
    """Splits a batch of one run into its attributes, in order of path and type; keeps the order of rows."""
    if batch.num_rows == 0:
        return
    path_column, type_column = batch.column("attribute_path"), batch.column("attribute_type")
    paths, types = path_column.dictionary.to_pylist(), type_column.dictionary.to_pylist()
    order, starts = group(codes_of(path_column), codes_of(type_column), len(types))
    ends = np.append(starts[1:], batch.num_rows)
    if order is not None:
        indices = pa.array(order)
        batch = pa.RecordBatch.from_arrays([_taken(c, indices) for c in batch.columns], schema=batch.schema)
    path_codes = codes_of(batch.column("attribute_path"))[starts]
    type_codes = codes_of(batch.column("attribute_type"))[starts]
    found = [
        Series(paths[p], types[t], batch.slice(start, end - start))
        for p, t, start, end in zip(path_codes, type_codes, starts.tolist(), ends.tolist(), strict=True)
    ]
    yield from sorted(found, key=lambda series: series[:2])


def _taken(column: pa.Array, indices: pa.Array) -> pa.Array:
    """The column in another order. Most columns of most batches hold one name or only nulls: any order is theirs."""
    one_name = pa.types.is_dictionary(column.type) and len(column.dictionary) == 1 and not column.null_count
    return column if one_name or column.null_count == len(column) else column.take(indices)


def group(major: npt.NDArray[np.int32], minor: npt.NDArray[np.int32], minor_count: int) -> tuple[Int64s | None, Int64s]:
    """Groups rows by two codes.

    Returns:
        A stable order that makes each group contiguous (None if it already is ascending), and the
        position in that order at which each group starts.
    """
    key: npt.NDArray[np.integer[Any]] = major.astype(np.int64) * max(minor_count, 1) + minor
    if len(key) and int(key.max()) < 2**16:
        key = key.astype(np.uint16)  # numpy sorts 16 bits by radix
    order: Int64s | None = None
    if np.any(key[1:] < key[:-1]):
        order = _stable_order(key)
        key = key[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if len(key) else np.empty(0, np.int64)
    return order, starts.astype(np.int64)


def _stable_order(key: npt.NDArray[np.integer[Any]]) -> Int64s:
    """Indices that sort keys of 0 and more; equal keys keep their order."""
    bits = len(key).bit_length()
    if key.dtype == np.uint16 or int(key.max()) >= 2 ** (63 - bits):
        return np.argsort(key, kind="stable")
    keyed = key << bits | np.arange(len(key))  # sorting the numbers themselves is several times as fast as argsort
    keyed.sort()
    order: Int64s = keyed & (2**bits - 1)
    return order


def utc(millis: int) -> datetime:
    """A time from milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=millis)
