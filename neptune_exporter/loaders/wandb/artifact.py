# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The one artifact of a run: its files under their attribute paths, its text series, and the folder `neptune/`.

- `files/<attribute path>`: a file; of a series `files/<attribute path>/step_<step><extension>`
- `series/<attribute path>.txt`: a string series, whole and exact
- `series/<attribute path>.table.json`: the same as a table that W&B shows, up to 10,000 rows
- `neptune/manifest.json`, `neptune/data.parquet` and the others: see `loaders.attachments`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, TextIO

import pyarrow as pa

from neptune_exporter.loaders.attachments import FOLDER, AttachmentsWriter, AttributeRecord, file_sha256
from neptune_exporter.loaders.file_names import artifact_path, file_rows
from neptune_exporter.loaders.keys import ArtifactPaths, KeyRule, target_key
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.loaders.series_text import STRING_HEADING, string_series_lines
from neptune_exporter.loaders.wandb.entries import Entry
from neptune_exporter.loaders.wandb.media import MediaFolder, Shown, place_file
from neptune_exporter.model import NO_VALUE, Series, step_micros, step_text, time_millis, utc

TABLE_ROWS = 10_000
# W&B keeps any path; only what is no path anywhere is changed.
_PATH_RULE = KeyRule(illegal=r"[\x00-\x1f\x7f\\]", length=800, segment_bytes=200)
_COLUMN_TYPES = {
    "params": {
        "type_map": {
            name: {
                "params": {"allowed_types": [{"wb_type": "none"}, {"wb_type": kind}]},
                "wb_type": "union",
            }
            for name, kind in (("step", "number"), ("time", "string"), ("value", "string"))
        }
    },
    "wb_type": "typedDict",
}


class ArtifactFolder:
    """Collects what goes into the artifact of one run.

    Args:
        run: what is loaded.
        folder: an empty folder on this machine, for the files that are made.
        keep: whether the folder must stand on its own: files of the run are linked or copied into it.
    """

    def __init__(self, run: RunToLoad, folder: Path, *, keep: bool) -> None:
        self._run = run
        self._folder = folder
        self._keep = keep
        self._paths = ArtifactPaths()
        self._announced = {(a.path, a.type): a.rows for a in run.attributes}
        self._texts: dict[tuple[str, str], TextSeries] = {}
        self._entries: list[Entry] = []
        (folder / FOLDER).mkdir(parents=True)
        self.attachments = AttachmentsWriter(folder / FOLDER)

    def place(self, record: AttributeRecord) -> None:
        """Decides where a text series goes; all of them before anything is added."""
        if record.type == "string_series":
            stem = f"series/{target_key(record.path, _PATH_RULE)}"
            record.key = self._paths.take(f"{stem}.txt", record.path)
            table = None
            if 0 < self._announced[record.path, record.type] <= TABLE_ROWS:
                table = self._paths.take(f"{stem}.table.json", f"{record.path}\0table")
            self._texts[record.path, record.type] = TextSeries(self._folder, record.key, table)
        else:
            record.key = f"files/{target_key(record.path, _PATH_RULE)}"

    def add_texts(self, record: AttributeRecord, series: Series) -> None:
        """Takes rows of a string series."""
        self._texts[record.path, record.type].add(series.rows)

    def add_files(self, record: AttributeRecord, series: Series, media: MediaFolder | None) -> list[Shown | None]:
        """Takes rows of a file attribute; returns how each file is shown, where it is."""
        found: list[Shown | None] = []
        several = self._announced[record.path, record.type] > 1
        for row in file_rows(record, series.rows):
            path = row.path
            wanted = artifact_path(record, row, _PATH_RULE, several=several)
            artifact = self._paths.take(wanted, row.identity(record))
            local = self._run.files.local(path)
            if self._keep:
                local = place_file(local, self._folder / "kept" / str(len(self._entries)))
            entry = Entry.of(artifact, local)
            self._entries.append(entry)
            sha256 = self._run.files.sha256(path)
            number: int | str = record.native if record.type == "file_series" else "summary"
            shown = media.add(local, path, record.media, number, sha256) if media and record.media else None
            found.append(shown)
            self.attachments.add_file(record, path, artifact, sha256, entry.bytes, shown.path if shown else "")
            record.native += 1
        return found

    def finish_texts(self, records: Mapping[tuple[str, str], AttributeRecord]) -> None:
        """Completes the text series."""
        for name, series in self._texts.items():
            if series.rows:
                local, tables = series.finish()
                records[name].sha256, records[name].native = file_sha256(local), 1
                self._entries += [Entry.of(records[name].key, local), *tables]

    def entries(self) -> list[Entry]:
        """Everything, once the folder `neptune/` is complete, in order of paths."""
        beside = [Entry.of(f"{FOLDER}/{path.name}", path) for path in sorted((self._folder / FOLDER).iterdir())]
        return sorted([*self._entries, *beside], key=lambda entry: entry.path)


class TextSeries:
    """A string series as text and, where it is short, as a table; rows may come in any number of pieces."""

    def __init__(self, folder: Path, path: str, table: str | None) -> None:
        self._text = folder / "made" / path
        self._table = table and folder / "made" / table
        self._table_path = table or ""
        self.rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Takes the next rows. Files are not held open: there may be thousands of series."""
        if not self.rows:
            self._text.parent.mkdir(parents=True, exist_ok=True)
        with self._text.open("ab") as text:
            self._add_lines(text, rows)
        if self._table:
            with self._table.open("a", encoding="utf-8") as table:
                self._add_table_rows(table, rows)
        self.rows += rows.num_rows

    def finish(self) -> tuple[Path, list[Entry]]:
        """The text, and the entries of its table."""
        if not self._table:
            return self._text, []
        with self._table.open("a", encoding="utf-8") as table:
            table.write(f'], "ncols": 3, "nrows": {self.rows}, "column_types": {json.dumps(_COLUMN_TYPES)}}}')
        return self._text, [Entry.of(self._table_path, self._table)]

    def _add_lines(self, text: BinaryIO, rows: pa.RecordBatch) -> None:
        if not self.rows:
            text.write(STRING_HEADING)
        text.write(string_series_lines(rows))

    def _add_table_rows(self, table: TextIO, rows: pa.RecordBatch) -> None:
        if not self.rows:
            table.write('{"columns": ["step", "time", "value"], "data": [')
        columns = (
            step_micros(rows.column("step")).tolist(),
            time_millis(rows.column("timestamp")).tolist(),
            rows.column("string_value").to_pylist(),
        )
        for number, (micros, millis, value) in enumerate(zip(*columns, strict=True)):
            step = "null" if micros == NO_VALUE else step_text(micros)
            time = None if millis == NO_VALUE else _time_text(millis)
            comma = ", " if self.rows + number else ""
            table.write(f"{comma}[{step}, {json.dumps(time)}, {json.dumps(value)}]")


def _time_text(millis: int) -> str:
    try:
        return utc(millis).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{millis} ms"
