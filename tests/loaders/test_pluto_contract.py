# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The suite that every loader passes, over Pluto."""

from __future__ import annotations

import pytest
from contracts.loader import LoaderContract
from pluto_target import loader_of
from servers.pluto import PlutoServer


class TestPlutoLoader(LoaderContract):
    @pytest.fixture
    def loader(self):
        with PlutoServer() as server:
            yield loader_of(server)
