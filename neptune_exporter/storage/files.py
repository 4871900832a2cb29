# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run: written under temporary names, named in the manifest, read back safely."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from io import BufferedReader
from pathlib import Path

from neptune_exporter import free_space
from neptune_exporter.errors import DamagedDataError
from neptune_exporter.model import MICRO
from neptune_exporter.storage import disk, names
from neptune_exporter.storage.manifest import FileEntry
from neptune_exporter.storage.place import Place

CHUNK_BYTES = 1 << 20


class FileWriter:
    """Stores the files of one export of one run. Calls may come from several threads.

    A file gets its final name as soon as it is whole; the name carries the generation, so that it never
    replaces a file that a manifest names.

    Args:
        root: the project's files folder.
        folder: the run's folder in it.
        generation: of the export.
        taken: paths that are in use already.
        apart: keeps the names apart from those of another export of the same generation that may still go on.
    """

    def __init__(self, root: Path, folder: str, generation: int, taken: Iterable[str] = (), apart: str = "") -> None:
        self._root = root
        self._folder = folder
        self._suffix = f".g{generation}-{apart}" if apart else f".g{generation}" if generation > 1 else ""
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._folders: set[str] = set()
        self.entries: dict[str, FileEntry] = {}
        for path in taken:
            self._take(path)

    def add(self, attribute: str, name: str, chunks: Iterable[bytes], *, step: Decimal | None = None) -> str:
        """Stores one file; see `exporters.exporter.Files`."""
        path = self._choose(attribute, names.extension(name), step)
        temporary = self._temporary(path)
        digest, size = hashlib.sha256(), 0
        with disk.create(temporary) as file:
            for chunk in chunks:
                free_space.check(temporary, len(chunk))
                with disk.explained("write", temporary):
                    file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self._store(temporary, path)
        with self._lock:
            self.entries[path] = FileEntry(path, size, digest.hexdigest())
        return path

    def _temporary(self, path: str) -> Path:
        """Where a file is written before it gets its final name."""
        target = self._root / path
        names.check_inside(self._root, path)
        disk.make_folder(target.parent)
        return target.with_name(f".{uuid.uuid4().hex}.tmp")

    def _store(self, temporary: Path, path: str) -> None:
        """Gives a file its final name."""
        target = self._root / path
        disk.replace(temporary, target)
        disk.sync_folder(target.parent)

    def remove(self, paths: Iterable[str]) -> None:
        """Removes some of the files stored so far."""
        for path in paths:
            disk.remove(self._root / path)

    def remove_all(self) -> None:
        """Removes every file stored so far."""
        for path in self.entries:
            disk.remove(self._root / path)
            disk.remove_empty_folder((self._root / path).parent)
        self.entries.clear()

    def _choose(self, attribute: str, extension: str, step: Decimal | None) -> str:
        micros = None if step is None else int(step * MICRO)
        readable = names.readable_path(attribute)
        with self._lock:
            if readable is not None:
                if extension and readable.lower().endswith(extension.lower()) and micros is None:
                    readable = readable[: -len(extension)]
                if micros is not None:
                    readable = f"{readable}/{names.step_name(micros)}"
                path = f"{self._folder}/{readable}{self._suffix}{extension}"
                if self._is_free(path):
                    return self._take(path)
            number = 0
            while True:
                flat = names.flat_name(attribute, f"{attribute}\0{micros}\0{number}")
                path = f"{self._folder}/{flat}{self._suffix}{extension}"
                if self._is_free(path):
                    return self._take(path)
                number += 1

    def _is_free(self, path: str) -> bool:
        """Whether no file has this name, no folder does, and no file stands where a folder is needed."""
        key = names.collision_key(path)
        above = _folders_above(key)
        return key not in self._taken and key not in self._folders and not any(f in self._taken for f in above)

    def _take(self, path: str) -> str:
        key = names.collision_key(path)
        self._taken.add(key)
        self._folders.update(_folders_above(key))
        return path


def _folders_above(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:n]) for n in range(1, len(segments))]


class FileReader:
    """Reads the files of one run by what its rows say in `file_value.path`.

    Args:
        root: the project's files folder.
        entries: what the manifest says of them, by path; None for a run without one.
        check: asked when a file is not as it should be; raises what explains it better, if anything does.
    """

    def __init__(
        self, root: Path, entries: Mapping[str, FileEntry] | None, check: Callable[[], None] = lambda: None
    ) -> None:
        self._root = root
        self._check = check
        self._proven = entries is not None
        self.known = entries or {}
        self.hashed: dict[str, str] = {}  # what had to be read to know it

    def local(self, path: str) -> Path:
        """The file on disk, whole and as the manifest says; looked at once.

        Raises:
            DamagedDataError: it is missing, is not what the manifest says, or is not inside the folder.
        """
        local, known = self._present(path), self.known.get(path)
        if known is not None and path not in self.hashed:
            self.hashed[path] = self.hash_content(path)
        if known is not None and self.hashed[path] != known.sha256:
            self._check()
            raise DamagedDataError(
                f"{local} was changed: its SHA-256 is not that of the manifest.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )
        return local

    def _present(self, path: str) -> Path:
        """The file on disk, if it is there and has its size. Raises like `local`."""
        if not names.is_inside(path):
            raise DamagedDataError(
                f"The file path {path!r} leaves the files folder.", "This archive is not to be trusted."
            )
        local = self._root / path
        if not local.is_file():
            self._check()
            raise DamagedDataError(f"{local} is missing.", "Restore it, or check --files-path.")
        if not local.resolve().is_relative_to(self._root.resolve()):
            raise DamagedDataError(f"{local} leaves the files folder.", "This archive is not to be trusted.")
        self._refuse_unknown(path)
        known = self.known.get(path)
        if known is not None and local.stat().st_size != known.bytes:
            self._check()
            raise DamagedDataError(
                f"{local} has {local.stat().st_size} bytes instead of {known.bytes}.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )
        return local

    def _refuse_unknown(self, path: str) -> None:
        if self._proven and path not in self.known:
            self._check()
            raise DamagedDataError(
                f"The manifest knows no file {path}: nothing vouches for it.",
                "Restore the manifest from a backup, or export the run again with --overwrite.",
            )

    def check(self, path: str) -> None:
        """Whether the file is there and has its size. Raises like `local`."""
        self._present(path)

    def place(self, path: str) -> Place:
        """Where the file lies."""
        return self._root / path

    def close(self) -> None:
        """Nothing of this reader is needed any more: what it has fetched can go."""

    def members(self, path: str) -> list[str]:
        """The files below a path that is a folder, sorted; none if it is a file or not there."""
        folder = self._root / path
        if not names.is_inside(path) or not folder.is_dir():
            return []
        if not folder.resolve().is_relative_to(self._root.resolve()):
            return []  # then it is no file that could be read, either
        found = (file.relative_to(self._root).as_posix() for file in folder.rglob("*") if file.is_file())
        return sorted(found)

    def open(self, path: str) -> BufferedReader:
        """The content. Raises like `local`."""
        local = self.local(path)
        with disk.explained("read", local):
            return local.open("rb")

    def size(self, path: str) -> int:
        """The size in bytes. Raises like `local`."""
        return self._present(path).stat().st_size

    def sha256(self, path: str) -> str:
        """The SHA-256, hex, from the manifest where there is one. Raises like `local`."""
        known = self.known.get(path)
        if known is not None:
            return known.sha256
        if path not in self.hashed:
            self.hashed[path] = self.hash_content(path)
        return self.hashed[path]

    def hash_content(self, path: str) -> str:
        """The SHA-256, hex, of what is on disk now. Raises like `local`."""
        local = self._present(path)
        with disk.explained("read", local), local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
