# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Neptune 3.x servers as a source: the options, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.exporters.server_options import ServerOptions
from neptune_exporter.plugins import Plugin, option


@dataclass(frozen=True)
class Neptune3Options(ServerOptions):
    """How to reach a Neptune 3.x server, and which of its runs are wanted.

    Attributes:
        experiment: only runs of experiments with one of these names, or that one of these expressions matches.
        include_ancestors: also the runs that a selected run was forked from, selected or not.
        include_metric_previews: also points that the server knows as previews only.
    """

    experiment: tuple[str, ...] = option(
        (), "Only runs of experiments with this name, or whose name matches; repeatable.", metavar="NAME|REGEX"
    )
    include_ancestors: bool = option(
        True,
        "Also the runs that a selected run was forked from.  [default: on]",
        flag="--include-ancestors/--no-include-ancestors",
    )
    include_metric_previews: bool = option(
        False,
        "Also export points that were still previews when logging ended.",
        flag="--include-metric-previews",
    )


plugin = Plugin(
    name="neptune3",
    title="A Neptune server 3.x",
    options=Neptune3Options,
    factory="neptune_exporter.exporters.neptune3.exporter:Neptune3Exporter",
    extra="neptune3",
    package="neptune_query",
)
