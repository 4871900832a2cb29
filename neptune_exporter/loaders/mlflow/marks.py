# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The marker of live runs, where MLflow's own modules look for it."""

from __future__ import annotations

from neptune_exporter.loaders.live_marks import ENDED, LIVE, is_fresh, live_marker

__all__ = ["ENDED", "LIVE", "is_fresh", "live_marker"]
