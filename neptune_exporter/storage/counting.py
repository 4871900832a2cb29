# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Counts the rows of a run that has no manifest, reading as little of its parts as will do.

Placeholder rows, whose value is null, carry nothing and do not count. Where a footer proves that a row group has none,
its values are not read.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import (
    NO_VALUE,
    VALUE_COLUMN,
    VALUE_COLUMNS,
    Int64s,
    RunInfo,
    codes_of,
    normalize,
    step_micros,
    time_millis,
)
from neptune_exporter.storage.folders import with_members
from neptune_exporter.storage.footer import RowGroup
from neptune_exporter.storage.identity import info_from_values, names_the_run, sys_values
from neptune_exporter.storage.manifest import Totals
from neptune_exporter.storage.misplaced import Misplaced
from neptune_exporter.storage.parquet import UNREADABLE, damaged, open_part, row_groups, without_placeholders
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.portions import bounded_batches
from neptune_exporter.storage.run import StagedRun, file_rows

_KEYS = ["attribute_path", "attribute_type", "step", "timestamp"]
_IDENTITY = ["attribute_path", "attribute_type", *VALUE_COLUMNS[:5]]  # what a run is called is no set and no file
_ONE_LEAF = {  # columns of which the footer tells how many rows have a value
    "int_value",
    "float_value",
    "string_value",
    "bool_value",
    "datetime_value",
    "file_value.path",
    "histogram_value.type",
}


class Counted:
    """What the parts of a run hold.

    Args:
        run: any run; its manifest is not asked.

    Attributes:
        info: the run's identity.
        files: the attribute of each file, by the file's path.
        problems: the values that are not where their type says.

    Raises:
        DamagedDataError: a part is missing or cannot be read.
    """

    def __init__(self, run: StagedRun) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._range = Attribute("", "")
        self.files: dict[str, str] = {}
        self._reader = run.files
        self._misplaced = Misplaced()
        self._identity: dict[str, Any] = {}
        for path in run.part_paths():
            self._count_part(path)
        self.problems = self._misplaced.problems()
        self.info: RunInfo = info_from_values(run.ref, self._identity)

    @property
    def totals(self) -> Totals:
        """Attributes and rows by type, steps and times."""
        types: dict[str, tuple[int, int]] = {}
        for (_, attribute_type), rows in self._rows.items():
            count, before = types.get(attribute_type, (0, 0))
            types[attribute_type] = (count + 1, before + rows)
        known = self._range
        return Totals(dict(sorted(types.items())), known.first_step, known.last_step, known.first_time, known.last_time)

    @property
    def rows(self) -> int:
        """Rows that hold a value."""
        return sum(self._rows.values())

    def _count_part(self, path: Place) -> None:
        part = open_part(path)
        try:
            for group, about in enumerate(row_groups(path)):
                whole = _has_no_placeholders(about) and _are_in_place(part, path, group, about)
                columns = [*_KEYS, "file_value"] if whole else [*_KEYS, *VALUE_COLUMNS]
                names_it = False
                for batch in bounded_batches(part, path, columns, [group]):
                    rows = normalize(batch)
                    rows.validate(full=True)  # no checksum says that texts are texts
                    rows = rows if whole else without_placeholders(rows, self._misplaced)
                    names_it = names_it or names_the_run(rows)
                    self._count(rows)
                for batch in bounded_batches(part, path, _IDENTITY, [group]) if names_it else ():
                    rows = normalize(batch)
                    rows.validate(full=True)
                    self._identity.update(sys_values(rows))
        except UNREADABLE as error:
            raise damaged(path, error) from error

    def _count(self, batch: pa.RecordBatch) -> None:
        batch = with_members(batch, self._reader)
        if batch.num_rows == 0:
            return
        paths = batch.column("attribute_path").dictionary
        types = batch.column("attribute_type").dictionary.to_pylist()
        keys = codes_of(batch.column("attribute_path")).astype(np.int64) * len(types)
        keys += codes_of(batch.column("attribute_type"))
        present, counts = np.unique(keys, return_counts=True)
        found = paths.take(pa.array(present // len(types))).to_pylist()
        for path, kind, count in zip(found, (present % len(types)).tolist(), counts.tolist(), strict=True):
            key = (path, types[kind])
            self._rows[key] = self._rows.get(key, 0) + count
        first_step, last_step = _bounds(step_micros(batch.column("step")))
        first_time, last_time = _bounds(time_millis(batch.column("timestamp")))
        here = Attribute("", "", 0, 0, first_step, last_step, 0, first_time, last_time)
        self._range = self._range.joined(here)
        self.files.update((file, attribute) for attribute, file in file_rows(batch))


def _has_no_placeholders(group: RowGroup) -> bool:
    """Whether the footer proves that every row has a value. Sets and their emptiness are not told by a footer."""
    chunks = [chunk for path, chunk in group.columns.items() if path in _ONE_LEAF]
    values = sum(group.rows - chunk.nulls for chunk in chunks if chunk.nulls is not None)
    return all(chunk.nulls is not None for chunk in chunks) and values == group.rows


def _are_in_place(part: Any, path: Place, number: int, group: RowGroup) -> bool:
    """Whether there are as many values in each column as rows of its types."""
    expected: Counter[str] = Counter()
    for batch in bounded_batches(part, path, ["attribute_type"], [number]):
        types = batch.column(0).drop_null()
        for kind, rows in zip(types.dictionary.to_pylist(), np.bincount(codes_of(types)).tolist(), strict=False):
            if rows:
                expected[VALUE_COLUMN.get(kind, "string_value")] += rows
    return all(
        expected[name.split(".", 1)[0]] == group.rows - (chunk.nulls or 0)
        for name, chunk in group.columns.items()
        if name in _ONE_LEAF
    )


def _bounds(values: Int64s) -> tuple[int | None, int | None]:
    present = values[values != NO_VALUE]
    return (int(present.min()), int(present.max())) if len(present) else (None, None)
