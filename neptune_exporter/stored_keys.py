# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""API keys that a tracker's own `login` has stored with the `keyring` package, where that is installed.

Nobody is ever asked anything: the keyring is looked at in a process that has neither terminal nor standard input,
stores that would open a dialogue are passed by, and one that does not answer in time is left alone.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

PLUTO = ("pluto", "mlop")  # what `pluto login` and `mlop login` call their entry
PACKAGE = "keyring"
SECONDS = 10.0
_LOCKABLE = ("keyring.backends.SecretService", "keyring.backends.libsecret")
_ASKING = ("kwallet", "encrypted", "gnome", "multi")  # in the names of stores that may want a password


@functools.cache
def stored_key(*services: str) -> str:
    """The first key that is stored under one of some names.

    Args:
        services: what the tracker's `login` calls its entry, both as service and as user.

    Returns:
        The key; "" if there is none, or none that can be had without asking.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        return ""
    command = [sys.executable, "-m", "neptune_exporter.stored_keys", *services]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, start_new_session=True, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def main(services: list[str]) -> int:
    """Writes the key to stdout."""
    if sys.platform == "darwin":  # the keychain fails where it would ask
        with suppress(OSError, AttributeError):
            security = ctypes.CDLL("/System/Library/Frameworks/Security.framework/Security")
            security.SecKeychainSetUserInteractionAllowed(0)
    for store in _stores():
        for service in services:
            with suppress(Exception):  # whatever a store raises: the next one may have it
                key = store.get_password(service, service)
                if key:
                    sys.stdout.write(key)
                    return 0
    return 1


def _stores() -> Iterator[Any]:
    """The stores that can be looked at without asking; the plain file last, as the trackers have it."""
    chosen = importlib.import_module(PACKAGE).get_keyring()
    for store in getattr(chosen, "backends", None) or [chosen]:
        if not _may_ask(store):
            yield store
    with suppress(ImportError):
        yield importlib.import_module("keyrings.alt.file").PlaintextKeyring()


def _may_ask(store: Any) -> bool:
    name = f"{type(store).__module__}.{type(store).__name__}"
    if name.startswith(_LOCKABLE):
        return _is_locked()
    return any(word in name.lower() for word in _ASKING)


def _is_locked() -> bool:
    """Whether the desktop's secret service would have to be unlocked first."""
    try:
        service = importlib.import_module("secretstorage")
        with closing(service.dbus_init()) as bus:
            return bool(service.get_default_collection(bus).is_locked())
    except Exception:  # noqa: BLE001 - whoever cannot tell does not touch it
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
