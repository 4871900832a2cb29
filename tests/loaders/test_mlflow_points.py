# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which points MLflow gives back exactly, against a model of MLflow's metric table: a set of tuples."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.loaders.mlflow.points import SharedImages, image
from neptune_exporter.model import NO_VALUE, RunRef, rows_batch

LARGEST = 1.7976931348623157e308
STEPS = st.none() | st.integers(-2, 3)
TIMES = st.none() | st.sampled_from([-5, 0, 1, 7])
VALUES = st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, LARGEST])


def mlflow_row(step, time, value, start):
    """What MLflow would hold, by the rules of its store."""
    stored = 0.0 if math.isnan(value) else max(-LARGEST, min(LARGEST, value)) + 0.0
    return (step or 0, start if time is None else max(time, 0), stored, math.isnan(value))


def same(row):
    step, time, value = row
    return (step, time, "nan" if math.isnan(value) else repr(value))


@given(st.lists(st.tuples(STEPS, TIMES, VALUES), max_size=25), st.integers(1, 5), st.sampled_from([0, 7]))
def test_what_is_sent_and_what_is_kept_make_up_the_rows(points, batch_rows, start):
    points = sorted(points, key=lambda p: -math.inf if p[0] is None else p[0])
    shared = SharedImages()
    sent, kept = [], []
    for at in range(0, len(points), batch_rows):
        part = points[at : at + batch_rows]
        rows = rows_batch(
            RunRef("p", "r"),
            "loss",
            "float_series",
            step_micros=np.array([NO_VALUE if s is None else s * 10**6 for s, _, _ in part], np.int64),
            time_ms=np.array([NO_VALUE if t is None else t for _, t, _ in part], np.int64),
            float_value=pa.array([v for _, _, v in part], pa.float64()),
        )
        images, exact = image(rows, 1, start)
        send, keep = shared.split(rows, images, exact)
        of_send = images.where(send)
        sent += zip(of_send.steps.tolist(), of_send.times.tolist(), of_send.values.tolist(), strict=True)
        for inexact in keep:
            kept += [
                (r["step"] if r["step"] is None else int(r["step"]), _millis(r["timestamp"]), r["float_value"])
                for r in inexact.to_pylist()
            ]
    held = [mlflow_row(step, time, value, start) for step, time, value in sent]
    assert len(set(held)) == len(held), "MLflow would merge points"
    assert set(held) == {mlflow_row(*p, start) for p in points}
    # The rule of the reader: kept rows replace the points that are their images.
    images_of_kept = {mlflow_row(*row, start) for row in kept}
    rest = [(s, t, math.nan if is_nan else v) for s, t, v, is_nan in held if (s, t, v, is_nan) not in images_of_kept]
    assert Counter(map(same, kept + rest)) == Counter(map(same, points))


def _millis(time):
    return None if time is None else round(time.timestamp() * 1000)


def test_a_plain_series_keeps_nothing():
    rows = rows_batch(
        RunRef("p", "r"),
        "loss",
        "float_series",
        step_micros=np.arange(1000) * 10**6,
        time_ms=np.arange(1000),
        float_value=pa.array(np.linspace(-1, 1, 1000)),
    )
    images, exact = image(rows, 10, 0)
    send, keep = SharedImages().split(rows, images, exact)
    assert send.all()
    assert not keep
    assert images.steps.tolist() == [10 * n for n in range(1000)]
