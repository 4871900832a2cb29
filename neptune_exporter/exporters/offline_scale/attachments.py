# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Where the files of a store lie now.

Content that was given as bytes lies beside the database, under a name of the client's; files that were given by path
lie where they did, or where `--path-map` says.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neptune_exporter.errors import UsageError
from neptune_exporter.exporters.offline_scale.database import FileRequest

_BUFFER_NAME = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}(\.[^/]*)?")
_GENERATED = re.compile(r"[^/]+/(?P<attribute>[^/]*)-(?P<digest>[0-9a-f]{16})/(?P<step>none|\d{12}_\d{6})/[^/]*")
_MOST_CANDIDATES = 3**11


def parse_path_map(pairs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`OLD=NEW` pairs, the longest OLD first. Raises `UsageError` if one is not such a pair."""
    parsed = []
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise UsageError(
                f"--path-map {pair} is not of the form OLD=NEW.", "For example --path-map /data=/mnt/data."
            )
        parsed.append((old.rstrip("/\\") or old, new))
    return tuple(sorted(parsed, key=lambda pair: -len(pair[0])))


@dataclass(frozen=True, slots=True)
class Located:
    """Where a file should be.

    Attributes:
        candidates: where to look, best first.
        name: the name that the user knows it by.
        size: bytes at the time of logging, None if not recorded.
        was_uploaded: whether Neptune seems to have it, because no upload is pending.
    """

    candidates: tuple[Path, ...]
    name: str
    size: int | None
    was_uploaded: bool


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file of a store that no operation in the log names: its operation was synced, its content was not.

    Attributes:
        key: what a reference would name it by: the destination, or the name of a buffer.
        attribute: the attribute path, None if it could not be found out.
        step: the step in micro-units, None for a single file or if unknown.
        located: where it is.
    """

    key: str
    attribute: str | None
    step: int | None
    located: Located


class Attachments:
    """The files of one store.

    Args:
        database: the path of the database.
        requests: what was still to be uploaded.
        path_map: from `parse_path_map`.
    """

    def __init__(self, database: Path, requests: list[FileRequest], path_map: tuple[tuple[str, str], ...]) -> None:
        self._database = database
        self._path_map = path_map
        self._requests: dict[str, list[FileRequest]] = {}
        for request in requests:
            self._requests.setdefault(request.destination, []).append(request)
        self._used: set[FileRequest] = set()
        self._used_buffers: set[str] = set()
        self._referenced: set[str] = set()

    def locate(self, destination: str, size: int) -> Located:
        """Where the content of a reference is.

        Several files may have been logged to one destination of the user's choice: their references come in the same
        order, and the recorded size decides where the first of them are gone.
        """
        self._referenced.add(destination)
        requests = self._requests.get(destination)
        if not requests:
            buffer = _name(destination)
            self._used_buffers.add(buffer)
            return Located((self._database.parent / buffer,), buffer, size, was_uploaded=True)
        unused = [request for request in requests if request not in self._used] or requests[-1:]
        request = next((r for r in unused if r.size == size), unused[0])
        self._used.add(request)
        return self._located(request)

    def _located(self, request: FileRequest) -> Located:
        name = _name(request.source)
        if request.temporary:
            self._used_buffers.add(name)
            here = self._database.parent / name
            return Located((here, Path(request.source)), _name(request.destination), request.size, was_uploaded=False)
        mapped = tuple(Path(path) for path in self._mapped(request.source))
        return Located((*mapped, Path(request.source)), name, request.size, was_uploaded=False)

    def _mapped(self, source: str) -> Iterator[str]:
        for old, new in self._path_map:
            rest = source[len(old) :]
            if source.startswith(old) and (not rest or old.endswith(("/", "\\")) or rest[0] in "/\\"):
                rest = rest if source.startswith("/") else rest.replace("\\", "/")
                yield new.rstrip("/") + "/" + rest.lstrip("/") if rest else new

    def uses(self, leftover: Leftover) -> bool:
        """Whether a file that another store has left over is referenced here: the other is a copy of this one."""
        return leftover.key in self._referenced or leftover.key in self._used_buffers

    def leftovers(self) -> Iterator[Leftover]:
        """What no reference has asked for. To be called after all references are located."""
        for request in itertools.chain.from_iterable(self._requests.values()):
            if request not in self._used:
                yield Leftover(request.destination, *_origin(request.destination), self._located(request))
        try:
            beside = sorted(path for path in self._database.parent.iterdir() if _BUFFER_NAME.fullmatch(path.name))
        except OSError:
            return
        for path in beside:
            if path.name not in self._used_buffers and path.is_file():
                yield Leftover(path.name, None, None, Located((path,), path.name, None, was_uploaded=False))


def _name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _origin(destination: str) -> tuple[str | None, int | None]:
    """Attribute path and step (micro-units) from a destination that the client generated.

    It is `RUN-DIGEST/ATTRIBUTE-DIGEST/STEP/NAME`, dots and slashes in the attribute replaced by `_`; the digest of the
    true attribute path says which of the underscores were what.
    """
    match = _GENERATED.fullmatch(destination)
    if match is None:
        return None, None
    step = None if match["step"] == "none" else int(match["step"].replace("_", ""))
    parts = match["attribute"].split("_")
    if 3 ** (len(parts) - 1) > _MOST_CANDIDATES:
        return None, None
    for separators in itertools.product("/_.", repeat=len(parts) - 1):
        candidate = parts[0] + "".join(map(str.__add__, separators, parts[1:]))
        if hashlib.blake2b(candidate.encode(), digest_size=8).hexdigest() == match["digest"]:
            return candidate, step
    return None, None
