# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Series, page by page: float series as arrays, the others as the messages they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Findings
from neptune_exporter.exporters.neptune3.attributes import Attribute, FileRef, Run, bisected, groups
from neptune_exporter.exporters.neptune3.client import LEADERBOARD, Client, RequestError, SeriesPage
from neptune_exporter.exporters.neptune3.points import Page, decode_page, micros_of
from neptune_exporter.model import HISTOGRAM_TYPE, OutsideValue, names, rows_batch, utc

PAGE_POINTS = 120_000
SERIES_AT_ONCE = 1_000
OTHERS_AT_ONCE = 200
_KINDS = {"stringValue": "string_series", "histogram": "histogram_series", "fileRef": "file_series"}


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a series has been read.

    Attributes:
        path: the attribute path.
        type: its type as listed.
        after: the last step that was read (float series) or the server's token; None at the beginning.
        points: how many points were read.
    """

    path: str
    type: str
    after: float | str | None = None
    points: int = 0


class SeriesReader:
    """Reads the series of one run; the run's own points, not those of its ancestors.

    Args:
        client: the server.
        run: the run.
        findings: told of empty series, of steps that the schema refuses, and of what cannot be had.
        previews: whether previews are wanted.
    """

    def __init__(self, client: Client, run: Run, findings: Findings, *, previews: bool) -> None:
        self._client = client
        self._run = run
        self._findings = findings
        self._previews = previews

    def floats(self, attributes: Sequence[Attribute]) -> Iterator[pa.RecordBatch]:
        """The points of float series."""
        cut = groups((Cursor(*a) for a in attributes), lambda cursor: cursor.path, SERIES_AT_ONCE)
        for cursors, page in bisected(cut, self._ask_floats, self._lost, str(self._run.ref)):
            if len(page.steps):
                yield from self._float_rows(cursors, page)

    def others(self, attributes: Sequence[Attribute], files: list[FileRef]) -> Iterator[pa.RecordBatch]:
        """The points of string and histogram series; the files of file series are added to `files`."""
        cut = groups((Cursor(*a) for a in attributes), lambda cursor: cursor.path, OTHERS_AT_ONCE)
        for answers in bisected(cut, self._ask_others, self._lost, str(self._run.ref)):
            for cursor, points in answers:
                yield from self._other_rows(cursor.path, points, files)

    def _lost(self, cursor: Cursor, error: RequestError) -> None:
        self._findings.problem(error.problem(cursor.path))

    def _request(self, number: int, cursor: Cursor) -> dict[str, Any]:
        return {
            "requestId": str(number),
            "series": {
                "holder": {"identifier": self._run.identifier, "type": "experiment"},
                "attribute": cursor.path,
                "lineage": "NONE",
                "lineageEntityType": "RUN",
            },
        }

    # --- float series

    def _ask_floats(self, group: list[Cursor], attempts: int) -> tuple[tuple[list[Cursor], Page], list[Cursor]]:
        limit = PAGE_POINTS // len(group) + 1
        requests = []
        for number, cursor in enumerate(group):
            request = self._request(number, cursor)
            request["series"]["includePreview"] = self._previews
            if cursor.after is not None:
                request["afterStep"] = cursor.after
            requests.append(request)
        page = self._client.post(
            f"{LEADERBOARD}/proto/attributes/series/float",
            {
                "requests": requests,
                "stepRange": {"from": None, "to": None},
                "order": "ascending",
                "perSeriesPointsLimit": limit,
            },
            decode_page,
            attempts=attempts,
        )
        ends = np.cumsum(page.counts)
        read = {
            int(key): (int(count), float(page.steps[end - 1]))
            for key, count, end in zip(page.ids, page.counts, ends, strict=True)
            if count
        }
        rest = []
        for number, cursor in enumerate(group):
            count, last = read.get(number, (0, 0.0))
            if count >= limit:  # a page that is not full is the last one of its series
                if cursor.after is not None and not last > float(cursor.after):
                    raise RequestError("the server gives the same points again and again")
                rest.append(replace(cursor, after=last, points=cursor.points + count))
            elif not cursor.points + count:
                self._findings.empty(cursor.path, cursor.type)
        return (group, page), rest

    def _float_rows(self, cursors: list[Cursor], page: Page) -> Iterator[pa.RecordBatch]:
        codes = np.repeat(np.array([int(key) for key in page.ids], np.int32), page.counts)
        micros, fits = micros_of(page.steps)
        times, values = page.times, page.values
        if not fits.all():
            for row in np.flatnonzero(~fits).tolist():
                self._outside(
                    cursors[codes[row]].path,
                    "float_series",
                    repr(float(values[row])),
                    float(page.steps[row]),
                    int(times[row]),
                )
            codes, micros, times, values = codes[fits], micros[fits], times[fits], values[fits]
        paths = pa.array([cursor.path for cursor in cursors], pa.string())
        yield rows_batch(
            self._run.ref,
            names(codes, paths),
            "float_series",
            step_micros=micros,
            time_ms=times,
            float_value=pa.array(values, pa.float64()),
        )

    def _outside(self, path: str, kind: str, value: Any, step: float, time: int) -> None:
        try:
            moment = utc(time).isoformat()
        except (OverflowError, ValueError):
            moment = f"{time} ms"
        reason = "its step does not fit decimal(18,6)"
        self._findings.outside(OutsideValue(path, kind, reason, value, repr(step), moment))

    # --- string, histogram and file series

    def _ask_others(
        self, group: list[Cursor], attempts: int
    ) -> tuple[list[tuple[Cursor, Sequence[Any]]], list[Cursor]]:
        requests = []
        for number, cursor in enumerate(group):
            request = self._request(number, cursor)
            if cursor.after is not None:
                request["searchAfter"] = {"finished": False, "token": cursor.after}
            requests.append(request)
        page = self._client.post(
            f"{LEADERBOARD}/proto/attributes/series",
            {"requests": requests, "stepRange": {"from": None, "to": None}, "order": "ascending"},
            SeriesPage.FromString,
            params={"useDeprecatedStringFields": "false"},
            attempts=attempts,
        )
        answered = {int(series.requestId): series for series in page.series}
        answers: list[tuple[Cursor, Sequence[Any]]] = []
        rest: list[Cursor] = []
        moved = False
        for number, cursor in enumerate(group):
            series = answered.get(number)
            points = series.seriesValues.values if series is not None else ()
            following = replace(cursor, points=cursor.points + len(points))
            after = series.searchAfter if series is not None and series.HasField("searchAfter") else None
            if points:
                answers.append((cursor, points))
            if series is None or (after is not None and after.finished):
                moved = True
                if not following.points:
                    self._findings.empty(cursor.path, cursor.type)
                continue
            token = after.token if after is not None and after.token else cursor.after
            moved |= bool(points) and token != cursor.after
            rest.append(replace(following, after=token))
        return answers, self._still_to_read(rest, moved=moved)

    def _still_to_read(self, rest: list[Cursor], *, moved: bool) -> list[Cursor]:
        """What is to be asked for again. A single series that the server never ends has nothing more to give."""
        if moved or not rest:
            return rest
        if len(rest) > 1:
            raise RequestError("the server does not go on")
        cursor = rest[0]
        if cursor.points:
            message = f"The server gave {cursor.points} points and then neither more nor an end."
            self._findings.problem(Problem(message, cursor.path, "retry"))
        else:
            self._findings.empty(cursor.path, cursor.type)
        return []

    def _other_rows(self, path: str, points: Sequence[Any], files: list[FileRef]) -> Iterator[pa.RecordBatch]:
        steps, fits = micros_of(np.array([point.step for point in points], np.float64))
        by_kind: dict[str, list[int]] = {}
        for number, point in enumerate(points):
            if point.is_preview and not self._previews:
                continue
            kind = _KINDS.get(point.object.WhichOneof("value") or "", "")
            if not kind:
                self._findings.problem(Problem("The server gave a point without a value.", path, "retry"))
            elif fits[number]:
                by_kind.setdefault(kind, []).append(number)
            else:
                self._outside(path, kind, _plain(kind, point.object), point.step, point.timestamp_millis)
        for kind, rows in by_kind.items():
            chosen = [points[row] for row in rows]
            times = np.array([point.timestamp_millis for point in chosen], np.int64)
            if kind == "file_series":
                files += [
                    FileRef(path, kind, p.object.fileRef.path, p.object.fileRef.sizeBytes, p.object.fileRef.mimeType,
                            int(steps[row]), p.timestamp_millis)
                    for row, p in zip(rows, chosen, strict=True)
                ]  # fmt: skip
                continue
            if kind == "string_series":
                values = {"string_value": pa.array([p.object.stringValue for p in chosen], pa.string())}
            else:
                values = {"histogram_value": _histograms([p.object.histogram for p in chosen])}
            yield rows_batch(self._run.ref, path, kind, step_micros=steps[rows], time_ms=times, **values)


def _histograms(messages: list[Any]) -> pa.Array:
    def lists(columns: list[Any]) -> pa.Array:
        offsets = np.cumsum([0, *(len(column) for column in columns)], dtype=np.int32)
        flat = np.fromiter((number for column in columns for number in column), np.float64, int(offsets[-1]))
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))

    columns = [
        pa.array([message.type for message in messages], pa.string()),
        lists([message.edges for message in messages]).cast(HISTOGRAM_TYPE.field("edges").type),
        lists([message.values for message in messages]).cast(HISTOGRAM_TYPE.field("values").type),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(HISTOGRAM_TYPE))


def _plain(kind: str, value: Any) -> Any:
    if kind == "string_series":
        return value.stringValue
    if kind == "file_series":
        return {"path": value.fileRef.path, "bytes": value.fileRef.sizeBytes, "mime": value.fileRef.mimeType}
    edges, numbers = value.histogram.edges, value.histogram.values
    return {"type": value.histogram.type, "edges": list(map(repr, edges)), "values": list(map(repr, numbers))}
