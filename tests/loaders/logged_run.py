# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A run made of Python values: what was logged is known without any reader of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import DamagedDataError, TargetError
from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.model import NO_VALUE, SCHEMA, VALUE_COLUMN, RunInfo, RunRef, rows_batch

REF = RunRef("team/project", "run-1")


class FolderFiles:
    """The files of a run in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def local(self, path: str) -> Path:
        local = self.root / path
        if not local.is_file():
            raise DamagedDataError(f"{path} is missing.")
        return local

    def open(self, path: str):
        return self.local(path).open("rb")

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.local(path).read_bytes()).hexdigest()

    def size(self, path: str) -> int:
        return self.local(path).stat().st_size


@dataclass
class LoggedRun:
    """Values by (path, type): a list of (step, time in ms, value) each, in order of steps."""

    root: Path
    ref: RunRef = REF
    info: dict[str, Any] = field(default_factory=dict)
    values: dict[tuple[str, str], list[tuple[Decimal | None, int | None, Any]]] = field(default_factory=dict)
    problems: tuple = ()
    extra: bytes | None = None

    def single(self, path: str, attribute_type: str, value: Any) -> LoggedRun:
        self.values[path, attribute_type] = [(None, None, value)]
        return self

    def series(self, path: str, attribute_type: str, points: list[tuple[Any, int | None, Any]]) -> LoggedRun:
        self.values[path, attribute_type] = [
            (None if step is None else Decimal(str(step)), time, value) for step, time, value in points
        ]
        return self

    def file(self, path: str, content: bytes) -> str:
        """Writes a file and gives what stands in `file_value.path`, as a dictionary."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return {"path": path}

    def batches(self, batch_rows: int = 1000) -> list[pa.RecordBatch]:
        """Rows by (path, type, step), cut so that attributes and series continue over batches."""
        rows = []
        for (path, attribute_type), points in sorted(self.values.items()):
            for start in range(0, len(points), batch_rows):
                rows.append(self._rows(path, attribute_type, points[start : start + batch_rows]))
        if not rows:
            return []
        table = pa.concat_tables([pa.Table.from_batches([r]) for r in rows]).combine_chunks()
        return table.to_batches(max_chunksize=batch_rows)

    def _rows(self, path: str, attribute_type: str, points: list) -> pa.RecordBatch:
        column = VALUE_COLUMN[attribute_type]
        steps = [NO_VALUE if s is None else int(s * 1_000_000) for s, _, _ in points]
        times = [NO_VALUE if t is None else t for _, t, _ in points]
        values = pa.array([v for _, _, v in points], SCHEMA.field(column).type)
        return rows_batch(
            self.ref,
            path,
            attribute_type,
            step_micros=np.array(steps, np.int64),
            time_ms=np.array(times, np.int64),
            **{column: values},
        )

    @property
    def files(self) -> FolderFiles:
        return FolderFiles(self.root)

    def attributes(self) -> list[Attribute]:
        fingerprint = Fingerprint(self.files.sha256)
        for batch in self.batches():
            fingerprint.write(batch)
        for (path, attribute_type), points in self.values.items():
            if not points:
                fingerprint.add(Attribute(path, attribute_type))
        return fingerprint.attributes()

    @property
    def digest(self) -> str:
        return run_digest(self.attributes())

    def to_load(self) -> RunToLoad:
        return RunToLoad(
            RunInfo(self.ref, **self.info),
            self.digest,
            self.attributes(),
            self.files,
            self.problems,
            self.extra,
            "offline of a test",
        )


def load(loader, run: LoggedRun, multiplier: int = 1, batch_rows: int = 1000) -> str:
    """Loads a run as the command does. Gives the target's id of it."""
    loader.prepare(run.ref.project_id, multiplier)
    sink = loader.start(run.to_load(), multiplier)
    for batch in run.batches(batch_rows):
        sink.write(batch)
    sink.commit()
    return loader.states(run.ref.project_id).runs[run.ref].target_id


def attempted(connect: Callable[[], Any], run: LoggedRun) -> bool:
    """Loads as the command does, over a target that may fail at any moment; whether it came through."""
    try:
        loader = connect()
        loader.states(run.ref.project_id)
        loader.prepare(run.ref.project_id, 1)
        sink = loader.start(run.to_load(), 1)
    except TargetError:
        return False
    try:
        for batch in run.batches():
            sink.write(batch)
        sink.commit()
    except TargetError:
        sink.abort()
        return False
    return True


def read_back(loader, ref: RunRef = REF) -> list[Attribute]:
    """The fingerprints of what the loader reads back."""
    target = loader.read(ref)
    fingerprint = Fingerprint(target.file_sha256)
    for batch in target.batches:
        fingerprint.write(batch)
    for name in target.attributes:
        fingerprint.add(Attribute(*name))
    return fingerprint.attributes()
