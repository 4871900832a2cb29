# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The names of files in a target: members of sets keep their own paths, files of series are named by their steps."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from neptune_exporter.loaders.attachments import AttributeRecord
from neptune_exporter.loaders.keys import KeyRule, target_key
from neptune_exporter.model import NO_VALUE, step_micros, step_text

FILE_TYPES = frozenset({"file", "file_series", "file_set", "artifact"})
_SETS = frozenset({"file_set", "artifact"})  # whose rows are named in `string_value`
_EXTENSION = re.compile(r"\.\w{1,16}", re.ASCII)


class FileRow(NamedTuple):
    """One file of an attribute.

    Attributes:
        path: where the staging area has it.
        micros: its step in micro-units, `NO_VALUE` without one.
        member: what the source calls it within a set or an artifact, None if it is no member of one.
    """

    path: str
    micros: int
    member: str | None

    @property
    def extension(self) -> str:
        """What its name ends with, dot and all; nothing that is too long or odd to be an extension."""
        extension = posixpath.splitext(self.path)[1]
        return extension if _EXTENSION.fullmatch(extension) else ""

    @property
    def series_name(self) -> str:
        """Its name in a series of files."""
        return f"step_{'none' if self.micros == NO_VALUE else step_text(self.micros)}{self.extension}"

    def identity(self, record: AttributeRecord) -> str:
        """What tells it from every other file of the run."""
        return f"{record.path}\0{record.type}\0{self.micros}\0{self.path}"


def file_rows(record: AttributeRecord, rows: pa.RecordBatch) -> Iterator[FileRow]:
    """The files in rows of one attribute, in their order."""
    paths = rows.column("file_value").field("path").to_pylist()
    steps = step_micros(rows.column("step")).tolist()
    names = rows.column("string_value").to_pylist() if record.type in _SETS else [None] * len(paths)
    for path, micros, name in zip(paths, steps, names, strict=True):
        yield FileRow(path, micros, name or None)


def artifact_path(record: AttributeRecord, row: FileRow, rule: KeyRule, *, several: bool) -> str:
    """The path of a file in a target that keeps paths, below the key of its attribute.

    Args:
        record: the attribute.
        row: the file.
        rule: what the target allows in a path.
        several: whether the attribute has more than one file.
    """
    if record.type == "file_series":
        return f"{record.key}/{row.series_name}"
    if row.member is not None:
        return f"{record.key}/{target_key(row.member, rule)}"
    if several:
        return f"{record.key}/{target_key(posixpath.basename(row.path), rule)}"
    return with_extension(record.key, row.extension)


def with_extension(name: str, extension: str) -> str:
    """The name, ending with the extension."""
    return name if name.lower().endswith(extension.lower()) else name + extension
