# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Where something of the staging area lies: on disk a `Path`, on an object store an `ObjectPath`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from neptune_exporter.errors import UsageError


class Place(Protocol):
    """What both can do."""

    @property
    def name(self) -> str:
        """What follows the last slash."""

    def __truediv__(self, name: str, /) -> Self:
        """Something in this folder."""

    def read_bytes(self) -> bytes:
        """The content of a file. Raises `OSError`."""


def parse_place(text: str, endpoint: str = "") -> Place:
    """What `--data-path` means: a folder, or an address such as `s3://bucket/prefix`.

    Args:
        text: as it was given.
        endpoint: the S3 server, "" for the configured one.

    Raises:
        UsageError: it is an address that nothing here understands.
    """
    from neptune_exporter.storage.objects.store import split_address

    address = split_address(text)
    if address is None:
        return Path(text)
    from neptune_exporter.storage.objects.path import ObjectPath

    return ObjectPath(*address, endpoint)


def check_places(data: Place, files: Place) -> None:
    """Raises `UsageError` unless both folders of an area are on disk, or both on an object store."""
    if isinstance(data, Path) != isinstance(files, Path):
        raise UsageError(
            f"--data-path {data} and --files-path {files} are of different kinds.",
            "Name both, either folders or addresses: a run is committed in one way or the other.",
        )
