# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Steps that a source holds as doubles, exactly."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

from neptune_exporter.model import MICRO, NO_VALUE, STEP_LIMIT_MICROS, Int64s

_EXACT = 2.0**53


def step_micros(steps: npt.NDArray[np.float64]) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Steps in micro-units, and which of them are exactly that: the number that a user wrote has at most 6 decimals.

    A double stands for the shortest decimal that is read back as it. Division is correctly rounded, so a step is such
    a decimal if the micro-units divided by a million give the same double again.
    """
    micros = np.full(len(steps), NO_VALUE, np.int64)
    whole = (steps == np.floor(steps)) & (np.abs(steps) < STEP_LIMIT_MICROS / MICRO)
    micros[whole] = steps[whole].astype(np.int64) * MICRO
    scaled = np.rint(np.where(whole | ~np.isfinite(steps), 0.0, steps) * MICRO)
    exact = ~whole & (np.abs(scaled) < _EXACT) & (scaled / MICRO == steps)
    micros[exact] = scaled[exact].astype(np.int64)
    fits = whole | exact
    for row in np.flatnonzero(~fits & np.isfinite(steps)).tolist():  # large and fractional: seldom
        units = Decimal(repr(float(steps[row]))) * MICRO
        if units == units.to_integral_value() and abs(units) < STEP_LIMIT_MICROS:
            micros[row], fits[row] = int(units), True
    return micros, fits
