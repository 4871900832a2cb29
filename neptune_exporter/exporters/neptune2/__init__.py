# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Neptune 2.x servers as a source: the options, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.exporters.server_options import ServerOptions
from neptune_exporter.plugins import Plugin, option


@dataclass(frozen=True)
class Neptune2Options(ServerOptions):
    """How to reach a Neptune 2.x server, and which of its runs and models are wanted.

    Attributes:
        models_query: only models that match this NQL query, and their versions.
        include_archived_models: also models and versions in the trash.
        connections: requests at a time.
        s3_endpoint_url: where the S3 storage of tracked artifacts is, if not at Amazon.
    """

    models_query: str = option("", "Only models that match this NQL query, and their versions.", metavar="NQL")
    include_archived_models: bool = option(False, "Also models and versions in the trash.")
    connections: int = option(16, "Requests at a time.", metavar="N")
    s3_endpoint_url: str = option(
        "", "Where the S3 storage of tracked artifacts is, if not at Amazon.", env="S3_ENDPOINT_URL", metavar="URL"
    )


plugin = Plugin(
    name="neptune2",
    title="A Neptune server 2.x: runs, models and model versions",
    options=Neptune2Options,
    factory="neptune_exporter.exporters.neptune2.exporter:Neptune2Exporter",
    extra="neptune2",
    package="neptune",
    kinds=("run", "model", "model_version"),
)
