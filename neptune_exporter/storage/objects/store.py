# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What an object store has to offer, and which one an address means.

The commit protocol needs no more than this: reads and lists that see what was written before, and a put that refuses
to replace (`create`). Renames, locks and conditional deletes are not among it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from neptune_exporter.errors import UsageError
from neptune_exporter.secrets import without_credentials

SCHEMES = ("s3", "gs", "abfs")
_ALSO = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
CHUNK_BYTES = 1 << 20

OnBytes = Callable[[int], None]


class Store(Protocol):
    """One bucket. Calls may come from several threads.

    Every method raises `StoreAccessError` if the store refuses us or the bucket is not there, `FileNotFoundError`
    if an object is not there, and `StagingError` if the store does not do what it should, after patient retries.

    Attributes:
        requests: how many requests were sent, by their name; retries count.
    """

    requests: dict[str, int]

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size in bytes of all objects below a prefix, in order."""

    def folders(self, prefix: str) -> list[str]:
        """The names that follow a prefix up to the next slash, of objects that lie below them."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The content of an object, or a piece of it."""

    def stream(self, key: str) -> Iterator[bytes]:
        """The content of an object in chunks; a connection that breaks is taken up again where it broke."""

    def aged(self, key: str) -> tuple[bytes, float]:
        """The content of an object, and how many seconds ago it was written, by the store's own clock."""

    def put(self, key: str, source: Path | bytes, on_bytes: OnBytes | None = None) -> None:
        """Stores an object, over an existing one. What `on_bytes` raises ends the upload and leaves nothing."""

    def create(self, key: str, content: bytes) -> bool:
        """Stores an object that is not there yet; of several who try at once, one succeeds.

        Returns:
            Whether the object has now this content; not if it was there with another one.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects, those that are not there as well."""

    def abandon(self, prefix: str) -> None:
        """Ends uploads below a prefix that were begun and never finished."""


def split_address(address: str) -> tuple[str, str, str] | None:
    """Scheme, bucket and key of an address such as `s3://bucket/key`; None if it is a path on this machine.

    Raises:
        UsageError: it is an address that nothing here understands.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        begun, colon, rest = address.partition(":")
        if colon and begun.lower() in (*SCHEMES, *_ALSO):
            raise UsageError(
                f"{address} is not an address: two slashes are missing.",
                f"Write {begun.lower()}://BUCKET/PREFIX, or ./{begun}:… if a folder of that name is meant.",
            )
        return None
    scheme = _ALSO.get(scheme.lower(), scheme.lower())
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES:
        raise UsageError(
            f"{address} is not a place for a staging area.", "Use a folder, s3://BUCKET/…, gs://BUCKET/… or abfs://…"
        )
    if not bucket:
        raise UsageError(f"{address} names no bucket.", f"Write {scheme}://BUCKET/PREFIX.")
    if ":" in bucket or ("@" in bucket and scheme != "abfs"):  # abfs has its account there
        raise UsageError(
            f"{without_credentials(address)} names more than a bucket.",
            f"Write {scheme}://BUCKET/PREFIX: user names, passwords and servers have other places, see docs/cli.md.",
        )
    if {".", ".."} & set(key.split("/")):
        raise UsageError(
            f"{address} goes up or stays with '..' or '.', which means nothing in a bucket.", "Leave it out."
        )
    return scheme, bucket, key.strip("/")


_connecting = threading.Lock()


def connect(scheme: str, bucket: str, endpoint: str = "") -> Store:
    """The store of a bucket, one per process."""
    with _connecting:
        return _connected(scheme, bucket, endpoint)


@lru_cache(maxsize=16)
def _connected(scheme: str, bucket: str, endpoint: str) -> Store:
    if scheme == "s3":
        from neptune_exporter.storage.objects.s3 import S3Store

        return S3Store(bucket, endpoint)
    from neptune_exporter.storage.objects.filesystem import FilesystemStore, open_filesystem

    return FilesystemStore(open_filesystem(scheme, bucket), scheme, bucket)


def forget_connections() -> None:
    """Connects anew the next time: credentials may have changed. For tests."""
    _connected.cache_clear()
