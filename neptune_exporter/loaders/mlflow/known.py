# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of ours that MLflow holds, asked for once per project and kept up to date by what we do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from neptune_exporter.loaders.loader import TargetState
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.marks import is_fresh
from neptune_exporter.model import RunRef


@dataclass(frozen=True, slots=True)
class KnownRun:
    """An MLflow run that we made.

    Attributes:
        id: its id in MLflow.
        ref: the Neptune run, as its tags name it.
        key: stands for the Neptune run; see `tags.ref_digest`.
        load: the completion marker, or that it was started.
        loaded: when it was made, in milliseconds.
        parent: stands for the Neptune run that it was forked from, "" if for none; see `tags.ref_digest`.
    """

    id: str
    ref: RunRef
    key: str
    load: str
    loaded: int = 0
    parent: str = ""

    @property
    def complete(self) -> bool:
        """Whether the completion marker is there."""
        return self.load.startswith(tags.COMPLETE)

    @property
    def digest(self) -> str:
        """The digest in the completion marker."""
        return self.load.removeprefix(tags.COMPLETE) if self.complete else ""

    @classmethod
    def of_tags(cls, run_id: str, found: Mapping[str, str]) -> KnownRun | None:
        """A run by its tags; None if we did not make it."""
        if not {tags.PROJECT, tags.RUN, tags.REF, tags.LOAD} <= found.keys():
            return None
        kind = found.get(tags.KIND, "run")
        ref = RunRef(found[tags.PROJECT], found[tags.RUN], kind)  # type: ignore[arg-type]
        loaded = found.get(tags.LOADED, "")
        number = int(loaded) if loaded.isdecimal() else 0
        return cls(run_id, ref, found[tags.REF], found[tags.LOAD], number, found.get(tags.PARENT_REF, ""))


class KnownRuns:
    """The runs of one project.

    Args:
        runs: all of them, half-loaded ones too.
    """

    def __init__(self, runs: Iterable[KnownRun] = ()) -> None:
        self._by_id: dict[str, KnownRun] = {}
        self._by_key: dict[str, dict[str, KnownRun]] = {}
        self._by_parent: dict[str, dict[str, KnownRun]] = {}
        for run in runs:
            self.add(run)

    def add(self, run: KnownRun) -> None:
        """Takes a run, or what has become of it."""
        self.remove(run.id)
        self._by_id[run.id] = run
        self._by_key.setdefault(run.key, {})[run.id] = run
        if run.parent:
            self._by_parent.setdefault(run.parent, {})[run.id] = run

    def remove(self, run_id: str) -> None:
        """Forgets a run."""
        run = self._by_id.pop(run_id, None)
        if run is not None:
            del self._by_key[run.key][run_id]
            self._by_parent.get(run.parent, {}).pop(run_id, None)

    def of(self, ref: RunRef) -> list[KnownRun]:
        """Every MLflow run of a Neptune run."""
        return list(self._by_key.get(tags.ref_digest(ref), {}).values())

    def newest(self, ref: RunRef) -> KnownRun | None:
        """The complete MLflow run of a Neptune run; the newest, should there be several."""
        return _newest(self.of(ref))

    def forks_of(self, ref: RunRef) -> list[KnownRun]:
        """The complete runs that were forked from a Neptune run."""
        return [run for run in self._by_parent.get(tags.ref_digest(ref), {}).values() if run.complete]

    def states(self, project_id: str) -> dict[RunRef, TargetState]:
        """What to say of each Neptune run of a project."""
        groups = [list(runs.values()) for runs in self._by_key.values() if runs]
        return {runs[0].ref: _state_of(runs) for runs in groups if runs[0].ref.project_id == project_id}


def _newest(runs: list[KnownRun]) -> KnownRun | None:
    return max((run for run in runs if run.complete), key=lambda run: run.loaded, default=None)


def _state_of(runs: list[KnownRun]) -> TargetState:
    """Another run beside the complete one is of a load that ended before it could tidy up: that is not complete."""
    live = next((run for run in runs if is_fresh(run.load)), None)
    if live is not None:
        return TargetState(live.id, complete=False, live=True)
    newest = _newest(runs)
    if newest is None:
        return TargetState(runs[0].id, complete=False)
    return TargetState(newest.id, complete=len(runs) == 1, digest=newest.digest)
