# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A place on an object store, and what is known to lie below it.

Listing is the dearest request, and asking for objects one by one the slowest way to learn what is there: a project is
listed once, and what this process changes is written down beside. The list may be out of date; whatever must not be
is asked anew, and nothing is ever decided by a list alone.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neptune_exporter.storage.objects.store import OnBytes, Store, connect

LIST_SECONDS = 60.0  # how long a list is believed


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object, or all objects below a prefix. Picklable.

    Attributes:
        scheme: s3, gs or abfs.
        bucket: the bucket.
        key: the key, without a slash at its end.
        endpoint: the server, "" for the configured one.
    """

    scheme: str
    bucket: str
    key: str
    endpoint: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.scheme, self.bucket, f"{self.key}/{name}".lstrip("/"), self.endpoint)

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def prefix(self) -> str:
        """What all keys below begin with."""
        return f"{self.key}/" if self.key else ""

    @property
    def store(self) -> Store:
        """The connection."""
        return connect(self.scheme, self.bucket, self.endpoint)

    def read_bytes(self) -> bytes:
        """The content: one request. Raises `FileNotFoundError`."""
        return self.store.read(self.key)

    def stream(self) -> Iterator[bytes]:
        """The content in chunks. Raises `FileNotFoundError`."""
        return self.store.stream(self.key)

    def size(self) -> int:
        """The size in bytes, from the list where there is one. Raises `FileNotFoundError`."""
        size = _lists.size_of(self)
        if size is None:
            size = next((size for key, size in self.store.objects(self.key) if key == self.key), None)
        if size is None:
            raise FileNotFoundError(2, "There is no such object", str(self))
        return size

    def put(self, source: Path | bytes, on_bytes: OnBytes | None = None) -> None:
        """Stores the object, over an existing one."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self.store.put(self.key, source, on_bytes)
        _lists.changed(self, size)

    def create(self, content: bytes) -> bool:
        """Stores an object that is not there yet. Returns whether it has this content now."""
        created = self.store.create(self.key, content)
        if created:
            _lists.changed(self, len(content))
        return created

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects below this one, those that are not there as well."""
        paths = [self / name for name in names]
        self.store.delete([path.key for path in paths])
        for path in paths:
            _lists.changed(path, None)

    def below(self, start: str) -> dict[str, int]:
        """Sizes of the objects below whose name begins so, by name: asked now."""
        return {key.removeprefix(self.prefix): size for key, size in self.store.objects(self.prefix + start)}

    def listing(self) -> Listing:
        """What lies below, as far as is known; listed if nothing is."""
        return _lists.of(self)

    def ranged(self) -> io.BufferedReader:
        """For reading here and there, a request each time."""
        return io.BufferedReader(_Ranged(self), 64 << 10)


class Listing:
    """The objects below a prefix.

    Args:
        sizes: in bytes, by name.

    Attributes:
        time: when it was listed, by the process's own clock.
        areas: what is known of the `area.json` in a folder.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self.time = time.monotonic()
        self.areas: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._folders: dict[str, dict[str, int]] = {}
        for name, size in sizes.items():
            self._set(name, size)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there."""
        with self._lock:
            return not any(self._folders.values())

    def names(self, folder: str) -> dict[str, int]:
        """Sizes by name of what lies directly in a folder."""
        with self._lock:
            return dict(self._folders.get(folder, ()))

    def size_of(self, name: str) -> int | None:
        """The size of an object, None if it is not known."""
        folder, _, last = name.rpartition("/")
        with self._lock:
            return self._folders.get(folder, {}).get(last)

    def about(self, folder: str, run_stem: str) -> dict[str, int]:
        """Sizes by name of what lies in a folder and is named after a run."""
        with self._lock:
            names = self._folders.get(folder, {})
            known = self._by_stem.get((folder, run_stem), ())
            return {name: names[name] for name in known if name in names}

    def renew(self, folder: str, run_stem: str, names: dict[str, int]) -> None:
        """What lies in a folder and is named after a run is this and nothing else."""
        prefix = f"{folder}/" if folder else ""
        for name in self.about(folder, run_stem).keys() - names.keys():
            self.changed(prefix + name, None)
        for name, size in names.items():
            self.changed(prefix + name, size)

    @cached_property
    def _by_stem(self) -> dict[tuple[str, str], set[str]]:
        index: dict[tuple[str, str], set[str]] = {}
        for folder, names in self._folders.items():
            for name in names:
                index.setdefault((folder, name.partition(".")[0]), set()).add(name)
        return index

    def changed(self, name: str, size: int | None) -> None:
        """An object was written, or with None removed."""
        with self._lock:
            self._set(name, size)

    def _set(self, name: str, size: int | None) -> None:
        folder, _, last = name.rpartition("/")
        names = self._folders.setdefault(folder, {})
        if size is None:
            names.pop(last, None)
            return
        names[last] = size
        if "_by_stem" in self.__dict__:
            self._by_stem.setdefault((folder, last.partition(".")[0]), set()).add(last)


class _Lists:
    """What this process has listed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._known: dict[ObjectPath, Listing] = {}
        self._areas: dict[ObjectPath, tuple[float, list[str]]] = {}
        self._spelled: dict[ObjectPath, tuple[float, list[str]]] = {}

    def of(self, folder: ObjectPath) -> Listing:
        """What lies below a folder."""
        with self._listing:  # of several who ask at once, one asks the store
            known = self._young(folder)
            if known is None:
                known = self.keep(folder, folder.below(""))
            return known

    def _young(self, folder: ObjectPath) -> Listing | None:
        with self._lock:
            known = self._known.get(folder)
            return known if known is not None and time.monotonic() - known.time < LIST_SECONDS else None

    def keep(self, folder: ObjectPath, sizes: dict[str, int]) -> Listing:
        listing = Listing(sizes)
        with self._lock:
            self._known[folder] = listing
        return listing

    def projects(self, data: ObjectPath) -> list[str]:
        """The folders of an area, from one list of all of it, which tells of each project as well."""
        with self._listing:
            with self._lock:
                listed, names = self._areas.get(data, (0.0, []))
            if names and time.monotonic() - listed < LIST_SECONDS:
                return names
            found: dict[str, dict[str, int]] = {}
            for key, size in data.store.objects(data.prefix):
                project, slash, name = key.removeprefix(data.prefix).partition("/")
                if slash:
                    found.setdefault(project, {})[name] = size
            for project, sizes in found.items():
                self.keep(data / project, sizes)
            with self._lock:
                self._areas[data] = (time.monotonic(), sorted(found))
            return sorted(found)

    def folders(self, data: ObjectPath) -> list[str]:
        """The folders of an area, by name alone."""
        with self._listing:
            listed, names = self._spelled.get(data, (-LIST_SECONDS, []))
            if time.monotonic() - listed >= LIST_SECONDS:
                names = data.store.folders(data.prefix)
                self._spelled[data] = (time.monotonic(), names)
            return names

    def size_of(self, path: ObjectPath) -> int | None:
        for folder, name in _places(path):
            with self._lock:
                known = self._known.get(folder)
            if known is not None and (size := known.size_of(name)) is not None:
                return size
        return None

    def changed(self, path: ObjectPath, size: int | None) -> None:
        for folder, name in _places(path):
            with self._lock:
                known = self._known.get(folder)
                if size is not None:
                    self._areas.pop(folder, None)  # there may be a project more
            if known is not None:
                known.changed(name, size)

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
            self._areas.clear()
            self._spelled.clear()


def _places(path: ObjectPath) -> Iterator[tuple[ObjectPath, str]]:
    """Every folder that a path lies in, and its name from there."""
    folder, name = path.key, ""
    while folder:
        folder, _, last = folder.rpartition("/")
        name = f"{last}/{name}" if name else last
        yield ObjectPath(path.scheme, path.bucket, folder, path.endpoint), name


_lists = _Lists()
projects_in = _lists.projects
folders_in = _lists.folders


def forget_lists() -> None:
    """A new command: what was listed before is asked anew."""
    _lists.forget()


class _Ranged(io.RawIOBase):
    """An object as a file that can be read anywhere."""

    def __init__(self, path: ObjectPath) -> None:
        self._path, self._size, self._at = path, path.size(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data = self._path.store.read(self._path.key, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
