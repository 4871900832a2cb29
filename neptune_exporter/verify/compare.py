# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Compares fingerprints attribute by attribute, and finds the first points that differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from neptune_exporter.fingerprint import Attribute, value_hashes
from neptune_exporter.model import (
    BATCH_SCHEMA,
    NO_VALUE,
    SERIES_TYPES,
    VALUE_COLUMN,
    Int64s,
    step_micros,
    step_text,
    time_millis,
    utc,
)
from neptune_exporter.storage.run import rows_of

SHOWN_ATTRIBUTES = 5  # per run: to show values, both sides are read again
SHOWN_ROWS = 500_000  # of one attribute: both sides are held in memory
_LONGEST_TEXT = 80

Sha256 = Callable[[str], str]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One attribute that two sides do not hold alike.

    Attributes:
        path: the attribute path.
        type: its type on the side that is expected, or on the other one if that has it not.
        kind: missing, surplus, type, count or values.
        message: what differs.
        expected: what should be there, None if nothing should.
        found: what is there; None or without rows if nothing is.
    """

    path: str
    type: str
    kind: str
    message: str
    expected: Attribute | None
    found: Attribute | None

    @property
    def key(self) -> Key:
        """Path and type."""
        return self.path, self.type


def mismatches(
    expected: Iterable[Attribute], found: Iterable[Attribute], *, expected_in: str, found_in: str
) -> list[Mismatch]:
    """What differs between two sides: the count is compared first, then the digest.

    Args:
        expected: the attributes that should be there.
        found: the attributes that are there.
        expected_in: names the first side.
        found_in: names the second side.
    """
    wanted, there = {a[:2]: a for a in expected}, {a[:2]: a for a in found}
    other_types = {path: kind for path, kind in there if (path, kind) not in wanted}
    result: list[Mismatch] = []
    for key, attribute in sorted(wanted.items()):
        path, kind = key
        present = there.get(key)
        if present is None and path in other_types:
            message = f"A {kind} in {expected_in}, but a {other_types[path]} in {found_in}."
            result.append(Mismatch(path, kind, "type", message, attribute, there[path, other_types[path]]))
        elif present is None or (attribute.rows and not present.rows):
            message = f"A {kind} with {_points(attribute.rows)} in {expected_in}, missing in {found_in}."
            result.append(Mismatch(path, kind, "missing", message, attribute, present))
        elif present.rows != attribute.rows:
            message = f"{_points(attribute.rows)} in {expected_in}, {present.rows:,} in {found_in}."
            result.append(Mismatch(path, kind, "count", message, attribute, present))
        elif present != attribute:
            message = f"{_points(attribute.rows)} in {expected_in} and in {found_in}, but not the same ones."
            result.append(Mismatch(path, kind, "values", message, attribute, present))
    told = {mismatch.path for mismatch in result if mismatch.kind == "type"}
    for path, kind in sorted(there.keys() - wanted.keys()):
        if path not in told:
            message = f"A {kind} with {_points(there[path, kind].rows)} in {found_in}, but not in {expected_in}."
            result.append(Mismatch(path, kind, "surplus", message, None, there[path, kind]))
    return result


def worth_showing(found: Iterable[Mismatch]) -> set[Key]:
    """The attributes of which the first different points can be shown at modest cost."""
    modest = [
        m.key
        for m in found
        if m.expected and m.found and m.kind in ("count", "values") and max(m.expected.rows, m.found.rows) <= SHOWN_ROWS
    ]
    return set(modest[:SHOWN_ATTRIBUTES])


@dataclass
class Side:
    """The rows of some attributes on one side.

    Attributes:
        name: names the side.
        batches: rows of these attributes, in `BATCH_SCHEMA`.
        sha256: of the side's files.
    """

    name: str
    batches: list[pa.RecordBatch]
    sha256: Sha256

    @classmethod
    def of(cls, name: str, batches: Iterable[pa.RecordBatch], keys: set[Key], sha256: Sha256) -> Side:
        """Keeps only the rows of the attributes in `keys`."""
        rows = (rows_of(batch, lambda path, kind: (path, kind) in keys) for batch in batches)
        return cls(name, [batch for batch in rows if batch.num_rows], sha256)

    def rows(self, key: Key) -> pa.Table:
        """The rows of one attribute."""
        batches = [rows_of(batch, lambda path, kind: (path, kind) == key) for batch in self.batches]
        return pa.Table.from_batches(batches, schema=BATCH_SCHEMA)


class Points(NamedTuple):
    """Rows of one attribute as numbers.

    Attributes:
        steps: in micro-units.
        times: in milliseconds.
        hashes: of the values.
    """

    steps: Int64s
    times: Int64s
    hashes: Int64s

    @classmethod
    def of(cls, rows: pa.Table, sha256: Sha256) -> Points:
        """The points of a table in `BATCH_SCHEMA`."""
        batches = rows.to_batches()
        return cls(
            _joined([step_micros(batch.column("step")) for batch in batches]),
            _joined([time_millis(batch.column("timestamp")) for batch in batches]),
            _joined([value_hashes(batch, sha256).view(np.int64) for batch in batches]),
        )


def first_difference(key: Key, left: Side, right: Side) -> str:
    """The first step at which only one side has a point, with the values there; "" if there is none."""
    tables = left.rows(key), right.rows(key)
    points = [Points.of(table, side.sha256) for table, side in zip(tables, (left, right), strict=True)]
    both = Points(*(np.concatenate(pair) for pair in zip(*points, strict=True)))
    sign = np.repeat(np.array([1, -1]), [len(side.steps) for side in points])
    order = np.lexsort((both.hashes, both.times, both.steps))
    if not len(order):
        return ""
    columns = [column[order] for column in both]
    starts = np.flatnonzero(np.append(True, np.logical_or.reduce([c[1:] != c[:-1] for c in columns])))
    # Of each distinct point: how many more of it the left side has, once per row.
    excess = np.repeat(np.add.reduceat(sign[order], starts), np.diff(np.append(starts, len(order))))
    odd = excess * sign[order] > 0
    if not odd.any():
        return ""
    step = columns[0][odd][0]
    here = odd & (columns[0] == step)
    texts = []
    for side, table, which, offset in ((left, tables[0], 1, 0), (right, tables[1], -1, tables[0].num_rows)):
        rows = order[here & (sign[order] == which)]
        value = _value_text(key[1], table, int(rows[0]) - offset) if len(rows) else "nothing"
        texts.append(f"{value} in {side.name}")
    return f"First difference{_step_words(int(step))}: {', '.join(texts)}."


def not_contained(key: Key, part: Side, whole: Side) -> int:
    """How many points of `part` the other side does not hold; their times may differ by a millisecond."""
    points, all_points = Points.of(part.rows(key), part.sha256), Points.of(whole.rows(key), whole.sha256)
    known = np.sort(_record(all_points.steps, all_points.times, all_points.hashes))
    held = np.zeros(len(points.steps), np.bool_)
    for shift in (0, -1, 1) if key[1] in SERIES_TYPES else (0,):
        moved = np.where(points.times == NO_VALUE, points.times, points.times + shift)
        held |= np.isin(_record(points.steps, moved, points.hashes), known)
    return int(np.count_nonzero(~held))


def _record(steps: Int64s, times: Int64s, hashes: Int64s) -> Any:
    """One 64-bit number per point."""
    mixed = hashes.view(np.uint64)
    for part in (steps, times):
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x9FB21C651E98DF25) + part.view(np.uint64)
    return mixed


def _joined(arrays: Sequence[Int64s]) -> Int64s:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def _points(count: int) -> str:
    return f"{count:,} point" + ("" if count == 1 else "s")


def _step_words(micros: int) -> str:
    return "" if micros == NO_VALUE else f" at step {step_text(micros)}"


def _value_text(attribute_type: str, table: pa.Table, row: int) -> str:
    value = table.column(VALUE_COLUMN.get(attribute_type, "string_value"))[row]
    text = repr(value.value if pa.types.is_timestamp(value.type) else value.as_py())
    text = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    millis = table.column("timestamp")[row].value
    return text if millis is None else f"{text} ({_time_text(millis)})"


def _time_text(millis: int) -> str:
    try:
        return utc(millis).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{millis} ms"
