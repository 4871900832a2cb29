# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A small threaded HTTP/1.1 server with fault injection: what all wire-level servers stand on."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from contracts.injected import injected


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Request:
    """What a client sent; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    target: str

    def one(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server answers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        """A JSON document."""
        return cls(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})


class HttpError(Exception):
    """Raised by a handler to answer with an error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass
class Fault:
    """Something that goes wrong with requests whose `METHOD path?query` (unquoted) matches.

    Attributes:
        match: a regular expression, searched.
        action: answer with `status`; `reset` the connection; `truncate` the body and close; send a `short` body
            that claims to be whole.
        times: how often, None for ever.
        after: how many matching requests pass unharmed before.
    """

    match: str
    action: Literal["status", "reset", "truncate", "short"] = "status"
    times: int | None = 1
    after: int = 0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


class HttpServer:
    """Serves `handle(request)` on a free local port; every connection has a thread.

    Attributes:
        latency: seconds that every reply is held back.
        log: `METHOD path` of every request, faults included.
        faults: what goes wrong; may be changed at any time.
    """

    def __init__(self, handle: Callable[[Request], Reply], *, latency: float = 0.0) -> None:
        self.latency = latency
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self._handle = handle
        self._lock = threading.Lock()
        self._server = _Listener(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def counts(self) -> Counter[str]:
        """How often each `METHOD path` was asked for."""
        with self._lock:
            return Counter(self.log)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stops to answer; open connections are dropped."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> tuple[Reply, Fault | None]:
        """The reply, and the fault that is to befall it."""
        with self._lock:
            self.log.append(f"{request.method} {request.path}")
            fault = self._fault_for(f"{request.method} {unquote(request.target)}")
        if self.latency:
            time.sleep(self.latency)
        if fault is not None and fault.action == "status":
            return Reply(fault.body, fault.status, fault.headers), None
        try:
            return self._handle(request), fault
        except HttpError as error:
            return error.reply, None

    def _fault_for(self, line: str) -> Fault | None:
        for fault in self.faults:
            if not re.search(fault.match, line) or fault.times == 0:
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
            injected("network")
            return fault
        return None


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: HttpServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Listener

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        request = Request(self.command, unquote(parts.path), query, headers, body, self.path)
        reply, fault = self.server.owner.answer(request)
        action = fault.action if fault is not None else ""
        if action == "reset":
            self._reset()
            return
        content = reply.body[: len(reply.body) // 2] if action in ("truncate", "short") else reply.body
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body if action == "truncate" else content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()
        if action == "truncate":
            self._reset(gently=True)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _serve  # noqa: N815 - the names of the standard library

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reset(self, *, gently: bool = False) -> None:
        self.close_connection = True
        if not gently:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing on the screen."""
