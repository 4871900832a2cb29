# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The artifacts of one run by their address, whether MLflow knows the run yet or not."""

from __future__ import annotations

from pathlib import Path

from neptune_exporter.loaders.mlflow.tracking import Tracking


def artifact_uri(root: str, run_id: str) -> str:
    """Where MLflow keeps the artifacts of a run, from where its experiment keeps those of all runs."""
    from mlflow.utils.uri import append_to_uri_path

    return str(append_to_uri_path(root, run_id, "artifacts"))


class Artifacts:
    """What lies at an address: a folder, an object store, or behind the tracking server.

    Args:
        tracking: the target; addresses that begin with `mlflow-artifacts:` lead through it.
        uri: the address.

    Every method raises `TargetError` if the store does not answer or refuses what it is given.
    """

    def __init__(self, tracking: Tracking, uri: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self.uri = uri
        self._tracking = tracking
        with tracking.explained():
            self._repository = get_artifact_repository(uri, tracking_uri=tracking.uri)

    def upload(self, folder: Path, into: str | None = None) -> None:
        """Uploads what is in a folder, over what is there."""
        with self._tracking.explained():
            self._repository.log_artifacts(str(folder), into)

    def download(self, artifact: str, folder: Path) -> Path | None:
        """Fetches one artifact into a folder; None if it is not there."""
        return self._tracking.fetched(lambda: self._repository.download_artifacts(artifact, str(folder)))
