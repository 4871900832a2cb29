# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A real `mlflow server`."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.http import free_port


@contextmanager
def serving(
    folder: Path,
    database: str,
    port: int | None = None,
    workers: int | None = 1,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """A server with its pages, stopped with all its processes.

    Args:
        folder: for its log and the artifacts that it keeps.
        database: where the rest is.
        port: where it listens, None for a free one.
        workers: how many processes, None for the server's own choice.
        certificate: PEM files of the certificate and its key, for a server that speaks TLS.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers)] if workers else []
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    if certificate:
        command += ["--uvicorn-opts", "--ssl-certfile {} --ssl-keyfile {}".format(*certificate)]
    url = f"http{'s' if certificate else ''}://127.0.0.1:{port}"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        _wait_for(f"{url}/health", certificate, server, folder / "log")
        yield url
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def _wait_for(url: str, certificate: tuple[Path, Path] | None, server: subprocess.Popen[bytes], log: Path) -> None:
    trusted = ssl.create_default_context(cafile=certificate[0]) if certificate else None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5, context=trusted).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the server did not come up: {log.read_text()[-2000:]}")
