# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow as a target: experiments, runs, metrics, parameters, tags and artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.plugins import Plugin, option


@dataclass(frozen=True)
class MLflowOptions:
    """Where MLflow is."""

    mlflow_tracking_uri: str = option(
        "sqlite:///mlflow.db",
        "Where MLflow is: sqlite:///FILE, postgresql://…, or the http(s) address of a server.",
        env="MLFLOW_TRACKING_URI",
        metavar="URI",
    )
    mlflow_artifact_location: str = option(
        "",
        "Where new experiments keep their artifacts; the default is the server's own choice, "
        "and for SQLite the folder mlruns beside the database.",
        metavar="URI",
    )


plugin = Plugin(
    name="mlflow",
    title="MLflow, in a database or behind a tracking server",
    options=MLflowOptions,
    factory="neptune_exporter.loaders.mlflow.loader:MLflowLoader",
    extra="mlflow",
    package="mlflow",
)
