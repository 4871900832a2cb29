# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A run of MLflow that is fed while it is being logged.

The way is the client's and the mapping that of the loader, as far as it needs no view of the whole run. MLflow takes
a point that it has for the same point, so a batch that is sent twice is there once. A parameter cannot change in
MLflow: a later value goes into the tag `neptune.now.<key>`. Texts and histograms are artifacts, which can only be
replaced as a whole: they are written anew every `TEXT_SECONDS`. Points that MLflow does not hold exactly are
listed in `neptune/live_exact.jsonl`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.keys import shortened, target_key
from neptune_exporter.loaders.live_files import TextFiles, file_places
from neptune_exporter.loaders.loader import Limits, LoadOptions, RunFiles, RunToLoad, TargetProject
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.experiments import Experiments
from neptune_exporter.loaders.mlflow.marks import ENDED, LIVE, live_marker
from neptune_exporter.loaders.mlflow.points import image
from neptune_exporter.loaders.mlflow.tracking import Tracking
from neptune_exporter.loaders.parameters import held_text, parameter_text
from neptune_exporter.loaders.runs import title
from neptune_exporter.model import MICRO, NO_VALUE, RunInfo, Series, series_of, step_micros, step_text, time_millis

TEXT_SECONDS = 20.0
_HEARTBEAT_SECONDS = 60.0
_BATCH = 1000
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
_EXACT = "neptune/live_exact.jsonl"


class MLflowLive:
    """One run. Connects when it is opened.

    Args:
        connect: gives the connection.
        experiments: finds and makes experiments.
        states: what the target holds of a project.
        options: what is asked of every loader.
        limits: of the target.
        step_multiplier: see `Live`.
    """

    def __init__(
        self,
        connect: Callable[[], Tracking],
        experiments: Callable[[], Experiments],
        states: Callable[[str], TargetProject],
        options: LoadOptions,
        limits: Limits,
        step_multiplier: int | None,
    ) -> None:
        self._connect, self._experiments, self._states = connect, experiments, states
        self._options, self._limits, self._wanted = options, limits, step_multiplier
        self._multiplier = 1
        self._metrics: list[Any] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._gone: list[str] = []
        self._temporary = tempfile.TemporaryDirectory(prefix="neptune-exporter-live-")
        self._texts = TextFiles(Path(self._temporary.name, "texts"))
        self._uploads = Path(self._temporary.name, "uploads")
        self._written = self._beat = 0.0

    def open(self, info: RunInfo, files: RunFiles) -> str:
        """Finds the live run of that name or makes one. See `LiveTarget`."""
        self._tracking = self._connect()
        self._files = files
        recorded = self._states(info.ref.project_id).step_multiplier
        self._multiplier = self._wanted or recorded or 1
        experiment = self._experiment(info, recorded)
        found = None
        for run in self._tracking.search([experiment], tags.REF, tags.ref_digest(info.ref)):
            if str(run.data.tags.get(tags.LOAD, "")).startswith((LIVE, ENDED)):
                found = run
        as_loaded = RunToLoad(info, "", (), files)
        self._start_ms = round(info.created.timestamp() * 1000) if info.created else time.time_ns() // 1_000_000
        if found is None:
            made = tags.creation_tags(as_loaded, self._multiplier, None) | {tags.LOAD: live_marker()}
            name = shortened(tags.printable(title(as_loaded, self._options)), tags.RUN_NAME_LENGTH)
            self._run_id = self._tracking.create_run(experiment, name, self._start_ms, made)
            self._known: dict[str, str] = {}
            return self._run_id
        self._run_id = str(found.info.run_id)
        self._known = dict(found.data.params)
        self._multiplier = int(found.data.tags.get(tags.MULTIPLIER, self._multiplier))
        self._tracking.reopen_run(self._run_id)
        self._tracking.set_tag(self._run_id, tags.LOAD, live_marker())
        return self._run_id

    def _experiment(self, info: RunInfo, recorded: int | None) -> str:
        experiments = self._experiments()
        experiments.prepare(info.ref.project_id, self._multiplier)
        found = str(experiments.of_run(info, self._multiplier).experiment_id)
        if recorded is None and self._wanted is None:  # a load of the project may still choose
            self._tracking.set_experiment_tag(found, tags.MULTIPLIER, "")
        return found

    def append(self, rows: pa.RecordBatch, *, again: bool) -> None:
        """Takes rows. See `LiveTarget`."""
        for series in series_of(rows):
            if series.type == "float_series":
                if not again:
                    self._points(series)
            elif series.type in ("string_series", "histogram_series"):
                self._texts.add(series)
            elif series.type in FILE_TYPES:
                if not again:
                    self._file_rows(series)
            else:
                self._single(series, again=again)

    def flush(self) -> None:
        """Sends what was taken, and the sign of life. See `LiveTarget`."""
        self._send()
        if self._uploads.exists():
            self._tracking.upload(self._run_id, self._uploads)
            for path in sorted(self._uploads.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            self._uploads.rmdir()
        if time.monotonic() - self._written > TEXT_SECONDS:
            self._write_texts()
        if time.monotonic() - self._beat > _HEARTBEAT_SECONDS:
            self._beat = time.monotonic()
            self._tracking.set_tag(self._run_id, tags.LOAD, live_marker())

    def finish(self, status: Literal["finished", "failed", "killed"]) -> None:
        """Ends the run. See `LiveTarget`."""
        self.flush()
        self._write_texts()
        self._tracking.end_run(self._run_id, _STATUS[status], time.time_ns() // 1_000_000)
        self._tracking.set_tag(self._run_id, tags.LOAD, ENDED)
        self._temporary.cleanup()

    # --- what rows become

    def _points(self, series: Series) -> None:
        from mlflow.entities import Metric

        rows = series.rows
        micros = step_micros(rows.column("step"))
        whole = (micros == NO_VALUE) | (micros % MICRO * self._multiplier % MICRO == 0)
        if not whole.all():
            self._exactly(series, rows.filter(pa.array(~whole)), "a fractional step; see the step multiplier")
            rows = rows.filter(pa.array(whole))
        points, exact = image(rows, self._multiplier, self._start_ms)
        if not exact.all():
            self._exactly(series, rows.filter(pa.array(~exact)), "")
        key = target_key(series.path, tags.KEY_RULE)
        columns = zip(points.values.tolist(), points.times.tolist(), points.steps.tolist(), strict=True)
        self._metrics += [Metric(key, value, when, step) for value, when, step in columns]
        if len(self._metrics) >= 10 * _BATCH:
            self._send()

    def _exactly(self, series: Series, rows: pa.RecordBatch, reason: str) -> None:
        """Lists points that MLflow does not hold as they are."""
        values = np.asarray(rows.column("float_value")).tolist()
        steps, times = step_micros(rows.column("step")).tolist(), time_millis(rows.column("timestamp")).tolist()
        lines = [
            json.dumps(
                {
                    "attribute": series.path,
                    "step": None if step == NO_VALUE else step_text(step),
                    "time_ms": None if when == NO_VALUE else when,
                    "value": repr(value),
                    **({"reason": reason} if reason else {}),
                }
            )
            for value, step, when in zip(values, steps, times, strict=True)
        ]
        self._texts.append(_EXACT, ("\n".join(lines) + "\n").encode())

    def _single(self, series: Series, *, again: bool) -> None:
        value = series.values.slice(series.rows.num_rows - 1)
        if series.path in tags.TAG_SETS and series.type == "string_set":
            self._set_labels(series, value, again=again)
            return
        key = target_key(series.path, tags.KEY_RULE)
        text = held_text(parameter_text(series.type, value), self._limits.value_length, "a later load")
        if series.path == "sys/description" and series.type == "string":
            self._tags[tags.NOTE] = tags.note(value[0].as_py())
        if self._known.setdefault(key, text) != text:
            if not again:
                self._tags[shortened(f"neptune.now.{key}", 250)] = shortened(text, tags.TAG_LENGTH)
        elif not again:
            self._params[key] = text

    def _set_labels(self, series: Series, value: pa.Array, *, again: bool) -> None:
        now = tags.label_tags(value[0].as_py())
        before = self._labels.get(series.path, {})
        self._labels[series.path] = now
        if not again:
            self._gone += [key for key in before if key not in now]
            whole = parameter_text(series.type, value)
            self._tags |= now | {tags.TAG_SETS[series.path]: held_text(whole, tags.TAG_LENGTH, "a later load")}

    def _file_rows(self, series: Series) -> None:
        for path, wanted in file_places(series):
            place = self._uploads / wanted
            place.parent.mkdir(parents=True, exist_ok=True)
            self._files.local(path).replace(place)

    # --- sending

    def _send(self) -> None:
        while self._metrics or self._params or self._tags:
            params = dict(list(self._params.items())[:100])
            some_tags = dict(list(self._tags.items())[:100])
            metrics = self._metrics[: _BATCH - len(params) - len(some_tags)]
            self._tracking.log(self._run_id, metrics, params, some_tags)
            del self._metrics[: len(metrics)]
            for key in params:
                del self._params[key]
            for key in some_tags:
                del self._tags[key]
        for key in self._gone:
            try:
                self._tracking.delete_tag(self._run_id, key)
            except TargetError:  # it is gone already
                continue
        self._gone = []

    def _write_texts(self) -> None:
        self._written = time.monotonic()
        for path in sorted(self._texts.changed):
            folder, _, _ = path.rpartition("/")
            self._tracking.upload_file(self._run_id, self._texts.local(path), folder)
        self._texts.changed.clear()
