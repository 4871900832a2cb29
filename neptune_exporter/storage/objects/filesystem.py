# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Google Cloud Storage and Azure through fsspec, whose exclusive writes are the stores' own conditional puts.

Experimental: nothing here has met the real services yet. Credentials are found by gcsfs and adlfs in their usual way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from neptune_exporter.errors import ExporterError, MissingExtraError, StagingError, StoreAccessError
from neptune_exporter.storage.objects.store import OnBytes

READ_BYTES = 8 << 20
_PACKAGES = {"gs": ("gcs", "gcsfs"), "abfs": ("azure", "adlfs")}
_TIMES = ("updated", "last_modified", "LastModified", "mtime", "timeCreated", "created", "creation_time")
_REFUSED = ("Forbidden", "Unauthorized", "Authorization", "Authentication", "Credentials", "invalid_grant", "Anonymous")


def open_filesystem(scheme: str, bucket: str = "") -> Any:
    """The fsspec file system of a scheme. Raises `MissingExtraError`, or `StoreAccessError` without credentials."""
    extra, package = _PACKAGES[scheme]
    try:
        import fsspec

        __import__(package)
    except ImportError:
        raise MissingExtraError(extra, package) from None
    try:
        # Listings must show what was written a moment ago by somebody else.
        found, _ = fsspec.core.url_to_fs(f"{scheme}://{bucket}/", use_listings_cache=False, skip_instance_cache=True)
    except Exception as error:
        hint = f"See how {package} finds credentials."
        raise StoreAccessError(f"Cannot connect to {scheme}://{bucket}: {error}.", hint) from error
    return found


class FilesystemStore:
    """A bucket as fsspec shows it; see `Store`.

    Args:
        filesystem: of fsspec; its `pipe_file(mode="create")` must be atomic.
        scheme: for messages.
        bucket: its name; for Azure `container@account.dfs.core.windows.net` will do.
    """

    def __init__(self, filesystem: Any, scheme: str, bucket: str) -> None:
        self._files = filesystem
        self._scheme = scheme
        self._bucket = bucket
        self._root = str(filesystem._strip_protocol(f"{scheme}://{bucket}")).rstrip("/")  # noqa: SLF001 - its own way
        self._lock = threading.Lock()
        self.requests: dict[str, int] = Counter()

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See `Store`."""
        folder, _, start = prefix.rpartition("/")
        with self._explained(prefix, "list"):
            try:
                found = self._files.find(self._path(folder), detail=True, prefix=start)
            except FileNotFoundError:
                found = {}
        keys = {path.removeprefix(self._root).lstrip("/"): int(info["size"]) for path, info in found.items()}
        yield from sorted(item for item in keys.items() if item[0].startswith(prefix))

    def folders(self, prefix: str) -> list[str]:
        """See `Store`."""
        with self._explained(prefix, "list"):
            try:
                found = self._files.ls(self._path(prefix.rstrip("/")), detail=True)
            except FileNotFoundError:
                found = []
        return sorted(item["name"].rstrip("/").rpartition("/")[2] for item in found if item["type"] == "directory")

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        how = {} if start == 0 and length is None else {"start": start, "end": start + (length or 0)}
        with self._explained(key, "read"):
            content: bytes = self._files.cat_file(self._path(key), **how)
        return content

    def stream(self, key: str) -> Iterator[bytes]:
        """See `Store`."""
        with self._explained(key, "read"):
            size = int(self._files.info(self._path(key))["size"])
        for start in range(0, size, READ_BYTES):
            yield self.read(key, start, min(READ_BYTES, size - start))

    def aged(self, key: str) -> tuple[bytes, float]:
        """See `Store`. The store's clock is taken to be ours."""
        content = self.read(key)
        with self._explained(key, "read"):
            info = self._files.info(self._path(key))
        written = next((info[name] for name in _TIMES if info.get(name)), None)
        if isinstance(written, str):
            written = datetime.fromisoformat(written)
        written = written.timestamp() if isinstance(written, datetime) else written
        return content, 0.0 if written is None else time.time() - float(written)

    def put(self, key: str, source: Path | bytes, on_bytes: OnBytes | None = None) -> None:
        """See `Store`."""
        with self._explained(key, "write"):
            if isinstance(source, bytes):
                self._files.pipe_file(self._path(key), source)
            else:
                self._files.put_file(str(source), self._path(key))

    def create(self, key: str, content: bytes) -> bool:
        """See `Store`."""
        with self._explained(key, "write"):
            try:
                self._files.pipe_file(self._path(key), content, mode="create")
            except FileExistsError:
                try:
                    return bool(self._files.cat_file(self._path(key)) == content)
                except FileNotFoundError:
                    return False
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """See `Store`."""
        for key in keys:
            with self._explained(key, "remove"):
                try:
                    self._files.rm_file(self._path(key))
                except FileNotFoundError:
                    continue

    def abandon(self, prefix: str) -> None:
        """See `Store`: these services forget unfinished uploads by themselves, within a week."""

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    @contextmanager
    def _explained(self, key: str, doing: str) -> Iterator[None]:
        with self._lock:
            self.requests[doing] += 1
        place = f"{self._scheme}://{self._bucket}/{key}"
        try:
            yield
        except (ExporterError, FileNotFoundError):
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:500] or type(error).__name__
            if isinstance(error, PermissionError) or any(word in f"{type(error).__name__} {said}" for word in _REFUSED):
                raise StoreAccessError(
                    f"Cannot {doing} {place}: {said}.", "Check the credentials and roles."
                ) from error
            hint = "Run the same command again: what is finished is kept."
            raise StagingError(f"Cannot {doing} {place}: {said}.", hint) from error
