# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The operation log of one execution of the 1.x client: JSON, one record a line, in files named by their first version.

Read twice: once for the few operations that decide what counts, once for the many points (see `points`). The second
time just that is read which the first time saw: a log that a script goes on writing does not change in between.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.offline_legacy.lines import POINTS, Lines, Record, adds_points, parsed, pieces_of
from neptune_exporter.exporters.offline_legacy.points import Decoded, Points, UncommonError, decode, points_of
from neptune_exporter.model import Int64s

__all__ = ["Health", "Log", "Record", "segments"]

BLOCK_BYTES = 4 << 20
AHEAD = 2  # blocks
_GLIMPSE_BYTES = 256 << 10
Item = TypeVar("Item")
Result = TypeVar("Result")
_SEGMENT = re.compile(r"data-(\d+)\.log")


@dataclass
class Health:
    """What a log turned out to be.

    Attributes:
        count: records that were read.
        first: the first version, None without records.
        last: the last version.
        unreadable: lines, or parts of lines, that are no record.
        torn: whether the last line is cut off.
    """

    count: int = 0
    first: int | None = None
    last: int | None = None
    unreadable: int = 0
    torn: bool = False

    def saw(self, versions: Int64s) -> None:
        """Some records were read."""
        if len(versions):
            self.count += len(versions)
            low, high = int(versions.min()), int(versions.max())
            self.first = low if self.first is None else min(low, self.first)
            self.last = high if self.last is None else max(high, self.last)

    @property
    def holes(self) -> int:
        """How many versions between the first and the last are not there."""
        return 0 if self.first is None or self.last is None else max(self.last - self.first + 1 - self.count, 0)


def segments(folder: Path) -> list[Path]:
    """The files of a log, in order."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _SEGMENT.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


class _Block(NamedTuple):
    """Where some whole lines are, and what was found in them.

    Attributes:
        path: the file.
        start: where they begin in it.
        size: bytes, without the last line end.
        clean: see `Lines`.
        added: what kinds of points they hold.
        only: the one kind of operation that all of them are, "" if there are several.
    """

    path: Path
    start: int
    size: int
    clean: bool
    added: frozenset[str]
    only: str


@dataclass
class Log:
    """The log in one folder.

    Attributes:
        folder: where it is.
        health: filled while it is read.
    """

    folder: Path
    health: Health = field(default_factory=Health)
    _blocks: list[_Block] = field(default_factory=list)

    def decisions(self) -> Iterator[Record]:
        """All operations but those that add points, in order; to be read before these."""
        for path in segments(self.folder):
            for (start, body, is_end), lines in _ahead(_bodies(path), lambda item: Lines.of(item[1])):
                if lines.clean and not is_end:
                    added = lines.added()
                    found = list(self._records(lines.texts(None)))
                    only = next(iter(added)) if len(added) == 1 and lines.kinds.min() >= 0 else ""
                else:
                    added, found = self._from_pieces(body, is_end)
                    only = ""
                self._blocks.append(_Block(path, start, len(body), lines.clean and not is_end, added, only))
                self._saw(found)
                yield from found

    def points(self, kind: str) -> Iterator[Points]:
        """The points of all series of one kind (`LogFloats` or `LogStrings`), block by block."""
        mine = (block for block in self._blocks if kind in block.added)
        for block, (body, decoded) in _ahead(mine, lambda block: _decoded(block, kind)):
            if decoded is not None:
                self.health.saw(decoded.versions)
                yield decoded.points
            else:
                yield points_of(kind, self._one_by_one(block, body, kind))

    def images(self) -> Iterator[Record]:
        """The operations that add to image series, in order."""
        for block in self._blocks:
            if "LogImages" in block.added:
                yield from self._one_by_one(block, _read(block), "LogImages")

    def glimpse(self) -> Iterator[Record]:
        """The operations near the beginning and the end that add no points: what tells of a run without reading it."""
        found = segments(self.folder)
        for path in dict.fromkeys((*found[:1], *found[-1:])):
            with path.open("rb") as file:
                head = file.read(_GLIMPSE_BYTES)
                file.seek(max(path.stat().st_size - _GLIMPSE_BYTES, len(head)))
                for line in (head + b"\n" + file.read()).split(b"\n"):
                    record = None if adds_points(line) else parsed(line)
                    if record is not None:
                        yield record

    def _from_pieces(self, body: bytes, is_end: bool) -> tuple[frozenset[str], list[Record]]:
        """What damaged lines hold: the kinds of points, and all other operations."""
        pieces = list(pieces_of(body))
        if is_end and pieces and parsed(pieces[-1]) is None:
            self.health.torn = True
            del pieces[-1]
        types, found = set(), []
        for record in self._records(pieces):
            types.add(record.type)
            if record.type not in POINTS:
                found.append(record)
        return frozenset(types).intersection(POINTS), found

    def _one_by_one(self, block: _Block, body: bytes, kind: str) -> list[Record]:
        """The operations of one kind; in damaged lines those that are none were counted the first time."""
        if block.clean:
            found = list(self._records(Lines.of(body).texts(kind)))
        else:
            found = [record for piece in pieces_of(body) if (record := parsed(piece)) and record.type == kind]
        self._saw(found)
        return found

    def _records(self, texts: Iterable[bytes]) -> Iterator[Record]:
        for text in texts:
            record = parsed(text)
            if record is not None:
                yield record
            else:
                self.health.unreadable += 1

    def _saw(self, records: Iterable[Record]) -> None:
        self.health.saw(np.array([record.version for record in records], np.int64))


def _ahead(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
    """Each item with what comes of it, in order; threads, which arrays do not hold up, work ahead of who takes it."""
    with ThreadPoolExecutor(AHEAD) as pool:
        begun: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            begun.append((item, pool.submit(work, item)))
            if len(begun) > AHEAD:
                first, result = begun.popleft()
                yield first, result.result()
        for item, result in begun:
            yield item, result.result()


def _decoded(block: _Block, kind: str) -> tuple[bytes, Decoded | None]:
    """The lines of a block and the points of one kind in them, None if they are to be read one by one."""
    body = _read(block)
    if block.clean:
        with suppress(UncommonError):
            return body, decode(kind, body if block.only == kind else Lines.of(body).only(kind))
    return body, None


def _bodies(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Whole lines of a file: where they begin, their text without the last line end, and whether there was none."""
    start, size = 0, BLOCK_BYTES
    with path.open("rb") as file:
        while True:
            file.seek(start)
            chunk = file.read(size)
            cut = chunk.rfind(b"\n")
            if cut >= 0:
                yield start, chunk[:cut], False
                start, size = start + cut + 1, BLOCK_BYTES
            elif len(chunk) == size:
                size *= 2  # a line that is longer than a block
            else:
                break
    if chunk:
        yield start, chunk, True


def _read(block: _Block) -> bytes:
    with block.path.open("rb") as file:
        file.seek(block.start)
        body = file.read(block.size)
    if len(body) != block.size:
        raise SourceError(f"{block.path} became shorter while it was read.", "Let its sync end, then export again.")
    return body
