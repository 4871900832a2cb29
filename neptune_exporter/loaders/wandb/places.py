# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a server and a folder of offline runs have in common: both hold runs, take new ones, and give them back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from neptune_exporter.loaders.loader import LoadOptions, RunToLoad, TargetProject, TargetRun
from neptune_exporter.loaders.wandb import WandbOptions, config, names
from neptune_exporter.loaders.wandb.forks import Fork
from neptune_exporter.loaders.wandb.server import RunName
from neptune_exporter.loaders.wandb.writers import Head, RunWriter, Tail
from neptune_exporter.model import RunInfo, RunRef


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that was begun or is gone on with.

    Attributes:
        name: where it goes.
        generation: from 1 on.
        plan: what its rows are made of; equal plans give equal rows.
        start_ms: when the run began.
        folder: for its log.
        artifact: an empty folder for what its artifact is made of.
        keep: whether these folders stay.
        resumed_rows: how many rows are there already.
        complete: whether it is complete, and only older ones are left to be dealt with.
        older: earlier generations that still look valid.
        fork: where it branches off its parent, None if it does not.
    """

    name: RunName
    generation: int
    plan: str
    start_ms: int
    folder: Path
    artifact: Path
    keep: bool = False
    resumed_rows: int = 0
    complete: bool = False
    older: Sequence[Any] = ()
    fork: Fork | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What a load that goes on with the run has to know of how it began."""
        return {"start_ms": self.start_ms, **({"fork": self.fork.to_json()} if self.fork else {})}


class Place(Protocol):
    """Where runs go."""

    def states(self, project_id: str) -> TargetProject:
        """See `Loader.states`."""

    def begin(self, run: RunToLoad, plan: str, multiplier: int) -> Begun:
        """Begins a run, or goes on with the one whose load was interrupted."""

    def writer(self, head: Head, begun: Begun) -> RunWriter:
        """Writes it."""

    def deliver(self, begun: Begun, run: RunToLoad, writer: RunWriter, tail: Tail, rows: int) -> None:
        """Ends it, makes sure that all is there, and only then marks it complete."""

    def retire(self, begun: Begun) -> None:
        """Deals with older generations, now that this one is complete."""

    def clean(self, begun: Begun) -> None:
        """Removes what is not to stay on this machine. May be called twice."""

    def read(self, ref: RunRef) -> TargetRun:
        """See `Readable.read`."""

    def describe(self) -> str:
        """See `Loader.describe`."""

    def close(self) -> None:
        """Lets go of connections."""


@dataclass(frozen=True, slots=True)
class Projects:
    """Which W&B projects runs go to."""

    options: WandbOptions
    load: LoadOptions

    @property
    def by_experiment(self) -> bool:
        """Whether experiments have projects of their own."""
        return self.options.wandb_project_by == "experiment"

    def base(self, project_id: str) -> str:
        """The project of a Neptune project; where experiments have their own, what those begin with."""
        return names.project_name(self.options.wandb_project or self.load.place(project_id), self.load.name_prefix)

    def of(self, info: RunInfo) -> str:
        """The project of a run."""
        experiment = (info.experiment or info.name) if self.by_experiment else None
        project = self.options.wandb_project or self.load.place(info.ref.project_id)
        return names.project_name(project, self.load.name_prefix, experiment)


def plan_of(run: RunToLoad, multiplier: int, *, media: bool = False, fork: bool = False) -> str:
    """Stands for everything that decides what the rows of the history are."""
    text = f"{config.FORMAT}\0{run.digest}\0{multiplier}" + ("\0media" if media else "")
    text += "\0fork" if fork and run.info.parent else ""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def complete_load(run: RunToLoad, begun: Begun, rows: int, artifact: str) -> Mapping[str, Any]:
    """The marker of a complete run."""
    return {
        "state": config.COMPLETE,
        "digest": run.digest,
        "plan": begun.plan,
        **begun.facts,
        "rows": rows,
        "artifact": artifact,
    }
