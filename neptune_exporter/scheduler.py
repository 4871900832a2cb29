# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The scheduler of a Dask cluster: whether an address is one, and whether a scheduler answers there.

Dask's own client is made only once it does: one that could not connect waits long for itself when it is collected.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from neptune_exporter.errors import ExporterError, MissingExtraError, TargetError, UsageError

SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "ucxx")
_ENCRYPTED = ("tls", "wss")
_IN_PROCESS = "inproc"  # a cluster of the program that calls us: what follows is no host
_LOCATION = re.compile(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s/:@\[\]?#]+):(?P<port>[0-9]{1,5})")
_EXAMPLE = "For example: --executor dask:tcp://host:8786"
_TLS = (
    "Name its certificates in Dask's configuration, distributed.comm.tls.ca-file, .client.cert and .client.key "
    "(DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …); see docs/scaling.md."
)


def connected(address: str, seconds: float) -> Any:
    """A `distributed.Client` of the scheduler at an address.

    Args:
        address: with a host and a port; without a scheme, Dask's usual one is meant.
        seconds: how long it may take to answer.

    Raises:
        MissingExtraError: Dask is not installed.
        UsageError: the address is none, or there is no TLS configuration for it.
        TargetError: no scheduler answers there.
    """
    try:
        import distributed
    except ImportError:
        raise MissingExtraError("dask", "distributed") from None
    check_address(address)
    security = distributed.Security()
    with ThreadPoolExecutor(1) as apart:  # the caller may have an event loop, as notebooks do
        apart.submit(asyncio.run, _asked(address, _connection(address, security), seconds)).result()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            return distributed.Client(address, timeout=seconds, set_as_default=False, security=security)
    except OSError as error:
        raise _silent(address, error) from None


def check_address(address: str) -> None:
    """Raises `UsageError` unless an address names a host and a port in one of Dask's ways."""
    if not address:  # Dask would start a cluster of its own
        raise UsageError("dask: needs the address of a scheduler.", _EXAMPLE)
    scheme, separator, location = address.rpartition("://")
    if scheme == _IN_PROCESS:
        return
    shown = f"{scheme}{separator}***@{location.rpartition('@')[2]}" if "@" in location else address
    if "@" in location:
        raise UsageError(f"{shown!r} holds a user name or password: Dask's addresses have none.", _EXAMPLE)
    if separator and scheme not in SCHEMES:
        raise UsageError(
            f"{shown!r} is not the address of a Dask scheduler: it begins with none of {', '.join(SCHEMES)}.", _EXAMPLE
        )
    found = _LOCATION.fullmatch(location)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise UsageError(f"{shown!r} is not the address of a Dask scheduler: it needs a host and a port.", _EXAMPLE)


def _connection(address: str, security: Any) -> dict[str, Any]:
    """What Dask's configuration says of a connection. Raises `UsageError` if it lacks what the address needs."""
    from distributed.comm import parse_address

    try:
        found: dict[str, Any] = security.get_connection_args("client")
    except (OSError, ValueError, TypeError) as error:  # a file of it is missing, or is no certificate
        raise UsageError(f"Dask's TLS configuration cannot be used: {error}.", _TLS) from None
    encrypted = parse_address(address)[0] in _ENCRYPTED
    if encrypted and found.get("ssl_context") is None:
        raise UsageError(f"{address} needs certificates, and Dask's configuration names none.", _TLS)
    if not encrypted and found.get("require_encryption"):
        raise UsageError(f"Dask's configuration wants connections encrypted, and {address} is not.", "Use tls://…")
    return found


async def _asked(address: str, connection: dict[str, Any], seconds: float) -> None:
    """Raises `TargetError` unless a scheduler answers."""
    from distributed.comm import connect
    from distributed.core import send_recv

    async def ask() -> Any:
        comm = await connect(address, timeout=seconds, **connection)
        try:
            return await send_recv(comm, op="identity", reply=True)
        finally:
            comm.abort()

    try:
        answer = await asyncio.wait_for(ask(), seconds + 1)  # that nobody is there is found out within the former
    except TimeoutError:
        raise _other(address, f"it says nothing for {seconds:g} s") from None
    except OSError as error:
        raise _silent(address, error) from None
    except Exception as error:  # noqa: BLE001 - whatever comes of bytes that are not Dask's
        raise _other(address, f"{type(error).__name__}: {error}") from None
    kind = answer.get("type") if isinstance(answer, dict) else None
    if kind in (None, "Worker", "Nanny"):
        raise _other(address, f"it is a {kind}" if kind else "its answer is another")


def _silent(address: str, error: OSError) -> ExporterError:
    return TargetError(f"No Dask scheduler answers at {address}: {error}.", "Start one with: dask scheduler")


def _other(address: str, why: str) -> ExporterError:
    return TargetError(
        f"What answers at {address} is no Dask scheduler: {why}.",
        "The port is that which `dask scheduler` shows, 8786 as a rule, not that of its dashboard.",
    )
