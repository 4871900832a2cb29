# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What wrapping a client's methods takes, whichever client it is."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

logger = logging.getLogger("neptune_exporter.mirror")


def is_known(client: str, expected: Iterable[tuple[Any, str, set[str]]]) -> bool:
    """Whether a client has what we rely on; warns if it has not.

    Args:
        client: its package.
        expected: owners, the names of their methods, and the parameters that these must have.
    """
    missing = []
    for owner, name, parameters in expected:
        method = getattr(owner, name, None)
        if method is None or not parameters <= inspect.signature(method).parameters.keys():
            missing.append(name)
    if missing:
        names = ", ".join(missing)
        logger.warning(
            "Dual logging is off: this %s is not one that is known (%s). Neptune works as ever.", client, names
        )
    return not missing


def guarded(action: Callable[..., Any], *args: Any) -> Any:
    """Does something of ours; nothing that fails in it is ever raised into the script."""
    try:
        return action(*args)
    except Exception:
        logger.debug("dual logging", exc_info=True)
        return None


@functools.cache
def version_of(package: str) -> str:
    """The version of an installed package, "" if it has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
