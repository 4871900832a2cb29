# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Images, audio and video as W&B shows them: a value that names a file of the run below `media/`.

Of a file series every file is a point of the history, a single file is in the summary. The files are in the run's
artifact all the same: what is shown is a copy.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from neptune_exporter.loaders.keys import KeyRule, target_key

Kind = Literal["image", "audio", "video"]

_EXTENSIONS: Mapping[str, Kind] = {  # what W&B's client takes for media, too
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "bmp", "webp"), "image"),
    **dict.fromkeys(("wav", "mp3", "flac", "m4a", "aac", "ogg", "opus"), "audio"),
    **dict.fromkeys(("mp4", "webm"), "video"),
}
_BEGINNINGS = (  # for files without an extension that says it
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", "webp"),
    (8, b"WAVE", "wav"),
    (0, b"ID3", "mp3"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "webm"),
)
_NO_EXTENSIONS = frozenset({"", "bin", "dat"})
_FOLDERS: Mapping[Kind, str] = {"image": "media/images", "audio": "media/audio", "video": "media/videos"}
_PATH_RULE = KeyRule(illegal=r'[\x00-\x1f\x7f\\:*?"<>|%\[\]]', length=400, segment_bytes=120)
_HEAD_BYTES = 64 * 1024


class Media(NamedTuple):
    """What a file is.

    Attributes:
        kind: what W&B takes it for.
        extension: its format, without a dot.
        size: width and height of an image, None if unknown.
    """

    kind: Kind
    extension: str
    size: tuple[int, int] | None = None


class Shown(NamedTuple):
    """A file that W&B shows.

    Attributes:
        path: within the files of the run.
        value: what the history or the summary holds, as JSON.
    """

    path: str
    value: str


def media_of(path: Path, name: str) -> Media | None:
    """What a file is by the extension of its name, or by how it begins; None if it is neither image, audio nor video.

    Args:
        path: the file.
        name: what it was called.
    """
    extension = name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
    if extension not in _EXTENSIONS and extension not in _NO_EXTENSIONS:
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if extension not in _EXTENSIONS:
        extension = next((e for at, start, e in _BEGINNINGS if head[at : at + len(start)] == start), "")
    kind = _EXTENSIONS.get(extension)
    return None if kind is None else Media(kind, extension, _image_size(head) if kind == "image" else None)


def shown(media: Media, key: str, number: int | str, sha256: str, size: int) -> Shown:
    """How a file is shown.

    Args:
        media: what it is.
        key: the key under which it is shown.
        number: which file of that key it is, or `summary`.
        sha256: of its content, hex.
        size: in bytes.
    """
    name = f"{target_key(key, _PATH_RULE)}_{number}_{sha256[:20]}.{media.extension}"
    path = f"{_FOLDERS[media.kind]}/{name}"
    value: dict[str, Any] = {"_type": f"{media.kind}-file", "sha256": sha256, "size": size, "path": path}
    if media.kind == "image":
        value["format"] = media.extension
    if media.size is not None:
        value["width"], value["height"] = media.size
    return Shown(path, json.dumps(value))


class MediaFolder:
    """Collects the files that a run shows, in the folder `files` beside its log, where W&B's client looks for them.

    Args:
        folder: of the run.

    Attributes:
        sizes: how many bytes each file has, by its path within the files of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "files"
        self.sizes: dict[str, int] = {}

    def add(self, local: Path, name: str, key: str, number: int | str, sha256: str) -> Shown | None:
        """Takes a file; None if it is nothing to be shown."""
        media = media_of(local, name)
        if media is None:
            return None
        size = local.stat().st_size
        found = shown(media, key, number, sha256, size)
        place_file(local, self.folder / found.path)
        self.sizes[found.path] = size
        return found


def place_file(source: Path, target: Path) -> Path:
    """Makes the same file at another place, where there may be one from an earlier attempt."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
    return target


def _image_size(head: bytes) -> tuple[int, int] | None:
    """Width and height, as the beginning of a file says."""
    try:
        if head.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", head, 16)
        if head.startswith(b"GIF8"):
            return struct.unpack_from("<HH", head, 6)
        if head.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", head, 18)
            return width, abs(height)
        return _jpeg_size(head) if head.startswith(b"\xff\xd8") else None
    except struct.error:  # cut short
        return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Width and height, from the first segment that starts a frame."""
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", head, position)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", head, position + 5)
            return width, height
        if marker < 0xFFC0 or not length:
            return None
        position += 2 + length
