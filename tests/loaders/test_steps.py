# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.errors import TargetError, UsageError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.loaders.steps import auto_multiplier, check_multiplier, scale_steps, unscale_steps
from neptune_exporter.model import NO_VALUE, STEP_LIMIT_MICROS

FLOATS = frozenset({"float_series"})


def micros(*steps: str) -> np.ndarray:
    return np.array([int(Fraction(step) * 1_000_000) for step in steps], np.int64)


def test_loss_14_steps_are_exact():
    assert scale_steps(micros("0.29", "0.57", "1.1", "-0.29"), 100).tolist() == [29, 57, 110, -29]
    hundredths = np.arange(100_000, dtype=np.int64) * 10_000  # 0.00, 0.01, … of which floats get 4.6 % wrong
    assert scale_steps(hundredths, 100).tolist() == list(range(100_000))


def test_loss_14_steps_are_never_merged():
    with pytest.raises(TargetError, match=r"Step 0.29 times 10 "):
        scale_steps(micros("0.2", "0.29"), 10)


@given(
    st.lists(st.integers(-STEP_LIMIT_MICROS + 1, STEP_LIMIT_MICROS - 1) | st.just(NO_VALUE)),
    st.integers(0, 6).map(lambda n: 10**n) | st.integers(1, 10**6),
)
def test_every_step_is_scaled_exactly_or_refused(steps, multiplier):
    exact = [Fraction(s, 1_000_000) * multiplier for s in steps if s != NO_VALUE]
    array = np.array(steps, np.int64)
    if any(value.denominator > 1 for value in exact):
        with pytest.raises(TargetError):
            scale_steps(array, multiplier)
        return
    scaled = scale_steps(array, multiplier)
    assert [s for s in scaled.tolist() if s != NO_VALUE] == exact
    back = np.where(array == NO_VALUE, NO_VALUE, unscale_steps(scaled, multiplier))
    assert back.tolist() == steps


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1), st.integers(1, 10**6))
def test_a_number_that_no_step_became_has_no_inverse(steps, multiplier):
    for step, back in zip(steps, unscale_steps(np.array(steps, np.int64), multiplier).tolist(), strict=True):
        exact = Fraction(step, multiplier) * 1_000_000
        possible = exact.denominator == 1 and abs(exact) < STEP_LIMIT_MICROS
        assert back == (exact if possible else NO_VALUE)


def test_a_step_beyond_64_bits_is_refused():
    with pytest.raises(TargetError, match="do not fit 64 bits"):
        scale_steps(np.array([STEP_LIMIT_MICROS - 1], np.int64), 10**8)


def test_auto_takes_the_smallest_power_of_ten_of_the_series_that_count():
    series = [
        Attribute("loss", "float_series", 2, first_step=0, last_step=10**6, step_decimals=2),
        Attribute("acc", "float_series", 2, first_step=0, last_step=10**6, step_decimals=0),
        Attribute("console", "string_series", 2, first_step=1, last_step=2, step_decimals=6),
    ]
    assert auto_multiplier(series, FLOATS) == 100
    assert auto_multiplier(series[1:], FLOATS) == 1
    assert auto_multiplier([], FLOATS) == 1


def test_an_explicit_multiplier_that_would_merge_steps_names_the_smallest_that_works():
    series = [Attribute("loss", "float_series", 2, first_step=0, last_step=290_000, step_decimals=2)]
    with pytest.raises(UsageError, match="'loss'") as caught:
        check_multiplier(1, series, FLOATS)
    assert "--step-multiplier 100;" in caught.value.hint
    check_multiplier(100, series, FLOATS)
    check_multiplier(1_000_000, series, FLOATS)
    for nonsense in (0, -1, 10**13):
        with pytest.raises(UsageError):
            check_multiplier(nonsense, series, FLOATS)


def test_an_explicit_multiplier_that_leaves_64_bits_is_refused():
    series = [Attribute("loss", "float_series", 1, first_step=0, last_step=10**18 - 10**6, step_decimals=0)]
    check_multiplier(10**6, series, FLOATS)
    with pytest.raises(UsageError, match="64 bits"):
        check_multiplier(10**8, series, FLOATS)
