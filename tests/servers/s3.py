# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""moto's S3 on a free port, with what it lacks: puts that are atomic among threads, a count, and faults on demand."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from contracts.injected import injected

Request = tuple[str, str]  # method, and path with the query
Fault = Callable[[int, Request], Any]

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message><RequestId>1</RequestId></Error>"


class S3Server:
    """Serves S3 until it is closed.

    Args:
        latency: how many seconds each answer takes longer.

    Attributes:
        address: its URL.
        log: every request.
        fault: asked before each request with its number, from 1, and what it is; returns None to let it pass, or
            (status, code, message). Raises to break the connection. May also return a function, which is called once
            the request was done: what S3 did, and nobody was told.
    """

    def __init__(self, latency: float = 0.0) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._latency = latency
        self.log: list[Request] = []
        self.fault: Fault = lambda _number, _request: None
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"] + (f"?{query}" if query else ""))
        time.sleep(self._latency)
        with self._one_at_a_time:
            self.log.append(request)
            verdict = self.fault(len(self.log), request)
            if verdict is None:
                return list(self._app(environ, start_response))
            injected("network")
            if callable(verdict):
                list(self._app(environ, lambda *_: None))
                status, code, message = verdict()
            else:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                status, code, message = verdict
        body = _ERROR.format(code, message).encode()
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body] if environ["REQUEST_METHOD"] != "HEAD" else []

    def counted(self, since: int = 0) -> Counter[str]:
        """How many requests there were, by method."""
        return Counter(method for method, _ in self.log[since:])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def environment(self) -> Iterator[None]:
        """boto3 finds this server, and nothing of the user's own."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables().items():
                patch.setenv(name, value)
            yield

    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "key-of-the-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }
