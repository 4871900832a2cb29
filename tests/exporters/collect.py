# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Collects everything that an exporter gives, as it is: rows, files, findings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
from truth import Content, Row, rows_in

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import SourceRun
from neptune_exporter.exporters.offline import OfflineOptions, plugin
from neptune_exporter.exporters.offline_stores import OfflineExporter
from neptune_exporter.model import BATCH_SCHEMA, OutsideValue
from neptune_exporter.selection import Selection

EVERYTHING = Selection()


class Folder:
    """Takes files into a folder, under names of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, str] = {}

    def add(self, attribute: str, name: str, chunks: Iterable[bytes], *, step: Decimal | None = None) -> str:
        path = hashlib.sha256(f"{len(self.names)} {attribute} {step}".encode()).hexdigest()
        with (self.root / path).open("wb") as file:
            for chunk in chunks:
                assert 0 < len(chunk) <= 2**20
                file.write(chunk)
        self.names[path] = name
        return path


@dataclass
class Collected:
    """What came of one run."""

    source: SourceRun
    batches: list[pa.RecordBatch]
    files: Folder
    problems: list[Problem] = field(default_factory=list)
    outsiders: list[OutsideValue] = field(default_factory=list)
    empties: list[tuple[str, str]] = field(default_factory=list)

    def problem(self, problem: Problem) -> None:
        self.problems.append(problem)

    def outside(self, value: OutsideValue) -> None:
        self.outsiders.append(value)

    def empty(self, path: str, attribute_type: str) -> None:
        self.empties.append((path, attribute_type))

    @property
    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches, BATCH_SCHEMA)

    @property
    def rows(self) -> list[Row]:
        return rows_in(self.table, Content(self.files.root))

    def values(self, path: str) -> list:
        return [row.value for row in self.rows if row.path == path]


def offline(*paths: Path, **options) -> OfflineExporter:
    """The exporter, found and made as the command line does it."""
    return plugin.make(OfflineOptions(offline_path=tuple(map(str, paths)), **options))


def collect(exporter, run: SourceRun, root: Path, selection: Selection = EVERYTHING) -> Collected:
    """All that the exporter gives of one run."""
    folder = root / hashlib.sha256(str(run.info.ref).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    collected = Collected(run, [], Folder(folder))
    for batch in exporter.batches(run, selection, collected.files, collected):
        assert batch.schema.equals(BATCH_SCHEMA)
        batch.validate(full=True)
        assert 0 < batch.num_rows <= 100_000
        collected.batches.append(batch)
    return collected


def collect_all(exporter, root: Path, selection: Selection = EVERYTHING) -> dict[str, Collected]:
    """All selected runs by run id."""
    return {
        run.info.ref.run_id: collect(exporter, run, root, selection)
        for project in exporter.projects(selection)
        for run in exporter.runs(project, selection)
    }
