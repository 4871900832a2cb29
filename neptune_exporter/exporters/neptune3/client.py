# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The one place that touches the inside of `neptune-query`: its authenticated HTTP client and its messages.

Retries are ours: the client's block half an hour on a request that fails for good, cannot read a `Retry-After`
that is a date, and take no second look at a session that has ended.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import httpx
from google.protobuf.message import DecodeError
from neptune_query.generated.neptune_api import AuthenticatedClient
from neptune_query.generated.neptune_api.credentials import Credentials
from neptune_query.generated.neptune_api.errors import InvalidApiTokenException
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.attributes_pb2 import (
    ProtoQueryAttributesResultDTO as ValuesPage,
)
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.leaderboard_entries_pb2 import (
    ProtoLeaderboardEntriesSearchResultDTO as EntriesPage,
)
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.series_values_pb2 import (
    ProtoSeriesValuesResponseDTO as SeriesPage,
)
from neptune_query.generated.neptune_api.types import OAuthToken
from neptune_query.internal.env import NEPTUNE_HTTP_REQUEST_TIMEOUT_SECONDS, NEPTUNE_VERIFY_SSL

from neptune_exporter import __version__
from neptune_exporter.certificates import refuse_untrusted
from neptune_exporter.errors import AccessError
from neptune_exporter.exporters.neptune3.points import MalformedPageError
from neptune_exporter.exporters.patience import (
    ATTEMPTS,
    Patience,
    RequestError,
    TryAgainError,
    retry_after,
)

__all__ = ["Client", "EntriesPage", "RequestError", "SeriesPage", "ValuesPage", "value_of"]

LEADERBOARD = "/api/leaderboard/v1"
CONNECT_SECONDS = 15.0
TOKEN_HINT = "Check the API token in NEPTUNE_API_TOKEN or --api-token, then run the same command again."  # noqa: S105
_UNREADABLE = (DecodeError, MalformedPageError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError)

T = TypeVar("T")


class Client:
    """Requests to one server.

    Args:
        api_token: from the user.
        retry_timeout: seconds that a server which does not answer is tried again.
        per_second: requests a second of the whole command, 0 for no limit.

    Attributes:
        url: the server's address.
        patience: what is known of how it is.

    Raises:
        AccessError: there is no token, or it is malformed.
    """

    def __init__(self, api_token: str, retry_timeout: float, per_second: float = 0.0) -> None:
        self._api_token = api_token.strip()
        self.url = address_of(self._api_token)
        self.patience = Patience(retry_timeout, self.url, per_second)
        self._known_good: tuple[str, str, dict[str, Any]] | None = None
        credentials = Credentials(api_key=self._api_token, base_url=self.url)
        seconds = NEPTUNE_HTTP_REQUEST_TIMEOUT_SECONDS.get()
        client = AuthenticatedClient(
            base_url=self.url,
            credentials=credentials,
            api_key_exchange_callback=_exchange,
            verify_ssl=NEPTUNE_VERIFY_SSL.get(),
            timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            headers={"User-Agent": f"neptune-exporter/{__version__} neptune-query/{version('neptune-query')}"},
        )
        self._http: httpx.Client = client.get_httpx_client()
        self._sign_in: httpx.Client = client.get_token_refreshing_client().get_httpx_client()
        for http in (self._http, self._sign_in):
            self.pace(http)

    def pace(self, http: httpx.Client) -> None:
        """Has every request of a client, those that only sign in included, wait until the rate allows for it."""
        http.event_hooks["request"].append(lambda _request: self.patience.pace.take())

    def close(self) -> None:
        """Ends all waiting and closes the connections."""
        self.patience.end()
        self._http.close()
        self._sign_in.close()

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        decode: Callable[[bytes], T],
        *,
        params: Mapping[str, Any] | None = None,
        attempts: int = ATTEMPTS,
        known_good: bool = False,
    ) -> T:
        """Sends JSON and decodes the answer.

        Args:
            path: of the endpoint.
            body: as JSON.
            decode: reads the answer; one that cannot be read counts as a failure that may pass.
            params: the query.
            attempts: after how many failures the request is given up, if the server answers others.
            known_good: whether a request like this may be sent again to see whether the server is well.

        Raises:
            RequestError: the request is refused or fails for good.
            AccessError: the token is refused.
            ServerGoneError: the server does not answer.
        """
        how = {"json": dict(body), "params": dict(params or {})}
        return self._send("POST", path, how, decode, attempts=attempts, known_good=known_good)

    def get(self, path: str, decode: Callable[[bytes], T], params: Mapping[str, Any] | None = None) -> T:
        """Asks and decodes the answer. Raises like `post`."""
        return self._send("GET", path, {"params": dict(params or {})}, decode, attempts=ATTEMPTS, known_good=False)

    def _send(
        self,
        method: str,
        path: str,
        how: dict[str, Any],
        decode: Callable[[bytes], T],
        *,
        attempts: int,
        known_good: bool,
    ) -> T:
        decoded: list[T] = []

        def ask() -> bytes:
            content = self._once(method, path, how)
            try:
                decoded[:] = [decode(content)]
            except _UNREADABLE as error:
                raise TryAgainError(f"the answer cannot be read ({error})") from error
            return content

        self.patience.attempt(ask, attempts=attempts, probe=self._probe)
        if known_good:
            self._known_good = (method, path, how)
        return decoded[0]

    def _probe(self) -> bool:
        """Whether the server answers a request that it has answered before."""
        if self._known_good is None:
            return False
        try:
            self._once(*self._known_good)
        except TryAgainError as error:
            return error.busy
        except RequestError:
            return True
        self.patience.answered()
        return True

    def _once(self, method: str, path: str, how: dict[str, Any]) -> bytes:
        response = self._request(method, path, how)
        if response.status_code == httpx.codes.UNAUTHORIZED:  # the session may have ended before its time
            self._http.auth._token = None  # type: ignore[union-attr] # noqa: SLF001
            response = self._request(method, path, how)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise AccessError(f"{self.url} refuses the API token.", TOKEN_HINT)
        if response.is_success:
            return response.content
        raise failure(response)

    def _request(self, method: str, path: str, how: dict[str, Any]) -> httpx.Response:
        try:
            return self._http.request(method, path, **how)
        except httpx.TransportError as error:
            refuse_untrusted(error, self.url, AccessError)
            raise TryAgainError(_words(error)) from error
        except InvalidApiTokenException as error:
            raise RequestError(f"{self.url} gives no access token that can be used: {error}") from error


def failure(response: httpx.Response) -> Exception:
    """What an answer that is no success means."""
    status = response.status_code
    message = f"the server answers {status} {response.reason_phrase}".rstrip() + _own_words(response)
    after = retry_after(response.headers.get("Retry-After"))
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return TryAgainError(message, after=after, busy=True)
    if status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY) or status >= 500:
        return TryAgainError(message, after=after)
    return RequestError(message, status)


def _own_words(response: httpx.Response) -> str:
    try:
        value = response.json()
        words = value.get("message") or value.get("errorType")
    except (ValueError, AttributeError):
        return ""
    return f" ({str(words)[:200]})" if words else ""


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def address_of(api_token: str) -> str:
    """The server's address in a token. Raises `AccessError` if there is none to be found."""
    if not api_token:
        raise AccessError("There is no Neptune API token.", "Set NEPTUNE_API_TOKEN or use --api-token.")
    try:
        content = json.loads(base64.b64decode(api_token.encode(), validate=True))
    except (binascii.Error, ValueError):
        content = None
    if not isinstance(content, dict):
        raise AccessError(
            "The Neptune API token is malformed: it is not base64 of a JSON object.",
            "Copy it again, whole, from your user menu in Neptune (Get your API token).",
        )
    address = str(content.get("api_url") or content.get("api_address") or "").rstrip("/")
    try:
        usable = httpx.URL(address).scheme in ("http", "https") and bool(httpx.URL(address).host)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise AccessError(
            "The Neptune API token holds no server address" + (f" but {address!r}." if address else "."),
            "Copy it again, whole, from your user menu in Neptune (Get your API token).",
        )
    return address


def _exchange(client: Any, credentials: Any) -> Any:
    """A session for the API token. Called by the client, under its lock."""
    http: httpx.Client = client.get_httpx_client()
    response = http.get(
        "/api/backend/v1/authorization/oauth-token", headers={"X-Neptune-Api-Token": credentials.api_key}
    )
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise AccessError(f"{credentials.base_url} refuses the API token.", TOKEN_HINT)
    if not response.is_success:
        raise failure(response)
    try:
        tokens = response.json()
        return OAuthToken.from_tokens(access=tokens["accessToken"], refresh=tokens["refreshToken"])
    except (ValueError, KeyError, TypeError) as error:
        raise TryAgainError(f"the answer to the API token cannot be read ({error})") from error


_PROPERTIES = {
    "float": "float_properties",
    "int": "int_properties",
    "string": "string_properties",
    "bool": "bool_properties",
    "datetime": "datetime_properties",
    "stringSet": "string_set_properties",
    "fileRef": "file_ref_properties",
}


def value_of(attribute: Any) -> Any:
    """The value of an attribute that is no series, None if it has none.

    Returns:
        A Python value, a list of strings, milliseconds since the epoch for a time, or a file reference
        (path, sizeBytes, mimeType).
    """
    name = _PROPERTIES.get(attribute.type)
    if name is None or not attribute.HasField(name):
        return None
    properties = getattr(attribute, name)
    if attribute.type == "fileRef":
        return properties
    return list(properties.value) if attribute.type == "stringSet" else properties.value
