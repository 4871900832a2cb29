# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs on a W&B server: found by what their config says, gone on with by the number of rows that the server has."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from neptune_exporter.assignment import assignment
from neptune_exporter.errors import TargetAccessError, TargetError
from neptune_exporter.loaders.live_marks import is_fresh
from neptune_exporter.loaders.loader import LoadOptions, RunToLoad, TargetProject, TargetRun, TargetState
from neptune_exporter.loaders.runs import start_ms
from neptune_exporter.loaders.wandb import WandbOptions, config, names, sending
from neptune_exporter.loaders.wandb.entries import manifest_digest
from neptune_exporter.loaders.wandb.forks import INTERNAL, Fork, branch_step, first_step, internal_config
from neptune_exporter.loaders.wandb.held import RemoteRun
from neptune_exporter.loaders.wandb.places import Begun, Projects, complete_load
from neptune_exporter.loaders.wandb.reading import read_run
from neptune_exporter.loaders.wandb.records import rest_of_log
from neptune_exporter.loaders.wandb.server import DeletedRunError, HeldRun, RunName, Server, stored_key
from neptune_exporter.loaders.wandb.writers import ClientWriter, Head, LogWriter, RunWriter, Tail
from neptune_exporter.model import RunRef

logger = logging.getLogger(__name__)

SUPERSEDED_TAG = "superseded"
QUIET_SECONDS = 4.0  # twice as long as wandb-core outlives the process that started it
_WAITS = (
    0.0,
    0.2,
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    15.0,
)  # seconds, for a server that counts rows some time after it took them


class Online:
    """A W&B server as a place for runs. Connects when it is first used.

    Args:
        options: where it is.
        load: what is asked of every loader alike.
        by_log: whether logs are written and sent, instead of calling `run.log`.

    Attributes:
        projects: which project a run goes to.
    """

    def __init__(self, options: WandbOptions, load: LoadOptions, *, by_log: bool) -> None:
        self._options = options
        self.projects = Projects(options, load)
        self._by_log = by_log
        self._connection: Server | None = None
        self._owner = options.wandb_entity
        self._known: dict[RunRef, HeldRun] = {}

    def states(self, project_id: str) -> TargetProject:
        """See `Place`."""
        found: dict[RunRef, list[HeldRun]] = defaultdict(list)
        for project in self._projects_of(project_id):
            for held in self.server.runs(self.entity, project):
                ref = config.ref_of(held.config)
                if ref is not None and ref.project_id == project_id:
                    found[ref].append(held)
        states = {}
        multiplier = None
        for ref, runs in found.items():
            runs.sort(key=_generation)
            states[ref], newest = _state_of(runs)
            multiplier = newest.config[names.OURS].get("step_multiplier", multiplier)
            if states[ref].digest:
                self._known[ref] = newest
        return TargetProject(states, multiplier)

    def begin(self, run: RunToLoad, plan: str, multiplier: int) -> Begun:
        """See `Place`."""
        ref, project = run.info.ref, self.projects.of(run.info)
        mine: list[HeldRun] = []
        generation = 1
        while True:
            name = RunName(self.entity, project, names.run_id(ref, generation))
            held = self.server.run(name)
            if held is not None:
                mine += [held] if config.ref_of(held.config) == ref else []
                generation += 1
                continue
            if mine and config.load_of(mine[-1].config).get("plan") == plan:
                return self._go_on(mine, plan)
            fork = self._fork(run, project, multiplier)
            begun = Begun(name, generation, plan, start_ms(run), Path(), Path(), older=_valid(mine), fork=fork)
            ours = config.identity(run, generation, multiplier, plan)
            ours["load"] |= begun.facts
            try:
                self.server.upsert(name, config=config.wrapped({names.OURS: ours, **internal_config(fork)}))
            except DeletedRunError:
                generation += 1
                continue
            return _with_folders(begun)

    def _go_on(self, mine: Sequence[HeldRun], plan: str) -> Begun:
        latest = self._quiet(mine[-1].name)
        load = config.load_of(latest.config)
        begun = Begun(latest.name, _generation(latest), plan, load["start_ms"], Path(), Path(), older=_valid(mine[:-1]))
        fork = Fork.from_json(load.get("fork"))
        begun = replace(begun, resumed_rows=latest.rows, complete=load.get("state") == config.COMPLETE, fork=fork)
        return begun if begun.complete else _with_folders(begun)

    def _fork(self, run: RunToLoad, project: str, multiplier: int) -> Fork | None:
        """Where the run branches off its parent, if that is asked for and the parent is in the project."""
        parent, step = run.info.parent, run.info.fork_step
        if not self._options.wandb_fork or parent is None or step is None:
            return None
        found = None
        generation = 1
        while (held := self.server.run(RunName(self.entity, project, names.run_id(parent, generation)))) is not None:
            if _load_state(held) == config.COMPLETE and config.ref_of(held.config) == parent:
                found = held
            generation += 1
        if found is None:
            logger.warning("%s is loaded without a fork: its parent %s is not in %s", run.info.ref, parent, project)
            return None
        pages = self.server.rows(found.name, first_step(step, multiplier))
        return Fork(found.name.id, branch_step(pages, step, multiplier))

    def writer(self, head: Head, begun: Begun) -> RunWriter:
        """See `Place`."""
        if self._by_log:
            return LogWriter(head, begun.folder, sending.installed_version())
        return ClientWriter(head, begun.folder, self.server)

    def deliver(self, begun: Begun, run: RunToLoad, writer: RunWriter, tail: Tail, rows: int) -> None:
        """See `Place`."""
        log = begun.folder / f"run-{begun.name.id}.wandb"
        writer.finish(tail, log)
        digest = manifest_digest(tail.entries)
        if self._by_log:
            held = self._send_rest(begun, log, rows, digest)
        else:
            held, whole = self._arrived(begun, rows, digest)
            if not whole:
                raise self._loss(held, rows)
        self._check_media(begun.name, tail.shown)
        assignment().confirm()
        load = complete_load(run, begun, rows, digest)
        values = {**tail.config, names.OURS: {**tail.config[names.OURS], "load": load}}
        values |= internal_config(begun.fork, held.config.get(INTERNAL))
        more = {}
        if rows and "_step" not in json.loads(held.summary):  # wandb-core sets it only where it sends a row
            more["summaryMetrics"] = json.dumps(
                {**json.loads(held.summary), "_step": json.loads(tail.summary["_step"])}
            )
        self.server.upsert(begun.name, config={**held.raw_config, **config.wrapped(values)}, **more)

    def retire(self, begun: Begun) -> None:
        """Marks older generations superseded: in their config, and with a tag that people see."""
        for held in begun.older:
            ours = held.config[names.OURS]
            load = {**config.load_of(held.config), "state": config.SUPERSEDED, "by": begun.name.id}
            raw = {**held.raw_config, **config.wrapped({names.OURS: {**ours, "load": load}})}
            self.server.upsert(held.name, config=raw, tags=[*held.tags, SUPERSEDED_TAG])

    def clean(self, begun: Begun) -> None:
        """See `Place`."""
        if begun.folder != Path():
            shutil.rmtree(begun.folder, ignore_errors=True)

    def read(self, ref: RunRef) -> TargetRun:
        """See `Place`."""
        if ref not in self._known:
            self.states(ref.project_id)
        if ref not in self._known:
            raise TargetError(
                f"{ref} is not in {self.describe()}, or only half.", "Load it with: neptune-exporter load"
            )
        return read_run(RemoteRun(self.server, self._known[ref]), ref)

    def describe(self) -> str:
        """See `Place`."""
        url = self._options.wandb_base_url.rstrip("/")
        shown = "https://wandb.ai" if url == "https://api.wandb.ai" else url
        return f"W&B at {shown}{'/' + self._owner if self._owner else ''}"

    def close(self) -> None:
        """See `Place`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._known.clear()

    @property
    def server(self) -> Server:
        """The connection, made at first use."""
        if self._connection is None:
            url = self._options.wandb_base_url
            key = self._options.wandb_api_key or stored_key(url)
            if not key:
                raise TargetAccessError(
                    f"There is no API key for W&B at {url}.", "Run wandb login, or set WANDB_API_KEY."
                )
            self._connection = Server(url, key)
        return self._connection

    @property
    def entity(self) -> str:
        """Who owns the projects; the account itself if nobody was named."""
        if not self._owner:
            self._owner = self.server.default_entity()
        return self._owner

    def _projects_of(self, project_id: str) -> list[str]:
        base = self.projects.base(project_id)
        if not self.projects.by_experiment:
            return [base]
        start = base[: names.PROJECT_LENGTH // 2]
        return [project for project in self.server.projects(self.entity) if project.startswith(start)]

    def _send_rest(self, begun: Begun, log: Path, rows: int, digest: str) -> HeldRun:
        """Sends a log; what did not arrive is sent again, and only that."""
        sent = begun.resumed_rows
        for last in (False, False, True):
            self._check_untouched(begun, sent)
            try:
                sending.sync(log, self.server)
            except TargetError:
                if last:
                    raise
                held = self._quiet(begun.name)
            else:
                held, whole = self._arrived(begun, rows, digest)
                if whole:
                    return held
                if last or held.rows != rows:
                    raise self._loss(held, rows)
            if not sent <= held.rows <= rows:
                raise self._loss(held, rows)
            logger.info("The W&B run %s is sent again from row %d on", begun.name.id, held.rows)
            log = rest_of_log(log, held.rows - sent)
            sent = held.rows
        raise AssertionError("unreachable")

    def _check_untouched(self, begun: Begun, rows: int) -> None:
        """What is sent goes after the rows that are there: these must still be the ones that were counted."""
        if self._found(begun.name).rows != rows:
            raise TargetError(
                f"The W&B run {begun.name.id} changed while it was being prepared: another load is at work.",
                "Wait until that has ended, and run the same command again.",
            )

    def _arrived(self, begun: Begun, rows: int, digest: str) -> tuple[HeldRun, bool]:
        """The run as the server has it, and whether all rows and the artifact are there."""
        held = self._found(begun.name)
        for wait in _WAITS:
            if held.rows >= rows:
                break
            time.sleep(wait)
            held = self._found(begun.name)
        whole = self.server.artifact(begun.name, names.artifact_name(begun.name.id), digest) is not None
        return held, whole and held.rows == rows

    def _check_media(self, name: RunName, sizes: Mapping[str, int]) -> None:
        """Raises `TargetError` unless all files are there that the run shows."""
        for wait in _WAITS:
            held = self.server.file_sizes(name, list(sizes)) if sizes else {}
            missing = [path for path, size in sizes.items() if held.get(path) != size]
            if not missing:
                return
            time.sleep(wait)
        raise TargetError(
            f"W&B lacks {len(missing)} of {len(sizes)} media files of the run {name.id}, such as {missing[0]}.",
            "Run the same command again.",
        )

    def _found(self, name: RunName) -> HeldRun:
        held = self.server.run(name)
        if held is None:
            raise TargetError(f"The W&B run {name.id} is gone.", "Load it again.")
        return held

    def _quiet(self, name: RunName) -> HeldRun:
        """The run once nobody sends rows any more: the helper of a load that was killed lives on for a moment."""
        held = self._found(name)
        while held.state == "running":
            before = held.rows
            time.sleep(QUIET_SECONDS)
            held = self._found(name)
            if held.rows == before:
                break
        return held

    def _loss(self, held: HeldRun, rows: int) -> TargetError:
        found = f"{held.rows} of {rows} rows" if held.rows != rows else "no complete artifact"
        return TargetError(f"W&B has {found} of the run {held.name.id}.", "Run the same command again.")


def _with_folders(begun: Begun) -> Begun:
    folder = Path(tempfile.mkdtemp(prefix="neptune-exporter-"))
    (folder / "artifact").mkdir()
    return replace(begun, folder=folder, artifact=folder / "artifact")


def _generation(held: HeldRun) -> int:
    return int(held.config[names.OURS].get("generation", 1))


def _load_state(held: HeldRun) -> str:
    return str(config.load_of(held.config).get("state", ""))


def _valid(runs: Sequence[HeldRun]) -> list[HeldRun]:
    """Those that nobody has marked superseded."""
    return [held for held in runs if _load_state(held) != config.SUPERSEDED]


def _state_of(runs: Sequence[HeldRun]) -> tuple[TargetState, HeldRun]:
    """The newest complete run counts. Two of them are a load that ended before it could mark the old one.

    A run that is being fed right now is left alone, whatever else there is.
    """
    live = [held for held in runs if is_fresh(_load_state(held))]
    if live:
        return TargetState(live[-1].name.id, complete=False, live=True), live[-1]
    complete = [held for held in runs if _load_state(held) == config.COMPLETE]
    if not complete:
        return TargetState(runs[-1].name.id, complete=False), runs[-1]
    newest = complete[-1]
    load: Mapping[str, Any] = config.load_of(newest.config)
    return TargetState(newest.name.id, complete=len(complete) == 1, digest=load["digest"]), newest
