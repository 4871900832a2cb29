# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a run: written last, it names everything that belongs to the run.

Where a folder holds `area.json`, a run without a manifest does not exist, and readers open only what a
manifest names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from neptune_exporter import __version__
from neptune_exporter.errors import DamagedDataError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import RunInfo
from neptune_exporter.selection import Selection
from neptune_exporter.storage import disk
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.shapes import check_manifest

FORMAT = 1
MANIFESTS = "_manifest"
AREA = "area.json"
OBJECTS = "objects"  # the layout of an area that an object store has held
UNKNOWN = "unknown"
NOT_OURS = "exported by another tool"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file that belongs to a run.

    Attributes:
        path: relative: a part to the project's data folder, any other file to its files folder.
        bytes: its size.
        sha256: of its content, hex.
        rows: for Parquet, the number of rows.
    """

    path: str
    bytes: int
    sha256: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One export that contributed to a run.

    Attributes:
        exporter: the exporter's name.
        source: what it exported from (a server's address, the word offline).
        state: what the exporter needs to tell whether the source has changed since.
        as_of: the time of the last write that the source knew of.
        selection: which attributes and classes were exported.
        problems: what this source could not give.
        exported: when.
    """

    exporter: str
    source: str
    state: Mapping[str, Any] = field(default_factory=dict)
    as_of: datetime | None = None
    selection: Selection = field(default_factory=Selection)
    problems: tuple[Problem, ...] = ()
    exported: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def name(self) -> tuple[str, str]:
        """What tells sources apart: the exporter and where it exported from."""
        return self.exporter, self.source

    @property
    def text(self) -> str:
        """The source in words, once each: `offline`, `neptune3 https://…`, or that another tool did not say."""
        if self.exporter == UNKNOWN:
            return NOT_OURS
        return self.source if self.source.startswith(self.exporter) else f"{self.exporter} {self.source}"

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {
            "exporter": self.exporter,
            "source": self.source,
            "state": dict(self.state),
            "as_of": self.as_of and self.as_of.isoformat(),
            "selection": self.selection.attributes_to_json(),
            "problems": [problem.to_json() for problem in self.problems],
            "exported": self.exported.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            exporter=value["exporter"],
            source=value["source"],
            state=value["state"],
            as_of=datetime.fromisoformat(value["as_of"]) if value["as_of"] else None,
            selection=Selection.attributes_from_json(value["selection"]),
            problems=tuple(Problem.from_json(problem) for problem in value["problems"]),
            exported=datetime.fromisoformat(value["exported"]),
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """What `summary` needs of a run without opening its index.

    Attributes:
        types: for each attribute type, the number of attributes and of rows.
        first_step: smallest step of all series in micro-units, None without steps.
        last_step: largest step.
        first_time: earliest time in milliseconds since the epoch, None without times.
        last_time: latest time.
    """

    types: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    first_step: int | None = None
    last_step: int | None = None
    first_time: int | None = None
    last_time: int | None = None

    @classmethod
    def of(cls, attributes: Iterable[Attribute]) -> Self:
        """The totals of an index."""
        types: dict[str, tuple[int, int]] = {}
        everything = Attribute("", "")
        for attribute in attributes:
            count, rows = types.get(attribute.type, (0, 0))
            types[attribute.type] = (count + 1, rows + attribute.rows)
            everything = everything.joined(attribute)
        return cls(types, everything.first_step, everything.last_step, everything.first_time, everything.last_time)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that belongs to one run in the staging area.

    Attributes:
        generation: 1 for the first export of the run, one more for each that replaced it.
        info: the run's identity.
        sources: the exports that contributed, oldest first, at least one; `UNKNOWN` for what another tool left.
        parts: the Parquet parts, in order.
        files: the run's files.
        index: the attribute index.
        extra: the values outside the schema, one JSON object a line; None if there are none.
        digest: the run's digest.
        totals: a summary of the index.
        sorted: whether the parts, one after the other, are sorted by (path, type, step).
        replaced: names and sizes of another tool's parts whose rows are in this run now, where no commit that is
            written down removes them (on object stores).
    """

    generation: int
    info: RunInfo
    sources: tuple[SourceRecord, ...]
    parts: tuple[FileEntry, ...]
    files: tuple[FileEntry, ...]
    index: FileEntry
    extra: FileEntry | None
    digest: str
    totals: Totals
    sorted: bool = True
    replaced: tuple[tuple[str, int], ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be carried over, from any source."""
        return tuple(problem for source in self.sources for problem in source.problems)

    @property
    def status(self) -> str:
        """`complete`, or `partial` where there are problems."""
        return "partial" if self.problems else "complete"

    @property
    def rows(self) -> int:
        """Rows in all parts, those that hold no value included."""
        return sum(part.rows for part in self.parts)

    @property
    def points(self) -> int:
        """Rows that hold a value."""
        return sum(rows for _, rows in self.totals.types.values())

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON object."""
        replaced = {"replaced": [list(part) for part in self.replaced]} if self.replaced else {}
        return {
            "format": FORMAT,
            "tool": f"neptune-exporter {__version__}",
            "generation": self.generation,
            "status": self.status,
            "run": self.info.to_json(),
            "digest": self.digest,
            "sorted": self.sorted,
            "totals": asdict(self.totals),
            "sources": [source.to_json() for source in self.sources],
            "index": asdict(self.index),
            "extra": self.extra and asdict(self.extra),
            "parts": [asdict(part) for part in self.parts],
            "files": [[file.path, file.bytes, file.sha256] for file in self.files],
            **replaced,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        totals = value["totals"]
        return cls(
            generation=value["generation"],
            info=RunInfo.from_json(value["run"]),
            sources=tuple(SourceRecord.from_json(source) for source in value["sources"]),
            parts=tuple(FileEntry(**part) for part in value["parts"]),
            files=tuple(FileEntry(*file) for file in value["files"]),
            index=FileEntry(**value["index"]),
            extra=FileEntry(**value["extra"]) if value["extra"] else None,
            digest=value["digest"],
            totals=Totals(**{**totals, "types": {k: tuple(v) for k, v in totals["types"].items()}}),
            sorted=value["sorted"],
            replaced=tuple((str(name), int(size)) for name, size in value.get("replaced", ())),
        )


def read_manifest(path: Place) -> Manifest:
    """Reads `<run>.json`.

    Raises:
        DamagedDataError: it is not a manifest.
        StagingError: it is from a newer version of this tool, or cannot be read.
    """
    return manifest_from(read_json(path), path)


def manifest_from(value: Any, path: Place) -> Manifest:
    """A manifest from the JSON in `path`. Raises like `read_manifest`."""
    try:
        if value["format"] > FORMAT:
            raise StagingError(
                f"{path} was written by a newer version of neptune-exporter ({str(value.get('tool'))[:50]}).",
                "Install that version or a later one: pip install -U neptune-exporter",
            )
        check_manifest(value)
        return Manifest.from_json(value)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError) as error:
        raise DamagedDataError(
            f"{path} is not a manifest: {type(error).__name__} {error}.",
            "Export the run again with --overwrite, or restore the file.",
        ) from error


def parse_json(data: bytes, path: Place) -> Any:
    """What a JSON file of the staging area holds. Raises `DamagedDataError`, naming it."""
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise DamagedDataError(
            f"{path} is damaged: {error}.", "Restore it from a backup, or export again with --overwrite."
        ) from error


def json_bytes(value: Any) -> bytes:
    """A JSON file of the staging area."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")


def read_json(path: Place) -> Any:
    """Any JSON file of the staging area. Raises `DamagedDataError` or `StagingError`, naming it."""
    if isinstance(path, Path):
        disk.check_regular(path)
    try:
        return parse_json(path.read_bytes(), path)
    except OSError as error:
        raise StagingError(f"Cannot read {path}: {error.strerror}.", "Check the path and its permissions.") from error
