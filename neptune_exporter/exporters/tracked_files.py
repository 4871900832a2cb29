# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The content of artifacts: files that Neptune 1.x and 2.x only remember by place and hash, on a disk or in S3."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow as pa

from neptune_exporter.errors import MissingExtraError, Problem
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.model import RunRef, rows_batch

_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 4
_GONE = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}


@dataclass(frozen=True, slots=True)
class TrackedFile:
    """One file of an artifact.

    Attributes:
        name: its path in the artifact.
        location: `file://…` or `s3://…`.
        hash: SHA-1 of a file on disk, ETag of an object in S3; None if nobody has looked.
        size: in bytes, None if unknown.
        type: `Local` or `S3`.
        metadata: what else the client noted, location included.
    """

    name: str
    location: str
    hash: str | None
    size: int | None
    type: str
    metadata: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As the server lists it."""
        metadata = [{"key": key, "value": value} for key, value in sorted(self.metadata.items())]
        named = {"filePath": self.name, "fileHash": self.hash, "type": self.type, "size": self.size}
        return {**named, "metadata": metadata}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrackedFile:
        """The inverse of `to_json`."""
        metadata = {str(item["key"]): str(item["value"]) for item in value.get("metadata") or ()}
        location = metadata.get("location") or metadata.get("file_path") or ""
        kind = str(value.get("type"))
        return cls(str(value["filePath"]), location, value.get("fileHash"), value.get("size"), kind, metadata)


class ContentError(Exception):
    """The content of a tracked file is not to be had any more; the message says why."""


class TrackedFiles:
    """Fetches tracked files.

    Args:
        s3_endpoint_url: where S3 is, "" for Amazon's.
    """

    def __init__(self, s3_endpoint_url: str = "") -> None:
        self._endpoint = s3_endpoint_url or None
        self._lock = threading.Lock()
        self._s3_client: Any = None

    def rows(
        self,
        ref: RunRef,
        path: str,
        artifact_hash: str | None,
        tracked: Sequence[TrackedFile],
        files: Files,
        findings: Findings,
        wants: Callable[[TrackedFile], bool] = lambda _file: True,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of an artifact: its list as a JSON file, then each content, named in `string_value`.

        Content that cannot be had is reported; the list says what it was.
        """
        listed = {"hash": artifact_hash, "files": [file.to_json() for file in tracked]}
        content = json.dumps(listed, ensure_ascii=True, indent=1).encode()
        paths, names = [files.add(f"{path}/files_list.json", "files_list.json", [content])], [None]
        for file in tracked:
            if not wants(file):
                continue
            try:
                stored = files.add(f"{path}/{file.name}", file.name, self._content(file))
            except ContentError as error:
                findings.problem(Problem(f"{file.name}: {error}", path))
            else:
                paths.append(stored)
                names.append(file.name)  # type: ignore[arg-type]
        yield member_rows(ref, path, "artifact", paths, names)

    def _content(self, file: TrackedFile) -> Iterator[bytes]:
        place = urlparse(file.location)
        if place.scheme == "s3":
            return self._from_s3(file, place.netloc, file.location.partition("://")[2].partition("/")[2])
        if place.scheme in ("file", ""):
            return _from_disk(file, Path(local_path(file.location)))
        return _refuse(f"{file.location} is at a place that this version does not know")

    # --- S3

    def list_s3(self, location: str, destination: str | None) -> list[TrackedFile]:
        """The objects below an S3 address, as the client would track them.

        Raises:
            ContentError: there is nothing, or it cannot be listed.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        tracked = []
        try:
            for page in self._s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"]
                    start = str(PurePosixPath(prefix).parent) if key == prefix else prefix
                    name = key[len(start.lstrip(".")) :].lstrip("/")
                    name = str(PurePosixPath(destination or "") / name).lstrip("/")
                    place = f"s3://{bucket}/{key}"
                    modified = item["LastModified"].strftime("%Y-%m-%d %H:%M:%S")
                    metadata = {"location": place, "last_modified": modified}
                    tracked.append(TrackedFile(name, place, item["ETag"].strip('"'), item["Size"], "S3", metadata))
        except (ClientError, BotoCoreError) as error:
            raise ContentError(f"{location} cannot be listed: {error}.") from None
        if not tracked:
            raise ContentError(f"There is nothing at {location}.")
        return tracked

    def _s3(self) -> Any:
        with self._lock:
            if self._s3_client is None:
                try:
                    import boto3
                except ImportError:
                    raise MissingExtraError("neptune2", "boto3") from None
                self._s3_client = boto3.client("s3", endpoint_url=self._endpoint)
            return self._s3_client

    def _from_s3(self, file: TrackedFile, bucket: str, key: str) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError, ClientError

        given, failures = 0, 0
        while True:
            more = {"Range": f"bytes={given}-"} if given else {}
            try:
                reply = self._s3().get_object(Bucket=bucket, Key=key, **more)
                if file.hash is not None and reply["ETag"].strip('"') != file.hash:
                    raise ContentError(f"{file.location} has changed since it was tracked.")
                for chunk in reply["Body"].iter_chunks(_CHUNK_BYTES):
                    given += len(chunk)
                    yield chunk
                break
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                what = "does not exist any more" if code in _GONE else f"cannot be read: {code}"
                raise ContentError(f"{file.location} {what}.") from None
            except (BotoCoreError, OSError) as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise ContentError(f"{file.location} cannot be read: {error}") from None
        if file.size is not None and given != file.size:
            raise ContentError(f"{file.location} has {given} bytes instead of {file.size}.")


def member_rows(
    ref: RunRef, path: str, attribute_type: str, paths: Sequence[str], names: Sequence[Any]
) -> pa.RecordBatch:
    """A row for each file of a set or an artifact.

    Args:
        ref: the run.
        path: the attribute path.
        attribute_type: `file_set` or `artifact`.
        paths: what belongs into `file_value.path`.
        names: what the source calls each of them; None for what is no member. Goes into `string_value`.
    """
    exact = [name if name is not None and _is_text(name) else None for name in names]
    return rows_batch(
        ref,
        path,
        attribute_type,
        file_value=pa.StructArray.from_arrays([pa.array(paths, pa.string())], ["path"]),
        string_value=pa.array(exact, pa.string()),
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def local_path(location: str) -> str:
    """A path on disk from a `file://` address (which the client does not quote) or a bare path."""
    path = location.removeprefix("file://")
    return path if Path(path).exists() else unquote(path)


def list_local(location: Path, destination: str | None) -> list[TrackedFile]:
    """The files of a folder, or a single file, as the client would track them.

    Raises:
        ContentError: there is nothing, or it cannot be read.
    """
    try:
        is_folder = location.is_dir()
        found = sorted(location.rglob("*")) if is_folder else [location]
        tracked = []
        for path in (p for p in found if p.is_file()):
            name = path.relative_to(location).as_posix() if is_folder else path.name
            name = name if destination is None else (PurePosixPath(destination) / name).as_posix()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
            place = f"file://{path.resolve().as_posix()}"
            tracked.append(TrackedFile(name, place, digest, path.stat().st_size, "Local", {"file_path": place}))
    except OSError as error:
        raise ContentError(f"{location} cannot be read: {error.strerror or error}.") from None
    if not tracked:
        raise ContentError(f"{location} is not on this machine; the log holds only its place.")
    return tracked


def _from_disk(file: TrackedFile, path: Path) -> Iterator[bytes]:
    digest, given = hashlib.sha1(usedforsecurity=False), 0
    try:
        if not path.is_file():
            raise ContentError(f"{path} is not on this machine; Neptune holds only its place and hash.")
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                given += len(chunk)
                yield chunk
    except OSError as error:
        raise ContentError(f"{path} cannot be read: {error.strerror or error}.") from None
    if file.hash is not None and digest.hexdigest() != file.hash:
        raise ContentError(f"{path} has changed since it was tracked.")


def _refuse(reason: str) -> Iterator[bytes]:
    raise ContentError(f"{reason}.")
    yield b""
