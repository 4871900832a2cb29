# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server of our own, run as an ordinary user, from the system's packages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers.http import free_port

NOBODY = 65534
OFF_DISK = ("-F",)  # does not wait for the disk: tests do not pull the plug


def why_not() -> str:
    """Why no server can be started here, "" if one can."""
    if _programs() is None:
        return "PostgreSQL is not installed (no initdb)"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and setpriv is missing"
    return ""


@contextmanager
def postgres(settings: Sequence[str] = OFF_DISK) -> Iterator[str]:
    """A server with an empty database, as a URI of SQLAlchemy's; stopped and removed in the end.

    Args:
        settings: more arguments for the server.
    """
    programs = _programs()
    assert programs is not None, why_not()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket lies in it
    try:
        as_user = []
        if os.geteuid() == 0:
            as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            os.chown(folder, NOBODY, NOBODY)
        data, port = folder / "data", free_port()
        make = [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run([*make, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd=folder)
        serve = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
        with (folder / "log").open("wb") as log:
            serve += ["-c", "listen_addresses=127.0.0.1", *settings]
            server = subprocess.Popen(serve, stdout=log, stderr=log, cwd=folder)
        try:
            address = f"tester@127.0.0.1:{port}/postgres"
            _wait_for(f"postgresql://{address}", server, folder / "log")
            yield f"postgresql+psycopg2://{address}"
        finally:
            server.send_signal(signal.SIGINT)  # which does not wait for MLflow's pooled connections
            server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """The folder with the newest server's programs."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin")]
    return next((folder for folder in found if (folder / "initdb").exists()), None)


def _wait_for(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            psycopg2.connect(uri).close()
        except psycopg2.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"PostgreSQL did not come up: {log.read_text()[-2000:]}")
