# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Room on this machine for what goes to an object store; what the dead have left of it goes with the next export."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from neptune_exporter.errors import StagingError
from neptune_exporter.storage import disk
from neptune_exporter.storage.claims import process_start

_NAME = re.compile(r"neptune-exporter-(?P<space>\d+)-(?P<pid>\d+)-(?P<start>\w+)-\w+")


def scratch_folder() -> TemporaryDirectory[str]:
    """A new empty folder, gone with its context."""
    pid = os.getpid()
    _sweep(tempfile.gettempdir())
    prefix = f"neptune-exporter-{_space()}-{pid}-{process_start(pid)}-"
    return TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


@cache
def _sweep(folder: str) -> None:
    """Removes the folders of processes that are gone: once for each process of ours."""
    for path in Path(folder).iterdir():
        found = _NAME.fullmatch(path.name)
        if found and int(found["space"]) == _space() and process_start(int(found["pid"])) != found["start"]:
            with suppress(StagingError):  # somebody else's, or going already
                disk.remove_tree(path)


@cache
def _space() -> int:
    """Tells containers apart, in which the same number is another process."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
