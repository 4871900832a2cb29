# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every loader must do, by both ways into W&B, online and offline."""

from __future__ import annotations

import pytest
from contracts.loader import LoaderContract
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401


class TestLogs(LoaderContract):
    @pytest.fixture
    def loader(self, target):  # noqa: F811
        return target.loader(wandb_way="log")


class TestClient(LoaderContract):
    @pytest.fixture
    def loader(self, target):  # noqa: F811
        return target.loader(wandb_way="client")


class TestOfflineLogs(LoaderContract):
    @pytest.fixture
    def loader(self, target):  # noqa: F811
        return target.loader(wandb_way="log", wandb_mode="offline")


class TestOfflineClient(LoaderContract):
    @pytest.fixture
    def loader(self, target):  # noqa: F811
        return target.loader(wandb_way="client", wandb_mode="offline")
