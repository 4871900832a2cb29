# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A run of W&B that is fed while it is being logged.

Rows go to the run's file stream as the client's own go, and have arrived when the server says so. A feed that begins
again reads what the server has and leaves that out, point by point. Rows keep the order in which they were logged:
`_step` counts on, the exact step is `neptune_step`, so what goes back or has fractions is not lost. Text series,
exact histograms and files are files of the run; texts are written anew every `TEXT_SECONDS`. A complete load of the
run brings the artifact, and marks this run superseded.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.live_files import TextFiles, file_places
from neptune_exporter.loaders.live_marks import ENDED, LIVE, live_marker
from neptune_exporter.loaders.loader import LoadOptions, RunFiles, RunToLoad, TargetProject
from neptune_exporter.loaders.runs import start_ms
from neptune_exporter.loaders.wandb import config, names
from neptune_exporter.loaders.wandb.forks import INTERNAL
from neptune_exporter.loaders.wandb.histograms import histogram_texts
from neptune_exporter.loaders.wandb.history import Points, RowBuilder, Rows, in_order, last_texts
from neptune_exporter.loaders.wandb.images import Expected, RowReader, hashes_of
from neptune_exporter.loaders.wandb.media import Shown, media_of, shown
from neptune_exporter.loaders.wandb.places import Projects
from neptune_exporter.loaders.wandb.records import json_texts, step_texts
from neptune_exporter.loaders.wandb.server import DeletedRunError, HeldRun, RunName, Server
from neptune_exporter.loaders.wandb.writers import summary_texts
from neptune_exporter.model import NO_VALUE, RunInfo, Series, series_of, step_micros, time_millis

TEXT_SECONDS = 20.0
_HEARTBEAT_SECONDS = 60.0
_LINES = 2000  # of the history in one post
_EXIT_CODES = {"finished": 0, "failed": 1, "killed": 255}
_TAG_SETS = frozenset({"sys/tags", "sys/group_tags"})
# What define_metric leaves: the exact step is hidden and the x axis of all metrics.
_AXES = [{"1": names.STEP_KEY, "6": [3, 2], "7": []}, {"2": "*", "5": 1, "6": [1], "7": []}]


class Connection(Protocol):
    """A W&B server, connected to when it is first used."""

    projects: Projects

    @property
    def server(self) -> Server:
        """The server."""

    @property
    def entity(self) -> str:
        """Who owns the projects."""

    def states(self, project_id: str) -> TargetProject:
        """What it holds of a project."""


class WandbLive:
    """One run. Connects when it is opened.

    Args:
        place: where runs go.
        options: what is asked of every loader.
        step_multiplier: see `Live`.
        media: whether images, audio and video of file series are shown in the history.
    """

    def __init__(self, place: Connection, options: LoadOptions, step_multiplier: int | None, *, media: bool) -> None:
        self._place, self._options, self._wanted, self._media = place, options, step_multiplier, media
        self._config: dict[str, Any] = {}
        self._config_changed = False
        self._labels: dict[str, list[str]] = {}
        self._about: dict[str, Any] = {}  # notes and tags that have changed
        self._types: dict[tuple[str, str], str] = {}  # of paths that have a plain key, by name space
        self._points: list[Points] = []
        self._last: dict[str, str] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="neptune-exporter-live-")
        self._texts = TextFiles(Path(self._temporary.name))
        self._uploads: dict[str, Path] = {}
        self._shown: dict[str, int] = {}
        self._written = self._beat = 0.0

    def open(self, info: RunInfo, files: RunFiles) -> str:
        """Finds the live run of that name or makes one. See `LiveTarget`."""
        self._server, self._files = self._place.server, files
        as_loaded = RunToLoad(info, "", (), files)
        held, generation = self._find(info)
        self._start_ms = start_ms(as_loaded)
        self._reader = RowReader(info.ref, (), self._start_ms)
        recorded = self._place.states(info.ref.project_id).step_multiplier
        self._multiplier = self._wanted or recorded or 1
        if held is None:
            self._make(as_loaded, generation)
            self._offset, self._arrived = 0, Expected(())
            self._builder = RowBuilder(self._multiplier)
        else:
            self._go_on(held)
        return self._name.id

    def append(self, rows: pa.RecordBatch, *, again: bool) -> None:
        """Takes rows. See `LiveTarget`."""
        for series in series_of(rows):
            if series.type in ("float_series", "histogram_series"):
                self._metric(series, again=again)
            elif series.type in FILE_TYPES:
                if not again:
                    self._file_rows(series)
            elif series.type != "string_series":
                self._single(series, again=again)
            if series.type in ("string_series", "histogram_series"):
                self._texts.add(series)

    def flush(self) -> None:
        """Sends what was taken, and the sign of life. See `LiveTarget`."""
        self._send_rows()
        if self._uploads:
            self._server.upload(self._name, self._uploads)
            self._uploads = {}
        if time.monotonic() - self._written > TEXT_SECONDS:
            self._write_texts()
        beat = time.monotonic() - self._beat > _HEARTBEAT_SECONDS
        if beat:
            self._beat = time.monotonic()
            self._server.stream(self._name, {"files": {}, "complete": False})
        if beat or self._config_changed or self._about:
            self._tell(live_marker())

    def finish(self, status: Literal["finished", "failed", "killed"]) -> None:
        """Ends the run. See `LiveTarget`."""
        self.flush()
        self._write_texts()
        self._server.stream(self._name, {"complete": True, "exitcode": _EXIT_CODES[status]})
        self._tell(ENDED)
        self._temporary.cleanup()

    # --- the run

    def _find(self, info: RunInfo) -> tuple[HeldRun | None, int]:
        """The newest generation of the run if it was fed live; else what the next one is."""
        newest = None
        for generation in count(1):
            self._name = RunName(self._place.entity, self._place.projects.of(info), names.run_id(info.ref, generation))
            held = self._server.run(self._name)
            if held is None:
                if newest is not None and _is_live(newest):
                    return newest, generation - 1
                return None, generation
            newest = held if config.ref_of(held.config) == info.ref else None
        raise AssertionError("unreachable")

    def _make(self, run: RunToLoad, generation: int) -> None:
        while True:
            self._name = RunName(self._name.entity, self._name.project, names.run_id(run.info.ref, generation))
            ours = config.identity(run, generation, self._multiplier, "live")
            ours["load"] = {"state": live_marker(), "start_ms": self._start_ms}
            self._config = {names.OURS: ours, INTERNAL: {"m": _AXES}}
            try:
                self._server.upsert(
                    self._name,
                    config=config.wrapped(self._config),
                    displayName=names.run_name(run, self._options),
                    groupName=names.group_of(run.info) or None,
                    jobType=run.info.ref.kind,
                )
            except DeletedRunError:
                generation += 1
            else:
                return

    def _go_on(self, held: HeldRun) -> None:
        """Reads what the server has, so that nothing goes there twice."""
        self._name, self._config = held.name, dict(held.config)
        self._start_ms = int(config.load_of(held.config).get("start_ms", self._start_ms))
        self._multiplier = int(self._config[names.OURS].get("step_multiplier", self._multiplier))
        self._last = {key: json.dumps(value) for key, value in json.loads(held.summary).items() if key != INTERNAL}
        parts, last, found = [], -1, 0
        for page in self._server.rows(held.name):
            parts += [points.hashes for points in self._reader.points(page)]
            last, found = int(page[-1]["_step"]), found + len(page)
        self._offset = max(held.rows, found)  # the count may come some time after the rows
        self._arrived = Expected(parts)
        self._builder = RowBuilder(self._multiplier, last + 1)
        self._tell(live_marker())

    def _tell(self, state: str) -> None:
        """Sends the config with the marker, and what else has changed of what is known of the run."""
        ours = self._config[names.OURS]
        self._config[names.OURS] = {**ours, "load": {**ours["load"], "state": state}}
        self._server.upsert(self._name, config=config.wrapped(self._config), **self._about)
        self._config_changed, self._about = False, {}

    # --- what rows become

    def _metric(self, series: Series, *, again: bool) -> None:
        texts, takes = histogram_texts(series.rows)
        values = np.asarray(series.rows.column("float_value").fill_null(np.nan)).astype(np.float64)
        self._add_points(series, values, texts, takes, again=again)

    def _add_points(self, series: Series, values: Any, texts: pa.Array, takes: Any, *, again: bool) -> None:
        key = self._key(series.path, series.type, "metric", names.RESERVED_METRICS)
        points = Points(
            step_micros(series.rows.column("step")),
            time_millis(series.rows.column("timestamp")),
            np.full(series.rows.num_rows, self._reader.code_of(key), np.int32),
            values,
            texts,
        ).where(np.flatnonzero(takes))
        if len(self._arrived.hashes):
            points = points.where(np.flatnonzero(~self._arrived.take(hashes_of(points, self._start_ms))))
        if not again and len(points.steps):
            self._points.append(points)

    def _single(self, series: Series, *, again: bool) -> None:
        value = series.values.slice(series.rows.num_rows - 1)
        if series.path in _TAG_SETS and series.type == "string_set":
            self._labels[series.path] = value[0].as_py()
            if not again:
                self._about["tags"] = names.tags_of({tag for tags in self._labels.values() for tag in tags})
        if again:
            return
        if series.path == "sys/description" and series.type == "string":
            self._about["notes"] = value[0].as_py()
        key = self._key(series.path, series.type, "config", names.RESERVED_CONFIG)
        self._config[key] = config.config_value(series.type, value, "a later load")
        self._config_changed = True

    def _file_rows(self, series: Series) -> None:
        texts: list[str | None] = []
        for path, wanted in file_places(series):
            self._uploads[wanted] = self._files.local(path)
            seen = self._as_media(series, path, wanted)
            texts.append(seen and seen.value)
        if series.type == "file_series" and any(texts):
            visible = [text is not None for text in texts]
            self._add_points(series, np.full(len(texts), np.nan), pa.array(texts, pa.string()), visible, again=False)

    def _as_media(self, series: Series, path: str, wanted: str) -> Shown | None:
        """How a file is shown; it is uploaded once more under the name that W&B looks for."""
        local = self._files.local(path)
        media = media_of(local, wanted) if self._media else None
        if media is None:
            return None
        key = self._key(series.path, series.type, "metric", names.RESERVED_METRICS)
        single = series.type != "file_series"
        sha256 = self._files.sha256(path)
        number: int | str = "summary" if single else self._shown.setdefault(sha256, len(self._shown))
        found = shown(media, key, number, sha256, local.stat().st_size)
        self._uploads[found.path] = local
        if single:
            self._last[key] = found.value
        return found

    def _key(self, path: str, kind: str, space: str, reserved: frozenset[str]) -> str:
        first = self._types.setdefault((space, path), kind)
        return names.native_key(path, kind, reserved, taken=first != kind)

    # --- sending

    def _send_rows(self) -> None:
        if not self._points:
            return
        points, self._points = in_order(self._points), []
        done = [rows for rows in (self._builder.add(points), self._builder.finish()) if rows is not None]
        for rows in done:
            self._send(rows)

    def _send(self, rows: Rows) -> None:
        texts = json_texts(rows.points.values, rows.points.texts)
        keys = self._reader.keys
        self._last |= last_texts(rows.points.codes, texts, keys)
        self._last = summary_texts(self._last, rows.after(rows.first + len(rows) - 1), self._start_ms)
        summary = "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in self._last.items()) + "}"
        lines = history_lines(rows, texts, keys, self._start_ms)
        for start in range(0, len(lines), _LINES):
            some = lines[start : start + _LINES]
            content = {"wandb-history.jsonl": {"offset": self._offset, "content": some}}
            self._server.stream(
                self._name, {"files": {**content, "wandb-summary.json": {"offset": 0, "content": [summary]}}}
            )
            self._offset += len(some)

    def _write_texts(self) -> None:
        self._written = time.monotonic()
        if self._texts.changed:
            self._server.upload(self._name, {path: self._texts.local(path) for path in sorted(self._texts.changed)})
            self._texts.changed.clear()


def history_lines(rows: Rows, texts: pa.Array, keys: Sequence[str], start_ms: int) -> list[str]:
    """Rows of the history as the client's JSON.

    Args:
        rows: the rows.
        texts: the values of their points as JSON.
        keys: the key of each code.
        start_ms: where `_runtime` counts from; stands in for missing times.
    """
    times = np.where(rows.times == NO_VALUE, start_ms, rows.times)
    prefixes = pa.array([f", {json.dumps(key)}: " for key in keys], pa.string())
    items = pc.binary_join_element_wise(prefixes.take(pa.array(rows.points.codes)), texts, "")
    exact = pc.binary_join_element_wise(f', "{names.STEP_KEY}": ', step_texts(rows.steps), "")
    lines = pc.binary_join_element_wise(
        '{"_step": ',
        pc.cast(pa.array(rows.numbers), pa.string()),
        ', "_timestamp": ',
        pc.cast(pa.array(times / 1000), pa.string()),
        ', "_runtime": ',
        pc.cast(pa.array((times - start_ms) / 1000), pa.string()),
        pc.fill_null(exact, ""),
        pc.binary_join(pa.ListArray.from_arrays(pa.array(rows.starts, pa.int32()), items), ""),
        "}",
        "",
    )
    found: list[str] = lines.to_pylist()
    return found


def _is_live(held: HeldRun) -> bool:
    return str(config.load_of(held.config).get("state", "")).startswith((LIVE, ENDED))
