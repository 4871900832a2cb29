# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Archives as Neptune's official exporter leaves them, made with plain pyarrow and nothing of ours.

Parts are snappy-compressed, rows come attribute by attribute in the order of the server, series carry placeholder rows
(a null value), files lie beside under readable names without a digest, and there is no manifest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from truth import Row

from contracts.rows import OFFICIAL, batch_of
from neptune_exporter.model import RunRef

LETTERS = r"\w"


def official_name(text: str) -> str:
    """How the official exporter names a project or run on disk."""
    return f"{re.sub(f'[^{LETTERS}-]', '_', text)}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def write_official(
    data: Path, files: Path, ref: RunRef, rows: Sequence[Row], *, part_rows: int = 10**9, placeholders: bool = True
) -> list[Path]:
    """Writes one run and gives back its parts."""
    project = official_name(ref.project_id)
    (data / project).mkdir(parents=True, exist_ok=True)
    paths = {row: _store(files / project, ref, row) for row in rows if isinstance(row.value, bytes)}
    batch = batch_of(ref, rows, paths=paths)
    if placeholders:
        kinds = {(row.path, row.type): row for row in rows if row.step is not None}
        empty = [{**_names(ref, row), "step": row.step, "timestamp": row.time} for row in kinds.values()]
        empty.append({**_names(ref, Row("never/logged", "float_series", None, None, None))})
        batch = pa.concat_batches([batch, pa.RecordBatch.from_pylist(empty, schema=OFFICIAL)])
    written = []
    for number, start in enumerate(range(0, max(batch.num_rows, 1), part_rows)):
        path = data / project / f"{official_name(ref.run_id)}_part_{number}.parquet"
        table = pa.Table.from_batches([batch.slice(start, part_rows)], schema=OFFICIAL)
        pq.write_table(table, path, compression="snappy", row_group_size=50)
        written.append(path)
    return written


def _names(ref: RunRef, row: Row) -> dict[str, str]:
    return {
        "project_id": ref.project_id,
        "run_id": ref.run_id,
        "attribute_path": row.path,
        "attribute_type": row.type,
    }


def _store(folder: Path, ref: RunRef, row: Row) -> str:
    clean = re.sub(r"[^\w./-]", "_", f"{ref.run_id}/{row.path}")
    path = f"{clean}/step_{int(row.step)}_000000.png" if row.step is not None else f"{clean}.bin"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(row.value)
    return path
