# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The marker of a run that is being fed while it is logged: `live:` and the time of its last sign of life."""

from __future__ import annotations

import time

LIVE, ENDED = "live:", "live-ended"
FRESH_SECONDS = 600


def live_marker() -> str:
    """The marker now."""
    return f"{LIVE}{time.time_ns() // 1_000_000}"


def is_fresh(marker: str) -> bool:
    """Whether a marker says that the run is being fed right now."""
    beat = marker.removeprefix(LIVE)
    return marker.startswith(LIVE) and beat.isdecimal() and int(beat) / 1000 > time.time() - FRESH_SECONDS
