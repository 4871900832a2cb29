# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The one place that touches the inside of the `neptune` client: its session and its tokens.

Everything else about a request is ours: the decoding (the client's costs 13 microseconds a point), the timeouts (the
client has none for downloads), the retries (the client asks 300 times a second with an expired token), the messages.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from neptune_exporter.certificates import refuse_untrusted
from neptune_exporter.errors import AccessError, Problem, SourceError
from neptune_exporter.exporters.patience import (
    ATTEMPTS,
    Patience,
    RequestError,
    ServerGoneError,
    TryAgainError,
    retry_after,
)
from neptune_exporter.pace import Pace

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)
T = TypeVar("T")

LEADERBOARD = "/api/leaderboard/v1"
ATTRIBUTES = f"{LEADERBOARD}/attributes"
BACKEND = "/api/backend/v1"
ARTIFACTS = "/api/artifacts/v1"

CONNECT_SECONDS = 15
READ_SECONDS = 120
CHUNK_BYTES = 1 << 20
_PASSING = {408, 425, 429, 502, 503, 504}  # what a server says that is only busy
_UNREADABLE_ATTEMPTS = 3  # an answer that was cut short on its way but looks whole
_TOKEN_HINT = "Check the API token in NEPTUNE_API_TOKEN or --api-token, then run the same command again."  # noqa: S105


class RefusedError(RequestError):
    """The server understood and said no.

    Attributes:
        title: the server's own words, "" without any.
    """

    def __init__(self, message: str, status: int, title: str) -> None:
        super().__init__(message, status)
        self.title = title

    @property
    def for_good(self) -> bool:
        """Whether the same request will not do better; permissions may be given yet."""
        return self.status not in (401, 403)

    def problem(self, attribute: str) -> Problem:
        """The failure as what is reported of an attribute."""
        return Problem(self.message, attribute, "permanent" if self.for_good else "retry")


class Client:
    """Requests to one server with the client's session.

    Args:
        api_token: from the user.
        retry_timeout: seconds that a request is tried again.
        connections: how many at a time.
        per_second: requests a second of the whole command, 0 for no limit.

    Raises:
        AccessError: the token is malformed or refused.
        SourceError: the server does not answer, or is not a Neptune 2.x server.
    """

    def __init__(self, api_token: str, retry_timeout: float, connections: int, per_second: float = 0.0) -> None:
        import requests

        if not api_token:
            raise AccessError("There is no Neptune API token.", "Set NEPTUNE_API_TOKEN or use --api-token.")
        self._requests = requests
        self._token_lock = threading.Lock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client's deprecations are none of the user's business
            self._http, self.url = _connected(api_token, retry_timeout)
        self.patience = Patience(retry_timeout, self.url, per_second)
        self._session = self._http.session
        for session in (self._session, self._http.authenticator.auth.session):
            _pace(session, self.patience.pace, connections)
        self._swagger: dict[str, Any] | None = None

    def close(self) -> None:
        """Closes the connections, and ends all waiting."""
        self.patience.end()
        self._session.close()

    # --- requests

    def json(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        body: Any = None,
        **headers: str,
    ) -> Any:
        """The JSON that the server answers. Raises `RequestError`, `AccessError` or `ServerGoneError`."""
        return self.read(path, json.loads, params, method=method, body=body, headers=headers)

    def read(self, path: str, decode: Callable[[bytes], T], params: Mapping[str, Any] | None = None, **how: Any) -> T:
        """The server's answer, decoded; asked for again if `decode` raises ValueError. Raises like `json`."""
        for left in reversed(range(_UNREADABLE_ATTEMPTS)):
            content: bytes = self.send(path, params, **how).content
            try:
                return decode(content)
            except ValueError as error:
                logger.info("An answer to %s cannot be read: %s", path, error)
                if not left:
                    raise RequestError(f"The server's answer to {path} cannot be read: {error}.") from None
        raise AssertionError  # the last attempt returns or raises

    def send(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """The server's answer, tried again while it is busy. Raises like `json`.

        Args:
            path: below the server's address, or a whole address.
            params: the query.
            method: GET or POST.
            body: sent as JSON.
            headers: more headers.
            stream: whether the body is left to be read; a connection that breaks then is the reader's to handle.
        """
        url = path if "://" in path else self.url + path
        request = self._requests.Request(method, url, params=params, json=body, headers=dict(headers or {}))

        def ask() -> Any:
            response = self._once(request, stream)
            if response.status_code >= 300:
                raise _failure(response, path)
            return response

        response: requests.Response = self.patience.attempt(ask, attempts=ATTEMPTS, probe=self._probe)  # type: ignore[assignment]
        return response

    def _once(self, request: requests.Request, stream: bool) -> requests.Response:
        """Sends once; with a fresh token again if the server does not know ours any more."""
        for fresh in (False, True):
            token = self._authorize(request)
            try:
                prepared = self._session.prepare_request(request)
                settings = self._session.merge_environment_settings(
                    prepared.url, {}, stream, self._session.verify, None
                )
                response: requests.Response = self._session.send(
                    prepared, timeout=(CONNECT_SECONDS, READ_SECONDS), **settings
                )
            except self._requests.RequestException as error:
                refuse_untrusted(error, self.url, AccessError)
                raise TryAgainError(f"the connection to {self.url} failed: {_reason(error)}") from None
            if response.status_code != 401:
                return response
            response.close()
            if not fresh:
                self._forget(token)
        raise AccessError(f"{self.url} does not accept the API token any more.", _TOKEN_HINT)

    def _authorize(self, request: requests.Request) -> str:
        """Puts a valid access token on the request, got by one thread for all."""
        auth = self._http.authenticator.auth
        with self._token_lock, _explained(self.url):
            auth.refresh_token_if_needed()
            request.auth = auth
            return str(auth.session.token.get("access_token"))

    def _forget(self, token: str) -> None:
        """Has the next request get a new token, unless somebody has got one since."""
        auth = self._http.authenticator.auth
        with self._token_lock:
            if auth.session.token.get("access_token") == token:
                auth.token_expires_at = 0

    def _probe(self) -> bool:
        """Whether the server answers what it has answered before: so a server that is gone is told from one failure."""
        try:
            alive = self._session.get(f"{self.url}{BACKEND}/clients/config", timeout=CONNECT_SECONDS)
        except self._requests.RequestException:
            return False
        return int(alive.status_code) < 500

    # --- what the server can do

    def parameters(self, path: str) -> set[str] | None:
        """The parameters that the server declares for a GET of a path, None if it has no such path."""
        if self._swagger is None:
            self._swagger = self.json("/api/leaderboard/swagger.json")
        operation = self._swagger.get("paths", {}).get(path, {}).get("get")
        return None if operation is None else {p["name"] for p in operation.get("parameters", ()) if "name" in p}


def _pace(session: Any, pace: Pace, connections: int) -> None:
    """Has every request of a session wait until the rate allows for it."""
    from requests.adapters import HTTPAdapter

    class PacedAdapter(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            pace.take()
            return super().send(*args, **kwargs)

    for scheme in ("http://", "https://"):
        session.mount(scheme, PacedAdapter(pool_connections=4, pool_maxsize=connections + 4))


def _failure(response: requests.Response, path: str) -> Exception:
    """What an answer that is no success means."""
    try:
        said = response.json()
        title = str(said.get("title") or said.get("message") or said.get("errorType") or "")
    except (ValueError, AttributeError):
        title = ""
    finally:
        response.close()
    status = response.status_code
    message = f"The server answered {status}{f' ({title})' if title else ''} to {path}"
    if status not in _PASSING and status < 500:
        return RefusedError(f"{message}.", status, title)
    return TryAgainError(message, after=retry_after(response.headers.get("Retry-After")), busy=status == 429)


def _reason(error: BaseException) -> str:
    """The innermost reason of a failed connection."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


# --- the client's inside


def _silence() -> None:
    """Keeps the client's log off the screen."""
    for name in ("neptune", "neptune_no_prefix"):
        client_logger = logging.getLogger(name)
        client_logger.handlers[:] = [logging.NullHandler()]
        client_logger.propagate = False


def _connected(api_token: str, retry_timeout: float) -> tuple[Any, str]:
    """The client's HTTP client with a token that is good, and the server's address."""
    import neptune.common.backends.utils as client_retries
    from neptune.common.exceptions import NeptuneInvalidApiTokenException
    from neptune.internal.backends.hosted_client import create_http_client_with_auth
    from neptune.internal.backends.utils import ssl_verify
    from neptune.internal.credentials import Credentials

    _silence()
    client_retries.retries_timeout = min(client_retries.retries_timeout, retry_timeout)
    try:
        credentials = Credentials.from_token(api_token)
    except NeptuneInvalidApiTokenException:
        raise AccessError("The Neptune API token is malformed.", f"{_TOKEN_HINT} It is one long word.") from None
    url = str(credentials.api_url_opt or credentials.token_origin_address).rstrip("/")
    url = url if "://" in url else f"https://{url}"
    _probe(url)
    with _explained(url):
        http, config = create_http_client_with_auth(credentials, ssl_verify(), None)
        http.authenticator.auth.refresh_token_if_needed()
    return http, str(config.api_url).rstrip("/")


def _probe(url: str) -> None:
    """Asks for the document that every Neptune server has, before the client waits minutes for it."""
    import requests
    from neptune.internal.backends.utils import ssl_verify

    hint = "The address is part of the API token. Is the server up, and reachable from here?"
    try:
        response = requests.get(f"{url}/api/backend/swagger.json", timeout=CONNECT_SECONDS, verify=ssl_verify())
    except requests.RequestException as error:
        refuse_untrusted(error, url, SourceError)
        raise SourceError(f"Cannot reach {url}: {_reason(error)}.", hint) from None
    if response.status_code in (401, 403, 404):
        raise SourceError(f"{url} is not a Neptune 2.x server: it answered {response.status_code}.", hint)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns what the client raises about tokens and connections into our own errors."""
    from neptune.common.exceptions import (
        Forbidden,
        NeptuneConnectionLostException,
        NeptuneException,
        NeptuneInvalidApiTokenException,
        Unauthorized,
    )
    from oauthlib.oauth2 import OAuth2Error
    from oauthlib.oauth2.rfc6749.errors import InsecureTransportError

    try:
        yield
    except InsecureTransportError:
        raise SourceError(
            f"{url} is not encrypted, which Neptune's client refuses.",
            "If you trust the network, set OAUTHLIB_INSECURE_TRANSPORT=1.",
        ) from None
    except (OAuth2Error, NeptuneInvalidApiTokenException, Unauthorized, Forbidden):
        raise AccessError(f"{url} does not accept the API token.", _TOKEN_HINT) from None
    except NeptuneConnectionLostException:
        raise ServerGoneError(f"{url} does not answer.", "Run the same command again later.") from None
    except NeptuneException as error:
        raise SourceError(f"{url} does not work with the installed Neptune client: {type(error).__name__}.") from error
