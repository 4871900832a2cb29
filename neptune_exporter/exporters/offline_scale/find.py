# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the operation logs below a folder and groups them into runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.exporters.offline_scale.attachments import parse_path_map
from neptune_exporter.exporters.offline_scale.database import CREATE, Database, Operation, open_copy
from neptune_exporter.exporters.offline_scale.fold import Created
from neptune_exporter.exporters.offline_scale.run import RunReader
from neptune_exporter.exporters.offline_scale.wire import CreateRun, DecodeError, step_decimal
from neptune_exporter.model import RunInfo, RunRef, utc
from neptune_exporter.selection import Selection

logger = logging.getLogger(__name__)

FORMAT = "neptune-scale"
_BYTES_PER_POINT = 25  # of wide operations; an estimate for progress


@dataclass(frozen=True, slots=True)
class Store:
    """One operation log as it was when it was listed.

    Attributes:
        path: the database.
        ref: the run.
        first: the first sequence id, None without operations.
        last: the last one.
        count: how many operations there are.
        size: their bytes.
        files: how many files were ever to be uploaded.
        ever: how many operations were ever logged, None if unknown.
        started: when its first operation was logged, in milliseconds.
        ended: when the last one was.
        created: what its CREATE_RUN operation says, if that is still there.
    """

    path: Path
    ref: RunRef
    first: int | None
    last: int | None
    count: int
    size: int
    files: int
    ever: int | None
    started: int
    ended: int
    created: Created | None

    @property
    def name(self) -> str:
        """What tells it from other stores, wherever the folder is moved: the client puts a nanosecond time in it."""
        name = self.path.parent.name if self.path.name == "run_operations.sqlite3" else self.path.name
        return name.encode(errors="backslashreplace").decode()

    @property
    def partly_synced(self) -> bool:
        """Whether operations were sent to a server and deleted here."""
        return (self.first or (self.ever or 0) + 1) > 1

    def to_json(self) -> dict[str, Any]:
        """What is recorded to tell later whether it has changed."""
        return {
            "name": self.name,
            "first": self.first,
            "last": self.last,
            "operations": self.count,
            "files": self.files,
        }


def read_store(path: Path) -> Store | None:
    """Lists one database; None if it is no operation log of neptune-scale.

    Raises:
        SourceError: it is damaged beyond knowing whose it is, or cannot be copied.
    """
    with open_copy(path) as database:
        if not database.is_log:
            logger.debug("%s is not an operation log", path)
            return None
        first = None if database.first is None else database.operation(database.first)
        last = None if database.last is None else database.operation(database.last)
        modified = int(path.stat().st_mtime * 1000)
        return Store(
            path=path,
            ref=RunRef(database.project, database.run_id),
            first=database.first,
            last=database.last,
            count=database.count,
            size=database.size,
            files=database.files,
            ever=database.ever,
            started=first[1] if first else modified,
            ended=last[1] if last else modified,
            created=_created(first),
        )


def _created(first: Operation | None) -> Created | None:
    if first is None or first[2] != CREATE:
        return None
    try:
        return Created.from_message(CreateRun.FromString(first[3]))
    except DecodeError:
        return None


@dataclass(frozen=True, slots=True)
class ScaleRun:
    """One run of neptune-scale: all its stores, in the order of their times.

    Attributes:
        ref: the run.
        stores: its operation logs.
    """

    ref: RunRef
    stores: tuple[Store, ...]

    def source_run(self) -> SourceRun:
        """The run as it is listed."""
        created = Created()
        for store in self.stores:
            created = created.joined(store.created or Created())
        parent = RunRef(created.parent_project or self.ref.project_id, created.parent) if created.parent else None
        info = RunInfo(
            self.ref,
            name=created.experiment,
            experiment=created.experiment,
            parent=parent,
            fork_step=step_decimal(created.fork_step) if parent else None,
            created=_time(created.time),
        )
        state: dict[str, Any] = {"format": FORMAT, "stores": [store.to_json() for store in self.stores]}
        if any(store.partly_synced for store in self.stores):
            state["partly_synced"] = True
        rows = sum(max(store.count, store.size // _BYTES_PER_POINT) for store in self.stores)
        return SourceRun(info, state, _time(max(store.ended for store in self.stores)), rows)

    def batches(
        self,
        selection: Selection,
        files: Files,
        findings: Findings,
        *,
        path_map: Sequence[str],
        include_previews: bool,
    ) -> Iterator[pa.RecordBatch]:
        """All selected rows of the run."""
        pairs = parse_path_map(tuple(path_map))
        reader = RunReader(self.ref, selection, files, findings, pairs, include_previews=include_previews)
        partly_synced = any(store.partly_synced for store in self.stores)
        if partly_synced:
            logger.warning("%s was partly synced: only what the server had not confirmed is here", self.ref)
        with ExitStack() as earlier:
            read: list[Database] = []
            for store in self.stores:
                database = earlier.enter_context(open_copy(store.path))
                _require_unchanged_start(store, database)
                yield from reader.read(database, _read_already(database, read))
                read.append(database)
        yield from reader.finish(partly_synced=partly_synced)


def _time(millis: int | None) -> datetime | None:
    try:
        return None if millis is None else utc(millis)
    except (ValueError, OverflowError):  # beyond the year 9999
        return None


def _require_unchanged_start(store: Store, database: Database) -> None:
    """A sync that runs at the same time deletes from the front: what was listed must still be there."""
    if store.first is not None and (database.first is None or database.first > store.first):
        raise SourceError(f"{store.path} is being synced right now.", "Export again when the sync has ended.")


def _read_already(database: Database, earlier: Sequence[Database]) -> int:
    """Up to which sequence id a store repeats one that has been read: it may lie in two folders as a copy."""
    if database.first is None:
        return 0
    done = 0
    operation = database.operation(database.first)
    for other in earlier:
        if operation is not None and other.last is not None and other.operation(database.first) == operation:
            logger.info("%s is a copy of %s", database.path, other.path)
            done = max(done, other.last)
    return done


def group_runs(stores: Sequence[Store]) -> list[ScaleRun]:
    """The runs that the stores belong to, sorted by name."""
    by_ref: dict[RunRef, list[Store]] = {}
    for store in stores:
        by_ref.setdefault(store.ref, []).append(store)
    return [
        ScaleRun(ref, tuple(sorted(by_ref[ref], key=lambda s: (s.started, s.first or 0, -(s.last or 0), str(s.path)))))
        for ref in sorted(by_ref)
    ]


def compare(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
    """How a recorded state of a run relates to the current one."""
    if recorded.get("stores") == current.get("stores"):
        return "same"
    covered = all(
        any(_covers(now, then) for now in current.get("stores", ()) if now["name"] == then["name"])
        for then in recorded.get("stores", ())
    )
    return "newer" if covered else "apart"


def _covers(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    if now["files"] < then["files"] or now["operations"] < then["operations"]:
        return False
    if then["first"] is None:
        return True
    return now["first"] is not None and now["first"] <= then["first"] and now["last"] >= then["last"]
