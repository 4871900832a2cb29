# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What is sent to Pluto and what is kept, against a model of Pluto's metrics: one point per step, the latest."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.loaders.pluto.histograms import histogram_texts
from neptune_exporter.loaders.pluto.lines import Bodies, metric_lines, metric_prefixes, quoted
from neptune_exporter.loaders.pluto.metrics import Expected
from neptune_exporter.loaders.pluto.points import Images, Points, StepByStep, images
from neptune_exporter.model import HISTOGRAM_TYPE, NO_VALUE

VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.5, math.nan, math.inf, -math.inf])
STEPS = st.none() | st.integers(-2, 3)
TIMES = st.none() | st.sampled_from([-5, 0, 1, 7])
START_MS = 7


def points_of(rows) -> Points:
    return Points(
        np.array([series for series, *_ in rows], np.int32),
        np.array([NO_VALUE if step is None else step * 10**6 for _, step, _, _ in rows], np.int64),
        np.array([NO_VALUE if time is None else time for _, _, time, _ in rows], np.int64),
        np.array([value for *_, value in rows], np.float64),
    )


def rows_of(points: Points) -> list:
    columns = (points.series.tolist(), points.micros.tolist(), points.times.tolist(), points.values.tolist())
    return [
        (series, None if micros == NO_VALUE else micros // 10**6, None if time == NO_VALUE else time, value)
        for series, micros, time, value in zip(*columns, strict=True)
    ]


def same(row):
    series, step, time, value = row
    return series, step, time, "nan" if math.isnan(value) else repr(value)


@given(st.lists(st.tuples(st.integers(0, 2), STEPS, TIMES, VALUES), max_size=30), st.integers(1, 6))
def test_what_is_sent_and_what_is_kept_make_up_the_rows(rows, batch_rows):
    lowest = -(10**9)
    rows = sorted(rows, key=lambda row: tuple(lowest if part is None else part for part in (row[1], row[2], row[0])))
    splitter = StepByStep(1, START_MS)
    sent, kept = [], []
    for at in range(0, len(rows), batch_rows):
        now, keep = splitter.split(points_of(rows[at : at + batch_rows]))
        sent += rows_of(now)
        kept += rows_of(keep)
    last = splitter.finish()
    if last is not None:
        sent += rows_of(last[0])
        kept += rows_of(last[1])
    assert len({row[:2] for row in sent}) == len(sent), "Pluto would keep only one of them"
    takes = [
        row
        for row in rows
        if row[1] is not None and row[1] >= 0 and (row[2] is None or row[2] >= 0) and math.isfinite(row[3])
    ]
    assert {row[:2] for row in sent} == {row[:2] for row in takes}
    # The rule of the reader.
    found = []
    for series in range(3):
        expected = Expected(1, START_MS)
        attached = points_of([row for row in kept if row[0] == series])
        expected.add(attached)
        held, _ = images(points_of([row for row in sent if row[0] == series]), 1, START_MS)
        order = np.argsort(held.steps)
        held = held.where(order)
        plain = held.where(~expected.see(held))
        found += [
            (series, *row)
            for row in zip(plain.steps.tolist(), plain.times.tolist(), plain.values.tolist(), strict=True)
        ]
        found += rows_of(attached.where(expected.held(attached)))
    assert Counter(map(same, found)) == Counter(map(same, rows))


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 10**13), FINITE), min_size=1, max_size=20))
def test_lines_are_json_and_numbers_survive(rows):
    rows.sort(key=lambda row: row[:2])
    shown = Images(*(np.array(column) for column in zip(*rows, strict=True)))
    prefixes = metric_prefixes([f'm "{number}"\\' for number in range(len(rows))])
    lines, records = metric_lines(shown, prefixes)
    found = []
    for line in lines.to_pylist():
        value = json.loads(line)
        found += [(value["step"], value["time"], float(number)) for number in value["data"].values()]
    assert [(step, time, repr(v + 0.0)) for step, time, v in found] == [(s, t, repr(v + 0.0)) for s, t, v in rows]
    assert int(records.sum()) == len(rows)


@given(st.lists(st.text(), max_size=10))
def test_texts_are_quoted_as_json(texts):
    assert [json.loads(text) for text in quoted(pa.array(texts, pa.string())).to_pylist()] == texts


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8), st.integers(1, 4), st.integers(1, 40))
def test_requests_hold_every_line_once_in_order(chunks, most_lines, most_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neptune_exporter.loaders.pluto.lines.LINES", most_lines)
        patch.setattr("neptune_exporter.loaders.pluto.lines.LINES_BYTES", most_bytes)
        sent = []
        bodies = Bodies(lambda content, records: sent.append((content, records)))
        for chunk in chunks:
            lines = pa.array(["skipped", *("x" * size + "\n" for size in chunk)], pa.string()).slice(1)
            bodies.add(lines, np.array(chunk, np.int64))
        bodies.flush()
        bodies.flush()
    assert b"".join(content for content, _ in sent) == b"".join(
        b"x" * size + b"\n" for chunk in chunks for size in chunk
    )
    assert sum(records for _, records in sent) == sum(map(sum, chunks))
    for content, _ in sent:
        assert 1 <= content.count(b"\n") <= most_lines
        assert len(content) <= most_bytes or content.count(b"\n") == 1


@given(
    st.sampled_from(["COUNTING", "DENSITY", "COUNTS"]),
    st.lists(st.floats(), max_size=6),
    st.lists(st.floats(), max_size=6),
)
def test_any_histogram_is_one_that_pluto_draws(kind, edges, values):
    column = pa.array([{"type": kind, "edges": edges, "values": values}], HISTOGRAM_TYPE)
    shown = json.loads(histogram_texts(column)[0].as_py(), parse_constant=pytest.fail)
    assert len(shown["freq"]) == shown["bins"]["num"] == len(values)
    assert all(isinstance(count, int) and abs(count) <= 2**53 for count in shown["freq"])
    assert shown["maxFreq"] == max(shown["freq"], default=0)
    assert shown["shape"] == "uniform"


def test_uneven_counts_are_spread_and_densities_are_shares():
    column = pa.array(
        [
            {"type": "COUNTING", "edges": [0.0, 1.0, 4.0], "values": [6.0, 6.0]},
            {"type": "DENSITY", "edges": [0.0, 1.0, 4.0], "values": [0.25, 0.25]},
        ],
        HISTOGRAM_TYPE,
    )
    counts, shares = (json.loads(text)["freq"] for text in histogram_texts(column).to_pylist())
    assert counts == [8, 4]
    assert shares == [500_000, 500_000]
