# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Files that another tool has stored as folders: the official exporter keeps a file set as a folder with a zip."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.model import BATCH_SCHEMA
from neptune_exporter.storage.files import FileReader


def with_members(batch: pa.RecordBatch, files: FileReader) -> pa.RecordBatch:
    """The batch with one row per file in place of each row that names a folder; an empty folder stays as it is."""
    column = batch.column("file_value")
    if column.null_count == len(column):
        return batch
    rows = np.flatnonzero(np.asarray(column.is_valid())).tolist()
    paths = dict(zip(rows, pc.struct_field(column, "path").take(pa.array(rows)).to_pylist(), strict=True))
    members = {row: found for row, path in paths.items() if (found := files.members(path))}
    if not members:
        return batch
    repeats = np.ones(batch.num_rows, np.int64)
    for row, found in members.items():
        repeats[row] = len(found)
    order = np.repeat(np.arange(batch.num_rows), repeats)
    texts = pc.struct_field(column, "path").to_pylist()
    named = [text for row, text in enumerate(texts) for text in members.get(row, [text])]
    columns = list(batch.take(pa.array(order)).columns)
    position = BATCH_SCHEMA.get_field_index("file_value")
    values = [None if text is None else {"path": text} for text in named]
    columns[position] = pa.array(values, BATCH_SCHEMA.field(position).type)
    return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)
