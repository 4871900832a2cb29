# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Names on disk from names that a server gave.

Names from a server are hostile: they may hold `..`, slashes, device names, control characters, or be longer
than a file system takes. Two different names never share a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from neptune_exporter.errors import DamagedDataError
from neptune_exporter.model import Kind

KIND_FOLDERS: dict[Kind, str] = {"run": "", "model": "models", "model_version": "model_versions"}
STEM_BYTES = 200
SEGMENT_BYTES = 150
PATH_BYTES = 500

_PART = re.compile(r"(?P<stem>.+-[0-9a-f]{16})_part_(?P<number>0|[1-9][0-9]{0,8})\.parquet", re.DOTALL)
# Numbered on object stores, where nothing is ever renamed.
MANIFEST = re.compile(r"(?P<stem>[^.]+)(?:\.g(?P<number>\d{1,9}))?\.json", re.DOTALL)
_EXTENSION = re.compile(r"\.[A-Za-z0-9_-]{1,16}")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³")}


def digest(text: str) -> str:
    """16 hex digits that stand for a name."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def stem(name: str) -> str:
    """The name on disk of a project or run: readable, then the digest that keeps it unique.

    Characters outside letters, digits, `_` and `-` become `_`; the readable half is shortened where the
    whole would exceed 200 bytes.
    """
    readable = "".join(c if c.isalnum() or c in "_-" else "_" for c in name)
    return f"{cut(readable, STEM_BYTES - 17)}-{digest(name)}"


def digest_of(run_stem: str) -> str:
    """The digest in a stem. It alone says whose stem it is: another tool may spell the readable half otherwise."""
    return run_stem[-16:]


def cut(text: str, limit: int) -> str:
    """The longest beginning of the text that has at most so many bytes in UTF-8."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def part_name(run_stem: str, number: int) -> str:
    """The file name of a Parquet part."""
    return f"{run_stem}_part_{number}.parquet"


def parse_part(name: str) -> tuple[str, int] | None:
    """The run's stem and the number of a part; None for any other file. The id itself may contain `_part_0`."""
    match = _PART.fullmatch(name)
    return (match["stem"], int(match["number"])) if match else None


def extension(name: str) -> str:
    """A harmless file extension with its dot, or ""."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix
    return suffix if _EXTENSION.fullmatch(suffix) else ""


def step_name(micros: int) -> str:
    """The file name of one step of a file series: `step_3_500000`."""
    sign, magnitude = ("-", -micros) if micros < 0 else ("", micros)
    whole, part = divmod(magnitude, 1_000_000)
    return f"step_{sign}{whole}_{part:06d}"


def readable_path(attribute: str) -> str | None:
    """The attribute path as a relative file path, or None if it cannot be used as it is."""
    segments = attribute.split("/")
    harmless = all(_harmless(segment) for segment in segments)
    return attribute if harmless and len(attribute.encode()) <= PATH_BYTES and len(segments) <= 32 else None


def _harmless(segment: str) -> bool:
    return (
        bool(segment)
        and all(c.isalnum() or c in "_-. " for c in segment)
        and segment.isprintable()
        and not segment.startswith((".", " "))
        and not segment.endswith((".", " "))
        and segment.split(".", maxsplit=1)[0].rstrip().lower() not in _DEVICES
        and len(segment.encode("utf-8", "replace")) <= SEGMENT_BYTES
    )


def flat_name(attribute: str, key: str) -> str:
    """A file name for an attribute whose path cannot be used: readable, then a digest of `key`."""
    readable = "".join(c if c.isalnum() or c in "_-" else "_" for c in attribute)
    return f"{cut(readable, 80)}-{digest(key)}"


def collision_key(path: str) -> str:
    """Equal for two paths that some file system takes for the same one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def check_inside(root: Path, path: str) -> None:
    """Raises `DamagedDataError` if a relative path leads out of a folder, by `..` or by a symbolic link on the way."""
    above = (root / path).parent
    if not is_inside(path) or not above.resolve().is_relative_to(root.resolve()):
        raise DamagedDataError(f"{root / path} leaves the folder {root}.", "This archive is not to be trusted.")


def is_inside(path: str) -> bool:
    """Whether a relative path from a staging area stays in its folder."""
    parts = path.replace("\\", "/").split("/")
    return (
        bool(path)
        and not path.startswith(("/", "\\"))
        and ".." not in parts
        and "\0" not in path
        and ":" not in parts[0]
        and _can_be_a_name(path)
    )


def _can_be_a_name(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
