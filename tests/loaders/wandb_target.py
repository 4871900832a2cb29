# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A W&B server and loaders for it; nothing of the user's own W&B is ever looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers.wandb import API_KEY, ENTITY, WandbServer, serving

from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb import WandbOptions
from neptune_exporter.loaders.wandb.loader import WandbLoader


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_user(tmp_path_factory) -> Iterator[None]:
    """For the client in this process, and for wandb-core, which keeps the environment that it was started in."""
    environment = client_environment(tmp_path_factory.mktemp("wandb"))
    os.environ.update(environment)
    yield
    for name in environment:
        os.environ.pop(name, None)


def client_environment(folder: Path) -> dict[str, str]:
    """Where the client keeps its own things."""
    places = {"WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data", "NETRC": "netrc"}
    return {
        **{name: str(folder / place) for name, place in places.items()},
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serving() as running:
        yield running
        assert running.unknown == []


@dataclass
class Target:
    """A server, and how to load into it."""

    server: WandbServer
    folder: Path

    def options(self, **more: Any) -> WandbOptions:
        return WandbOptions(
            **{
                "wandb_entity": ENTITY,
                "wandb_api_key": API_KEY,
                "wandb_base_url": self.server.url,
                "wandb_dir": str(self.folder),
                **more,
            }
        )

    def loader(self, load: LoadOptions | None = None, **more: Any) -> WandbLoader:
        return WandbLoader(self.options(**more), load)


@pytest.fixture
def target(server, tmp_path) -> Target:
    return Target(server, tmp_path / "logs")
