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
    mlflow_mode: str = option(
        "auto",
        "How to write: by MLflow's client (rest), or straight into its tables (sql), which is much faster and needs "
        "SQLite or PostgreSQL and tables of a version that is known; auto: sql where that is possible.",
        choices=("auto", "rest", "sql"),
    )
    mlflow_backend_store_uri: str = option(
        "",
        "The database of the tracking server, where it can be reached: makes sql possible beside http(s).",
        env="MLFLOW_BACKEND_STORE_URI",
        metavar="URI",
    )
    mlflow_experiment_by: str = option(
        "project",
        "One MLflow experiment for each project, or for each sys/name in it, called PROJECT/NAME.",
        choices=("project", "experiment"),
    )


plugin = Plugin(
    name="mlflow",
    title="MLflow, in a database or behind a tracking server",
    options=MLflowOptions,
    factory="neptune_exporter.loaders.mlflow.registry:make_loader",
    extra="mlflow",
    package="mlflow",
)
