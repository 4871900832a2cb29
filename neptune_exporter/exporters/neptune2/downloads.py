# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Files, file sets and image series: downloaded by us, checked, and tried again where they broke off."""

from __future__ import annotations

import hashlib
import mimetypes
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import IO, Any

import numpy as np
import pyarrow as pa
import requests
from urllib3.exceptions import HTTPError

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.exporters.neptune2.client import ATTRIBUTES, CHUNK_BYTES, LEADERBOARD, Client
from neptune_exporter.exporters.neptune2.values import Attribute
from neptune_exporter.exporters.patience import RequestError
from neptune_exporter.exporters.tracked_files import member_rows
from neptune_exporter.model import MICRO, NO_VALUE, RunRef, rows_batch

_ATTEMPTS = 5  # without a single new byte
_ARCHIVE_ATTEMPTS = 3
_IMAGE_ROWS = 1_000
_POLLS = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between questions whether an archive is ready; then the last one again
_LONGEST_PREPARATION = 1800.0
_BROKEN = (requests.RequestException, HTTPError, OSError)


class Downloads:
    """Downloads what belongs to runs.

    Args:
        client: to ask the server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def file(self, container_id: str, ref: RunRef, attribute: Attribute, files: Files) -> Iterator[pa.RecordBatch]:
        """A single file, its size and extension as the server says.

        Raises:
            RequestError: it cannot be had.
        """
        query = {"experimentId": container_id, "attribute": attribute.path}
        ext = attribute.properties.get("ext") or ""
        content = self.content(f"{ATTRIBUTES}/download", query, attribute.properties.get("size"))
        path = files.add(attribute.path, f"file.{ext}" if ext else "", content)
        column = pa.StructArray.from_arrays([pa.array([path], pa.string())], ["path"])
        return iter([rows_batch(ref, attribute.path, attribute.type, file_value=column)])

    # --- file sets

    def file_set(
        self, container_id: str, ref: RunRef, attribute: Attribute, files: Files, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        """A file set, unpacked: a row for each member, its name in the set in `string_value`.

        Raises:
            RequestError: it cannot be had.
        """
        query = {"experimentId": container_id, "attribute": attribute.path}
        with tempfile.TemporaryFile() as file, self._archive(query, file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            names = [member.filename for member in members]
            paths = [
                files.add(f"{attribute.path}/{name}", name, _member(archive, member))
                for name, member in zip(names, members, strict=True)
            ]
        if not paths:
            findings.empty(attribute.path, attribute.type)
            return iter(())
        return iter([member_rows(ref, attribute.path, attribute.type, paths, names)])

    def _archive(self, query: Mapping[str, str], file: IO[bytes]) -> zipfile.ZipFile:
        """The archive of a file set, downloaded and found whole."""
        for left in reversed(range(_ARCHIVE_ATTEMPTS)):
            file.seek(0)
            file.truncate()
            for chunk in self.content(self._archive_url(query), {}, None):
                file.write(chunk)
            try:
                archive = zipfile.ZipFile(file)
                if archive.testzip() is None:
                    return archive
                reason = "its checksums are wrong"
            except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
                reason = str(error)
            if not left:
                raise RequestError(f"The server sent an archive that cannot be unpacked: {reason}.")
        raise AssertionError  # the last attempt returns or raises

    def _archive_url(self, query: Mapping[str, str]) -> str:
        request = self._client.json(f"{ATTRIBUTES}/downloadFileSetZipRequest", query, method="POST")
        begin = time.monotonic()
        waits = iter(_POLLS)
        url = request.get("downloadUrl")
        while not url:
            reply = self._client.json(f"{LEADERBOARD}/download/downloadRequest", {"id": request["id"]})
            url = reply.get("downloadUrl")
            if not url:
                if time.monotonic() - begin > _LONGEST_PREPARATION:
                    raise RequestError(f"The server did not prepare the archive in {_LONGEST_PREPARATION:.0f} s.")
                time.sleep(next(waits, _POLLS[-1]))
        return str(url)

    # --- image series

    def images(
        self, container_id: str, ref: RunRef, attribute: Attribute, files: Files, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        """An image series. Of its steps the server tells only the last: see `_steps`.

        Raises:
            RequestError: an image cannot be had. Those before it are kept.
        """
        query: dict[str, Any] = {"experimentId": container_id, "attribute": attribute.path}
        total = self._client.json(f"{ATTRIBUTES}/series/image", {**query, "limit": 1, "offset": 0})["totalItemCount"]
        if not total:
            findings.empty(attribute.path, attribute.type)
            return iter(())
        steps = _steps(total, attribute, findings)
        return self._images(query, ref, attribute, files, steps)

    def _images(
        self, query: Mapping[str, Any], ref: RunRef, attribute: Attribute, files: Files, steps: list[Decimal]
    ) -> Iterator[pa.RecordBatch]:
        paths: list[str] = []
        done = 0
        failed: list[RequestError] = []
        for index, step in enumerate(steps):
            try:
                paths.append(self._image({**query, "index": index}, attribute, files, step))
            except RequestError as error:
                failed.append(error)
                yield from _image_rows(ref, attribute, paths, steps[done:])
                paths, done = [], index + 1
                continue
            if len(paths) == _IMAGE_ROWS:
                yield from _image_rows(ref, attribute, paths, steps[done:])
                paths, done = [], index + 1
        yield from _image_rows(ref, attribute, paths, steps[done:])
        if failed:
            first = failed[0]
            raise RequestError(f"{len(failed)} of {len(steps)} images are missing. {first.message}", first.status)

    def _image(self, query: Mapping[str, Any], attribute: Attribute, files: Files, step: Decimal) -> str:
        response = self._client.send(f"{ATTRIBUTES}/series/image/single", query, stream=True)
        mime = response.headers.get("Content-Type", "").partition(";")[0].strip()
        extension = mimetypes.guess_extension(mime) or f".{mime.rpartition('/')[2]}"
        content = self.content(f"{ATTRIBUTES}/series/image/single", query, None, response)
        return files.add(attribute.path, f"image{extension}", content, step=step)

    # --- content

    def content(
        self, path: str, query: Mapping[str, Any], size: int | None, response: requests.Response | None = None
    ) -> Iterator[bytes]:
        """The body of a reply in chunks, whole or not at all.

        A connection that breaks is taken up again: what was given already is skipped and must be the same.

        Args:
            path: what to ask for.
            query: likewise.
            size: how many bytes it must have, None if only the reply itself can tell.
            response: the reply, if it was asked for already.

        Raises:
            RequestError: it cannot be had, has another size, or changes while it is read.
        """
        given, digest, failures = 0, hashlib.sha256(), 0
        while True:
            before = given
            try:
                reply = response or self._client.send(path, query, headers={"Accept-Encoding": "identity"}, stream=True)
                response = None
                for chunk in _fresh(reply, given, digest.digest()):
                    given += len(chunk)
                    digest.update(chunk)
                    yield chunk
            except _BROKEN as error:
                reason = f"The download broke off after {given} bytes ({type(error).__name__})."
            else:
                if size is None or given == size:
                    return
                reason = f"The server sent {given} bytes instead of {size}."
                if given > size:
                    raise RequestError(reason)
            failures = 1 if given > before else failures + 1
            if failures >= _ATTEMPTS:
                raise RequestError(reason)


def _fresh(reply: requests.Response, skip: int, digest: bytes) -> Iterator[bytes]:
    """The chunks of a reply after the first `skip` bytes, which must have the digest that is known of them."""
    known, count = hashlib.sha256(), 0
    with reply:
        for chunk in reply.iter_content(CHUNK_BYTES):
            rest = chunk
            if count < skip:
                head = chunk[: skip - count]
                known.update(head)
                rest = chunk[len(head) :]
                if count + len(head) == skip and known.digest() != digest:
                    raise RequestError("The file changes while it is downloaded.")
            count += len(chunk)
            if rest:
                yield rest
        expected = reply.headers.get("Content-Length")
        if expected is not None and "Content-Encoding" not in reply.headers and count < int(expected):
            raise OSError(f"{count} of {expected} bytes")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    file: IO[bytes]
    with archive.open(member) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _image_rows(ref: RunRef, attribute: Attribute, paths: list[str], steps: list[Decimal]) -> Iterator[pa.RecordBatch]:
    if not paths:
        return
    micros = np.array([int(step * MICRO) for step in steps[: len(paths)]], np.int64)
    times = np.full(len(paths), NO_VALUE, np.int64)
    column = pa.StructArray.from_arrays([pa.array(paths, pa.string())], ["path"])
    yield rows_batch(ref, attribute.path, attribute.type, step_micros=micros, time_ms=times, file_value=column)


def _steps(total: int, attribute: Attribute, findings: Findings) -> list[Decimal]:
    """The steps of an image series.

    The server tells how many images there are and the step of the last. Where these agree with counting from 0, that
    is what they are. Otherwise the order is kept, the last has its step where that is possible, and the loss is said.
    """
    steps = [Decimal(index) for index in range(total)]
    last = attribute.properties.get("lastStep")
    if last is None or last == total - 1:
        return steps
    exact = Decimal(repr(float(last)))
    findings.problem(
        Problem(
            f"The server does not tell the steps of images: the last of {total} has step {exact.normalize():f}, "
            "the others are numbered in their order.",
            attribute.path,
            "permanent",
            max(total - 1, 1),
        )
    )
    if exact > total - 2 and exact * MICRO == (exact * MICRO).to_integral_value() and exact < 10**12:
        steps[-1] = exact
    return steps
