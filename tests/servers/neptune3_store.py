# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a Neptune 3.x server holds: filled by the real client's operations, or by tests directly and in bulk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from servers.neptune3_wire import float_points

SERIES = {"floatSeries", "stringSeries", "fileRefSeries", "histogramSeries"}


class FloatSeries:
    """Points of one float series, and how they look on the wire."""

    def __init__(self) -> None:
        self._chunks: list[tuple[Any, Any, Any]] = []
        self._single: tuple[list[float], list[int], list[float]] = ([], [], [])
        self.previews: list[tuple[float, int, float, float]] = []
        self._encoded: dict[tuple[bool, bool], tuple[Any, bytes, Any]] = {}

    def append(self, step: float, millis: int, value: float) -> None:
        """One committed point; previews up to its step are gone."""
        for column, item in zip(self._single, (step, millis, value), strict=True):
            column.append(item)
        self.previews = [p for p in self.previews if p[0] > step]
        self._encoded.clear()

    def extend(self, steps: Any, millis: Any, values: Any) -> None:
        """Many points, steps ascending."""
        self._flush()
        self._chunks.append((np.asarray(steps, float), np.asarray(millis, np.int64), np.asarray(values, float)))
        self._encoded.clear()

    def preview(self, step: float, millis: int, value: float, ratio: float) -> None:
        """One preview point; a later one of the same step takes its place."""
        self.previews = [*(p for p in self.previews if p[0] != step), (step, millis, value, ratio)]
        self._encoded.clear()

    def _flush(self) -> None:
        if self._single[0]:
            steps, millis, values = self._single
            self._chunks.append((np.array(steps, float), np.array(millis, np.int64), np.array(values, float)))
            self._single = ([], [], [])

    def columns(self) -> tuple[Any, Any, Any]:
        """Steps, times and values of the committed points."""
        self._flush()
        if len(self._chunks) != 1:
            empty = (np.empty(0), np.empty(0, np.int64), np.empty(0))
            chunks = self._chunks or [empty]
            self._chunks = [tuple(np.concatenate([c[i] for c in chunks]) for i in range(3))]  # type: ignore[misc]
        return self._chunks[0]

    def last_step(self) -> float | None:
        """The step of the last committed point."""
        if self._single[0]:
            return self._single[0][-1]
        return float(self._chunks[-1][0][-1]) if self._chunks and len(self._chunks[-1][0]) else None

    def up_to(self, step: float) -> FloatSeries:
        """The points with no later step."""
        steps, millis, values = self.columns()
        end = int(np.searchsorted(steps, step, side="right"))
        part = FloatSeries()
        part.extend(steps[:end], millis[:end], values[:end])
        return part

    def encoded(self, *, descending: bool, previews: bool) -> tuple[Any, bytes, Any]:
        """Steps in the order asked for, the encoded points and their offsets."""
        key = (descending, previews)
        if key not in self._encoded:
            steps, millis, values = self.columns()
            flags, ratios = None, None
            if previews and self.previews:
                extra = sorted(self.previews)
                flags = np.concatenate((np.zeros(len(steps), bool), np.ones(len(extra), bool)))
                ratios = np.concatenate((np.zeros(len(steps)), [p[3] for p in extra]))
                steps = np.concatenate((steps, [p[0] for p in extra]))
                millis = np.concatenate((millis, np.array([p[1] for p in extra], np.int64)))
                values = np.concatenate((values, [p[2] for p in extra]))
            if descending:
                steps, millis, values = steps[::-1], millis[::-1], values[::-1]
                flags, ratios = (None, None) if flags is None else (flags[::-1], ratios[::-1])
            self._encoded[key] = (steps, *float_points(millis, steps, values, flags, ratios))
        return self._encoded[key]


@dataclass
class Attribute:
    """One attribute of a run: a value, float points, or a list of (step, millis, value)."""

    type: str
    value: Any = None


@dataclass
class Run:
    """One run."""

    project: str
    sys_id: str
    custom_id: str
    attributes: dict[str, Attribute] = field(default_factory=dict)
    parent: Run | None = None
    fork_step: float | None = None

    def set(self, path: str, kind: str, value: Any) -> None:
        """A single value."""
        self.attributes[path] = Attribute(kind, value)

    def series(self, path: str, kind: str) -> Any:
        """The series of that name, made if there is none: `FloatSeries` or a list of (step, millis, value)."""
        if path not in self.attributes:
            self.attributes[path] = Attribute(kind, FloatSeries() if kind == "floatSeries" else [])
        return self.attributes[path].value

    def visible(self) -> dict[str, Attribute]:
        """Own attributes, and series that the ancestors have."""
        inherited = {k: v for k, v in (self.parent.visible() if self.parent else {}).items() if v.type in SERIES}
        return {**inherited, **self.attributes}

    def lineage(self, path: str, *, full: bool) -> Any:
        """The points of a series, those of the ancestors up to the fork included if `full`; None if there is none."""
        own = self.attributes.get(path)
        if not full or self.parent is None:
            return own.value if own and own.type in SERIES else None
        above = self.parent.lineage(path, full=True)
        if above is None:
            return own.value if own else None
        if isinstance(above, FloatSeries):
            joined = above.up_to(self.fork_step or 0.0)
            if own:
                joined.extend(*own.value.columns())
            return joined
        return [p for p in above if p[0] <= (self.fork_step or 0.0)] + (own.value if own else [])

    def last(self, path: str) -> tuple[float, Any] | None:
        """The last point of a series, ancestors' included."""
        points = self.lineage(path, full=True)
        if isinstance(points, FloatSeries):
            steps, _, values = points.columns()
            return (float(steps[-1]), float(values[-1])) if len(steps) else None
        return (points[-1][0], points[-1][2]) if points else None


class Store:
    """Projects with their runs, and the content of files by storage path."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.projects: dict[str, dict[str, Run]] = {}
        self.forbidden: set[str] = set()
        self.blobs: dict[tuple[str, str], bytes] = {}
        self._clock = 0

    def now(self) -> int:
        """Milliseconds since the epoch, never twice the same."""
        self._clock = max(self._clock + 1, time.time_ns() // 1_000_000)
        return self._clock

    def add_run(
        self,
        project: str,
        custom_id: str,
        *,
        name: str | None = None,
        created: int | None = None,
        parent: str | None = None,
        fork_step: float | None = None,
        inherit_configs: bool = True,
    ) -> Run:
        """A new run with the attributes that the server gives it."""
        with self.lock:
            runs = self.projects.setdefault(project, {})
            sys_id = f"{project.partition('/')[2][:4].upper()}-{len(runs) + 1}"
            run = runs[custom_id] = Run(project, sys_id, custom_id)
            now = self.now()
            if parent is not None:
                run.parent, run.fork_step = runs[parent], fork_step
                if inherit_configs:
                    own = {k: v for k, v in run.parent.attributes.items() if not k.startswith("sys/")}
                    run.attributes |= {k: Attribute(v.type, v.value) for k, v in own.items() if v.type not in SERIES}
                run.set("sys/forking/parent", "string", parent)
                run.set("sys/forking/step", "float", fork_step)
            depth = 0 if run.parent is None else run.parent.attributes["sys/forking/depth"].value + 1
            run.set("sys/forking/depth", "int", depth)
            run.set("sys/id", "string", sys_id)
            run.set("sys/custom_run_id", "string", custom_id)
            run.set("sys/name", "string", name or custom_id)
            run.set("sys/experiment/name", "string", name or "")
            run.set("sys/experiment/is_head", "bool", True)
            run.set("sys/creation_time", "datetime", now if created is None else created)
            run.set("sys/modification_time", "datetime", now)
            run.set("sys/owner", "string", "tester")
            for flag in ("archived", "trashed", "failed"):
                run.set(f"sys/{flag}", "bool", False)
            for tags in ("tags", "group_tags"):
                run.set(f"sys/{tags}", "stringSet", [])
            return run

    def touch(self, run: Run) -> None:
        """The run was written to."""
        run.set("sys/modification_time", "datetime", self.now())

    def run(self, identifier: str) -> Run | None:
        """A run by `ws/project/SYS-ID` or `CUSTOM/ws/project/id`."""
        custom = identifier.startswith("CUSTOM/")
        workspace, name, run_id = identifier.removeprefix("CUSTOM/").split("/", 2)
        runs = self.projects.get(f"{workspace}/{name}", {})
        if custom:
            return runs.get(run_id)
        return next((run for run in runs.values() if run.sys_id == run_id), None)

    def all_runs(self) -> Iterator[Run]:
        """Every run of every project."""
        for runs in self.projects.values():
            yield from runs.values()

    # --- what neptune-scale sends

    def apply(self, operation: Any) -> str:
        """Applies a `RunOperation`; returns the name of its ingest code."""
        with self.lock:
            if operation.project not in self.projects:
                return "PROJECT_NOT_FOUND"
            runs = self.projects[operation.project]
            if operation.HasField("create"):
                return self._create(runs, operation.project, operation.run_id, operation.create)
            run = runs.get(operation.run_id)
            if run is None:
                return "RUN_NOT_FOUND"
            single = operation.HasField("update")
            codes = [self._update(run, s) for s in ([operation.update] if single else operation.update_batch.snapshots)]
            self.touch(run)
            return next((code for code in codes if code != "OK"), "OK")

    def _create(self, runs: dict[str, Run], project: str, run_id: str, create: Any) -> str:
        if run_id in runs:
            return "RUN_DUPLICATE"
        fork = create.fork_point if create.HasField("fork_point") else None
        if fork is not None and fork.parent_run_id not in runs:
            return "RUN_FORK_PARENT_NOT_FOUND"
        created = create.creation_time
        self.add_run(
            project,
            run_id,
            name=create.experiment_id or None,
            created=_millis(created),
            parent=fork and fork.parent_run_id,
            fork_step=fork and _step(fork.step),
            inherit_configs=create.inherit_configs,
        )
        return "OK"

    def _update(self, run: Run, snapshot: Any) -> str:
        millis = _millis(snapshot.timestamp)
        code = "OK"
        step = _step(snapshot.step)
        for path, value in snapshot.assign.items():
            kind, plain = _value(value)
            run.set(path, {"histogram": "histogramSeries"}.get(kind, kind), plain)
        for path, change in snapshot.modify_sets.items():
            tags = dict.fromkeys(run.attributes[path].value if path in run.attributes else [])
            for tag, operation in change.string.values.items():
                if operation == 1:
                    tags[tag] = None
                else:
                    tags.pop(tag, None)
            run.set(path, "stringSet", list(tags))
        for path, value in snapshot.append.items():
            kind, plain = _value(value)
            kind = {"float": "floatSeries", "int": "floatSeries", "string": "stringSeries"}.get(kind, f"{kind}Series")
            if path in run.attributes and run.attributes[path].type != kind:
                code = "FIELD_TYPE_CONFLICTING"
                continue
            series = run.series(path, kind)
            last = series.last_step() if kind == "floatSeries" else series[-1][0] if series else None
            if last is not None and step <= last:
                code = "SERIES_STEP_NON_INCREASING"
            elif kind != "floatSeries":
                series.append((step, millis, plain))
            elif snapshot.HasField("preview") and snapshot.preview.is_preview:
                series.preview(step, millis, plain, snapshot.preview.completion_ratio)
            else:
                series.append(step, millis, plain)
        return code


def _step(step: Any) -> float:
    return step.whole + step.micro / 1e6


def _millis(time: Any) -> int:
    micros = (time.nanos + 500) // 1000  # the client's nanoseconds come from a double
    return time.seconds * 1000 + (micros + 500) // 1000


def _value(value: Any) -> tuple[str, Any]:
    kind = value.WhichOneof("value")
    plain = getattr(value, kind)
    if kind == "timestamp":
        return "datetime", _millis(plain)
    if kind == "string_set":
        return "stringSet", list(plain.values)
    if kind == "file_ref":
        return "fileRef", {"path": plain.path, "size": plain.size_bytes, "mime": plain.mime_type}
    if kind == "histogram":
        counts = plain.WhichOneof("values") == "counts"
        numbers = [float(v) for v in (plain.counts if counts else plain.densities).values]
        return "histogram", {
            "type": "COUNTING" if counts else "DENSITY",
            "edges": list(plain.bin_edges),
            "values": numbers,
        }
    return {"float64": "float", "int64": "int"}.get(kind, kind), plain
