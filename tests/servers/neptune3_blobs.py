# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The file storage of a Neptune server: signed URLs, uploads and downloads as S3, GCS and Azure do them."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from servers.http import HttpError, Reply, Request
from servers.neptune3_store import Store


class Blobs:
    """Files by (project, storage path).

    Attributes:
        provider: which storage it pretends to be: aws, gcp or azure.
        part_bytes: files that are larger are uploaded to aws in parts of this size.
        gone: storage paths that are not there.
        ranges: whether it answers to ranges.
        expired_status: what an expired URL is answered with.
    """

    def __init__(self, store: Store, url: Callable[[], str]) -> None:
        self.provider = "aws"
        self.part_bytes = 1 << 20
        self.gone: set[str] = set()
        self.ranges = True
        self.expired_status = 403
        self._store = store
        self._url = url
        self._signatures: dict[str, tuple[str, str]] = {}
        self._valid_from = 0
        self._numbers = itertools.count(1)
        self._parts: dict[str, dict[int, bytes]] = {}

    def expire(self) -> None:
        """All URLs given so far have expired."""
        self._valid_from = next(self._numbers)

    def sign(self, request: Request) -> Reply:
        """`signedUrl`."""
        return Reply.json({"files": [self._signed(item) for item in request.json()["files"]]})

    def _signed(self, item: dict[str, Any]) -> dict[str, Any]:
        answer = {
            "path": item["path"],
            "project_identifier": item["project_identifier"],
            "provider": self.provider,
            "url": self._sign(item["project_identifier"], item["path"]),
        }
        size = item.get("size") or 0
        if item["permission"] == "write" and self.provider == "aws" and size > self.part_bytes:
            upload = f"upload-{next(self._numbers)}"
            self._parts[upload] = {}
            count = -(-size // self.part_bytes)
            urls = [f"{answer['url']}&upload={upload}&part={n}" for n in range(count)]
            answer["multipart"] = {"upload_id": upload, "part_size": self.part_bytes, "part_urls": urls}
        return answer

    def _sign(self, project: str, path: str) -> str:
        number = str(next(self._numbers))
        self._signatures[number] = (project, path)
        return f"{self._url()}/storage/{quote(project)}/{quote(path)}?sig={number}"

    def complete(self, request: Request) -> Reply:
        """`s3/completeMultipartUpload`."""
        body = request.json()
        parts = self._parts.pop(body["upload_id"])
        content = b"".join(parts[number] for number in sorted(parts))
        self._store.blobs[body["project_identifier"], body["path"]] = content
        return Reply.json({})

    def serve(self, request: Request) -> Reply:
        """Everything below `/storage/`."""
        number = request.one("sig")
        if number not in self._signatures:
            raise HttpError(Reply(b"<Error/>", 403))
        if int(number) < self._valid_from:
            return Reply(b"<Error><Code>AccessDenied</Code></Error>", self.expired_status)
        key = self._signatures[number]
        if request.method in ("GET", "HEAD"):
            return self._download(request, key)
        tag = {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"', "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}
        if request.method == "POST":  # gcp: begins a resumable upload
            return Reply(b"", 201, {"Location": f"{self._url()}{request.target}&session=1"})
        if request.one("upload"):
            self._parts[request.one("upload")][int(request.one("part"))] = request.body
            return Reply(b"", 200, tag)
        if "content-range" in request.headers:
            return self._resumed(request, key, tag)
        self._store.blobs[key] = request.body
        return Reply(b"", 201 if self.provider == "azure" else 200, {**tag, "x-ms-request-server-encrypted": "true"})

    def _resumed(self, request: Request, key: tuple[str, str], tag: dict[str, str]) -> Reply:
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers["content-range"])
        start = int(match[1] or 0)
        content = self._store.blobs.get(key, b"")[:start] + request.body
        self._store.blobs[key] = content
        if match[3] != "*" and len(content) >= int(match[3]):
            return Reply(b"", 200, tag)
        return Reply(b"", 308, {"Range": f"bytes=0-{len(content) - 1}"} if content else {})

    def _download(self, request: Request, key: tuple[str, str]) -> Reply:
        content = self._store.blobs.get(key)
        if content is None or key[1] in self.gone:
            return Reply(b"<Error><Code>NoSuchKey</Code></Error>", 404)
        headers = {
            "ETag": f'"{hashlib.md5(content).hexdigest()}"',
            "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
            "Content-Type": "application/octet-stream",
            "x-ms-blob-type": "BlockBlob",
        }
        wanted = request.headers.get("x-ms-range") or request.headers.get("range")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        other = request.headers.get("if-range")
        if not match or not self.ranges or (other and other != headers["ETag"]):
            return Reply(content, 200, headers)
        start = int(match[1])
        if start >= len(content):
            return Reply(b"", 416, {"Content-Range": f"bytes */{len(content)}", "x-ms-error-code": "InvalidRange"})
        part = content[start : int(match[2]) + 1 if match[2] else None]
        span = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        return Reply(part, 206, {**headers, "Content-Range": span})
