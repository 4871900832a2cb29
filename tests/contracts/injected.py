# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Counts every fault that the tests inject, so that the end of a run can say how many were survived."""

from __future__ import annotations

from collections import Counter
from typing import Literal

Kind = Literal["damage", "disk", "network", "signal"]

COUNT: Counter[str] = Counter()


def injected(kind: Kind) -> None:
    """One more fault: a change on disk that fails, a reply that is wrong, a process that is stopped or
    killed, a file that is damaged.
    """
    COUNT[kind] += 1
