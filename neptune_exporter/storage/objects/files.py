# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run on an object store: uploaded as soon as they are whole, fetched when they are needed."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any

from neptune_exporter.errors import DamagedDataError, ExporterError, StagingError
from neptune_exporter.storage import disk, names
from neptune_exporter.storage.files import FileReader, FileWriter
from neptune_exporter.storage.manifest import FileEntry
from neptune_exporter.storage.objects.path import ObjectPath
from neptune_exporter.storage.objects.uploads import Uploads
from neptune_exporter.storage.place import Place

AHEAD, AHEAD_BYTES = 8, 4 << 20  # how many files are fetched before they are wanted, and how big each may be


class ObjectFileWriter(FileWriter):
    """Stores the files of one export of one run; see `FileWriter`.

    Args:
        target: the project's files folder.
        scratch: an existing folder on this machine.
        uploads: brings them there.
        folder: the run's folder in the files folder.
        generation: of the export.
        apart: keeps the names apart from those of any other export of this run.
    """

    def __init__(
        self, target: ObjectPath, scratch: Path, uploads: Uploads, folder: str, generation: int, apart: str
    ) -> None:
        super().__init__(scratch, folder, generation, apart=apart)
        self._target = target
        self._scratch = scratch
        self._uploads = uploads

    def _temporary(self, path: str) -> Path:
        return self._scratch / f"{uuid.uuid4().hex}.tmp"

    def _store(self, temporary: Path, path: str) -> None:
        self._uploads.add(temporary, self._target, path)

    def remove(self, paths: Iterable[str]) -> None:
        """See `FileWriter`."""
        unused = list(paths)
        if unused:
            self._uploads.wait()
            self._target.remove(unused)

    def remove_all(self) -> None:
        """See `FileWriter`."""
        self.remove(self.entries)
        self.entries.clear()


class ObjectFileReader(FileReader):
    """Reads the files of one run; see `FileReader`. What it fetches stays on this machine until it is closed.

    Files come in the order of their paths, as a rule: with each the next small ones are fetched, too.
    """

    def __init__(self, root: ObjectPath, entries: Mapping[str, FileEntry] | None, check: Callable[[], None]) -> None:
        super().__init__(Path(), entries, check)
        self._objects = root
        self._sizes: dict[str, dict[str, int]] = {}
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._scratch: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._fetched: dict[str, Future[Path]] = {}
        self._begun = 0

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_scratch", "_pool", "_fetched", "_order")
        return {key: value for key, value in self.__dict__.items() if key not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @cached_property
    def _order(self) -> tuple[list[FileEntry], dict[str, int]]:
        """The files in order, and where each of them stands."""
        return list(self.known.values()), {path: number for number, path in enumerate(self.known)}

    def local(self, path: str) -> Path:
        """Fetches the file, whole and as the manifest says. Raises `DamagedDataError`."""
        self._check_name(path)
        with self._lock:
            wanted = self._start(path)
            entries, places = self._order
            next_one = places.get(path, len(entries)) + 1
            for entry in entries[next_one : next_one + AHEAD]:
                if entry.bytes <= AHEAD_BYTES and names.is_inside(entry.path):
                    self._start(entry.path)
        try:
            return wanted.result()
        except BaseException:
            with self._lock:  # whoever asks again may have more luck
                self._fetched.pop(path, None)
            raise

    def _start(self, path: str) -> Future[Path]:
        if path not in self._fetched:
            if self._pool is None:
                self._scratch = tempfile.TemporaryDirectory(prefix="neptune-exporter-", ignore_cleanup_errors=True)
                self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="files")
            self._begun += 1
            local = Path(self._scratch.name, f"{self._begun}{names.extension(path)}")
            self._fetched[path] = self._pool.submit(self._download, path, local)
        return self._fetched[path]

    def _download(self, path: str, local: Path) -> Path:
        with disk.create(local) as file:
            self._fetch(path, file)
        return local

    def open(self, path: str) -> BufferedReader:
        """The content, whole and as the manifest says; it leaves nothing on this machine. Raises like `local`."""
        self._check_name(path)
        with disk.explained("write into", tempfile.gettempdir()):
            file: Any = tempfile.TemporaryFile(prefix="neptune-exporter-")  # noqa: SIM115 - the caller closes it
        try:
            self._fetch(path, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        opened: BufferedReader = file
        return opened

    def close(self) -> None:
        """See `FileReader`."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._scratch.cleanup()
                self._scratch, self._pool, self._fetched = None, None, {}

    def check(self, path: str) -> None:
        """See `FileReader`: looked up in a list of the run's folder."""
        self._check_name(path)
        size = self._listed(path).get(path)
        if size is None:
            raise self._missing(path)
        self._refuse_unknown(path)
        known = self.known.get(path)
        if known is not None and known.bytes != size:
            raise self._differs(path, f"has {size} bytes instead of {known.bytes}")

    def place(self, path: str) -> Place:
        """See `FileReader`."""
        return self._objects / path

    def members(self, path: str) -> list[str]:
        """See `FileReader`."""
        if not names.is_inside(path):
            return []
        return sorted(name for name in self._listed(path) if name.startswith(f"{path}/"))

    def size(self, path: str) -> int:
        """See `FileReader`."""
        known = self.known.get(path)
        if known is not None:
            return known.bytes
        self.check(path)
        return self._listed(path)[path]

    def hash_content(self, path: str) -> str:
        """See `FileReader`. Nothing is kept on this machine."""
        self._check_name(path)
        self._check_known(path)
        digest = hashlib.sha256()
        with self._explained(path):
            for chunk in (self._objects / path).stream():
                digest.update(chunk)
        return digest.hexdigest()

    def _check_known(self, path: str) -> None:
        if self._proven and path not in self.known:
            self.check(path)  # raises

    def _fetch(self, path: str, file: Any) -> None:
        self._check_known(path)
        known = self.known.get(path)
        with self._explained(path):
            size, sha256 = fetch(self._objects / path, file)
        if known is not None and (size, sha256) != (known.bytes, known.sha256):
            raise self._differs(path, "is not what the manifest says")

    def _check_name(self, path: str) -> None:
        if not names.is_inside(path):
            raise DamagedDataError(
                f"The file path {path!r} leaves the files folder.", "This archive is not to be trusted."
            )

    def _listed(self, path: str) -> dict[str, int]:
        """Sizes of the files that lie where this one does: in the run's own folder, or for want of one in all."""
        start = _folder_of(path)
        with self._lock:
            if start not in self._sizes:
                self._sizes[start] = self._objects.below(start)
            return self._sizes[start]

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self._missing(path) from None

    def _missing(self, path: str) -> ExporterError:
        self._check()
        return DamagedDataError(f"{self._objects / path} is missing.", "Restore it, or check --files-path.")

    def _differs(self, path: str, how: str) -> StagingError:
        self._check()
        return DamagedDataError(
            f"{self._objects / path} {how}.",
            "Restore it from a backup, or export the run again with --overwrite.",
        )


def _folder_of(path: str) -> str:
    """The folder of a run that a path names, with a slash at its end; "" if it lies in none."""
    segments = path.split("/")
    depth = 2 if segments[0] in names.KIND_FOLDERS.values() else 1
    return "/".join(segments[:depth]) + "/" if len(segments) > depth else ""


def fetch(path: ObjectPath, file: Any) -> tuple[int, str]:
    """Writes an object into an open file. Returns its size in bytes and its SHA-256. Raises `FileNotFoundError`."""
    digest, size = hashlib.sha256(), 0
    for chunk in path.stream():
        with disk.explained("write into", tempfile.gettempdir()):
            file.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
