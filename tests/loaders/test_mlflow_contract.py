# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The suite that every loader passes, over MLflow in both ways of writing."""

from __future__ import annotations

import pytest
from contracts.loader import LoaderContract


class TestByClient(LoaderContract):
    @pytest.fixture
    def loader(self, sqlite_uri, make_loader):
        return make_loader(sqlite_uri, "rest")


class TestDirectly(LoaderContract):
    @pytest.fixture
    def loader(self, sqlite_uri, make_loader):
        return make_loader(sqlite_uri, "sql")


class TestOneExperimentForEachName(LoaderContract):
    @pytest.fixture
    def loader(self, sqlite_uri, make_loader, mode):
        return make_loader(sqlite_uri, mode, by="experiment")
