# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A line to a server that is cut after so many bytes, in either direction."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Line:
    """Forwards connections to a local port.

    Attributes:
        port: where it listens.
        left: how many bytes still pass before every connection is reset, None for any number.
        passed: how many have passed.
        refusals: how many connections are reset as they come, afterwards.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.left: int | None = None
        self.passed = self.refusals = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def serve(self) -> None:
        """Takes connections until it is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.refusals and self.left is None:
                    self.refusals -= 1
                    _reset(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections, and ends those that there are."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._cut()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.passed += len(data)
                    if self.left is not None:
                        self.left -= len(data)
                    over = self.left is not None and self.left < 0
                if over:
                    self._cut()
                    return
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> None:
        with self._lock:
            self.left = None
            ends, self._open = self._open, set()
        for end in ends:
            _reset(end)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line that is open."""
    line = Line(port)
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.close()
        thread.join(10)
