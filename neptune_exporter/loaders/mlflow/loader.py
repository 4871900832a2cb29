# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The MLflow loader: by the client into anything that MLflow is, or straight into its tables where they are known."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError, UsageError
from neptune_exporter.loaders.loader import Limits, LiveTarget, LoadOptions, RunToLoad, TargetProject, TargetRun
from neptune_exporter.loaders.mlflow import MLflowOptions, tags
from neptune_exporter.loaders.mlflow.database import Database, OtherTablesError
from neptune_exporter.loaders.mlflow.dialects import DIALECTS
from neptune_exporter.loaders.mlflow.direct import DirectRun
from neptune_exporter.loaders.mlflow.experiments import Experiments
from neptune_exporter.loaders.mlflow.held import ClientView, DatabaseView, View
from neptune_exporter.loaders.mlflow.known import KnownRun, KnownRuns
from neptune_exporter.loaders.mlflow.live import MLflowLive
from neptune_exporter.loaders.mlflow.pacing import keep_to
from neptune_exporter.loaders.mlflow.reading import read_run
from neptune_exporter.loaders.mlflow.sending import ClientRun, Destination, NewRun
from neptune_exporter.loaders.mlflow.sink import RunSink
from neptune_exporter.loaders.mlflow.tracking import Tracking, scheme_of, without_password
from neptune_exporter.loaders.runs import end_ms, start_ms
from neptune_exporter.model import RunRef
from neptune_exporter.pace import Pace

ADDRESS_LENGTH = 200  # of a run's artifacts, in the database column
_WITHOUT_LENGTHS = ("sqlite", "http", "https")  # a server does not say what it keeps its runs in

logger = logging.getLogger(__name__)


class MLflowLoader:
    """A project becomes an experiment, a run a run. Connects when it is first used.

    Args:
        options: where MLflow is.
        load: what is asked of every loader alike.

    Raises:
        UsageError: the tracking URI is none that can be loaded into, or the options contradict each other.
    """

    name = "mlflow"

    def __init__(self, options: MLflowOptions, load: LoadOptions | None = None) -> None:
        self._options = options
        self._uri = options.mlflow_tracking_uri
        self._load = load or LoadOptions()
        self._pace = Pace(self._load.max_requests_per_second)
        self._scheme = scheme_of(self._uri)
        self._direct_uri = _direct_uri(options, self._scheme)
        self._known: dict[str, KnownRuns] = {}
        self._held: set[str] = set()  # experiments that the database beside a server was seen to hold
        self._backend = scheme_of(self._direct_uri) if self._direct_uri else self._scheme
        self.limits = Limits(
            integer_steps=frozenset({"float_series"}),
            order="attribute",
            writers=1 if self._backend == "sqlite" else None,
            key_length=tags.KEY_RULE.length,
            value_length=6000,
            tag_length=tags.TAG_LENGTH,
        )

    def states(self, project_id: str) -> TargetProject:
        """What MLflow holds of a project, in one search. See `Loader`."""
        file = self._database_file
        if file is not None and not file.exists():
            return TargetProject()
        known = self._search(project_id)
        recorded = [e.tags.get(tags.MULTIPLIER, "") for e in self._experiments.of_project(project_id)]
        multipliers = [int(text) for text in recorded if text.isdecimal()]
        return TargetProject(known.states(project_id), max(multipliers, default=None))

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        """Makes the experiment and records the multiplier in its tags. See `Loader`."""
        self._experiments.prepare(project_id, step_multiplier)

    def start(self, run: RunToLoad, step_multiplier: int) -> RunSink:
        """Begins the MLflow run. Half-loaded ones go first, complete ones when it is complete. See `Loader`."""
        known = self._known_runs(run.info.ref.project_id)
        new = self._new_run(run, step_multiplier, known)
        folder = Path(tempfile.mkdtemp(prefix="neptune-exporter-"))
        try:
            return RunSink(
                self._destination(new, known, folder),
                run,
                step_multiplier=step_multiplier,
                start_ms=new.start_ms,
                limits=self.limits,
                folder=folder,
                attach_all=self._load.attach_all,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def read(self, ref: RunRef) -> TargetRun:
        """A complete run as MLflow holds it. See `Readable`."""
        found = self._known_runs(ref.project_id).newest(ref)
        view = None if found is None else self._view(found.id)
        if view is None or not view.active:  # nothing is known of it, or another command has replaced it
            found = self._search(ref.project_id).newest(ref)
            view = None if found is None else self._view(found.id)
        if view is None:
            raise TargetError(
                f"{ref} is not in {self.describe()}, or only half.", "Load it with: neptune-exporter load"
            )
        return read_run(view, ref, self.limits)

    @property
    def folders(self) -> Sequence[Path]:
        """Where a database in a file and its artifacts lie. See `OnDisk`."""
        return [] if self._database_file is None else [self._database_file.parent]

    def live(self, step_multiplier: int | None) -> LiveTarget:
        """A run that is fed while it is being logged. See `Live`."""
        return MLflowLive(
            lambda: self._tracking, lambda: self._experiments, self.states, self._load, self.limits, step_multiplier
        )

    def close(self) -> None:
        """Lets go of connections."""
        database = self.__dict__.pop("_database", None)
        if database is not None:
            database.close()
        for name in ("_tracking", "_experiments"):
            self.__dict__.pop(name, None)
        self._known.clear()

    def describe(self) -> str:
        """The address, and for a database the command that shows it."""
        shown = without_password(self._uri)
        if self._scheme in ("http", "https"):
            return f"MLflow at {shown}"
        return f"MLflow at {shown} (open it with: mlflow ui --backend-store-uri {shown})"

    # --- connections

    @cached_property
    def _tracking(self) -> Tracking:
        if self._load.max_requests_per_second and self._scheme in ("http", "https"):
            keep_to(self._pace)
        return Tracking(self._uri)

    @cached_property
    def _experiments(self) -> Experiments:
        file = self._database_file
        return Experiments(
            self._tracking,
            prefix=self._load.name_prefix,
            by_name=self._options.mlflow_experiment_by == "experiment",
            location=self._options.mlflow_artifact_location,
            beside=None if file is None else file.parent,
            address_length=self._address_length,
        )

    @property
    def _address_length(self) -> int | None:
        return None if self._backend in _WITHOUT_LENGTHS else ADDRESS_LENGTH

    @cached_property
    def _database(self) -> Database | None:
        """The tables, if they are to be written directly and can be."""
        if not self._direct_uri:
            return None
        _ = self._tracking  # which makes the tables of a new database
        try:
            database = Database(self._direct_uri)
        except OtherTablesError as error:
            if self._options.mlflow_mode == "sql":
                raise
            logger.warning("%s So MLflow's client is used, which is slower.", error.message)
            return None
        return database

    @cached_property
    def _database_file(self) -> Path | None:
        if self._scheme != "sqlite":
            return None
        from sqlalchemy import make_url

        return Path(make_url(self._uri).database or "").resolve()

    # --- runs

    def _known_runs(self, project_id: str) -> KnownRuns:
        return self._known[project_id] if project_id in self._known else self._search(project_id)

    def _search(self, project_id: str) -> KnownRuns:
        """One search for all runs of a project."""
        self._known[project_id] = KnownRuns(self._found(project_id))
        return self._known[project_id]

    def _found(self, project_id: str, ref: RunRef | None = None) -> list[KnownRun]:
        database = self._database
        experiments = [self._checked(experiment) for experiment in self._experiments.of_project(project_id)]
        if not experiments:
            return []
        digest = None if ref is None else tags.ref_digest(ref)
        if database is not None:
            return list(database.known_runs(experiments, digest))
        key, value = (tags.LOAD, None) if digest is None else (tags.REF, digest)
        found = (KnownRun.of_tags(r.info.run_id, r.data.tags) for r in self._tracking.search(experiments, key, value))
        return [run for run in found if run is not None]

    def _checked(self, experiment: Any) -> str:
        """The id of an experiment. Raises `TargetError` if the database beside a server does not hold it."""
        found = str(experiment.experiment_id)
        if self._options.mlflow_backend_store_uri and self._database is not None and found not in self._held:
            if not self._database.holds(found, experiment.name):
                raise TargetError(
                    f"{without_password(self._direct_uri)} is not the database of the MLflow server at "
                    f"{without_password(self._uri)}: it does not hold experiment {experiment.name!r}.",
                    "Give --mlflow-backend-store-uri as the server was started with, or leave it out.",
                )
            self._held.add(found)
        return found

    def _new_run(self, run: RunToLoad, step_multiplier: int, known: KnownRuns) -> NewRun:
        info = run.info
        experiment = self._experiments.of_run(info, step_multiplier)
        began = start_ms(run)
        return NewRun(
            ref=info.ref,
            digest=run.digest,
            experiment_id=self._checked(experiment),
            artifact_root=experiment.artifact_location,
            name=tags.run_name(run, self._load),
            start_ms=began,
            end_ms=end_ms(run, began),
            status="FAILED" if info.failed else "FINISHED",
            tags=tags.creation_tags(run, step_multiplier, self._parent_id(info.parent, known)),
            replaces=known.of(info.ref),
            forks=known.forks_of(info.ref),
        )

    def _parent_id(self, parent: RunRef | None, known: KnownRuns) -> str | None:
        """The MLflow run of the parent; another worker may have loaded it since the project was searched."""
        if parent is None:
            return None
        found = known.newest(parent)
        if found is None:
            for run in self._found(parent.project_id, parent):
                known.add(run)
            found = known.newest(parent)
        return None if found is None else found.id

    def _destination(self, new: NewRun, known: KnownRuns, folder: Path) -> Destination:
        if self._database is not None:
            return DirectRun(self._tracking, self._database, new, known, folder)
        return ClientRun(self._tracking, new, known)

    def _view(self, run_id: str) -> View | None:
        if self._database is None:
            return ClientView(self._tracking, run_id)
        held = self._database.run(run_id)
        return None if held is None else DatabaseView(self._tracking, self._database, run_id, held)


def _direct_uri(options: MLflowOptions, scheme: str) -> str:
    """The database to write into directly, "" for none.

    Raises:
        UsageError: it is to be written into, but is none that can be.
    """
    store = options.mlflow_backend_store_uri
    if store and scheme not in ("http", "https"):
        raise UsageError(
            "--mlflow-backend-store-uri is for a tracking server.", "Name its address with --mlflow-tracking-uri."
        )
    uri = store or options.mlflow_tracking_uri
    if scheme_of(uri) in DIALECTS and options.mlflow_mode != "rest":
        return uri
    if options.mlflow_mode == "sql" or (store and options.mlflow_mode != "rest"):
        raise UsageError(
            f"{without_password(uri)!r} is no database that can be written directly.",
            "That takes sqlite:///FILE or postgresql://…; beside a tracking server as --mlflow-backend-store-uri.",
        )
    return ""
