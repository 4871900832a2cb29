# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Room on the disks that are written to: looked at before anything big is written, so that none is ever filled."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neptune_exporter.errors import StagingError, UsageError

_PREFIXES = "kmgtp"
_UNITS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate(_PREFIXES, 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate(_PREFIXES, 1)},
}
_reserve = 0


class NoSpaceError(StagingError):
    """Going on would leave less free space than is to be left: the command ends, what is finished is kept."""

    fatal = True


def parse_size(text: str) -> int:
    """Bytes: `500MB`, `1.5 GB`, `2GiB` or a plain number. Raises `UsageError`."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([kmgtp]i?)?b?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is no size.", "Write for example 500MB, 1.5GB or 2GiB; 0 for no limit.")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def reserve() -> int:
    """How many bytes are to stay free on every disk; 0 for no limit."""
    return _reserve


def set_reserve(count: int) -> None:
    """Sets that for this process; processes that it starts are told by `concurrency`."""
    global _reserve  # noqa: PLW0603 - of the process, like the disks
    _reserve = count


@contextmanager
def reserved(count: int) -> Iterator[None]:
    """So many bytes are to stay free for the length of a with block."""
    before = reserve()
    set_reserve(count)
    try:
        yield
    finally:
        set_reserve(before)


def check(path: Path, coming: int = 0) -> None:
    """Looks whether there is room.

    Args:
        path: what is to be written, or the folder for it; it need not be there.
        coming: how many bytes are about to be written.

    Raises:
        NoSpaceError: there is not.
    """
    if not _reserve:
        return
    free = free_bytes(path)
    if free is not None and free - coming < _reserve:
        lacking = _reserve - (free - coming)
        raise NoSpaceError(
            f"Only {_shown(free)} are free on the disk of {path}: --min-free-space {_shown(_reserve)} is to stay free"
            + (f", and {_shown(coming)} are to be written." if coming else "."),
            f"Free at least {_shown(lacking)} there and run the same command again: what is finished is kept. "
            "A smaller --min-free-space uses more of the disk.",
        )


def free_bytes(path: Path) -> int | None:
    """What an ordinary user may still write on the disk of a path, which need not be there; None if nobody says."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _shown(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    raise AssertionError
