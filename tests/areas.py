# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Small staging areas with known content: ours, and such as the official exporter leaves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neptune_exporter import plugins
from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import SourceRun
from neptune_exporter.model import SCHEMA, RunInfo, RunRef, rows_batch
from neptune_exporter.plugins import Plugin
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

PROJECT = "acme/vision"
TIME = datetime(2024, 5, 1, 10, 0, 0, 250_000, tzinfo=UTC)
TIME_MS = 1714557600250


def staging(root: Path) -> Staging:
    """The area below a folder."""
    return Staging(root / "data", root / "files")


def floats(ref: RunRef, path: str, values: Sequence[float], *, first_step: int = 0, every: int = 1) -> pa.RecordBatch:
    """A float series: one value a step, one second apart."""
    steps = first_step + every * np.arange(len(values), dtype=np.int64)
    return rows_batch(
        ref,
        path,
        "float_series",
        step_micros=steps * 1_000_000,
        time_ms=TIME_MS + 1000 * steps,
        float_value=pa.array(values, pa.float64()),
    )


def text(ref: RunRef, path: str, value: str) -> pa.RecordBatch:
    """A string parameter."""
    return rows_batch(ref, path, "string", string_value=pa.array([value]))


def tags(ref: RunRef, values: Sequence[str]) -> pa.RecordBatch:
    """The tags of a run."""
    return rows_batch(ref, "sys/tags", "string_set", string_set_value=pa.array([list(values)], pa.list_(pa.string())))


def stage(
    root: Path,
    run_id: str,
    *batches: pa.RecordBatch,
    project: str = PROJECT,
    kind: Any = "run",
    parent: str | None = None,
    files: Mapping[str, bytes] | None = None,
    problems: Sequence[Problem] = (),
    empty: Sequence[tuple[str, str]] = (),
    source: SourceRecord | None = None,
) -> RunRef:
    """Writes one run of ours, whole, and over what is there."""
    ref = RunRef(project, run_id, kind)
    info = RunInfo(ref, name=run_id, parent=RunRef(project, parent) if parent else None)
    area = staging(root)
    writer = area.writer(info, source or SourceRecord("listed", "a list"), area.run(ref))
    for batch in batches:
        writer.write(batch)
    for attribute, content in (files or {}).items():
        path = writer.files.add(attribute, attribute, [content])
        writer.write(rows_batch(ref, attribute, "file", file_value=pa.array([{"path": path}])))
    for problem in problems:
        writer.problem(problem)
    for path, attribute_type in empty:
        writer.empty(path, attribute_type)
    writer.commit()
    return ref


def stem(name: str) -> str:
    """The name on disk, by its definition."""
    readable = "".join(c if c.isalnum() or c in "_-" else "_" for c in name)
    return f"{readable}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def folder(root: Path, project: str = PROJECT) -> Path:
    """The data folder of a project."""
    return root / "data" / stem(project)


def part(root: Path, run_id: str, number: int = 0, project: str = PROJECT) -> Path:
    """A part of a run."""
    return folder(root, project) / f"{stem(run_id)}_part_{number}.parquet"


def manifest(root: Path, run_id: str, project: str = PROJECT) -> Path:
    """The manifest of a run."""
    return folder(root, project) / "_manifest" / f"{stem(run_id)}.json"


def index(root: Path, run_id: str, project: str = PROJECT) -> Path:
    """The attribute index of a run."""
    return manifest(root, run_id, project).with_suffix(".parquet")


# --- such as the official exporter leaves them


def row(
    path: str, attribute_type: str, *, run_id: str = "RUN-1", project: str = PROJECT, **values: Any
) -> dict[str, Any]:
    """One row of an official part; a step is given as it is, a time as a datetime."""
    if "step" in values:
        values["step"] = Decimal(str(values["step"])).quantize(Decimal("0.000001"))
    return {
        "project_id": project,
        "run_id": run_id,
        "attribute_path": path,
        "attribute_type": attribute_type,
        **values,
    }


def official(root: Path, run_id: str, *parts: Sequence[dict[str, Any]], project: str = PROJECT, **how: Any) -> None:
    """Writes the parts of one run as the official exporter does: plain, snappy, no manifest."""
    folder(root, project).mkdir(parents=True, exist_ok=True)
    (root / "files" / stem(project)).mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(parts):
        own = [{**one, "run_id": run_id, "project_id": project} for one in rows]
        pq.write_table(pa.Table.from_pylist(own, SCHEMA), part(root, run_id, number, project), **how)


# --- a source that lists what it is given


@dataclass(frozen=True)
class ListedOptions:
    """No options."""


@dataclass
class Listed:
    """A source in memory; a real exporter in all but where its rows come from.

    Attributes:
        rows: the batches of each run by id.
        files: the content of files by (run id, attribute).
        problems: what it reports by run id.
        changed: what `compare` says.
    """

    rows: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    empty: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    outside: dict[str, list[Any]] = field(default_factory=dict)
    changed: Any = "same"
    name: str = "listed"
    source: str = "a list"
    lists_all: bool = True

    def projects(self, selection: Any) -> Iterator[str]:
        if selection.wants_project(PROJECT):
            yield PROJECT

    def runs(self, project_id: str, selection: Any) -> Iterator[SourceRun]:
        for run_id in self.rows:
            if selection.wants_run(run_id):
                yield SourceRun(RunInfo(RunRef(project_id, run_id), name=run_id), {}, TIME)

    def batches(self, run: SourceRun, selection: Any, files: Any, findings: Any) -> Iterator[pa.RecordBatch]:
        run_id = run.info.ref.run_id
        for batch in self.rows[run_id]:
            wanted = [
                selection.wants(path, kind)
                for path, kind in zip(
                    batch.column("attribute_path").to_pylist(), batch.column("attribute_type").to_pylist(), strict=True
                )
            ]
            yield batch.filter(pa.array(wanted, pa.bool_()))
        for (owner, attribute), content in self.files.items():
            if owner == run_id and selection.wants(attribute, "file"):
                path = files.add(attribute, attribute, iter([content]))
                yield rows_batch(run.info.ref, attribute, "file", file_value=pa.array([{"path": path}]))
        for problem in self.problems.get(run_id, ()):
            findings.problem(problem)
        for value in self.outside.get(run_id, ()):
            findings.outside(value)
        for path, attribute_type in self.empty.get(run_id, ()):
            findings.empty(path, attribute_type)

    def compare(self, recorded: Any, current: Any) -> Any:
        return self.changed

    def close(self) -> None:
        pass


def offered(monkeypatch: Any, exporter: Listed) -> Listed:
    """Makes `--exporter listed` find this source."""
    found = plugins.find

    def find(group: str, name: str) -> Any:
        if (group, name) == (plugins.EXPORTERS, exporter.name):
            plugin = Plugin(exporter.name, "", ListedOptions, "")
            object.__setattr__(plugin, "make", lambda *_: exporter)
            return plugin
        return found(group, name)

    monkeypatch.setattr(plugins, "find", find)
    return exporter


# --- damage


def changed_json(path: Path, change: Callable[[Any], None]) -> None:
    """Changes a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def flipped(path: Path, offset: int) -> None:
    """Flips one bit of a file, from its start or, if negative, from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
