# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Requests to Pluto: keep-alive connections, patience with a server that is busy, and its errors in our words.

Some requests may be sent again whatever became of the first: points of a metric are replaced by step, a config is
merged. Others may not: rows of a series and the names of files are only ever added. Where such a request breaks off
so that nobody knows whether it was taken, `StartAgainError` says that only a new run can be exact.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import stamina

from neptune_exporter.certificates import refuse_untrusted
from neptune_exporter.errors import StartAgainError, TargetAccessError, TargetError
from neptune_exporter.pace import Pace

logger = logging.getLogger(__name__)
logging.getLogger("stamina").addHandler(logging.NullHandler())
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0
RETRY_SECONDS = 300.0
RETRY_ATTEMPTS = 12
LONGEST_WAIT = 30.0
CHUNK_BYTES = 1 << 20
_BUSY = {408, 425, 429}
_TIMED_OUT = 504  # of a gateway: what is behind it may have done what it was asked
_REFUSED_ATTEMPTS = 3  # a good key is refused while Pluto's token service starts
_KEY_HINT = "Check PLUTO_API_KEY or --pluto-api-key; keys are made at {app}/api-keys."


class RefusedError(TargetError):
    """Pluto understood a request and said no.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, hint: str = "", status: int = 400) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, status)
        self.status = status


class _TryAgainError(Exception):
    """The request may succeed soon; `after` is how long the server asks us to wait, in seconds."""

    def __init__(self, message: str, after: float | None = None, *, sent: bool = True) -> None:
        super().__init__(message)
        self.message, self.after, self.sent = message, after, sent


class Client:
    """One Pluto server.

    Args:
        app: where people look at runs.
        api: the address of the API.
        ingest: the address that takes points and files.
        api_key: from the user.
        pace: how many requests it gets.

    Methods raise `TargetError` if the server does not answer, `RefusedError` if it says no, and
    `TargetAccessError` if it refuses the key.
    """

    def __init__(self, app: str, api: str, ingest: str, api_key: str, pace: Pace) -> None:
        self.app, self.api, self.ingest, self._pace = app, api, ingest, pace
        if not api_key:
            raise TargetAccessError("There is no Pluto API key.", _KEY_HINT.format(app=app))
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        agent = {"User-Agent": "neptune-exporter"}
        # The store of files has presigned addresses and must not see the key.
        self._store = httpx.Client(timeout=timeout, headers=agent, follow_redirects=True)
        try:
            authorized = {**agent, "Authorization": f"Bearer {api_key}"}
            self._http = httpx.Client(timeout=timeout, headers=authorized)
        except UnicodeEncodeError:
            raise TargetAccessError("The Pluto API key is malformed.", _KEY_HINT.format(app=app)) from None

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
        self._store.close()

    def get(self, path: str, params: Mapping[str, Any]) -> Any:
        """What the API answers to a GET, as JSON."""
        return _json(self._request("GET", f"{self.api}{path}", params=params), path)

    def post(
        self,
        path: str,
        value: Mapping[str, Any] | None = None,
        *,
        attempts: int = RETRY_ATTEMPTS,
        seconds: float = ANSWER_SECONDS,
    ) -> Any:
        """What the API answers to a POST that may be sent again, as JSON."""
        how: dict[str, Any] = {
            "content": b"" if value is None else json.dumps(value).encode(),
            "headers": {"Content-Type": "application/json"},
            "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS),
        }
        return _json(self._request("POST", f"{self.api}{path}", attempts=attempts, **how), path)

    def take(self, path: str, content: bytes, headers: Mapping[str, str], *, repeatable: bool) -> httpx.Response:
        """Sends something to be kept.

        Raises:
            StartAgainError: not `repeatable`, and nobody knows whether it was taken.
        """
        return self._request("POST", f"{self.ingest}{path}", repeatable=repeatable, content=content, headers=headers)

    def put(self, url: str, path: Path, content_type: str) -> None:
        """Uploads a file to a presigned address."""
        # With its length said: a store does not take chunks.
        headers = {"Content-Type": content_type, "Content-Length": str(path.stat().st_size)}

        def once() -> httpx.Response:
            with path.open("rb") as file:
                return self._store.put(url, content=_pieces(file), headers=headers)

        self._patiently(once, httpx.URL(url).host)

    def download(self, url: str, target: Path) -> bool:
        """Fetches a file from a presigned address; False if it is not there."""

        def once() -> httpx.Response:
            with self._store.stream("GET", url) as answer, target.open("wb") as file:
                for piece in answer.iter_bytes(CHUNK_BYTES):
                    file.write(piece)
                return answer

        try:
            self._patiently(once, httpx.URL(url).host)
        except RefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _request(
        self, method: str, url: str, *, repeatable: bool = True, attempts: int = RETRY_ATTEMPTS, **how: Any
    ) -> httpx.Response:
        path = httpx.URL(url).path

        def once() -> httpx.Response:
            return self._http.request(method, url, **how)

        return self._patiently(once, path, repeatable=repeatable, attempts=attempts)

    def _patiently(
        self,
        once: Callable[[], httpx.Response],
        what: str,
        *,
        repeatable: bool = True,
        attempts: int = RETRY_ATTEMPTS,
    ) -> httpx.Response:
        refusals = 0
        try:
            for attempt in stamina.retry_context(
                _wait, attempts=attempts, timeout=RETRY_SECONDS, wait_initial=0.2, wait_max=LONGEST_WAIT
            ):
                with attempt:
                    self._pace.take()
                    with _sending(what, repeatable=repeatable):
                        answer = once()
                    refusals += answer.status_code == 401
                    self._judge(answer, what, repeatable=repeatable, last=refusals >= _REFUSED_ATTEMPTS)
                    return answer
        except _TryAgainError as error:
            if not error.sent:
                hint = "Is it running, and reachable from here? Set --pluto-host or PLUTO_URL_API and PLUTO_URL_INGEST."
                raise TargetError(f"No Pluto server answers at {self.api}: {error.message}.", hint) from None
            raise TargetError(f"Pluto at {self.api}: {error.message}.", "Run the same command again later.") from None
        raise AssertionError  # a retry context ends with a return or an exception

    def _judge(self, answer: httpx.Response, what: str, *, repeatable: bool, last: bool) -> None:
        status = answer.status_code
        if status < 300:
            return
        said = _said(answer)
        message = f"it answered {status}{f' ({said})' if said else ''} to {what}"
        if status in (401, 403) and (last or status == 403):
            raise TargetAccessError(f"Pluto at {self.api} refuses the API key.", _KEY_HINT.format(app=self.app))
        if status == _TIMED_OUT and not repeatable:
            raise StartAgainError(f"Pluto at {self.api}: {message}.")
        if status in _BUSY or status == 401 or status >= 500:
            raise _TryAgainError(message, _seconds(answer.headers.get("Retry-After")))
        raise RefusedError(f"Pluto at {self.api}: {message}.", status=status)


@contextmanager
def _sending(what: str, *, repeatable: bool) -> Iterator[None]:
    """Turns failed connections into what can be done about them."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        refuse_untrusted(error, "Pluto", TargetAccessError)
        raise _TryAgainError(_reason(error), sent=False) from None
    except httpx.TransportError as error:
        message = f"the connection broke during {what}: {_reason(error)}"
        if not repeatable:
            raise StartAgainError(f"Pluto: {message}.", "Run the same command again: it loads the run anew.") from None
        raise _TryAgainError(message) from None
    except httpx.InvalidURL as error:
        raise TargetError(f"This is no address of a Pluto server: {error}.", "Set --pluto-host.") from None


def _wait(error: Exception) -> bool | float:
    if not isinstance(error, _TryAgainError):
        return False
    logger.info("Trying again: %s", error.message)
    return True if error.after is None else min(error.after, LONGEST_WAIT)


def _seconds(text: str | None) -> float | None:
    """A `Retry-After` in seconds; one that is a date is not worth parsing."""
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _json(answer: httpx.Response, path: str) -> Any:
    try:
        return answer.json()
    except ValueError:
        host = answer.request.url.host
        raise TargetError(
            f"{host} does not answer as Pluto does to {path}.", "Is this the address of Pluto's API?"
        ) from None


def _said(answer: httpx.Response) -> str:
    """The server's own words."""
    try:
        value = answer.json()
        return str(value.get("error") or value.get("message") or "")[:300]
    except (ValueError, AttributeError, httpx.ResponseNotRead):
        return ""


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
