# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The MLflow experiments of a project: one, or one for each name that its runs have."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.keys import ARTIFACT_RULE, shortened, target_key
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.artifacts import artifact_uri
from neptune_exporter.loaders.mlflow.tracking import Tracking
from neptune_exporter.model import RunInfo

NAME_LENGTH = 256  # the database column; MLflow does not check it
FOLDER_LENGTH = 80
UNNAMED = "unnamed"


class Experiments:
    """Finds and makes experiments.

    Args:
        tracking: where.
        prefix: before every name.
        by_name: one experiment for each `sys/name` in a project, called `<project>/<sys/name>`.
        location: where new ones keep their artifacts, "" for the target's own choice.
        beside: for a database in a file, the folder that it is in.
        address_length: how long the address of a run's artifacts can be; None for any length, or if that is not known.
    """

    def __init__(
        self,
        tracking: Tracking,
        *,
        prefix: str,
        by_name: bool,
        location: str,
        beside: Path | None,
        address_length: int | None,
    ) -> None:
        self._tracking = tracking
        self._prefix, self._by_name = prefix, by_name
        self._location, self._beside, self._address_length = location, beside, address_length
        self._made: dict[str, Any] = {}

    def of_project(self, project_id: str) -> list[Any]:
        """The experiments that hold runs of a project. Raises `TargetError` if one was deleted."""
        if self._by_name:
            return list(self._tracking.search_experiments(tags.PLACE, self._place(project_id)))
        found = self._active(self._name(project_id))
        return [] if found is None else [found]

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        """Records the multiplier in all experiments of a project; makes the only one, if there is but one."""
        found = self.of_project(project_id)
        for experiment in found:
            self._check_address(experiment.artifact_location)
            self._set_tags(experiment, self._tags(project_id, step_multiplier))
        if not found and not self._by_name:
            self._ensure(self._name(project_id), project_id, step_multiplier)

    def of_run(self, info: RunInfo, step_multiplier: int) -> Any:
        """The experiment that a run goes into; made, where each name has its own."""
        project_id = info.ref.project_id
        if not self._by_name:
            name = self._name(project_id)
            if name not in self._made:
                self._made[name] = self._active(name)
            if self._made[name] is None:
                raise TargetError(f"There is no MLflow experiment {name!r}.", "Run the same command again.")
            return self._made[name]
        name = self._name(f"{project_id}/{(info.name or '').strip() or UNNAMED}")
        if name not in self._made:
            self._made[name] = self._ensure(name, project_id, step_multiplier)
        return self._made[name]

    def _ensure(self, name: str, project_id: str, step_multiplier: int) -> Any:
        wanted = self._tags(project_id, step_multiplier)
        found = self._active(name)
        if found is not None:
            self._check_address(found.artifact_location)
            self._set_tags(found, wanted)
            return found
        location = self._artifact_location(name)
        self._check_address(location or "")
        try:
            self._tracking.create_experiment(name, location, wanted)
        except TargetError:
            if self._active(name) is None:  # else another worker was faster
                raise
        made = self._active(name)
        self._check_address(made.artifact_location if made else "")
        return made

    def _check_address(self, location: str) -> None:
        """MLflow does not, and its database ends the load of every run."""
        longest = artifact_uri(location, "0" * 32)
        if self._address_length is not None and len(longest) > self._address_length:
            raise TargetError(
                f"The addresses of artifacts would be longer than the {self._address_length} characters that MLflow's "
                f"database takes: {longest}.",
                "Choose a shorter --mlflow-artifact-location, with a new --name-prefix if the experiment exists.",
            )

    def _set_tags(self, experiment: Any, wanted: dict[str, str]) -> None:
        for key, value in wanted.items():
            if experiment.tags.get(key) != value:
                self._tracking.set_experiment_tag(experiment.experiment_id, key, value)

    def _active(self, name: str) -> Any | None:
        experiment = self._tracking.experiment(name)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise TargetError(
                f"The MLflow experiment {name!r} was deleted, and its name is still taken.",
                f"Restore it with: mlflow experiments restore -x {experiment.experiment_id}; "
                "or remove it for good with mlflow gc; or use --name-prefix.",
            )
        return experiment

    def _name(self, name: str) -> str:
        return shortened(tags.printable(self._prefix + name), NAME_LENGTH)

    def _tags(self, project_id: str, step_multiplier: int) -> dict[str, str]:
        wanted = {tags.PROJECT: project_id, tags.MULTIPLIER: str(step_multiplier)}
        return {**wanted, tags.PLACE: self._place(project_id)} if self._by_name else wanted

    def _place(self, project_id: str) -> str:
        """Stands in searches for the project as it is loaded with this prefix."""
        return hashlib.blake2b(f"{self._prefix}\0{project_id}".encode(), digest_size=16).hexdigest()

    def _artifact_location(self, name: str) -> str | None:
        if self._location:
            return self._location
        if self._beside is None:
            return None
        # MLflow would take the folder that the command happens to run in.
        folder = shortened(target_key(name.replace("/", "_"), ARTIFACT_RULE), FOLDER_LENGTH)
        return (self._beside / "mlruns" / folder).as_uri()
