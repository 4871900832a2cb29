# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A run of Pluto that is fed while it is being logged.

Of a metric Pluto keeps one point per step, so points that are sent twice are there once. Rows of other series and
files are only ever added: how many of each attribute have arrived stands in the run's config, and a feed that begins
again leaves those out. Points that Pluto does not take (no JSON number, a fractional step without a multiplier) come
with a later load.
"""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import StartAgainError
from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.keys import target_key
from neptune_exporter.loaders.live_files import LIST_NAME
from neptune_exporter.loaders.live_marks import ENDED, live_marker
from neptune_exporter.loaders.loader import RunFiles, RunToLoad
from neptune_exporter.loaders.pluto import marks
from neptune_exporter.loaders.pluto.api import NewFile, Pluto
from neptune_exporter.loaders.pluto.config import config_value
from neptune_exporter.loaders.pluto.histograms import histogram_texts
from neptune_exporter.loaders.pluto.lines import Bodies, console_lines, data_lines, metric_lines, metric_prefixes
from neptune_exporter.loaders.pluto.places import (
    CONSOLE,
    DATA_TYPES,
    TAG_SETS,
    place_of,
    shown_steps,
    shown_texts,
    shown_times,
)
from neptune_exporter.loaders.pluto.points import Points, images
from neptune_exporter.loaders.runs import start_ms
from neptune_exporter.model import MICRO, NO_VALUE, RunInfo, Series, series_of, step_micros, step_text, time_millis

logger = logging.getLogger(__name__)

SENT = "neptune.live.sent"  # how many rows of each series and file attribute have arrived
_HEARTBEAT_SECONDS = 60.0
_STATUS = {"finished": "COMPLETED", "failed": "FAILED", "killed": "TERMINATED"}
_MEDIA = {
    **dict.fromkeys(("png", "gif", "svg", "webp", "jpg", "jpeg"), "IMAGE"),
    **dict.fromkeys(("mp4", "webm"), "VIDEO"),
    **dict.fromkeys(("mp3", "ogg"), "AUDIO"),
}
_CONTENT_TYPES = {
    "png": "image/png",
    "gif": "image/gif",
    "svg": "image/svg+xml",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
}


class PlutoLive:
    """One run. Connects when it is opened.

    Args:
        connect: gives the connection.
        project: the Pluto project of a Neptune project.
        name: what a run is called.
        recorded: the multiplier that a project was loaded with before, None if it was not.
        step_multiplier: see `Live`.
    """

    def __init__(
        self,
        connect: Callable[[], Pluto],
        project: Callable[[str], str],
        name: Callable[[RunToLoad], str],
        recorded: Callable[[str], int | None],
        step_multiplier: int | None,
    ) -> None:
        self._connect, self._project, self._name = connect, project, name
        self._recorded, self._wanted = recorded, step_multiplier
        self._sent: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._config: dict[str, Any] = {}
        self._labels: dict[str, list[str]] = {}
        self._labels_changed = False
        self._named: set[str] = set()
        self._metrics: list[tuple[str, pa.RecordBatch]] = []
        self._beat = 0.0

    def open(self, info: RunInfo, files: RunFiles) -> str:
        """Finds the live run of that name or makes one. See `LiveTarget`."""
        self._api, self._files = self._connect(), files
        as_loaded = RunToLoad(info, "", (), files)
        self._multiplier = self._wanted or self._recorded(info.ref.project_id) or 1
        self._start_ms = start_ms(as_loaded)
        config = marks.identity(as_loaded, self._multiplier, 0) | {marks.LOAD: live_marker()}
        self._run, was_there = self._api.create(
            self._project(info.ref.project_id),
            marks.printable(self._name(as_loaded)),
            f"live:{marks.external_id(info.ref, 1)}",
            config=config,
            tags=[marks.TAG],
            createdAt=self._start_ms,
            updatedAt=self._start_ms,
        )
        if was_there:
            known = self._api.details(self._run.id).get("config") or {}
            self._sent = {str(key): int(count) for key, count in (known.get(SENT) or {}).items()}
            self._multiplier = int(known.get(marks.MULTIPLIER, self._multiplier))
            self._api.resume(self._run)
            self._api.set_config(self._run.id, {marks.LOAD: live_marker()})
        return str(self._run.id)

    def append(self, rows: pa.RecordBatch, *, again: bool) -> None:
        """Takes rows. See `LiveTarget`."""
        for series in series_of(rows):
            if series.type == "float_series":
                if not again:
                    self._metrics.append((series.path, series.rows))
            elif series.type in DATA_TYPES:
                self._series(series)
            elif series.type in FILE_TYPES:
                self._file_rows(series, again=again)
            elif series.type == "string_set" and series.path in TAG_SETS:
                self._labels[series.path] = marks.labels(series.values[series.rows.num_rows - 1].as_py())
                self._labels_changed |= not again
            elif not again:
                key = target_key(series.path, marks.CONFIG_RULE)
                self._config[key] = config_value(series.type, series.values.slice(series.rows.num_rows - 1))

    def flush(self) -> None:
        """Sends what was taken, and the sign of life. See `LiveTarget`."""
        self._send_metrics()
        if time.monotonic() - self._beat > _HEARTBEAT_SECONDS:
            self._beat = time.monotonic()
            self._config[marks.LOAD] = live_marker()
        if self._config:
            self._api.set_config(self._run.id, self._config)
            self._config = {}
        if self._labels_changed:
            names = sorted({name for labels in self._labels.values() for name in labels})
            self._api.set_tags(self._run.id, [marks.TAG, *names])
            self._labels_changed = False

    def finish(self, status: Literal["finished", "failed", "killed"]) -> None:
        """Ends the run. See `LiveTarget`."""
        self.flush()
        self._api.set_config(self._run.id, {marks.LOAD: ENDED})
        self._api.set_status(self._run.id, _STATUS[status])

    # --- metrics

    def _send_metrics(self) -> None:
        bodies = Bodies(lambda lines, records: self._api.send(self._run, "metrics", lines, records))
        for path, rows in self._metrics:
            key = target_key(path, marks.KEY_RULE)
            points = Points(
                np.zeros(rows.num_rows, np.int32),
                step_micros(rows.column("step")),
                time_millis(rows.column("timestamp")),
                np.asarray(rows.column("float_value")),
            )
            whole = (points.micros == NO_VALUE) | (points.micros % MICRO * self._multiplier % MICRO == 0)
            points = points.where(whole)
            shown, takes = images(points, self._multiplier, self._start_ms)
            shown = shown.where(takes)
            if not len(shown.steps):
                continue
            self._announce("METRIC", key)
            order = np.lexsort((shown.times, shown.steps))
            shown = shown.where(order)
            last = np.append(shown.steps[1:] != shown.steps[:-1], True)
            shown = shown.where(last)  # of a step the latest counts
            prefixes = metric_prefixes([key]).take(pa.array(np.zeros(len(shown.steps), np.int32)))
            bodies.add(*metric_lines(shown, prefixes))
        bodies.flush()
        self._metrics = []

    def _announce(self, kind: Any, key: str) -> None:
        if key not in self._named:
            self._api.add_names(self._run, kind, [key])
            self._named.add(key)

    # --- what is only ever added

    def _unsent(self, path: str, kind: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Those of the next rows of an attribute that have not arrived before."""
        name = f"{kind}:{path}"
        first = self._seen.get(name, 0)
        self._seen[name] = first + rows.num_rows
        return rows.slice(min(rows.num_rows, max(0, self._sent.get(name, 0) - first)))

    def _arrived(self, path: str, kind: str) -> None:
        """Says on the target how far an attribute has got."""
        name = f"{kind}:{path}"
        self._sent[name] = max(self._sent.get(name, 0), self._seen[name])
        self._api.set_config(self._run.id, {SENT: self._sent})

    def _series(self, series: Series) -> None:
        first = self._seen.get(f"{series.type}:{series.path}", 0)
        rows = self._unsent(series.path, series.type, series.rows)
        if not rows.num_rows:
            return
        number = first + series.rows.num_rows - rows.num_rows
        steps, times = shown_steps(rows, self._multiplier), shown_times(rows, self._start_ms)
        if place_of(series.path, series.type) == "log":
            kind = CONSOLE[series.path.rpartition("/")[2]]
            numbers = np.arange(number + 1, number + 1 + rows.num_rows)
            lines, way = console_lines(kind, times, numbers, rows.column("string_value")), "logs"
        else:
            key = target_key(series.path, marks.KEY_RULE)
            texts = series.type == "string_series"
            self._announce("DATA" if texts else "HISTOGRAM", key)
            column = rows.column("string_value" if texts else "histogram_value")
            data = shown_texts(column) if texts else histogram_texts(column)
            lines, way = data_lines(key, DATA_TYPES[series.type], steps, times, data), "data"
        bodies = Bodies(lambda body, records: self._once(way, body, records))
        bodies.add(lines)
        bodies.flush()
        self._arrived(series.path, series.type)

    def _once(self, way: Any, body: bytes, records: int) -> None:
        """Sends what may not be sent twice; where nobody knows whether it arrived, it is taken to have."""
        try:
            self._api.send(self._run, way, body, records)
        except StartAgainError as error:
            logger.warning("%s rows may be missing in Pluto until the run is loaded: %s", records, error)

    def _file_rows(self, series: Series, *, again: bool) -> None:
        rows = self._unsent(series.path, series.type, series.rows)
        if again or not rows.num_rows:
            return
        key = target_key(series.path, marks.KEY_RULE)
        steps, times = shown_steps(rows, self._multiplier).tolist(), shown_times(rows, self._start_ms).tolist()
        exact = step_micros(rows.column("step")).tolist()
        paths = rows.column("file_value").field("path").to_pylist()
        members = rows.column("string_value").to_pylist()
        for path, micros, step, when, member in zip(paths, exact, steps, times, members, strict=True):
            extension = posixpath.splitext(path)[1]
            kind = extension[1:].lower()
            content_type = _CONTENT_TYPES.get(kind, "application/octet-stream")
            self._announce(_MEDIA.get(kind, "ARTIFACT"), key)
            if series.type in ("file_set", "artifact"):
                name = target_key(member or LIST_NAME, marks.FILE_RULE)
            elif series.type == "file_series":
                name = f"step_{'none' if micros == NO_VALUE else step_text(micros)}{extension}"
            else:
                name = target_key(key.rpartition("/")[2], marks.FILE_RULE)
                name = name if name.endswith(extension) else name + extension
            file_type = kind if kind in _CONTENT_TYPES else content_type
            local = self._files.local(path)
            file = NewFile(name, local.stat().st_size, file_type, max(when, 0), key, step, 0)
            url = self._api.announce(self._run, [file])[key, name]
            self._api.files.put(url, local, content_type)
        self._arrived(series.path, series.type)
