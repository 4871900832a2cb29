# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What `wandb sync` does, within this process: wandb-core starts once, not for every run, and ends when we do.

That matters for safety as well as for speed: a sync that outlived a killed load would go on appending rows while the
next load counts them. What is called here is not public, so it is used only with versions that were tested.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.wandb.server import Server

logger = logging.getLogger(__name__)

TESTED = ("0.31.",)
_QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
_RETRIES = {  # of wandb-core; its own defaults wait for up to hours
    "x_file_stream_retry_max": 8,
    "x_file_stream_retry_wait_min_seconds": 0.2,
    "x_file_stream_retry_wait_max_seconds": 20.0,
    "x_file_transfer_retry_max": 8,
    "x_file_transfer_retry_wait_min_seconds": 0.2,
    "x_file_transfer_retry_wait_max_seconds": 20.0,
    "x_graphql_retry_max": 8,
    "x_graphql_retry_wait_min_seconds": 0.2,
    "x_graphql_retry_wait_max_seconds": 20.0,
}


def installed_version() -> str:
    """The version of wandb that is installed."""
    return importlib.metadata.version("wandb")


def is_tested(version: str) -> bool:
    """Whether logs may be written for this version and sent as its own `wandb sync` does."""
    return version.startswith(TESTED)


def settings(server: Server | None, **more: Any) -> Any:
    """Settings of the client that ask nothing, print nothing and look at nothing of the user's machine."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    known = set(wandb.Settings.model_fields)
    wanted: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "disable_git": True,
        "disable_code": True,
        "save_code": False,
        "x_disable_stats": True,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        **_RETRIES,
        **({"base_url": server.url, "api_key": server.api_key} if server else {}),
        **more,
    }
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def sync(log: Path, server: Server) -> None:
    """Sends a log to the server, after what the server already has of its run.

    Raises:
        TargetError: it did not arrive. What the server got of it stays there.
    """
    chosen = settings(server, root_dir=str(log.parent))
    from wandb.sdk import wandb_setup

    singleton = wandb_setup.singleton()
    service = singleton.ensure_service()

    async def send() -> Any:
        begun = await service.init_sync(
            {log}, chosen, cwd=None, live=False, entity="", project="", run_id="", job_type="", tag_replacements={}
        )
        handle = await service.sync((await begun.wait_async(timeout=60)).id, parallelism=1)
        return await handle.wait_async(timeout=None)

    response = singleton.asyncer.run(send)
    messages = [message.content for message in response.messages]
    logger.info("wandb sync of %s: %s", log, "; ".join(messages))
    if not log.with_suffix(".wandb.synced").exists():
        raise TargetError(f"W&B at {server.url} did not take a run: {'; '.join(messages) or 'no reason given'}.")
