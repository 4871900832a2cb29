# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The two ways into W&B, with one result: logs written by us, and `run.log` of the real client."""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.wandb import names, records, sending
from neptune_exporter.loaders.wandb.entries import Entry, manifest_digest
from neptune_exporter.loaders.wandb.forks import Fork, internal_config
from neptune_exporter.loaders.wandb.history import Rows
from neptune_exporter.loaders.wandb.log import LogFile
from neptune_exporter.loaders.wandb.server import RunName, Server
from neptune_exporter.model import NO_VALUE, step_text


@dataclass(frozen=True, slots=True)
class Head:
    """What a run begins with.

    Attributes:
        name: where it goes.
        title: what it is called.
        group: its group.
        job_type: its job type.
        start_ms: when it began.
        config: what identifies it.
        keys: the key of each metric, by code.
        resumed_rows: how many rows the server has already.
        notes: its notes.
        tags: its tags.
        fork: where it branches off another run.
    """

    name: RunName
    title: str
    group: str
    job_type: str
    start_ms: int
    config: Mapping[str, Any]
    keys: Sequence[str]
    resumed_rows: int = 0
    notes: str = ""
    tags: tuple[str, ...] = ()
    fork: Fork | None = None


@dataclass(frozen=True, slots=True)
class Tail:
    """What a run ends with.

    Attributes:
        config: all of the config.
        summary: the last value of every key, as JSON.
        entries: the files of the artifact.
        runtime: seconds.
        exit_code: 0, or 1 if the run had failed.
        media: the folder of the files that the run shows, None without any.
        shown: their sizes in bytes, by their paths in there.
    """

    config: Mapping[str, Any]
    summary: Mapping[str, str]
    entries: Sequence[Entry]
    runtime: int
    exit_code: int
    media: Path | None = None
    shown: Mapping[str, int] = field(default_factory=dict)


class RunWriter(Protocol):
    """Writes one run."""

    def rows(self, rows: Rows, texts: pa.Array) -> None:
        """Takes rows of the history; `texts` are the values of its points as JSON."""

    def finish(self, tail: Tail, log: Path) -> None:
        """Ends the run. Offline and where logs are sent, it is a log at `log` from now on."""

    def abort(self) -> None:
        """Lets go of everything."""


class LogWriter:
    """Writes the log itself, to `folder/writing`.

    Args:
        head: what the run begins with.
        folder: an existing folder.
        version: the version of wandb that will read it.
    """

    def __init__(self, head: Head, folder: Path, version: str) -> None:
        self._head = head
        self._path = folder / "writing"
        self._encoder = records.HistoryEncoder(head.keys, head.start_ms)
        self._log = LogFile(self._path)
        self._log.write(records.header(version))
        self._log.write(
            records.run(
                head.name.id,
                entity=head.name.entity,
                project=head.name.project,
                name=head.title,
                group=head.group,
                job_type=head.job_type,
                notes=head.notes,
                tags=head.tags,
                start_ms=head.start_ms,
                config={**head.config, **internal_config(head.fork)},
            )
        )
        for record in records.axes():
            self._log.write(record)

    def rows(self, rows: Rows, texts: pa.Array) -> None:
        """See `RunWriter`."""
        write = self._log.write
        for record in self._encoder.encode(rows, texts):
            write(record)

    def finish(self, tail: Tail, log: Path) -> None:
        """See `RunWriter`."""
        name, digest = self._head.name, manifest_digest(tail.entries)
        write = self._log.write
        write(records.config(tail.config))
        write(records.artifact(name.id, name.entity, name.project, digest, tail.entries, _client_ids(name, digest)))
        if tail.shown:
            write(records.files(tail.shown))
        write(records.summary(tail.summary, tail.runtime))
        write(records.exit_(tail.runtime, tail.exit_code))
        self._log.close()
        self._path.replace(log)

    def abort(self) -> None:
        """See `RunWriter`."""
        self._log.close()


def _client_ids(name: RunName, digest: str) -> tuple[str, str]:
    """What names the artifact and its collection before the server does; the same for every attempt."""
    collection = f"{name.entity}\0{name.project}\0{name.id}"
    return (
        hashlib.blake2b(f"{collection}\0{digest}".encode()).hexdigest(),
        hashlib.blake2b(collection.encode()).hexdigest(),
    )


class ClientWriter:
    """Logs row by row with the real client: slower, for whatever version is installed.

    Args:
        head: what the run begins with.
        folder: an existing folder, for what the client writes.
        server: where to, None to stay offline.
    """

    def __init__(self, head: Head, folder: Path, server: Server | None) -> None:
        import wandb

        self._wandb = wandb
        self._head = head
        self._folder = folder / "client"
        self._folder.mkdir()
        self._online = server is not None
        forks_now = head.fork is not None and not head.resumed_rows  # W&B takes either a fork or a resumed run
        with self._explained():
            self._run = wandb.init(
                id=head.name.id,
                entity=head.name.entity or None,
                project=head.name.project,
                name=head.title,
                group=head.group or None,
                job_type=head.job_type,
                notes=head.notes or None,
                tags=list(head.tags),
                config=dict(head.config),
                dir=str(self._folder),
                mode="online" if server else "offline",
                resume="allow" if server and not forks_now else None,
                fork_from=head.fork.moment if head.fork and forks_now else None,
                allow_val_change=True,
                settings=sending.settings(server, reinit="create_new"),
            )
            self._run.define_metric(names.STEP_KEY, hidden=True)
            self._run.define_metric("*", step_metric=names.STEP_KEY)

    def rows(self, rows: Rows, texts: pa.Array) -> None:
        """See `RunWriter`."""
        keys = self._head.keys
        times = (np.where(rows.times == NO_VALUE, self._head.start_ms, rows.times) / 1000).tolist()
        points = rows.points
        starts, codes, values = rows.starts.tolist(), points.codes.tolist(), points.values.tolist()
        held = points.texts.to_pylist() if points.texts.null_count < len(points.texts) else None
        for row, (number, micros, seconds) in enumerate(
            zip(rows.numbers.tolist(), rows.steps.tolist(), times, strict=True)
        ):
            start, end = starts[row], starts[row + 1]
            data: dict[str, Any] = {keys[c]: v for c, v in zip(codes[start:end], values[start:end], strict=True)}
            if held is not None:
                for point in range(start, end):
                    if held[point] is not None:
                        data[keys[codes[point]]] = json.loads(held[point])
            data["_timestamp"] = seconds
            if micros != NO_VALUE:
                data[names.STEP_KEY] = float(step_text(micros))
            self._run.log(data, step=number)

    def finish(self, tail: Tail, log: Path) -> None:
        """See `RunWriter`."""
        self._run.config.update(dict(tail.config), allow_val_change=True)
        ours = {key: text for key, text in tail.summary.items() if key not in ("_step", "_runtime")}
        self._run.summary.update({key: json.loads(text) for key, text in ours.items()})
        if tail.media is not None:
            for path in tail.shown:
                self._run.save(glob.escape(str(tail.media / path)), base_path=str(tail.media), policy="now")
        artifact = self._wandb.Artifact(names.artifact_name(self._head.name.id), names.ARTIFACT_TYPE)
        for entry in tail.entries:
            artifact.add_file(str(entry.local), name=entry.path, policy="immutable", skip_cache=True)
        with self._explained():
            self._run.log_artifact(artifact)
            self._run.finish(exit_code=tail.exit_code)
        if not self._online:
            (written,) = self._folder.glob("wandb/offline-run-*/*.wandb")
            written.replace(log)

    def abort(self) -> None:
        """See `RunWriter`."""
        with self._explained():
            self._run.finish(exit_code=1)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the client's errors into ours."""
        try:
            yield
        except (self._wandb.Error, OSError) as error:
            raise TargetError(
                f"W&B's client gave up on the run {self._head.name.id}: {error}", "Load it again."
            ) from error


def summary_texts(last: Mapping[str, str], rows: Rows | None, start_ms: int) -> dict[str, str]:
    """The summary: the last value of each key, and of the last row what W&B itself keeps there."""
    if rows is None:
        return dict(last)
    millis, micros = int(rows.times[-1]), int(rows.steps[-1])
    millis = start_ms if millis == NO_VALUE else millis
    ours = {"_step": str(int(rows.numbers[-1])), "_timestamp": repr(millis / 1000)}
    ours["_runtime"] = repr((millis - start_ms) / 1000)
    if micros != NO_VALUE:
        ours[names.STEP_KEY] = step_text(micros)
    return {**last, **ours}


def runtime_seconds(start_ms: int, end_ms: int) -> int:
    """Whole seconds, as W&B counts them in 32 bits."""
    return min(max(math.ceil((end_ms - start_ms) / 1000), 0), 2**31 - 1)
