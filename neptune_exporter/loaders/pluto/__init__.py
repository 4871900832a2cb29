# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Pluto (formerly mlop) as a target: projects, runs, metrics, series, console logs, config, tags and files."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.plugins import Plugin, option


@dataclass(frozen=True)
class PlutoOptions:
    """Where Pluto is, and who we are there."""

    pluto_host: str = option(
        "",
        "Your own Pluto server: HOST (its usual ports), HOST:PORT, or an http(s) address that serves everything. "
        "Comes before the addresses below.",
        env=("PLUTO_HOST", "MLOP_HOST"),
        metavar="HOST",
    )
    pluto_url_app: str = option(
        "https://pluto.trainy.ai", "Where people look at runs.", env=("PLUTO_URL_APP", "MLOP_URL_APP"), metavar="URL"
    )
    pluto_url_api: str = option(
        "https://pluto-api.trainy.ai", "Pluto's API.", env=("PLUTO_URL_API", "MLOP_URL_API"), metavar="URL"
    )
    pluto_url_ingest: str = option(
        "https://pluto-ingest.trainy.ai",
        "Where Pluto takes points and files.",
        env=("PLUTO_URL_INGEST", "MLOP_URL_INGEST"),
        metavar="URL",
    )
    pluto_api_key: str = option(
        "",
        "Pluto's API key; better in PLUTO_API_KEY. Without it, what its own login has stored with keyring.",
        env=("PLUTO_API_KEY", "MLOP_API_KEY", "MLOP_API_TOKEN"),
        metavar="KEY",
        secret=True,
    )
    pluto_project: str = option(
        "",
        "The Pluto project that takes all runs; the default is one per Neptune project, named after it.",
        env=("PLUTO_PROJECT", "MLOP_PROJECT"),
        metavar="NAME",
    )


plugin = Plugin(
    name="pluto",
    title="Pluto, hosted or your own",
    options=PlutoOptions,
    factory="neptune_exporter.loaders.pluto.loader:PlutoLoader",
)
