# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Mirrors runs of the 1.x client."""

from __future__ import annotations

from types import ModuleType

MODULE = "neptune.metadata_containers.run"


def patch(module: ModuleType) -> None:
    """Wraps the client."""
