# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The one-line switch: `import neptune_exporter.dual_logging` mirrors what the Neptune clients log.

Before or after the imports of the clients; it does not import them. Where to is said by the environment, see
docs/migration.md. Importing it twice, or where nothing is configured, changes nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys

from neptune_exporter.mirror import legacy, scale
from neptune_exporter.mirror.imports import after_import
from neptune_exporter.mirror.settings import OFF, TARGET, Settings

logger = logging.getLogger("neptune_exporter.mirror")

_switched_on = False


def switch_on() -> None:
    """Wraps the Neptune clients, now or when they are imported. Never raises."""
    global _switched_on  # noqa: PLW0603 - once per process
    if _switched_on:
        return
    _switched_on = True
    try:
        settings = Settings.from_environment()
        if multiprocessing.parent_process() is None:  # once, not in every worker
            _announce(settings)
        if not settings.active:
            return
        after_import(scale.MODULE, scale.patch)
        after_import(legacy.MODULE, legacy.patch)
    except Exception:
        logger.warning("Dual logging could not be switched on; Neptune works as ever.", exc_info=True)


def _announce(settings: Settings) -> None:
    if settings.without_neptune:
        logger.info(
            "DISABLE_NEPTUNE_LOGGING is set: Neptune is not called; what is logged is kept in %s.", settings.spool
        )
    if settings.target:
        logger.info("Dual logging to %s (%s), by way of %s.", settings.target, settings.why, settings.spool)
    elif not settings.without_neptune:
        reason = f"{OFF} is set" if settings.why == OFF else f"neither {TARGET} nor MLOP_PROJECT is set"
        logger.info("Dual logging is off: %s. Neptune only.", reason)


if "neptune_exporter.dual_logging" in sys.modules:  # imported, not run as a script
    switch_on()
