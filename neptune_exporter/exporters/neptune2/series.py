# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Float and string series: pages of points, decoded without Python touching a point."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Findings
from neptune_exporter.exporters.float_steps import step_micros
from neptune_exporter.exporters.neptune2.client import ATTRIBUTES, Client, RefusedError
from neptune_exporter.exporters.neptune2.values import Attribute, is_text
from neptune_exporter.exporters.patience import RequestError
from neptune_exporter.model import Int64s, OutsideValue, RunRef, rows_batch, utc

logger = logging.getLogger(__name__)

PAGE_POINTS = (10_000, 1_000)  # what we ask for, and what the client asks for, which every server gives
LONGEST_TEXT = 2**31 - 1
_CSV_PATH = f"{ATTRIBUTES}/floatSeries/csv"
_VALUE_TYPES = {"float_series": pa.float64(), "string_series": pa.string()}
_ENDPOINTS = {"float_series": "float", "string_series": "string"}


class Points(NamedTuple):
    """Some points of a series.

    Attributes:
        times: milliseconds since the epoch.
        steps: as the server has them, doubles.
        values: an Arrow array.
    """

    times: Int64s
    steps: npt.NDArray[np.float64]
    values: pa.Array

    def __len__(self) -> int:
        return len(self.times)

    def slice(self, start: int, stop: int | None = None) -> Points:
        """The points from `start` on, up to `stop`."""
        return Points(self.times[start:stop], self.steps[start:stop], self.values[start:stop])


class SeriesReader:
    """Reads series of one server.

    Args:
        client: to ask it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._page_points = PAGE_POINTS[0]
        self._csv = True
        self._csv_known = False

    def open(
        self, container_id: str, ref: RunRef, attribute: Attribute, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        """A series in batches; the first page is there when this returns.

        Raises:
            RequestError: nothing can be had. What breaks later is raised while iterating.
        """
        query = {"experimentId": container_id, "attribute": attribute.path}
        total, first = self._page(attribute.type, query, 0)
        return self._rest(ref, attribute, query, total, first, findings)

    def _rest(
        self, ref: RunRef, attribute: Attribute, query: dict[str, str], total: int, first: Points, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        if total == 0 and not len(first):
            findings.empty(attribute.path, attribute.type)
            return
        count = len(first)
        yield from batches(ref, attribute, first, findings)
        if attribute.type == "float_series" and count < total and self._has_csv():
            for points in self._from_csv(query, first):
                count += len(points)
                yield from batches(ref, attribute, points, findings)
        while count < total:
            try:
                _, points = self._page(attribute.type, query, count)
            except RequestError as error:
                raise RequestError(
                    f"{total - count} of {total} points are missing. {error.message}", error.status
                ) from None
            if not len(points):
                raise RequestError(f"The server gave only {count} of {total} points.")
            count += len(points)
            yield from batches(ref, attribute, points, findings)

    # --- pages

    def _page(self, kind: str, query: dict[str, str], offset: int) -> tuple[int, Points]:
        path = f"{ATTRIBUTES}/series/{_ENDPOINTS[kind]}"
        params: dict[str, Any] = {**query, "limit": self._page_points, "offset": offset}
        if kind == "string_series" and "maxSingleValueLength" in (self._client.parameters(path) or ()):
            params["maxSingleValueLength"] = LONGEST_TEXT  # without it, such a server cuts texts at 1,000 characters
        try:
            return self._client.read(path, lambda body: decode(body, kind), params)
        except RequestError as error:
            if (
                isinstance(error, RefusedError)
                and error.for_good
                and error.status != 404
                and params["limit"] > PAGE_POINTS[1]
            ):
                self._page_points = PAGE_POINTS[1]
                return self._page(kind, query, offset)
            raise

    # --- CSV

    def _has_csv(self) -> bool:
        if not self._csv_known:
            try:
                self._csv = self._client.parameters(_CSV_PATH) is not None
            except RequestError:
                return False
            self._csv_known = True
        return self._csv

    def _from_csv(self, query: dict[str, str], first: Points) -> Iterator[Points]:
        """The points after the first page in one request.

        How a server writes times there is not documented: it counts only if it begins with the page that we know.
        Whatever is wrong with it, the pages go on where it ended.
        """
        known = len(first)
        try:
            for points in self._csv_points(query):
                head = min(known, len(points))
                start = len(first) - known
                if head and not _same(points.slice(0, head), first.slice(start, start + head)):
                    logger.info("The CSV of this server is not as expected and is not used.")
                    self._csv = False
                    return
                known -= head
                if len(points) > head:
                    yield points.slice(head)
        except (RequestError, pa.ArrowInvalid, OSError, ValueError, EOFError) as error:
            logger.info("A CSV broke off and pages are read instead: %s", error)

    def _csv_points(self, query: dict[str, str]) -> Iterator[Points]:
        columns = {"step": pa.float64(), "time": pa.int64(), "value": pa.float64()}
        with self._client.send(_CSV_PATH, query, stream=True) as response:
            response.raw.decode_content = True
            response.raw.auto_close = False  # at its end it would look closed to what reads it
            body = io.BufferedReader(response.raw)
            raw: Any = gzip.GzipFile(fileobj=body) if body.peek(2)[:2] == b"\x1f\x8b" else body
            reader = pyarrow.csv.open_csv(
                raw,
                read_options=pyarrow.csv.ReadOptions(column_names=list(columns), use_threads=False, block_size=1 << 20),
                convert_options=pyarrow.csv.ConvertOptions(column_types=columns, null_values=[]),
            )
            for batch in reader:
                step, time, value = batch.columns
                yield Points(np.asarray(time), np.asarray(step), value)


def _same(one: Points, other: Points) -> bool:
    equal = np.array_equal(one.times, other.times) and np.array_equal(one.steps, other.steps)
    return bool(equal and np.array_equal(np.asarray(one.values), np.asarray(other.values), equal_nan=True))


def decode(body: bytes, kind: str) -> tuple[int, Points]:
    """A page of a series: how many points there are in all, and those of the page.

    Raises:
        ValueError: it is no such page.
    """
    point = pa.struct([("timestampMillis", pa.int64()), ("step", pa.float64()), ("value", _VALUE_TYPES[kind])])
    schema = pa.schema([("totalItemCount", pa.int64()), ("values", pa.list_(point))])
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(body),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:  # NaN as text, a lone surrogate, a document in several lines: seldom
        return _decode_slowly(body, kind)
    if table.num_rows != 1:
        return _decode_slowly(body, kind)
    times, steps, values = table.column("values").combine_chunks().flatten().flatten()
    if times.null_count or steps.null_count:
        return _decode_slowly(body, kind)
    return table.column("totalItemCount")[0].as_py() or 0, Points(np.asarray(times), np.asarray(steps), values)


def _decode_slowly(body: bytes, kind: str) -> tuple[int, Points]:
    try:
        page = json.loads(body)
        total, values = page["totalItemCount"], page["values"]
        times = np.array([round(point["timestampMillis"]) for point in values], np.int64)
        steps = np.array([point["step"] for point in values], np.float64)
        found = [point.get("value") for point in values]
        if kind == "float_series":
            return total, Points(times, steps, pa.array([None if v is None else float(v) for v in found], pa.float64()))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from None
    # Text that UTF-8 cannot hold travels in a form that it can, and is taken out in `batches`.
    encoded = [None if v is None else v.encode("utf-8", "surrogatepass") for v in found]
    return total, Points(times, steps, pa.array(encoded, pa.binary()))


def batches(ref: RunRef, attribute: Attribute, points: Points, findings: Findings) -> Iterator[pa.RecordBatch]:
    """Points as at most one batch; those that the schema cannot hold are found beside the run."""
    micros, fits = step_micros(points.steps)
    values = points.values
    if pa.types.is_binary(values.type):
        texts = [v.decode("utf-8", "surrogatepass") if v is not None else None for v in values.to_pylist()]
        readable = np.array([v is None or is_text(v) for v in texts], np.bool_)
        for row in np.flatnonzero(~readable).tolist():
            _outside(attribute, points, row, texts[row], "text with a lone surrogate", findings)
        fits &= readable
        values = pa.array([v if ok else None for v, ok in zip(texts, readable, strict=True)], pa.string())
    else:
        readable = np.ones(len(points), np.bool_)
    for row in np.flatnonzero(~fits & readable).tolist():
        value = values[row].as_py()
        exact = repr(value) if isinstance(value, float) else value
        _outside(attribute, points, row, exact, "a step of 1e12 or more, or finer than 1e-6", findings)
    if missing := values.filter(pa.array(readable)).null_count:
        findings.problem(Problem("The server sent points without a value.", attribute.path, "permanent", missing))
    times = points.times
    if not fits.all():
        micros, times, values = micros[fits], times[fits], values.filter(pa.array(fits))
    if len(times):
        column = {"float_value" if attribute.type == "float_series" else "string_value": values}
        yield rows_batch(ref, attribute.path, attribute.type, step_micros=micros, time_ms=times, **column)


def _outside(attribute: Attribute, points: Points, row: int, value: Any, reason: str, findings: Findings) -> None:
    step = format(Decimal(repr(float(points.steps[row]))), "f")
    time = utc(int(points.times[row])).isoformat()
    findings.outside(OutsideValue(attribute.path, attribute.type, reason, value, step, time))
