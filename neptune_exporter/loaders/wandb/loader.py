# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The W&B loader: runs into the cloud or a server of one's own, or into a folder that `wandb sync` can send.

A run has a fixed id per generation. An interrupted load goes on after the rows that the server has; an export that
has changed becomes the next generation, and the old run is marked superseded: an id that was deleted could never be
used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from neptune_exporter.errors import UsageError
from neptune_exporter.loaders.loader import Limits, LoadOptions, RunToLoad, TargetProject, TargetRun
from neptune_exporter.loaders.wandb import WandbOptions, config, names, sending
from neptune_exporter.loaders.wandb.live import WandbLive
from neptune_exporter.loaders.wandb.media import MediaFolder
from neptune_exporter.loaders.wandb.offline import Offline
from neptune_exporter.loaders.wandb.online import Online
from neptune_exporter.loaders.wandb.places import Begun, Place, plan_of
from neptune_exporter.loaders.wandb.sink import RunSink, history_key, records_of
from neptune_exporter.loaders.wandb.writers import Head, RunWriter, Tail
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Sink


class WandbLoader:
    """A project becomes a project, a run a run.

    Args:
        options: where W&B is.
        load: what is asked of every loader alike.

    Raises:
        UsageError: logs are asked for, but the installed version of wandb was not tested with them; or a rate is.
    """

    name = "wandb"

    def __init__(self, options: WandbOptions, load: LoadOptions | None = None) -> None:
        self._load, self._media, self._fork = load or LoadOptions(), options.wandb_media, options.wandb_fork
        if self._load.max_requests_per_second and options.wandb_mode == "online":
            raise UsageError(
                "--max-requests-per-second cannot hold for W&B: its own process sends, as fast as the server lets it.",
                "Leave the option out, or write logs with --wandb-mode offline and send them with wandb sync.",
            )
        self._options = options
        by_log = _by_log(options.wandb_way)
        place = Offline if options.wandb_mode == "offline" else Online
        self._place: Place = place(options, self._load, by_log=by_log)
        self.limits = Limits(
            integer_steps=frozenset(),
            order="step",
            writers=None,
            key_length=1000,
            value_length=config.TEXT_LENGTH,
            tag_length=names.TAG_LENGTH,
        )

    def states(self, project_id: str) -> TargetProject:
        """What W&B holds of a project, in one search. See `Loader`."""
        return self._place.states(project_id)

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        """Nothing to make: W&B makes a project with its first run, and each run has the multiplier in its config."""

    def start(self, run: RunToLoad, step_multiplier: int) -> Sink:
        """Begins a run, or goes on where its load was interrupted. See `Loader`."""
        plan = plan_of(run, step_multiplier, media=self._media, fork=self._fork)
        begun = self._place.begin(run, plan, step_multiplier)
        if begun.complete:
            return _Complete(self._place, begun)
        try:
            records = records_of(run, media=self._media)
            head = self._head(run, begun, step_multiplier, list(filter(None, map(history_key, records.values()))))
            return RunSink(
                run,
                records,
                head,
                lambda head: self._place.writer(head, begun),
                begun.artifact,
                multiplier=step_multiplier,
                keep=begun.keep,
                attach_all=self._load.attach_all,
                media=MediaFolder(begun.folder) if self._media else None,
                deliver=lambda writer, tail, rows: self._deliver(begun, run, writer, tail, rows),
                clean=lambda: self._place.clean(begun),
            )
        except BaseException:
            self._place.clean(begun)
            raise

    def read(self, ref: RunRef) -> TargetRun:
        """A complete run as W&B holds it. See `Readable`."""
        return self._place.read(ref)

    def live(self, step_multiplier: int | None) -> WandbLive:
        """See `Live`.

        Raises:
            UsageError: runs are to go into a folder.
        """
        if not isinstance(self._place, Online):
            raise UsageError(
                "A run that is being logged can only be fed to a W&B server.", "Unset WANDB_MODE, or set it to online."
            )
        return WandbLive(self._place, self._load, step_multiplier, media=self._media)

    @property
    def folders(self) -> Sequence[Path]:
        """Where logs are left that are sent later. See `OnDisk`."""
        return [Path(self._options.wandb_dir)] if self._options.wandb_mode == "offline" else []

    def close(self) -> None:
        """Lets go of the connection."""
        self._place.close()

    def describe(self) -> str:
        """The address, or the folder and the command that sends what is in it."""
        return self._place.describe()

    def _deliver(self, begun: Begun, run: RunToLoad, writer: RunWriter, tail: Tail, rows: int) -> None:
        self._place.deliver(begun, run, writer, tail, rows)
        self._place.retire(begun)

    def _head(self, run: RunToLoad, begun: Begun, multiplier: int, keys: list[str]) -> Head:
        identity = config.identity(run, begun.generation, multiplier, begun.plan)
        identity["load"] |= begun.facts
        return Head(
            name=begun.name,
            title=names.run_name(run, self._load),
            group=names.group_of(run.info),
            job_type=run.info.ref.kind,
            start_ms=begun.start_ms,
            config={names.OURS: identity},
            keys=keys,
            resumed_rows=begun.resumed_rows,
            fork=begun.fork,
        )


class _Complete:
    """The sink of a run that is complete already: only older generations are left to be dealt with."""

    def __init__(self, place: Place, begun: Begun) -> None:
        self._place, self._begun = place, begun

    def write(self, batch: pa.RecordBatch) -> None:
        """All rows are there."""

    def commit(self) -> None:
        """Deals with older generations."""
        self._place.retire(self._begun)

    def abort(self) -> None:
        """Nothing was begun."""


def _by_log(way: str) -> bool:
    version = sending.installed_version()
    if way == "log" and not sending.is_tested(version):
        raise UsageError(
            f"Writing W&B's logs was tested with wandb {' and '.join(sending.TESTED)}x, not with {version}.",
            "Use --wandb-way client, or install a tested version.",
        )
    return way == "log" or (way == "auto" and sending.is_tested(version))
