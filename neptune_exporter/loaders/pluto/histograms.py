# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Histograms as Pluto draws them: bins of one width, whole numbers in them. The exact ones are attached.

Counts in uneven bins are spread over even ones, as if they lay evenly in the bins that they are in. Of densities
Pluto shows the share of each bin, in millionths.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
MILLIONTHS = 1_000_000
LARGEST_COUNT = 2.0**53
_UNEVEN = 1e-6  # of a bin's width


def histogram_texts(values: pa.Array) -> pa.Array:
    """The `data` member of each histogram of a column of `HISTOGRAM_TYPE`."""
    return pa.array([json.dumps(_shown(value)) for value in values.to_pylist()], pa.string())


def _shown(histogram: dict[str, Any]) -> dict[str, Any]:
    edges, heights = np.array(histogram["edges"], np.float64), np.array(histogram["values"], np.float64)
    if len(edges) != len(heights) + 1 or not _is_axis(edges):
        edges = np.arange(len(heights) + 1, dtype=np.float64)  # only the axis is lost
    amounts = np.where(np.isfinite(heights), heights, 0.0)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if histogram["type"].upper().startswith("DENSIT"):
            shares = amounts / np.abs(amounts).max(initial=0.0) * np.diff(edges)
            amounts = np.nan_to_num(shares / shares.sum() * MILLIONTHS)
        counts = np.clip(np.rint(_spread(edges, amounts)), -LARGEST_COUNT, LARGEST_COUNT).astype(np.int64).tolist()
    return {
        "freq": counts,
        "maxFreq": max(counts, default=0),
        "bins": {"min": float(edges[0]), "max": float(edges[-1]), "num": len(counts)},
        "shape": "uniform",
        "type": "Histogram",
        "v": 1,
    }


def _is_axis(edges: Floats) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(edges[-1] - edges[0]) and np.all(edges[1:] > edges[:-1]))


def _spread(edges: Floats, amounts: Floats) -> Floats:
    """The amounts in as many bins of one width."""
    even = np.linspace(edges[0], edges[-1], len(edges))
    if len(amounts) < 2 or np.abs(edges - even).max() <= _UNEVEN * (edges[-1] - edges[0]) / len(amounts):
        return amounts
    spread: Floats = np.diff(np.interp(even, edges, np.append(0.0, np.cumsum(amounts))))
    return spread
