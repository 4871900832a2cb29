# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Files in S3: sent in parts with checksums, fetched from where they are recorded to be, and checked against it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from neptune_exporter.errors import AccessError, MissingExtraError, SourceError, UsageError
from neptune_exporter.registry.local_files import is_text
from neptune_exporter.registry.parallel import OnBytes
from neptune_exporter.registry.settings import ENVIRONMENT, TrackingLibraryBackendSettings
from neptune_exporter.s3_answers import answer_of

KEY_BYTES = 1024  # the longest key of S3, in UTF-8
SHA256 = "neptune-exporter-sha256"
_MEGABYTE = 1 << 20
_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."


class MissingObjectError(SourceError):
    """The object is not in the bucket."""


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object, as it is now.

    Attributes:
        bucket: its bucket.
        key: its key.
        etag: without quotes.
        size: in bytes.
        modified: when it was written.
        sha256: of its content, where we have stored it.
    """

    bucket: str
    key: str
    etag: str
    size: int
    modified: datetime
    sha256: str | None = None

    @property
    def location(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"


def split_location(location: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`, the key exactly as it stands there. Raises `SourceError`."""
    scheme, _, rest = location.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise SourceError(f"{location!r} is no location in S3.")
    return bucket, key


def wanted_bucket(settings: TrackingLibraryBackendSettings) -> str:
    """The configured bucket. Raises `UsageError` saying how to name one."""
    if not settings.s3_backend_bucket:
        raise UsageError(
            "Files are to go to S3, but no bucket is set.",
            f"Set {ENVIRONMENT}S3_BACKEND_BUCKET, or call configure_s3_storage_backend(s3_backend_bucket=…); "
            f"to store with Neptune, {ENVIRONMENT}USE_S3_BACKEND=false.",
        )
    return settings.s3_backend_bucket


class S3Storage:
    """Talks to S3. The methods may be called from several threads.

    Args:
        settings: endpoint and size of parts.

    Every method raises `AccessError` if our credentials are refused or missing, and `SourceError` if S3 does not
    answer, refuses something else, or a bucket does not exist.
    """

    def __init__(self, settings: TrackingLibraryBackendSettings) -> None:
        try:
            import boto3
            from boto3.s3.transfer import TransferConfig
            from botocore.config import Config
        except ImportError:
            raise MissingExtraError("registry", "boto3") from None
        self.endpoint = settings.s3_endpoint_url or os.environ.get("S3_ENDPOINT_URL") or None
        # Servers other than Amazon's seldom have a host name for each bucket.
        style = {"addressing_style": "path"} if self.endpoint else {}
        retries = {"max_attempts": 5, "mode": "standard"}
        config = Config(connect_timeout=10, read_timeout=60, retries=retries, max_pool_connections=64, s3=style)
        with _explained("", self.endpoint):
            self._client = boto3.session.Session().client("s3", endpoint_url=self.endpoint, config=config)
        part = settings.s3_part_megabytes * _MEGABYTE
        self._config = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=4)

    def bucket(self, name: str) -> Any:
        """boto3's own object for a bucket."""
        import boto3

        return boto3.session.Session().resource("s3", endpoint_url=self.endpoint).Bucket(name)

    def upload(self, path: Path, bucket: str, key: str, on_bytes: OnBytes) -> S3Object:
        """Stores a file under a key. Unless this returns, nothing new is there.

        Raises:
            UsageError: the key is too long.
        """
        check_key(key)
        before = path.stat()
        sha256 = file_sha256(path)
        with _explained(f"s3://{bucket}/{key}", self.endpoint):
            extra = {"Metadata": {SHA256: sha256}}
            self._client.upload_file(str(path), bucket, key, ExtraArgs=extra, Config=self._config, Callback=on_bytes)
        stored = self.look(bucket, key)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise SourceError(f"{path} was changed while it was uploaded.", "Upload it again.")
        if (stored.size, stored.sha256) != (before.st_size, sha256):
            raise SourceError(f"{stored.location} was written by somebody else at the same time.", "Upload it again.")
        return stored

    def look(self, bucket: str, key: str) -> S3Object:
        """An object without its content. Raises `MissingObjectError`."""
        try:
            with _explained(f"s3://{bucket}/{key}", self.endpoint):
                head = self._client.head_object(Bucket=bucket, Key=key)
        except MissingObjectError:
            with _explained(f"s3://{bucket}/", self.endpoint, missing="NoSuchBucket"):
                self._client.head_bucket(Bucket=bucket)  # the answer to the first question did not say what is missing
            raise
        sha256 = head.get("Metadata", {}).get(SHA256)
        return S3Object(bucket, key, head["ETag"].strip('"'), head["ContentLength"], head["LastModified"], sha256)

    def download(
        self,
        bucket: str,
        key: str,
        target: Path,
        on_bytes: OnBytes,
        *,
        etag: str | None = None,
        size: int | None = None,
    ) -> None:
        """Fetches an object and checks it.

        Args:
            bucket: where it is.
            key: likewise.
            target: where to write it.
            on_bytes: told how many bytes have come.
            etag: what it had when it was recorded, None if nobody knows.
            size: likewise, in bytes.

        Raises:
            MissingObjectError: it is gone.
            SourceError: it was changed since it was recorded, or did not come whole.
        """
        found = self.look(bucket, key)
        if (etag is not None and found.etag != etag) or (size is not None and found.size != size):
            raise SourceError(
                f"{found.location} was changed since it was recorded (ETag {found.etag} instead of {etag}).",
                "Upload it again, or fetch it from S3 yourself if the new content is what you want.",
            )
        with _explained(found.location, self.endpoint):
            self._client.download_file(bucket, key, str(target), Config=self._config, Callback=on_bytes)
        if target.stat().st_size != found.size:
            raise SourceError(f"{found.location} came with {target.stat().st_size} bytes instead of {found.size}.")
        if found.sha256 is not None and file_sha256(target) != found.sha256:
            raise SourceError(f"{found.location} is not what was uploaded: its SHA-256 differs.", "Download it again.")

    def objects(self, bucket: str, prefix: str) -> Iterator[S3Object]:
        """All objects whose key begins with a prefix; their SHA-256 is not known."""
        with _explained(f"s3://{bucket}/{prefix}", self.endpoint):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield S3Object(bucket, item["Key"], item["ETag"].strip('"'), item["Size"], item["LastModified"])

    def put_empty(self, bucket: str, key: str) -> None:
        """Makes an empty object."""
        with _explained(f"s3://{bucket}/{key}", self.endpoint):
            self._client.put_object(Bucket=bucket, Key=key, Body=b"")

    def delete(self, bucket: str, key: str) -> None:
        """Removes an object."""
        with _explained(f"s3://{bucket}/{key}", self.endpoint):
            self._client.delete_object(Bucket=bucket, Key=key)


def version_prefix(prefix: str, project: str, version: str) -> str:
    """`[prefix/]workspace/project/version`."""
    return "/".join(filter(None, [prefix, project, version]))


def check_key(key: str) -> None:
    """Raises `UsageError` if S3 cannot hold the key."""
    if not is_text(key) or len(key.encode()) > KEY_BYTES:
        raise UsageError(f"The key {key!r} is longer than S3 allows ({KEY_BYTES} bytes), or no text.")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(location: str, endpoint: str | None, missing: str = "NoSuchKey") -> Iterator[None]:
    """Turns the errors of boto3 into ours; `missing` is what an answer of 404 without more words means."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise _our_error(error, location, endpoint, missing) from error


def _our_error(error: BaseException, location: str, endpoint: str | None, missing: str) -> Exception:
    answer = answer_of(error, missing)
    bucket = location.removeprefix("s3://").partition("/")[0]
    if answer.meaning == "refused":
        return AccessError(f"S3 refuses our credentials for {location}: {answer.text}", _CREDENTIALS)
    if answer.meaning == "no credentials":
        return AccessError(f"There are no credentials for S3: {answer.message}.", _CREDENTIALS)
    if answer.meaning == "no bucket":
        return SourceError(f"There is no bucket {bucket}.", f"Make it, or set {ENVIRONMENT}S3_BACKEND_BUCKET.")
    if answer.meaning == "no key":
        return MissingObjectError(f"{location} does not exist.", "Was it deleted, or is it in another bucket?")
    if answer.meaning == "changed":
        return SourceError(f"{location} was changed while it was read.", "Try again.")
    if answer.meaning == "unreachable":
        where = endpoint or "Amazon S3"
        return SourceError(
            f"{location or 'S3'} cannot be reached at {where}: {answer.message}.", "Check the endpoint and the region."
        )
    return SourceError(f"{location}: S3 answered {answer.text}")
