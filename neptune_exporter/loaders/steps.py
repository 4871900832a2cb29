# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Neptune's decimal steps as the whole numbers that some targets want: exact, or refused.

All arithmetic is on int64 micro-units. A multiplier is right if every step times it is a whole number; then
steps stay apart, keep their order, and come back exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from neptune_exporter.errors import TargetError, UsageError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import MICRO, NO_VALUE, STEP_LIMIT_MICROS, Int64s, step_text

LARGEST_MULTIPLIER = 10**12  # a fraction of a step, in micro-units, times this still fits 64 bits
_INT64_LIMIT = 2**63


def auto_multiplier(attributes: Iterable[Attribute], types: Collection[str]) -> int:
    """The smallest power of ten, at most 1,000,000, that makes all steps whole.

    Args:
        attributes: from the index, of all runs that share the multiplier.
        types: the attribute types whose steps the target stores as integers (`Limits.integer_steps`).
    """
    return int(10 ** max((a.step_decimals for a in attributes if a.type in types), default=0))


def deciding(attributes: Iterable[Attribute], types: Collection[str]) -> tuple[Attribute, ...]:
    """Those of many attributes that decide on their multiplier: with the finest step, and with the largest."""
    stepped = [a for a in attributes if a.type in types and a.first_step is not None and a.last_step is not None]
    if not stepped:
        return ()
    finest = max(stepped, key=lambda a: a.step_decimals)
    farthest = max(stepped, key=lambda a: max(abs(a.first_step or 0), abs(a.last_step or 0)))
    return (finest,) if finest is farthest else (finest, farthest)


def check_multiplier(multiplier: int, attributes: Iterable[Attribute], types: Collection[str]) -> None:
    """Refuses a multiplier that would round or merge steps, or push them out of 64 bits.

    The index knows how many decimal places the steps have, not the steps, so what is asked for is a multiple
    of the power of ten that makes that many places whole.

    Raises:
        UsageError: names the attribute and the smallest power of ten that works.
    """
    if not 1 <= multiplier <= LARGEST_MULTIPLIER:
        raise UsageError(f"A step multiplier of {multiplier} makes no sense.", "Use auto, or a power of ten.")
    stepped = [a for a in attributes if a.type in types and a.first_step is not None]
    finest = max(stepped, key=lambda a: a.step_decimals, default=None)
    if finest is None:
        return
    needed = 10**finest.step_decimals
    if multiplier % needed:
        raise UsageError(
            f"A step multiplier of {multiplier} would round steps of {finest.path!r}, "
            f"which have {finest.step_decimals} decimal places.",
            f"The smallest that works is --step-multiplier {needed}; auto finds it by itself.",
        )
    for attribute in stepped:
        for micros in (attribute.first_step, attribute.last_step):
            if micros is not None and abs(micros) * multiplier >= _INT64_LIMIT * MICRO:
                raise UsageError(
                    f"A step multiplier of {multiplier} takes step {step_text(micros)} of {attribute.path!r} "
                    "out of 64 bits.",
                    f"The smallest that works is --step-multiplier {needed}.",
                )


def scale_steps(micros: Int64s, multiplier: int) -> Int64s:
    """Steps in micro-units as whole numbers, exactly; `NO_VALUE` stays.

    Raises:
        TargetError: a step is not whole after multiplication, or leaves 64 bits.
    """
    missing = micros == NO_VALUE
    whole, part = np.divmod(np.where(missing, 0, micros), MICRO)
    if len(whole) and (int(np.abs(whole).max()) + 1) * multiplier >= _INT64_LIMIT:
        raise TargetError(f"Steps times {multiplier} do not fit 64 bits.", "Use a smaller --step-multiplier, or auto.")
    scaled, remainder = np.divmod(part * multiplier, MICRO)
    scaled += whole * multiplier
    if remainder.any():
        step = step_text(int(micros[np.flatnonzero(remainder)[0]]))
        raise TargetError(
            f"Step {step} times {multiplier} is not a whole number.",
            "Load with --step-multiplier auto, or one that makes all steps whole.",
        )
    return np.where(missing, NO_VALUE, scaled)


def unscale_steps(steps: Int64s, multiplier: int) -> Int64s:
    """The inverse of `scale_steps`, in micro-units; `NO_VALUE` for a number that no Neptune step can have become."""
    whole, part = np.divmod(steps, multiplier)
    inside = np.abs(whole) < STEP_LIMIT_MICROS // MICRO
    micros, remainder = np.divmod(part * MICRO, multiplier)
    micros += np.where(inside, whole, 0) * MICRO
    return np.where(inside & (remainder == 0) & (np.abs(micros) < STEP_LIMIT_MICROS), micros, NO_VALUE)
