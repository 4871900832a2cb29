# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Files from the server's storage: signed URLs, resumed or begun again, checked for size.

The client gives up a file at the first reset, keeps what it has got so far under the final name, and never waits
less than for ever; here a file is either whole or a problem with its name.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import PurePosixPath

import httpx
import pyarrow as pa

from neptune_exporter import __version__
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.exporters.neptune3.attributes import FileRef, Run, bisected, groups
from neptune_exporter.exporters.neptune3.client import CONNECT_SECONDS, Client, RequestError, failure
from neptune_exporter.exporters.patience import ATTEMPTS, TryAgainError
from neptune_exporter.model import FILE_TYPE, MICRO, NO_VALUE, rows_batch

CHUNK_BYTES = 1 << 20
SIGNED_AT_ONCE = 100
DOWNLOADS_AT_ONCE = 8
SILENCE_SECONDS = 60.0  # a download that gives nothing for so long has failed
_EXPIRED = {400, 401, 403}
_SIGNATURES = 3


class _ExpiredError(Exception):
    """The signed URL is not accepted any more."""


class _StartAgainError(Exception):
    """What came so far is of another version of the file."""


class Downloads:
    """Brings the files of runs.

    Args:
        client: signs URLs.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._http = httpx.Client(
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=True,
            headers={"User-Agent": f"neptune-exporter/{__version__}", "Accept-Encoding": "identity"},
        )
        client.pace(self._http)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def batches(self, run: Run, refs: Sequence[FileRef], files: Files, findings: Findings) -> Iterator[pa.RecordBatch]:
        """Stores files and gives the rows that name them. One that cannot be had is a problem, and nothing else."""

        def lost(ref: FileRef, error: RequestError) -> None:
            findings.problem(error.problem(ref.attribute))

        def signed(group: list[FileRef], attempts: int) -> tuple[list[tuple[FileRef, str]], list[FileRef]]:
            return self._signed(run, group, attempts), []

        def download(item: tuple[FileRef, str]) -> tuple[FileRef, str] | None:
            ref, url = item
            try:
                return ref, self._download(run, ref, url, files)
            except RequestError as error:
                lost(ref, error)
                return None

        cut = groups(refs, lambda ref: ref.path, SIGNED_AT_ONCE)
        pool = ThreadPoolExecutor(min(DOWNLOADS_AT_ONCE, max(1, len(refs))))
        try:
            for urls in bisected(cut, signed, lost, str(run.ref)):
                stored = [item for item in pool.map(download, urls) if item is not None]
                yield from _rows(run, stored)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _signed(self, run: Run, refs: Sequence[FileRef], attempts: int) -> list[tuple[FileRef, str]]:
        body = {
            "files": [
                {"path": ref.path, "permission": "read", "project_identifier": run.ref.project_id} for ref in refs
            ]
        }
        signed = self._client.post("/api/storagebridge/v1/signedUrl", body, _urls, attempts=attempts)
        if [path for path, _ in signed] != [ref.path for ref in refs]:
            raise RequestError("the server signs other files than it was asked for")
        return [(ref, url) for ref, (_, url) in zip(refs, signed, strict=True)]

    def _download(self, run: Run, ref: FileRef, url: str, files: Files) -> str:
        name = PurePosixPath(ref.path).name
        if not PurePosixPath(name).suffix:
            name += mimetypes.guess_extension(ref.mime) or ""
        step = None if ref.step is None else Decimal(ref.step) / MICRO

        def sign() -> str:
            return self._signed(run, [ref], ATTEMPTS)[0][1]

        for _ in range(ATTEMPTS):
            try:
                return files.add(ref.attribute, name, self._chunks(ref, url, sign), step=step)
            except _StartAgainError:
                url = sign()
        raise RequestError("the file changes while it is downloaded")

    def _chunks(self, ref: FileRef, url: str, sign: Callable[[], str]) -> Iterator[bytes]:
        """The content of a file, gone on with where a connection broke."""
        transfer = _Transfer(self._http, ref, url)
        failures = signatures = 0
        while True:
            before = transfer.done
            try:
                with self._client.patience.in_line():
                    yield from transfer.chunks()
            except _ExpiredError as error:
                signatures += 1
                if signatures > _SIGNATURES:
                    raise RequestError(f"the file cannot be downloaded: {error}") from error
                transfer.url = sign()
            except (httpx.TransportError, TryAgainError) as error:
                failures = 1 if transfer.done > before else failures + 1
                words = f"{type(error).__name__}: {error}" if isinstance(error, httpx.TransportError) else str(error)
                if failures >= ATTEMPTS:
                    raise RequestError(f"the file cannot be downloaded: {words}") from error
                again = error if isinstance(error, TryAgainError) else TryAgainError(words)
                self._client.patience.rest(again, failures)
            else:
                return


class _Transfer:
    """The bytes of one file, over as many connections as it takes.

    Attributes:
        url: the signed URL.
        done: how many bytes came so far.
    """

    def __init__(self, http: httpx.Client, ref: FileRef, url: str) -> None:
        self._http = http
        self._ref = ref
        self._tag = ""
        self.url = url
        self.done = 0

    def chunks(self) -> Iterator[bytes]:
        """What is still to come. Raises if the connection breaks or the file does not end where it should."""
        with self._http.stream("GET", self.url, headers=_range(self.done, self._tag)) as response:
            if response.status_code in _EXPIRED:
                raise _ExpiredError(f"the server answers {response.status_code} to a signed URL")
            skip, self._tag = _accepted(response, self.done, self._tag)
            for chunk in response.iter_raw(CHUNK_BYTES):
                new = chunk[skip:]
                skip = max(0, skip - len(chunk))
                if new:
                    self.done += len(new)
                    yield new
        expected = self._ref.bytes
        if expected and self.done > expected:
            raise RequestError(f"the file has {self.done} bytes instead of {expected}")
        if expected and self.done < expected:
            raise TryAgainError(f"the file ends after {self.done} of {expected} bytes")


def _range(done: int, tag: str) -> dict[str, str]:
    if not done:
        return {}
    return {"Range": f"bytes={done}-", **({"If-Range": tag} if tag else {})}


def _accepted(response: httpx.Response, done: int, tag: str) -> tuple[int, str]:
    """How many bytes of the answer are known already, and the version of the file. Raises what the status means."""
    found = response.headers.get("ETag", "")
    if done and tag != found:
        raise _StartAgainError
    if response.status_code == httpx.codes.PARTIAL_CONTENT and done:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise _StartAgainError
        return 0, found
    if response.status_code == httpx.codes.OK:
        if done and not found:
            raise _StartAgainError
        return done, found
    if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise RequestError("the file is not in the server's storage: it was never uploaded, or is gone", 404)
    response.read()
    raise failure(response)


def _urls(content: bytes) -> list[tuple[str, str]]:
    return [(file["path"], file["url"]) for file in json.loads(content)["files"]]


def _rows(run: Run, stored: Sequence[tuple[FileRef, str]]) -> Iterator[pa.RecordBatch]:
    for kind in ("file", "file_series"):
        chosen = [(ref, path) for ref, path in stored if ref.type == kind]
        if not chosen:
            continue
        attributes = pa.array([ref.attribute for ref, _ in chosen], pa.string())
        places = pa.StructArray.from_arrays([pa.array([path for _, path in chosen])], fields=list(FILE_TYPE))
        points = {}
        if kind == "file_series":
            points = {
                "step_micros": pa.array([ref.step for ref, _ in chosen], pa.int64()).to_numpy(),
                "time_ms": pa.array([ref.time for ref, _ in chosen], pa.int64()).fill_null(NO_VALUE).to_numpy(),
            }
        yield rows_batch(run.ref, attributes, kind, file_value=places, **points)
