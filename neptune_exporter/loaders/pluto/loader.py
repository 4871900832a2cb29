# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The Pluto loader: a project becomes a project, a run a run."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.live_marks import is_fresh
from neptune_exporter.loaders.loader import (
    Limits,
    LiveTarget,
    LoadOptions,
    RunToLoad,
    TargetProject,
    TargetRun,
    TargetState,
)
from neptune_exporter.loaders.pluto import PlutoOptions, marks
from neptune_exporter.loaders.pluto.api import OpenRun, Pluto, addresses
from neptune_exporter.loaders.pluto.client import RefusedError
from neptune_exporter.loaders.pluto.live import PlutoLive
from neptune_exporter.loaders.pluto.reading import read_run
from neptune_exporter.loaders.pluto.sink import RunSink
from neptune_exporter.loaders.runs import start_ms, title
from neptune_exporter.model import MICRO, RunRef
from neptune_exporter.pace import Pace


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a run, as Pluto knows it.

    Attributes:
        ref: the run.
        id: Pluto's number of it.
        state: `started`, `complete:` and the digest, `abandoned` or `superseded`.
        generation: counts the loads of the run.
        multiplier: for its steps.
        tags: of the Pluto run.
    """

    ref: RunRef
    id: int
    state: str
    generation: int
    multiplier: int
    tags: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it was finished, and counts."""
        return self.state.startswith(marks.COMPLETE)

    @property
    def given_up(self) -> bool:
        """Whether it was said not to count."""
        return self.state in (marks.ABANDONED, marks.SUPERSEDED)


class PlutoLoader:
    """Pluto as a target. Connects when it is first used.

    Args:
        options: where Pluto is.
        load: what is asked of every loader alike.
    """

    name = "pluto"
    limits = Limits(
        integer_steps=frozenset({"float_series"}),
        order="step",
        key_length=marks.KEY_RULE.length,
        value_length=marks.CONFIG_TEXT_LENGTH,
    )

    def __init__(self, options: PlutoOptions, load: LoadOptions | None = None) -> None:
        self._options = options
        self._load = load or LoadOptions()
        self._pace = Pace(self._load.max_requests_per_second)
        self._connection: Pluto | None = None
        self._listed: dict[str, list[Load]] = {}
        self._without_parent: set[RunRef] = set()
        self._lock = threading.Lock()

    def states(self, project_id: str) -> TargetProject:
        """What Pluto holds of a project, in one search. See `Loader`."""
        found: dict[RunRef, list[Load]] = defaultdict(list)
        for load in self._loads(project_id, fresh=True):
            if not load.given_up:
                found[load.ref].append(load)
        complete = [load for loads in found.values() for load in loads if load.complete]
        return TargetProject(
            {ref: _state_of(loads) for ref, loads in found.items()},
            max((load.multiplier for load in complete), default=None),
        )

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        """Nothing is shared by the runs of a project: Pluto makes the project with the first. See `Loader`."""

    def start(self, run: RunToLoad, step_multiplier: int) -> RunSink:
        """Makes the Pluto run. Half-loaded ones are given up first, complete ones after its commit. See `Loader`."""
        ref = run.info.ref
        before = [load for load in self._loads(ref.project_id) if load.ref == ref]
        for half in before:
            if not half.complete and not half.given_up:
                self._api.abandon(half.id)
                self._note(half, marks.ABANDONED)
        began = start_ms(run)
        load, target = self._create(run, step_multiplier, began, 1 + max((b.generation for b in before), default=0))
        self._note(load, marks.STARTED)
        return RunSink(
            self._api,
            target,
            run,
            multiplier=step_multiplier,
            start_ms=began,
            ended=partial(self._ended, load, run.digest, [old for old in before if old.complete]),
            folder=Path(tempfile.mkdtemp(prefix="neptune-exporter-")),
            attach_all=self._load.attach_all,
        )

    def read(self, ref: RunRef) -> TargetRun:
        """A complete run as Pluto holds it. See `Readable`."""
        newest = _newest(load for load in self._loads(ref.project_id, fresh=True) if load.ref == ref)
        if newest is None:
            raise TargetError(
                f"{ref} is not in {self.describe()}, or only half.", "Load it with: neptune-exporter load"
            )
        details = self._api.details(newest.id)
        target = OpenRun(newest.id, details["name"], self._project(ref.project_id))
        return read_run(self._api, target, details, ref)

    def live(self, step_multiplier: int | None) -> LiveTarget:
        """A run that is fed while it is being logged. See `Live`."""
        return PlutoLive(
            lambda: self._api,
            self._project,
            lambda run: title(run, self._load),
            lambda project_id: self.states(project_id).step_multiplier,
            step_multiplier,
        )

    def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._listed.clear()

    def describe(self) -> str:
        """The address where people look at runs."""
        return f"Pluto at {addresses(self._options)[0]}"

    @property
    def _api(self) -> Pluto:
        if self._connection is None:
            self._connection = Pluto(self._options, self._pace)
        return self._connection

    def _project(self, project_id: str) -> str:
        return marks.project_name(self._load.place(project_id), self._load.name_prefix, self._options.pluto_project)

    def _loads(self, project_id: str, *, fresh: bool = False) -> list[Load]:
        """Every load of every run of a project; as of the last listing, and our own since, unless `fresh`."""
        if fresh or project_id not in self._listed:
            found = (_load_of(run) for run in self._api.runs(self._project(project_id)))
            self._listed[project_id] = [load for load in found if load and load.ref.project_id == project_id]
        return self._listed[project_id]

    def _create(self, run: RunToLoad, multiplier: int, began: int, generation: int) -> tuple[Load, OpenRun]:
        """Makes a run that was not there before."""
        fork = self._fork(run, multiplier)
        while True:
            config, nonce = marks.identity(run, multiplier, generation), uuid.uuid4().hex
            how: dict[str, Any] = {
                "config": config,
                "loggerSettings": {marks.SETTINGS: nonce},
                "tags": [marks.TAG],
                "createdAt": began,
                "updatedAt": began,
            }
            name, external = marks.printable(title(run, self._load)), marks.external_id(run.info.ref, generation)
            project = self._project(run.info.ref.project_id)
            try:
                target, was_there = self._api.create(project, name, external, **how, **fork)
            except RefusedError:
                if not fork:
                    raise
                fork = {}  # the link stays in the config
                continue
            if not was_there or self._is_ours(target, nonce):
                return Load(run.info.ref, target.id, marks.STARTED, generation, multiplier), target
            generation += 1

    def _is_ours(self, target: OpenRun, nonce: str) -> bool:
        """Whether a run that was there already is one that we made a moment ago, without getting the answer."""
        settings = self._api.details(target.id).get("loggerSettings")
        return isinstance(settings, dict) and settings.get(marks.SETTINGS) == nonce

    def _fork(self, run: RunToLoad, multiplier: int) -> dict[str, Any]:
        """What says that a run is a fork of one that Pluto holds."""
        parent, step = run.info.parent, run.info.fork_step
        if parent is None or step is None or step < 0:
            return {}
        project_id = run.info.ref.project_id
        found = _newest(load for load in self._loads(project_id) if load.ref == parent)
        if found is None and parent not in self._without_parent:  # another process may have loaded it by now
            found = _newest(load for load in self._loads(project_id, fresh=True) if load.ref == parent)
        if found is None:
            self._without_parent.add(parent)
            return {}
        whole = int(step * MICRO) * multiplier // MICRO
        return {"forkRunId": found.id, "forkStep": whole, "inheritConfig": False, "inheritTags": False}

    def _ended(self, load: Load, digest: str, before: Iterable[Load], complete: bool) -> None:
        """A load is complete or given up: a complete one takes the place of those before it."""
        self._note(load, marks.COMPLETE + digest if complete else marks.ABANDONED)
        for old in before if complete else ():
            self._api.supersede(old.id, old.tags)
            self._note(old, marks.SUPERSEDED)

    def _note(self, load: Load, state: str) -> None:
        """Remembers what became of a load, so that the project need not be listed for every run."""
        with self._lock:
            others = [known for known in self._listed.get(load.ref.project_id, ()) if known.id != load.id]
            self._listed[load.ref.project_id] = [*others, replace(load, state=state)]


def _load_of(run: dict[str, Any]) -> Load | None:
    config = run.get("config") or {}
    if marks.PROJECT not in config or marks.RUN not in config:
        return None
    return Load(
        RunRef(config[marks.PROJECT], config[marks.RUN], config.get(marks.KIND, "run")),
        int(run["id"]),
        str(config.get(marks.LOAD, "")),
        int(config.get(marks.GENERATION, 1)),
        int(config.get(marks.MULTIPLIER, 1)),
        tuple(run.get("tags") or ()),
    )


def _newest(loads: Iterable[Load]) -> Load | None:
    return max((load for load in loads if load.complete), key=lambda load: load.generation, default=None)


def _state_of(loads: list[Load]) -> TargetState:
    """The newest complete load counts. Two of them are one that ended before it could tidy up: not complete."""
    live = next((load for load in loads if is_fresh(load.state)), None)
    if live is not None:
        return TargetState(str(live.id), complete=False, live=True)
    newest = _newest(loads)
    if newest is None:
        return TargetState(str(loads[0].id), complete=False)
    only = sum(load.complete for load in loads) == 1
    return TargetState(str(newest.id), complete=only, digest=newest.state.removeprefix(marks.COMPLETE))
