# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What is in a run's artifact, and its digest as W&B computes it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an artifact.

    Attributes:
        path: in the artifact.
        local: on this machine.
        md5: of its content, base64.
        bytes: its size.
    """

    path: str
    local: Path
    md5: str
    bytes: int

    @classmethod
    def of(cls, path: str, local: Path) -> Entry:
        """Reads the file."""
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
        return cls(path, local.absolute(), base64.b64encode(digest).decode(), local.stat().st_size)


def manifest_digest(entries: Iterable[Entry]) -> str:
    """The digest of an artifact with these files."""
    digest = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for entry in sorted(entries, key=lambda e: e.path):
        digest.update(f"{entry.path}:{entry.md5}\n".encode())
    return digest.hexdigest()
