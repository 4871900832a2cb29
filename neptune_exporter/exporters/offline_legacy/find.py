# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the folders of the 1.x client and groups them into runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from neptune_exporter.errors import Problem, SourceError, UsageError
from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.exporters.offline_legacy.attached import UPLOADS
from neptune_exporter.exporters.offline_legacy.log import Health, Log, segments
from neptune_exporter.exporters.offline_legacy.run import RunReader
from neptune_exporter.exporters.offline_scale.attachments import parse_path_map
from neptune_exporter.exporters.tracked_files import TrackedFiles
from neptune_exporter.model import Kind, RunInfo, RunRef
from neptune_exporter.selection import Selection

FORMAT = "neptune-1"
MODES = ("offline", "async", "sync")
_BYTES_PER_RECORD = 180  # an estimate for progress
_METADATA = "metadata.json"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_KINDS: dict[str, Kind] = {"run": "run", "project": "run", "model": "model", "model_version": "model_version"}


@dataclass(frozen=True, slots=True)
class Store:
    """One execution folder as it was when it was listed.

    Attributes:
        folder: where it is.
        container: the id that the client knows the run by.
        type: run, model, model_version or project.
        mode: offline, async or sync; "" if nothing tells.
        created: when it was made, None if unknown.
        put: the last version that was handed to the log.
        acknowledged: the last version that the server had confirmed.
        first: the version that the first segment is named by, None without segments.
        size: the bytes of all segments.
        buffers: files that were kept for upload.
    """

    folder: Path
    container: str
    type: str
    mode: str
    created: datetime | None
    put: int
    acknowledged: int
    first: int | None
    size: int
    buffers: int

    @property
    def name(self) -> str:
        """What tells it from other stores of the run, wherever the folder is moved."""
        return self.folder.name

    def to_json(self) -> dict[str, Any]:
        """What is recorded to tell later whether it has changed."""
        return {
            "name": self.name,
            "put": self.put,
            "acknowledged": self.acknowledged,
            "first": self.first,
            "bytes": self.size,
            "buffers": self.buffers,
        }


def is_store(names: Iterable[str], subfolders: Iterable[str]) -> bool:
    """Whether a folder with such files and folders in it is one that the client wrote."""
    files = set(names)
    logged = any(re.fullmatch(r"data-\d+\.log", name) for name in files)
    return logged or "last_put_version" in files or (_METADATA in files and UPLOADS in set(subfolders))


def read_store(folder: Path) -> Store | None:
    """Lists one folder; None if it holds nothing that could be exported.

    Raises:
        SourceError: nothing tells which run it belongs to, or it cannot be read.
    """
    try:
        metadata = _metadata(folder)
        found = segments(folder)
        size = sum(path.stat().st_size for path in found)
        buffers = sum(1 for path in (folder / UPLOADS).rglob("*") if path.is_file())
        put, acknowledged = _number(folder / "last_put_version"), _number(folder / "last_ack_version")
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror or error}.", "Check its permissions.") from None
    mode = metadata.get("mode") or next((part for part in reversed(folder.parts[:-1]) if part in MODES), "")
    container, kind = metadata.get("containerId"), metadata.get("containerType")
    if not container:
        container, kind = _identity(folder)
    if mode == "sync" and not size and not buffers:
        return None  # the client wrote straight to the server
    first = int(found[0].name.removeprefix("data-").removesuffix(".log")) if found else None
    created = _time(metadata.get("createdAt"))
    return Store(folder, str(container), str(kind or "run"), mode, created, put, acknowledged, first, size, buffers)


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / _METADATA).read_bytes())
    except (FileNotFoundError, ValueError):  # clients before 1.8 wrote none; a cut one tells nothing
        return {}
    return value if isinstance(value, dict) else {}


def _number(path: Path) -> int:
    try:
        return int(path.read_bytes() or b"0")
    except (FileNotFoundError, ValueError):
        return 0


def _identity(folder: Path) -> tuple[str, str]:
    """Container id and type from the folder's name or, in older layouts, from its parent's.

    Raises:
        SourceError: neither is a name that the client gives.
    """
    for name in (folder.name, folder.parent.name):
        parts = name.split("__")
        if len(parts) in (2, 4, 5) and parts[0] in _KINDS:
            return parts[1], parts[0]
        if _UUID.fullmatch(name):
            return name, "run"
    raise SourceError(
        f"{folder} holds an operation log of the Neptune client 1.x, but nothing says of which run.",
        "Restore its metadata.json, or the name that the client gave to the folder.",
    )


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_run_ids(pairs: tuple[str, ...]) -> dict[str, str]:
    """Run ids by container id, from `UUID=ID` pairs. Raises `UsageError` if one is not such a pair."""
    found = {}
    for pair in pairs:
        container, equals, run_id = pair.partition("=")
        if not (container and equals and run_id):
            raise UsageError(f"--run-id-map {pair} is not of the form UUID=ID.", "For example 1b2c…=PROJ-12.")
        found[container] = run_id
    return found


@dataclass(frozen=True, slots=True)
class LegacyRun:
    """One run of the 1.x client: all its stores, in the order of their times.

    Attributes:
        container: the id that the client knows it by.
        stores: its execution folders.
        run_id: what it is called in the archive.
    """

    container: str
    stores: tuple[Store, ...]
    run_id: str

    @property
    def kind(self) -> Kind:
        """Run, model or model version. What was logged to a project itself is kept like a run."""
        return _KINDS.get(self.stores[0].type, "run")

    def source_run(self, project_id: str) -> SourceRun:
        """The run as it is listed, in a project."""
        name, failed = self._told()
        created = next((store.created for store in self.stores if store.created), None)
        info = RunInfo(RunRef(project_id, self.run_id, self.kind), name=name, created=created, failed=failed)
        state: dict[str, Any] = {
            "format": FORMAT,
            "container": self.container,
            "stores": [store.to_json() for store in self.stores],
        }
        if any(store.acknowledged for store in self.stores):
            state["partly_synced"] = True
        modified = max((_modified(store.folder) for store in self.stores), default=None)
        return SourceRun(info, state, modified, sum(store.size for store in self.stores) // _BYTES_PER_RECORD)

    def _told(self) -> tuple[str | None, bool | None]:
        """The run's name and whether it failed, as far as a glimpse at its logs tells."""
        name: str | None = None
        failed: bool | None = None
        for store in self.stores:
            for record in Log(store.folder).glimpse():
                if record.path == "sys/name" and record.type == "AssignString":
                    name = str(record.detail.get("value"))
                elif record.path == "sys/failed" and record.type == "AssignBool":
                    failed = bool(record.detail.get("value"))
        return name, failed

    def batches(
        self,
        ref: RunRef,
        selection: Selection,
        files: Files,
        findings: Findings,
        *,
        path_map: Sequence[str],
        s3_endpoint_url: str,
    ) -> Iterator[pa.RecordBatch]:
        """All selected rows of the run."""
        pairs = parse_path_map(tuple(path_map))
        folders = [store.folder for store in self.stores]
        tracked = TrackedFiles(s3_endpoint_url)
        reader = RunReader(ref, self.container, folders, selection, files, findings, pairs, tracked)
        created = next((store.created for store in self.stores if store.created), None)
        try:
            yield from reader.batches(created, [store.acknowledged for store in self.stores])
        except OSError as error:
            raise SourceError(f"{error.filename} cannot be read: {error.strerror or error}.") from None
        for store, health in zip(self.stores, reader.health, strict=True):
            for problem in losses(store, health):
                findings.problem(problem)


def losses(store: Store, health: Health) -> Iterator[Problem]:
    """What a store must have held and does not: the client counts its operations."""
    if health.unreadable:
        yield Problem(f"{store.folder}: {health.unreadable} records cannot be read.", count=health.unreadable)
    if health.torn:
        yield Problem(f"{store.folder}: the last record is cut off.")
    last = health.last if health.last is not None else (store.first or 1) - 1
    beyond = store.put - last
    if beyond > 0:
        message = f"{store.folder}: the last {beyond} operations were logged, but never reached the disk."
        yield Problem(message, count=beyond)
    holes = max(health.holes - health.unreadable, 0)
    if holes:
        yield Problem(f"{store.folder}: {holes} operations are missing within the log.", count=holes)
    first = health.first if health.first is not None else store.first or 1
    before = first - 1 - store.acknowledged
    if before > 0 and health.count:
        message = f"{store.folder}: the first {before} operations are missing, and no server had confirmed them."
        yield Problem(message, count=before)


def _modified(folder: Path) -> datetime:
    times = [path.stat().st_mtime for path in (folder, *segments(folder))]
    return datetime.fromtimestamp(max(times), UTC)


def group_runs(stores: Sequence[Store], run_ids: Mapping[str, str]) -> list[LegacyRun]:
    """The runs that the stores belong to, sorted by id."""
    by_container: dict[str, list[Store]] = {}
    for store in stores:
        by_container.setdefault(store.container, []).append(store)
    earliest = datetime.min.replace(tzinfo=UTC)
    found = []
    for container, own in by_container.items():
        ordered = sorted(own, key=lambda s: (s.created or earliest, _execution(s.name), str(s.folder)))
        found.append(LegacyRun(container, tuple(_distinct(ordered)), run_ids.get(container, f"offline-{container}")))
    return sorted(found, key=lambda run: run.run_id)


def _execution(name: str) -> int:
    """The number in `exec-3-…`, by which older clients tell executions apart."""
    match = re.match(r"exec-(\d+)", name)
    return int(match[1]) if match else 0


def _distinct(stores: Sequence[Store]) -> Iterator[Store]:
    """Each store once: it may lie in two folders as a copy."""
    seen: dict[str, Store] = {}
    for store in stores:
        known = seen.get(store.name)
        if known is None or store.size > known.size:
            seen[store.name] = store
    yield from seen.values()


def compare(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
    """How a recorded state of a run relates to the current one: logs only grow, until a sync deletes their front."""
    if recorded.get("stores") == current.get("stores"):
        return "same"
    now = {store["name"]: store for store in current.get("stores", ())}
    covered = all(
        then["name"] in now
        and (now[then["name"]]["first"] or 0) <= (then["first"] or 0)
        and now[then["name"]]["bytes"] >= then["bytes"]
        and now[then["name"]]["buffers"] >= then["buffers"]
        for then in recorded.get("stores", ())
    )
    return "newer" if covered else "apart"
