# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The MLflow loader, by the client: any database that MLflow knows, and any tracking server."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.keys import ARTIFACT_RULE, target_key
from neptune_exporter.loaders.loader import Limits, LoadOptions, RunToLoad, TargetProject, TargetRun, TargetState
from neptune_exporter.loaders.mlflow import MLflowOptions, tags
from neptune_exporter.loaders.mlflow.reading import read_run
from neptune_exporter.loaders.mlflow.sink import RunSink
from neptune_exporter.loaders.mlflow.tracking import Tracking, scheme_of, without_password
from neptune_exporter.loaders.runs import start_ms
from neptune_exporter.model import RunRef


class MLflowLoader:
    """A project becomes an experiment, a run a run. Connects when it is first used.

    Args:
        options: where MLflow is.
        load: what is asked of every loader alike.

    Raises:
        UsageError: the tracking URI is none that can be loaded into.
    """

    name = "mlflow"

    def __init__(self, options: MLflowOptions, load: LoadOptions | None = None) -> None:
        self._uri = options.mlflow_tracking_uri
        self._location = options.mlflow_artifact_location
        self._load = load or LoadOptions()
        self._scheme = scheme_of(self._uri)
        self._connection: Tracking | None = None
        self._experiments: dict[str, str] = {}
        self.limits = Limits(
            integer_steps=frozenset({"float_series"}),
            order="attribute",
            writers=1 if self._scheme == "sqlite" else None,
            key_length=tags.KEY_RULE.length,
            value_length=6000,
            tag_length=tags.TAG_LENGTH,
        )

    def states(self, project_id: str) -> TargetProject:
        """What MLflow holds of a project, in one search. See `Loader`."""
        database = self._database_file()
        if database is not None and not database.exists():
            return TargetProject()
        experiment = self._experiment(project_id)
        if experiment is None:
            return TargetProject()
        found: dict[RunRef, list[Any]] = defaultdict(list)
        for run in self._tracking.search(experiment.experiment_id, tags.LOAD):
            ref = _ref_of(run)
            if ref is not None and ref.project_id == project_id:
                found[ref].append(run)
        recorded = experiment.tags.get(tags.MULTIPLIER, "")
        return TargetProject(
            {ref: _state_of(runs) for ref, runs in found.items()},
            int(recorded) if recorded.isdecimal() else None,
        )

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        """Makes the experiment and records the multiplier in its tags. See `Loader`."""
        wanted = {tags.PROJECT: project_id, tags.MULTIPLIER: str(step_multiplier)}
        experiment = self._experiment(project_id)
        if experiment is None:
            name = tags.experiment_name(project_id, self._load.name_prefix)
            self._tracking.create_experiment(name, self._artifact_location(name), wanted)
            return
        for key, value in wanted.items():
            if experiment.tags.get(key) != value:
                self._tracking.set_experiment_tag(experiment.experiment_id, key, value)

    def start(self, run: RunToLoad, step_multiplier: int) -> RunSink:
        """Makes the MLflow run. Half-loaded ones are deleted first, complete ones after its commit. See `Loader`."""
        experiment = self._experiment_id(run.info.ref.project_id)
        before = self._runs(experiment, run.info.ref)
        for half in before:
            if not _is_complete(half):
                self._tracking.delete_run(half.info.run_id)
        children = self._tracking.search(experiment, tags.PARENT_REF, tags.ref_digest(run.info.ref))
        began = start_ms(run)
        run_id = self._tracking.create_run(
            experiment,
            tags.run_name(run, self._load),
            began,
            tags.creation_tags(run, step_multiplier, self._parent_of(run, experiment)),
        )
        return RunSink(
            self._tracking,
            run_id,
            run,
            step_multiplier=step_multiplier,
            start_ms=began,
            limits=self.limits,
            replaces=[old.info.run_id for old in before if _is_complete(old)],
            children=[child.info.run_id for child in children if _is_complete(child)],
            folder=Path(tempfile.mkdtemp(prefix="neptune-exporter-")),
            attach_all=self._load.attach_all,
        )

    def read(self, ref: RunRef) -> TargetRun:
        """A complete run as MLflow holds it. See `Readable`."""
        complete = [run for run in self._runs(self._experiment_id(ref.project_id), ref) if _is_complete(run)]
        if not complete:
            raise TargetError(
                f"{ref} is not in {self.describe()}, or only half.", "Load it with: neptune-exporter load"
            )
        newest = max(complete, key=_loaded)
        return read_run(self._tracking, newest.info.run_id, ref, self.limits)

    def close(self) -> None:
        """Lets go of the connection."""
        self._connection = None

    def describe(self) -> str:
        """The address, and for a database the command that shows it."""
        shown = without_password(self._uri)
        if self._scheme in ("http", "https"):
            return f"MLflow at {shown}"
        return f"MLflow at {shown} (open it with: mlflow ui --backend-store-uri {shown})"

    @property
    def _tracking(self) -> Tracking:
        if self._connection is None:
            self._connection = Tracking(self._uri)
        return self._connection

    def _experiment(self, project_id: str) -> Any | None:
        name = tags.experiment_name(project_id, self._load.name_prefix)
        experiment = self._tracking.experiment(name)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise TargetError(
                f"The MLflow experiment {name!r} was deleted, and its name is still taken.",
                f"Restore it with: mlflow experiments restore -x {experiment.experiment_id}; "
                "or remove it for good with mlflow gc; or use --name-prefix.",
            )
        return experiment

    def _experiment_id(self, project_id: str) -> str:
        if project_id not in self._experiments:
            experiment = self._experiment(project_id)
            if experiment is None:
                raise TargetError(f"Nothing of {project_id} is in {self.describe()}.")
            self._experiments[project_id] = experiment.experiment_id
        return self._experiments[project_id]

    def _runs(self, experiment: str, ref: RunRef) -> list[Any]:
        return list(self._tracking.search(experiment, tags.REF, tags.ref_digest(ref)))

    def _parent_of(self, run: RunToLoad, experiment: str) -> str | None:
        """The MLflow run of the parent, if it is in this experiment."""
        if run.info.parent is None:
            return None
        complete = [found for found in self._runs(experiment, run.info.parent) if _is_complete(found)]
        return max(complete, key=_loaded).info.run_id if complete else None

    def _artifact_location(self, name: str) -> str | None:
        if self._location:
            return self._location
        database = self._database_file()
        if database is None:
            return None
        # MLflow would take the folder that the command happens to run in.
        return (database.parent / "mlruns" / target_key(name.replace("/", "_"), ARTIFACT_RULE)).as_uri()

    def _database_file(self) -> Path | None:
        if self._scheme != "sqlite":
            return None
        from sqlalchemy import make_url

        return Path(make_url(self._uri).database or "").resolve()


def _ref_of(run: Any) -> RunRef | None:
    found = run.data.tags
    if tags.PROJECT not in found or tags.RUN not in found:
        return None
    return RunRef(found[tags.PROJECT], found[tags.RUN], found.get(tags.KIND, "run"))


def _is_complete(run: Any) -> bool:
    return str(run.data.tags.get(tags.LOAD, "")).startswith(tags.COMPLETE)


def _loaded(run: Any) -> int:
    return int(run.data.tags.get(tags.LOADED, 0))


def _state_of(runs: list[Any]) -> TargetState:
    """The newest complete run counts. Two of them are a load that ended before it could tidy up: not complete."""
    complete = sorted(filter(_is_complete, runs), key=_loaded)
    if not complete:
        return TargetState(runs[0].info.run_id, complete=False)
    newest = complete[-1]
    digest = newest.data.tags[tags.LOAD].removeprefix(tags.COMPLETE)
    return TargetState(newest.info.run_id, complete=len(complete) == 1, digest=digest)
