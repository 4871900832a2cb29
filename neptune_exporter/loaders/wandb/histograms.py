# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Histograms as W&B shows them: at most 512 bins, finite numbers, one edge more than bins.

What a histogram counts (counts or densities) W&B does not know; every histogram is attached exactly as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.loaders.wandb.history import HISTOGRAM_BINS, Mask


def histogram_texts(batch: pa.RecordBatch) -> tuple[pa.Array, Mask]:
    """The histograms of a batch of points as JSON.

    Returns:
        A text per row, null for floats and for histograms that W&B does not take; and which rows it takes.
    """
    column = batch.column("histogram_value")
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.string()), np.ones(len(column), np.bool_)
    rows = np.flatnonzero(np.asarray(column.is_valid()))
    values = column.take(pa.array(rows))
    edges, heights = values.field("edges"), values.field("values")
    bins, points = _lengths(heights), _lengths(edges)
    fits = (bins >= 1) & (bins <= HISTOGRAM_BINS) & (points == bins + 1) & _finite(edges) & _finite(heights)
    taken = np.ones(len(column), np.bool_)
    taken[rows[~fits]] = False
    kept = pa.array(np.flatnonzero(fits))
    texts = pc.binary_join_element_wise(
        '{"_type": "histogram", "values": [',
        _numbers(heights.take(kept)),
        '], "bins": [',
        _numbers(edges.take(kept)),
        "]}",
        "",
    )
    positions = np.full(len(column), -1, np.int64)
    positions[rows[fits]] = np.arange(len(kept))
    return texts.take(pa.array(positions, mask=positions < 0)), taken


def histogram_bytes(values: Sequence[float], bins: Sequence[float]) -> bytes:
    """A histogram in a form that compares exactly, however its numbers were spelled; -0.0 is 0.0."""
    return b"".join((np.asarray(numbers, np.float64) + 0.0).tobytes() + b"|" for numbers in (values, bins))


def _finite(lists: pa.Array) -> Mask:
    """Which lists hold only finite numbers."""
    flat = np.isfinite(np.asarray(lists.flatten().fill_null(np.nan)))
    bad = np.concatenate(([0], np.cumsum(~flat)))
    ends = np.cumsum(_lengths(lists))
    starts = np.concatenate(([0], ends[:-1]))
    finite: Mask = bad[ends] == bad[starts]
    return finite


def _numbers(lists: pa.Array) -> pa.Array:
    """Each list of doubles as text, separated by commas."""
    offsets = np.concatenate(([0], np.cumsum(_lengths(lists)))).astype(np.int32)
    texts = pc.cast(lists.flatten(), pa.string())
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), texts), ", ")


def _lengths(lists: pa.Array) -> Any:
    return np.asarray(pc.list_value_length(lists).fill_null(0))
