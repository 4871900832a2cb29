# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Where live targets that keep files by path put what is no point: series as texts that grow, and the run's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neptune_exporter.loaders.file_names import FileRow, with_extension
from neptune_exporter.loaders.keys import ARTIFACT_RULE, ArtifactPaths, target_key
from neptune_exporter.loaders.series_text import STRING_HEADING, histogram_series_lines, string_series_lines
from neptune_exporter.model import Series, step_micros

_TEXTS = {"string_series": ("series", ".txt"), "histogram_series": ("histograms", ".jsonl")}
_SETS = frozenset({"file_set", "artifact"})
LIST_NAME = "files_list.json"  # of an artifact; its row has no name


class TextFiles:
    """The texts of a run.

    Args:
        folder: takes them.

    Attributes:
        changed: paths that were written to, until whoever sends them clears it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[tuple[str, str], str] = {}
        self._taken = ArtifactPaths()
        self.changed: set[str] = set()

    def add(self, series: Series) -> None:
        """Takes rows of a string or histogram series."""
        is_text = series.type == "string_series"
        lines = string_series_lines(series.rows) if is_text else histogram_series_lines(series.rows)
        name = (series.path, series.type)
        if name not in self._paths:
            folder, extension = _TEXTS[series.type]
            wanted = f"{folder}/{target_key(series.path, ARTIFACT_RULE)}{extension}"
            self._paths[name] = self._taken.take(wanted, series.path)
            lines = (STRING_HEADING if is_text else b"") + lines
        self.append(self._paths[name], lines)

    def append(self, path: str, lines: bytes) -> None:
        """Adds to a text."""
        place = self.local(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab") as file:
            file.write(lines)
        self.changed.add(path)

    def local(self, path: str) -> Path:
        """Where a text is."""
        return self._folder / path


def file_places(series: Series) -> Iterator[tuple[str, str]]:
    """The files in rows of an attribute: what `RunFiles` knows them by, and where they go in the target."""
    key = f"files/{target_key(series.path, ARTIFACT_RULE)}"
    steps = step_micros(series.rows.column("step")).tolist()
    members = series.rows.column("string_value").to_pylist()
    for path, micros, member in zip(series.values.field("path").to_pylist(), steps, members, strict=True):
        row = FileRow(path, micros, member)
        if series.type in _SETS:
            yield path, f"{key}/{target_key(member or LIST_NAME, ARTIFACT_RULE)}"
        elif series.type == "file_series":
            yield path, f"{key}/{row.series_name}"
        else:
            yield path, with_extension(key, row.extension)
