# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Offline runs: folders that `wandb sync` can send, each with a record of ours that says what it holds.

`<dir>/wandb/offline-run-<time>-<id>/` holds `run-<id>.wandb`, what its artifact is made of in `artifact/`, and
`neptune.json`. The log gets its name last: a folder without one was never finished, and `wandb sync` passes it over.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neptune_exporter.assignment import assignment
from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.loader import LoadOptions, RunToLoad, TargetProject, TargetRun, TargetState
from neptune_exporter.loaders.runs import start_ms
from neptune_exporter.loaders.wandb import WandbOptions, names, sending
from neptune_exporter.loaders.wandb.entries import manifest_digest
from neptune_exporter.loaders.wandb.forks import Fork, branch_step
from neptune_exporter.loaders.wandb.held import LocalRun
from neptune_exporter.loaders.wandb.places import Begun, Projects, complete_load
from neptune_exporter.loaders.wandb.reading import read_run
from neptune_exporter.loaders.wandb.server import RunName
from neptune_exporter.loaders.wandb.writers import ClientWriter, Head, LogWriter, RunWriter, Tail
from neptune_exporter.model import RunRef

logger = logging.getLogger(__name__)

RECORD = "neptune.json"
_LATEST_SECOND = 253_402_300_799  # of the year 9999


@dataclass(frozen=True, slots=True)
class OfflineRun:
    """An offline run that is complete.

    Attributes:
        folder: where it is.
        wandb_id: its id in W&B.
        ref: the Neptune run.
        project: the W&B project.
        generation: which load of the run it was, from 1 on.
        load: digest, plan, number of rows and digest of the artifact.
        multiplier: the step multiplier.
    """

    folder: Path
    wandb_id: str
    ref: RunRef
    project: str
    generation: int
    load: Mapping[str, Any]
    multiplier: int

    @property
    def log(self) -> Path:
        """Its log."""
        return log_path(self.folder, self.wandb_id)

    @property
    def sent(self) -> bool:
        """Whether `wandb sync` has sent it."""
        return self.log.with_suffix(".wandb.synced").exists()


class Offline:
    """The folder `wandb` in a folder of the user's, as a place for runs.

    Args:
        options: where it is.
        load: what is asked of every loader alike.
        by_log: whether logs are written by us, instead of calling `run.log`.
    """

    def __init__(self, options: WandbOptions, load: LoadOptions, *, by_log: bool) -> None:
        self._entity, self._forks = options.wandb_entity, options.wandb_fork
        self._projects = Projects(options, load)
        self._by_log = by_log
        self._folder = Path(options.wandb_dir).absolute() / "wandb"

    def states(self, project_id: str) -> TargetProject:
        """See `Place`."""
        found = self._runs_of(project_id)
        multiplier = None
        states = {}
        for ref, runs in found.items():
            newest = runs[-1]
            multiplier = newest.multiplier
            tidy = all(run.sent for run in runs[:-1])  # else a load has ended before it could remove the old one
            states[ref] = TargetState(newest.wandb_id, complete=tidy, digest=newest.load["digest"])
        return TargetProject(states, multiplier)

    def begin(self, run: RunToLoad, plan: str, multiplier: int) -> Begun:
        """See `Place`."""
        ref, project = run.info.ref, self._projects.of(run.info)
        before = [old for old in self._runs_of(ref.project_id).get(ref, []) if old.project == project]
        latest = before[-1] if before else None
        if latest is not None and latest.load["plan"] == plan:
            name = RunName(self._entity, project, latest.wandb_id)
            start = int(latest.load["start_ms"])
            return Begun(name, latest.generation, plan, start, Path(), Path(), complete=True, older=before[:-1])
        generation = latest.generation + 1 if latest else 1
        name = RunName(self._entity, project, names.run_id(ref, generation))
        start = start_ms(run)
        fork = self._fork(run, project, multiplier)
        folder = self._new_folder(name.id, start)
        return Begun(name, generation, plan, start, folder, folder / "artifact", keep=True, older=before, fork=fork)

    def _fork(self, run: RunToLoad, project: str, multiplier: int) -> Fork | None:
        """Where the run branches off its parent, if that is asked for and the parent is in this folder."""
        parent, step = run.info.parent, run.info.fork_step
        if not self._forks or parent is None or step is None:
            return None
        held = [old for old in self._runs_of(parent.project_id).get(parent, []) if old.project == project]
        if not held:
            logger.warning("%s is loaded without a fork: its parent %s is not in %s", run.info.ref, parent, project)
            return None
        return Fork(held[-1].wandb_id, branch_step(LocalRun(held[-1].log).rows(), step, multiplier))

    def writer(self, head: Head, begun: Begun) -> RunWriter:
        """See `Place`."""
        if self._by_log:
            return LogWriter(head, begun.folder, sending.installed_version())
        return ClientWriter(head, begun.folder, None)

    def deliver(self, begun: Begun, run: RunToLoad, writer: RunWriter, tail: Tail, rows: int) -> None:
        """See `Place`."""
        sealed = begun.folder / "sealed"
        writer.finish(tail, sealed)
        shutil.rmtree(begun.folder / "client", ignore_errors=True)
        assignment().confirm()
        load = complete_load(run, begun, rows, manifest_digest(tail.entries))
        ref, multiplier = run.info.ref, tail.config[names.OURS]["step_multiplier"]
        done = OfflineRun(begun.folder, begun.name.id, ref, begun.name.project, begun.generation, load, multiplier)
        _write_record(done)
        sealed.replace(done.log)

    def retire(self, begun: Begun) -> None:
        """Removes older generations that were never sent; those that were, W&B has."""
        for old in begun.older:
            if not old.sent:
                old.log.unlink(missing_ok=True)
                shutil.rmtree(old.folder, ignore_errors=True)

    def clean(self, begun: Begun) -> None:
        """Removes a folder that was not finished."""
        if begun.folder != Path() and not log_path(begun.folder, begun.name.id).exists():
            shutil.rmtree(begun.folder, ignore_errors=True)

    def read(self, ref: RunRef) -> TargetRun:
        """See `Place`."""
        runs = self._runs_of(ref.project_id).get(ref)
        if not runs:
            raise TargetError(f"{ref} is not in {self._folder}.", "Load it with: neptune-exporter load")
        return read_run(LocalRun(runs[-1].log), ref)

    def describe(self) -> str:
        """The folder, and the command that sends what is in it."""
        return f"W&B logs in {self._folder} (send them with: wandb sync {self._folder}/offline-run-*)"

    def close(self) -> None:
        """Nothing to let go of."""

    def _runs(self) -> Iterator[OfflineRun]:
        for path in sorted(self._folder.glob(f"offline-run-*/{RECORD}")):
            run = _read_record(path)
            if run.log.exists():
                yield run

    def _runs_of(self, project_id: str) -> Mapping[RunRef, list[OfflineRun]]:
        """Complete runs of a project, each by generation."""
        wanted = self._projects.base(project_id)
        found: dict[RunRef, list[OfflineRun]] = defaultdict(list)
        for run in self._runs():
            if run.ref.project_id == project_id and (run.project == wanted or self._projects.by_experiment):
                found[run.ref].append(run)
        return {ref: sorted(runs, key=lambda run: run.generation) for ref, runs in found.items()}

    def _new_folder(self, wandb_id: str, began_ms: int) -> Path:
        """An empty folder for a run; what an unfinished load has left of it goes."""
        try:
            for left in self._folder.glob(f"offline-run-????????_??????-{wandb_id}"):
                shutil.rmtree(left)
            second = min(max(began_ms // 1000, 0), _LATEST_SECOND)
            began = time.strftime("%Y%m%d_%H%M%S", time.gmtime(second))
            folder = self._folder / f"offline-run-{began}-{wandb_id}"
            (folder / "artifact").mkdir(parents=True)
            (folder / "files").mkdir()
        except OSError as error:
            raise TargetError(
                f"Cannot write into {self._folder}: {error.strerror}.", "Choose another folder with --wandb-dir."
            ) from error
        return folder


def log_path(folder: Path, wandb_id: str) -> Path:
    """The log of a run, by its folder and id."""
    return folder / f"run-{wandb_id}.wandb"


def _write_record(run: OfflineRun) -> None:
    """Says what the folder will hold; counts once the log has its name."""
    value = {
        "wandb_id": run.wandb_id,
        "ref": [run.ref.project_id, run.ref.run_id, run.ref.kind],
        "project": run.project,
        "generation": run.generation,
        "load": dict(run.load),
        "step_multiplier": run.multiplier,
    }
    with (run.folder / f"{RECORD}.new").open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    (run.folder / f"{RECORD}.new").replace(run.folder / RECORD)


def _read_record(path: Path) -> OfflineRun:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return OfflineRun(
            path.parent,
            value["wandb_id"],
            RunRef(*value["ref"]),
            value["project"],
            value["generation"],
            value["load"],
            value["step_multiplier"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetError(f"{path} cannot be read: {error}.", "Remove that folder and load again.") from error
