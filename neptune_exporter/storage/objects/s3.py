# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""S3, and what speaks like it, through boto3.

boto3 and not a file system layer, because it finds credentials wherever the AWS tools do, knows `If-None-Match`,
and aborts a multipart upload that fails.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stamina

from neptune_exporter.certificates import refuse_untrusted
from neptune_exporter.errors import MissingExtraError, StagingError, StoreAccessError, UsageError
from neptune_exporter.s3_answers import Answer, answer_of, meaning_of
from neptune_exporter.storage.objects.store import CHUNK_BYTES, OnBytes

PART_BYTES = 16 << 20
KEYS_PER_DELETE = 1000
ATTEMPTS = 8
_RETRY_MODES = ("standard", "adaptive", "legacy")
_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
_PERMISSIONS = (
    "It takes s3:ListBucket, s3:GetObject, and to write s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload."
)
_AGAIN = "Run the same command again: what is finished is kept."


class SettingsError(UsageError):
    """What the environment or the options say of S3 means nothing: the command ends, not only a run."""

    fatal = True


class S3Store:
    """A bucket of S3; see `Store`.

    Args:
        bucket: its name.
        endpoint: the server, "" for what AWS_ENDPOINT_URL or the AWS configuration says.

    Raises:
        MissingExtraError: boto3 is not installed.
        SettingsError: the endpoint is none, or AWS_MAX_ATTEMPTS or AWS_RETRY_MODE mean nothing.
    """

    def __init__(self, bucket: str, endpoint: str = "") -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise MissingExtraError("s3", "boto3") from None
        self._bucket = bucket
        self._lock = threading.Lock()
        self.requests: dict[str, int] = Counter()
        custom = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries=_retries(),
            max_pool_connections=64,
            # Servers other than Amazon's seldom have a host name for each bucket.
            s3={"addressing_style": "path"} if custom else {},
        )
        self._where = custom or "Amazon S3"
        try:
            with self._explained("", "connect to"):
                self._client: Any = boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)
        except ValueError as error:
            raise SettingsError(f"{error}.", "An endpoint looks like https://minio.example:9000") from None
        self._client.meta.events.register("before-send.s3", self._count)

    def _count(self, event_name: str, **_: Any) -> None:
        with self._lock:
            self.requests[event_name.rpartition(".")[2]] += 1

    # --- reading

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See `Store`."""
        for page in self._pages("list_objects_v2", prefix):
            for item in page.get("Contents", ()):
                yield item["Key"], item["Size"]

    def folders(self, prefix: str) -> list[str]:
        """See `Store`."""
        pages = self._pages("list_objects_v2", prefix, Delimiter="/")
        found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        return [name.removeprefix(prefix).rstrip("/") for name in found]

    def _pages(self, operation: str, prefix: str, **how: Any) -> Iterator[dict[str, Any]]:
        with self._explained(prefix, "list"):
            yield from self._client.get_paginator(operation).paginate(Bucket=self._bucket, Prefix=prefix, **how)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        return b"".join(self._chunks(key, start, length))

    def stream(self, key: str) -> Iterator[bytes]:
        """See `Store`."""
        return self._chunks(key, 0, None)

    def _chunks(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        if length == 0:
            return
        end = None if length is None else start + length
        position, etag = start, None
        with self._explained(key, "read"):
            for attempt in stamina.retry_context(on=_is_broken, attempts=6, timeout=300, wait_max=10):
                with attempt:
                    how: dict[str, Any] = {}
                    if position or end is not None:
                        how["Range"] = f"bytes={position}-{'' if end is None else end - 1}"
                    if etag is not None:
                        how["IfMatch"] = etag
                    answer = self._client.get_object(Bucket=self._bucket, Key=key, **how)
                    etag = answer["ETag"]
                    for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                        position += len(chunk)
                        yield chunk

    def aged(self, key: str) -> tuple[bytes, float]:
        """See `Store`."""
        from email.utils import parsedate_to_datetime

        with self._explained(key, "read"):
            for attempt in stamina.retry_context(on=_is_broken, attempts=6, timeout=60):
                with attempt:
                    answer = self._client.get_object(Bucket=self._bucket, Key=key)
                    content: bytes = answer["Body"].read()
                    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
                    age = now.timestamp() - answer["LastModified"].timestamp()
        return content, age

    # --- writing

    def put(self, key: str, source: Path | bytes, on_bytes: OnBytes | None = None) -> None:
        """See `Store`."""
        with self._explained(key, "write"):
            if isinstance(source, bytes):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=source)
            elif source.stat().st_size < PART_BYTES:
                with source.open("rb") as file:
                    self._client.put_object(Bucket=self._bucket, Key=key, Body=file)
            else:
                self._upload(key, source, on_bytes)

    def _upload(self, key: str, source: Path, on_bytes: OnBytes | None) -> None:
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)
        self._client.upload_file(str(source), self._bucket, key, Config=config, Callback=on_bytes)

    def create(self, key: str, content: bytes) -> bool:
        """See `Store`."""
        try:
            with self._explained(key, "write"):
                for attempt in stamina.retry_context(on=_is_busy, attempts=8, timeout=60):
                    with attempt:
                        self._client.put_object(Bucket=self._bucket, Key=key, Body=content, IfNoneMatch="*")
        except _ThereAlreadyError:
            # Perhaps by ourselves: the answer to an earlier attempt may have been lost.
            try:
                return self.read(key) == content
            except FileNotFoundError:
                return False
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """See `Store`."""
        for start in range(0, len(keys), KEYS_PER_DELETE):
            some = [{"Key": key} for key in keys[start : start + KEYS_PER_DELETE]]
            with self._explained(some[0]["Key"], "remove"):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": some, "Quiet": True})
            for refused in answer.get("Errors", ()):
                code = str(refused.get("Code", ""))
                answered = Answer(meaning_of(code), code, str(refused.get("Message", "")))
                raise self._error(answered, refused.get("Key", ""), "remove")

    def abandon(self, prefix: str) -> None:
        """See `Store`."""
        for page in self._pages("list_multipart_uploads", prefix):
            for item in page.get("Uploads", ()):
                if item["Key"].startswith(prefix):
                    with self._explained(item["Key"], "end the upload of"):
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"]
                        )

    # --- what goes wrong

    @contextmanager
    def _explained(self, key: str, doing: str) -> Iterator[None]:
        """Turns the errors of boto3 into ours."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            refuse_untrusted(error, self._where, StoreAccessError)
            raise self._error(answer_of(error), key, doing) from error

    def _error(self, answer: Answer, key: str, doing: str) -> Exception:
        place = f"s3://{self._bucket}/{key}"
        if answer.meaning == "no key":
            return FileNotFoundError(2, "There is no such object", place)
        if answer.meaning == "changed":
            return _ThereAlreadyError(f"Cannot {doing} {place}: another command has just written it.", _AGAIN)
        if answer.meaning == "no credentials":
            return StoreAccessError(
                f"There are no credentials for S3: {answer.message}.".replace("..", "."), _CREDENTIALS
            )
        if answer.meaning == "no bucket":
            return StoreAccessError(
                f"There is no bucket {self._bucket} at {self._where}.",
                "Make it, or check --data-path and --files-path.",
            )
        if answer.meaning == "refused":
            hint = _PERMISSIONS if answer.code in ("AccessDenied", "Forbidden", "403") else _CREDENTIALS
            return StoreAccessError(f"{self._where} refuses to {doing} {place}: {answer.text}".rstrip(".") + ".", hint)
        if answer.meaning == "unreachable":
            return StagingError(
                f"Cannot {doing} {place}: {' '.join(answer.message.split())}".rstrip(".") + ".",
                f"Is the endpoint right, and up? {_AGAIN}",
            )
        return StagingError(f"Cannot {doing} {place}: S3 answered {answer.text}".rstrip(".") + ".", _AGAIN)


def _retries() -> dict[str, Any]:
    """How often what fails is tried again: as the variables of the AWS tools say. Raises `SettingsError`."""
    attempts = os.environ.get("AWS_MAX_ATTEMPTS") or str(ATTEMPTS)
    if not (attempts.isascii() and attempts.isdigit() and int(attempts)):
        raise SettingsError(f"AWS_MAX_ATTEMPTS is {attempts!r}, not a positive whole number.", "Correct or unset it.")
    mode = os.environ.get("AWS_RETRY_MODE") or "standard"
    if mode not in _RETRY_MODES:
        raise SettingsError(f"AWS_RETRY_MODE is {mode!r}, not {' or '.join(_RETRY_MODES)}.", "Correct or unset it.")
    return {"total_max_attempts": int(attempts), "mode": mode}


class _ThereAlreadyError(StagingError):
    """A put that refuses to replace found something."""


def _is_busy(error: Exception) -> bool:
    """Whether somebody else was putting the same object: S3 wants to be asked again."""
    return answer_of(error).code in ("ConditionalRequestConflict", "OperationAborted")


def _is_broken(error: Exception) -> bool:
    """Whether a connection broke while an answer was being read: boto3 itself only repeats what is before that."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    return isinstance(error, (IncompleteReadError, ReadTimeoutError, ResponseStreamingError))
