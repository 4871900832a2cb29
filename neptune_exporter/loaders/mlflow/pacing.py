# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Holds MLflow's client to a rate, by its own extension that is asked for headers before each request."""

from __future__ import annotations

from functools import cache
from weakref import WeakSet

from neptune_exporter.pace import Pace

_paces: WeakSet[Pace] = WeakSet()


def keep_to(pace: Pace) -> None:
    """Every request of this process to a tracking server waits for its turn, as long as the pace is in use."""
    _register()
    _paces.add(pace)


@cache
def _register() -> None:
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry

    registry.register(_Paced)


class _Paced:
    """A provider of request headers, as MLflow calls it, that adds none."""

    def in_context(self) -> bool:
        return bool(_paces)

    def request_headers(self) -> dict[str, str]:
        for pace in list(_paces):
            pace.take()
        return {}
