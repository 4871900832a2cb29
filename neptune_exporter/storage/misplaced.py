# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of other tools whose value lies elsewhere than where their type says, or whose type nobody knows.

They cannot be carried over, and are named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.errors import Problem
from neptune_exporter.model import VALUE_COLUMN, VALUE_COLUMNS, codes_of


class Misplaced:
    """Counts them by attribute."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], int] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes rows, in `BATCH_SCHEMA`, that have no value where their type says."""
        paths = batch.column("attribute_path").dictionary
        types = batch.column("attribute_type").dictionary.to_pylist()
        keys = codes_of(batch.column("attribute_path")).astype(np.int64) * max(len(types), 1)
        keys += codes_of(batch.column("attribute_type"))
        for name in VALUE_COLUMNS:
            present, counts = np.unique(keys[_has_value(batch.column(name))], return_counts=True)
            found = paths.take(pa.array(present // max(len(types), 1))).to_pylist()
            for path, key, count in zip(found, present.tolist(), counts.tolist(), strict=True):
                place = (path, types[key % len(types)], name)
                self._rows[place] = self._rows.get(place, 0) + count

    def problems(self) -> list[Problem]:
        """One for each attribute and column."""
        return [
            Problem(
                f"{rows:,} value{'s are' if rows > 1 else ' is'} left out: "
                + (
                    f"the type is {kind}, but what there is lies in {column}."
                    if kind in VALUE_COLUMN
                    else f"nothing is known of the type {kind}, and what there is lies in {column}."
                ),
                path,
                count=rows,
            )
            for (path, kind, column), rows in sorted(self._rows.items())
        ]


def _has_value(column: Any) -> npt.NDArray[np.bool_]:
    if column.null_count == len(column):
        return np.zeros(len(column), np.bool_)
    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        column = pa.compute.struct_field(column, "path")
    valid: npt.NDArray[np.bool_] = np.asarray(column.is_valid())
    return valid
