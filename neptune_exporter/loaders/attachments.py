# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What travels beside a run in every target, so that nothing is one-way: the folder `neptune/`.

- `manifest.json` names the run, and for each attribute its type, its rows and where they went;
- `data.parquet` holds, in the fixed schema, every row that the target does not hold exactly;
- `files.jsonl` says for each row of a file attribute, in the order of those rows, which artifact it became;
- `extra.jsonl` holds the values outside the schema, exactly as the staging area has them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import neptune_exporter
from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.model import NAME_COLUMNS, SCHEMA

FOLDER = "neptune"
MANIFEST, DATA, FILES, EXTRA = "manifest.json", "data.parquet", "files.jsonl", "extra.jsonl"
FORMAT = 1
GROUP_ROWS = 65_536
GROUP_BYTES = 16 << 20
SMALL_ROWS = 64
SMALL_TABLES = 512

Place = Literal["metric", "parameter", "tag", "series", "log", "artifact"]


@dataclass(slots=True)
class AttributeRecord:
    """Where an attribute went. One entry of the manifest.

    Attributes:
        path: the attribute path in Neptune.
        type: the attribute type.
        place: what it is in the target.
        key: its key there; of an artifact the path, of a file attribute the path it begins with.
        rows: its rows, all told.
        native: how many things of that kind the target holds for it.
        attached: how many of its rows are in `data.parquet`.
        first: the position of the first of them there.
        end: the position after the last of them.
        sha256: of the artifact that a series became.
        media: the key under which a file attribute is shown as image, audio or video.
    """

    path: str
    type: str
    place: Place
    key: str
    rows: int = 0
    native: int = 0
    attached: int = 0
    first: int = 0
    end: int = 0
    sha256: str = ""
    media: str = ""


@dataclass(slots=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        run: project, id, kind, identity (`RunInfo`), digest, source and problems, as JSON.
        step_multiplier: what integer steps were multiplied by.
        start_ms: stands in for times that Neptune does not have, in milliseconds.
        attributes: every attribute, also those without a row.
        files: SHA-256 of the other files of the folder.
    """

    run: Mapping[str, Any]
    step_multiplier: int
    start_ms: int
    attributes: list[AttributeRecord] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The manifest as JSON."""
        value = {"format": FORMAT, "tool": f"neptune-exporter {neptune_exporter.__version__}", **asdict(self)}
        return json.dumps(value, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The inverse of `to_bytes`. Raises `TargetError` if this is no manifest, or a newer one."""
        try:
            value = json.loads(data)
            if value["format"] > FORMAT:
                raise TargetError("The run was loaded by a newer neptune-exporter.", "Update neptune-exporter.")
            attributes = [AttributeRecord(**entry) for entry in value["attributes"]]
            return cls(value["run"], value["step_multiplier"], value["start_ms"], attributes, value["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{FOLDER}/{MANIFEST} of the run cannot be read: {error}.") from error


def run_json(run: RunToLoad) -> dict[str, Any]:
    """What the manifest says of the run as a whole."""
    ref = run.info.ref
    return {
        "project_id": ref.project_id,
        "run_id": ref.run_id,
        "kind": ref.kind,
        "info": run.info.to_json(),
        "digest": run.digest,
        "source": run.source,
        "problems": [problem.to_json() for problem in run.problems],
    }


class AttachmentsWriter:
    """Writes the files of the folder `neptune/` of one run; memory is bounded by one row group.

    Args:
        folder: an existing folder on this machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parquet: pq.ParquetWriter | None = None
        self._files: Any = None
        self._buffer: list[pa.Table] = []
        self._small: list[pa.Table] = []
        self._rows = self._bytes = self._position = 0

    def add_rows(self, record: AttributeRecord, rows: pa.RecordBatch) -> None:
        """Takes rows of one attribute and notes in its record where they are."""
        if rows.num_rows == 0:
            return
        if not record.attached:
            record.first = self._position
        self._position += rows.num_rows
        record.attached += rows.num_rows
        record.end = self._position
        # A copy: a few rows must not keep the whole batch alive that they came in.
        copied = rows.take(pa.array(np.arange(rows.num_rows)))
        table = pa.Table.from_batches([copied]).cast(SCHEMA)
        if table.num_rows > SMALL_ROWS:
            self._join_small()
            self._buffer.append(table)
        else:
            self._small.append(table)
            if len(self._small) >= SMALL_TABLES:
                self._join_small()
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write_group()

    def add_file(
        self, record: AttributeRecord, path: str, artifact: str, sha256: str, size: int, media: str = ""
    ) -> None:
        """Notes which artifact the file of the next row of a file attribute became, and as which file it is shown."""
        if self._files is None:
            self._files = (self.folder / FILES).open("w", encoding="utf-8")
        line = {"attribute": record.path, "type": record.type, "path": path, "artifact": artifact}
        shown = {"media": media} if media else {}
        self._files.write(json.dumps({**line, "sha256": sha256, "bytes": size, **shown}) + "\n")

    def finish(self, manifest: Manifest, extra: bytes | None) -> str:
        """Completes all files; the manifest is written last.

        Returns:
            The SHA-256 of the manifest, which names those of the others.
        """
        self.close()
        if extra is not None:
            (self.folder / EXTRA).write_bytes(extra)
        manifest.files = {path.name: file_sha256(path) for path in sorted(self.folder.iterdir())}
        data = manifest.to_bytes()
        (self.folder / MANIFEST).write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def close(self) -> None:
        """Writes what is buffered and closes the files."""
        self._write_group()
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None
        if self._files is not None:
            self._files.close()
            self._files = None

    def _join_small(self) -> None:
        """One table of a row each weighs a hundred times what is in it."""
        if self._small:
            self._buffer.append(pa.concat_tables(self._small).combine_chunks())
            self._small.clear()

    def _write_group(self) -> None:
        self._join_small()
        if not self._buffer:
            return
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(
                self.folder / DATA,
                SCHEMA,
                compression="zstd",
                compression_level=3,
                use_dictionary=[*NAME_COLUMNS, "string_value"],
                store_decimal_as_integer=True,
            )
        self._parquet.write_table(pa.concat_tables(self._buffer), row_group_size=max(self._rows, 1))
        self._buffer.clear()
        self._rows = self._bytes = 0


class AttachedRows:
    """Reads rows from `data.parquet` attribute by attribute; holds one row group at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False)
        self._ends: list[int] = []
        total = 0
        for group in range(self._file.num_row_groups):
            total += self._file.metadata.row_group(group).num_rows
            self._ends.append(total)
        self._held: tuple[int, pa.Table] | None = None

    def of(self, record: AttributeRecord) -> Iterator[pa.RecordBatch]:
        """The attached rows of an attribute, in the order in which they were added."""
        start = 0
        for group, end in enumerate(self._ends):
            if start < record.end and end > record.first:
                table = self._group(group)
                table = table.slice(max(record.first - start, 0), min(record.end, end) - max(record.first, start))
                mine = pc.and_(
                    pc.equal(table["attribute_path"], record.path), pc.equal(table["attribute_type"], record.type)
                )
                yield from table.filter(mine).to_batches()
            start = end

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _group(self, group: int) -> pa.Table:
        if self._held is None or self._held[0] != group:
            self._held = (group, self._file.read_row_group(group))
        return self._held[1]


def artifacts_of(path: Path) -> dict[tuple[str, str], list[str]]:
    """The artifacts of each file attribute in `files.jsonl`, in the order of its rows."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in file_entries(path):
        found.setdefault((entry["attribute"], entry["type"]), []).append(entry["artifact"])
    return found


def file_entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of `files.jsonl`; none if there is no such file."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
