# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every target wants to know of a run: what it is called, when it began and when it ended."""

from __future__ import annotations

import time
from datetime import datetime

from neptune_exporter.loaders.loader import LoadOptions, RunToLoad


def title(run: RunToLoad, options: LoadOptions) -> str:
    """`sys/name`, or the id where that says nothing or is asked for."""
    name = (run.info.name or "").strip()
    return run.info.ref.run_id if options.run_name == "id" or name in ("", "Untitled") else name


def start_ms(run: RunToLoad) -> int:
    """When the run was created; else its first point; else now. Milliseconds."""
    if run.info.created is not None:
        return _millis(run.info.created)
    first = min((a.first_time for a in run.attributes if a.first_time is not None), default=None)
    return time.time_ns() // 1_000_000 if first is None else first


def end_ms(run: RunToLoad, start: int) -> int:
    """The time of the run's last point; else of its last change. Milliseconds, not before the start."""
    last = max((a.last_time for a in run.attributes if a.last_time is not None), default=None)
    if last is None and run.info.modified is not None:
        last = _millis(run.info.modified)
    return start if last is None else max(start, last)


def _millis(when: datetime) -> int:
    return round(when.timestamp() * 1000)
