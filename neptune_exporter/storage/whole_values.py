# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Sets and histograms of other tools are whole: nothing inside of them is null."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.errors import DamagedDataError
from neptune_exporter.storage.place import Place


def check_whole(batch: pa.RecordBatch, path: Place) -> None:
    """Raises `DamagedDataError`, naming the attribute, if a value of a part has a null inside."""
    sets, histograms = batch.column("string_set_value"), batch.column("histogram_value")
    holed = [*_holes(sets)] if sets.null_count != len(sets) else []
    if histograms.null_count != len(histograms):
        rows = pc.indices_nonzero(histograms.is_valid())
        present = histograms.take(rows)
        for field in histograms.type:
            column = pc.struct_field(present, field.name)
            holes = [*_nulls(column), *(_holes(column) if pa.types.is_list(column.type) else ())]
            holed += [rows[hole].as_py() for hole in holes]
    if holed:
        raise DamagedDataError(
            f"{path} holds a set or histogram with a null inside, of {batch.column('attribute_path')[holed[0]]}.",
            "Nothing can hold that. Export the run again, or remove the part.",
        )


def _nulls(column: Any) -> list[int]:
    """The first row that is null."""
    return pc.indices_nonzero(column.is_null()).slice(0, 1).to_pylist() if column.null_count else []


def _holes(lists: Any) -> list[int]:
    """The first row with a null inside its list."""
    found: list[int] = pc.list_parent_indices(lists).take(pa.array(_nulls(lists.flatten()), pa.int64())).to_pylist()
    return found
