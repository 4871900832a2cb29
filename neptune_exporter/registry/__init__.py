# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A model registry to keep using: files, directories and configs of model versions, with Neptune and after it.

Everything is imported when it is first asked for: what you do not use need not be installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neptune_exporter.registry.model_version import TrackedModelVersion
    from neptune_exporter.registry.opened import open_model_version
    from neptune_exporter.registry.settings import TrackingLibraryBackendSettings, TrackingLibraryLoggingSettings
    from neptune_exporter.registry.specs import (
        MODEL_CARD_ATTRIBUTE_PATH,
        TrackedGithubActionsSpecs,
        TrackedModelCard,
        TrackedModelSpecs,
        TrackedModelTestFiles,
    )

__all__ = [
    "MODEL_CARD_ATTRIBUTE_PATH",
    "TrackedGithubActionsSpecs",
    "TrackedModelCard",
    "TrackedModelSpecs",
    "TrackedModelTestFiles",
    "TrackedModelVersion",
    "TrackingLibraryBackendSettings",
    "TrackingLibraryLoggingSettings",
    "open_model_version",
]

_HOMES = {
    "TrackedModelVersion": "model_version",
    "open_model_version": "opened",
    "TrackingLibraryBackendSettings": "settings",
    "TrackingLibraryLoggingSettings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'specs')}"), name)
