# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The folders of a staging area, as what the workers of a cluster must share with this machine."""

from __future__ import annotations

from pathlib import Path

from neptune_exporter.errors import StagingError
from neptune_exporter.storage.staging import Staging


def anchored(staging: Staging) -> Staging:
    """The same area, independent of the current folder. One on an object store is so anyway."""
    data, files = staging.data_path, staging.files_path
    if isinstance(data, Path) and isinstance(files, Path):
        return Staging(data.absolute(), files.absolute())
    return staging


def folders_of(staging: Staging) -> list[Path]:
    """The folders of an area that is on disk; only those that are there."""
    places = dict.fromkeys((staging.data_path, staging.files_path))
    return [place for place in places if isinstance(place, Path) and place.is_dir()]


def made(staging: Staging) -> list[Path]:
    """Makes these folders. Raises `StagingError` if they cannot be made."""
    for place in (staging.data_path, staging.files_path):
        if isinstance(place, Path):
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StagingError(
                    f"Cannot create the folder {place}: {error.strerror}.",
                    "Check the permissions of the folder, or choose another with --data-path and --files-path.",
                ) from error
    return folders_of(staging)
