# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 3.x server with runs whose rows are known, and what our program brings home from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from contracts.rows import rows_on_disk, single
from home import PROJECT, StagingHome, without_waiting
from servers.neptune3 import Neptune3Server
from servers.neptune3_store import Run
from truth import HistogramValue, Row

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunRef

__all__ = ["PROJECT", "Home", "millis", "put", "report", "serving", "system_rows", "without_waiting"]

THEIRS = {
    "string_set": "stringSet",
    "file": "fileRef",
    "float_series": "floatSeries",
    "string_series": "stringSeries",
    "histogram_series": "histogramSeries",
    "file_series": "fileRefSeries",
}
OURS = {theirs: ours for ours, theirs in THEIRS.items()}


def millis(time: datetime) -> int:
    """Milliseconds since the epoch."""
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


def put(server: Neptune3Server, run: Run, rows: Iterable[Row]) -> None:
    """Gives a run these values, as if they had been logged; steps ascending."""
    floats: dict[str, list[tuple[float, int, float]]] = {}
    for row in rows:
        kind = THEIRS.get(row.type, row.type)
        value: Any = row.value
        if row.type in ("file", "file_series"):
            value = _blob(server, run, row)
        elif row.type == "datetime":
            value = millis(value)
        elif isinstance(value, HistogramValue):
            value = {"type": value.type, "edges": list(value.edges), "values": list(value.values)}
        elif isinstance(value, frozenset):
            value = list(value)
        if row.step is None:
            run.set(row.path, kind, value)
        elif row.type == "float_series":
            floats.setdefault(row.path, []).append((float(row.step), millis(row.time), value))
        else:
            run.series(row.path, kind).append((float(row.step), millis(row.time), value))
    for path, points in floats.items():
        run.series(path, "floatSeries").extend(*(np.array(column) for column in zip(*sorted(points), strict=True)))
    server.store.touch(run)


def _blob(server: Neptune3Server, run: Run, row: Row) -> dict[str, Any]:
    path = f"{run.sys_id}/{hashlib.sha256(row.path.encode()).hexdigest()}/{row.step}.bin"
    server.store.blobs[run.project, path] = row.value
    return {"path": path, "size": len(row.value), "mime": "application/octet-stream"}


def system_rows(run: Run) -> list[Row]:
    """The rows of the attributes that the server itself gave a run."""
    rows = []
    for path, attribute in run.attributes.items():
        if path.startswith("sys/"):
            value = attribute.value
            if attribute.type == "datetime":
                value = datetime.fromtimestamp(value / 1000, UTC)
            if attribute.type == "stringSet":
                value = frozenset(value)
            rows.append(single(path, value, OURS.get(attribute.type, attribute.type)))
    return rows


@contextmanager
def serving(project: str | None = PROJECT) -> Iterator[Neptune3Server]:
    """A server, and the environment in which our program finds it. What fails inside of it fails the test."""
    with Neptune3Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEPTUNE_API_TOKEN", server.api_token)
        if project is not None:
            server.store.projects[project] = {}
        yield server
        assert server.errors == []


class Home(StagingHome):
    """Where exports from a 3.x server go."""

    def run(self, *arguments: str) -> int:
        """Runs our program; returns its exit code."""
        return main([*arguments, *self.places, "--no-progress"] if arguments[0] == "export" else list(arguments))

    def export(self, *arguments: str, project: str | None = PROJECT) -> int:
        return self.run("export", *(["-p", project] if project else []), *arguments)

    def runs(self, project: str = PROJECT) -> list[str]:
        """The ids of all runs that exist."""
        return sorted(run.ref.run_id for run in self.staging.folder(project).runs())

    def rows(self, run_id: str, project: str = PROJECT) -> list[Row]:
        """Every row of a run, read from the parts by plain pyarrow, contents of files included."""
        return rows_on_disk(self.staging, RunRef(project, run_id))

    def paths(self, run_id: str) -> set[str]:
        """The attributes that have rows, `sys/` left out."""
        return {row.path for row in self.rows(run_id) if not row.path.startswith("sys/")}

    def problems(self, run_id: str) -> dict[str | None, str]:
        """Kind of problem by attribute."""
        return {problem.attribute: problem.kind for problem in self.staged(run_id).problems}


def report(capsys: Any) -> dict[str, Any]:
    """What `--json` printed."""
    return json.loads(capsys.readouterr().out)
