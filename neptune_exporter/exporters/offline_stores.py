# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The offline exporter: looks for stores of all known formats below some folders.

A store format is a module that reads one store (`read_store`), groups stores into runs (`group_runs`) and compares
states (`compare`); its runs bring their own batches. Runs of the 1.x client do not know their project: they go where
the user says.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neptune_exporter.errors import ExporterError, SourceError
from neptune_exporter.exporters.exporter import Files, Findings, Follower, SourceRun
from neptune_exporter.exporters.offline import DEFAULT_PATHS, OfflineOptions
from neptune_exporter.exporters.offline_legacy import find as legacy
from neptune_exporter.exporters.offline_scale import find as scale
from neptune_exporter.exporters.offline_scale.attachments import parse_path_map
from neptune_exporter.exporters.offline_spool import legacy as spool_legacy
from neptune_exporter.exporters.offline_spool import run as spool_runs
from neptune_exporter.exporters.offline_spool import segment as spool
from neptune_exporter.mirror.spool import SUFFIX
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_HINT = "Name the folder that holds the run's data with --offline-path; Neptune's clients write to .neptune."


@dataclass
class _Found:
    """All that lies below the roots.

    Attributes:
        runs: the runs by name.
        legacy: the runs of the 1.x client, by the id that it knows them by.
        unreadable: what should be a store, but does not say whose.
    """

    runs: dict[RunRef, scale.ScaleRun | spool_runs.SpoolRun | spool_legacy.LegacySpoolRun] = field(default_factory=dict)
    legacy: dict[str, legacy.LegacyRun] = field(default_factory=dict)
    unreadable: list[SourceError] = field(default_factory=list)


class OfflineExporter:
    """Offline data as a source of runs.

    Args:
        options: where to look.
    """

    name = "offline"
    source = "offline"
    lists_all = False  # a store is deleted once it is synced, and others may lie in other folders

    def __init__(self, options: OfflineOptions) -> None:
        self._options = options
        parse_path_map(options.path_map)  # a wrong pair is a usage error, before anything is read
        self._run_ids = legacy.parse_run_ids(options.run_id_map)
        self._homeless: tuple[SourceError, ...] = ()
        self._roots = [Path(path).expanduser() for path in options.offline_path or _default_paths()]
        self._lock = threading.Lock()
        self._found: _Found | None = None

    def projects(self, selection: Selection) -> Iterator[str]:
        """The selected projects of all readable stores.

        Raises:
            SourceError: a folder does not exist, or there is no store, or none that can be read.
        """
        found = self._discover()
        projects = {ref.project_id for ref in found.runs}
        project = self._legacy_project(selection)
        if found.legacy and project:
            projects.add(project)
        self._homeless = (_homeless(len(found.legacy)),) if found.legacy and not project else ()
        if self._homeless and not projects:
            raise self._homeless[0]
        yield from sorted(project for project in projects if selection.wants_project(project))

    def runs(self, project_id: str, selection: Selection) -> Iterator[SourceRun]:
        """The selected runs of a project, sorted by id."""
        found = self._discover()
        for ref, run in found.runs.items():
            if ref.project_id == project_id and ref.kind in selection.kinds and selection.wants_run(ref.run_id):
                yield run.source_run()
        if project_id == self._legacy_project(selection):
            for old in found.legacy.values():
                if old.kind in selection.kinds and selection.wants_run(old.run_id):
                    yield old.source_run(project_id)

    def _legacy_project(self, selection: Selection) -> str:
        """Where runs of the 1.x client go, "" if nobody has said."""
        return self._options.offline_project or (selection.projects[0] if len(selection.projects) == 1 else "")

    @property
    def unreadable(self) -> tuple[SourceError, ...]:
        """Files that should be stores, but do not say of which run: they belong among the command's errors."""
        return (*self._discover().unreadable, *self._homeless)

    def batches(
        self, run: SourceRun, selection: Selection, files: Files, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        """The selected attributes of a run. A damaged store gives what can be saved, and the loss as a problem."""
        found = self._discover()
        if run.state.get("format") == legacy.FORMAT and (old := found.legacy.get(str(run.state["container"]))):
            yield from old.batches(
                run.info.ref,
                selection,
                files,
                findings,
                path_map=self._options.path_map,
                s3_endpoint_url=self._options.s3_endpoint_url,
            )
            return
        known = found.runs.get(run.info.ref)
        if known is None:
            raise SourceError(f"{run.info.ref} is not among the offline data.", _HINT)
        yield from known.batches(
            selection,
            files,
            findings,
            path_map=self._options.path_map,
            include_previews=self._options.include_metric_previews,
        )

    def compare(self, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
        """Stores only grow, until a sync deletes from their front: what is gone from here is `apart`."""
        if recorded.get("format") != current.get("format"):
            return "apart"
        if current.get("format") == legacy.FORMAT:
            return legacy.compare(recorded, current)
        return scale.compare(recorded, current)

    def follow(self, folder: Path, delivered: Mapping[str, int], work: Path) -> Follower:
        """A run of the spool that may still be written to, from where a target has got to. See `Follower`."""
        from neptune_exporter.exporters.offline_spool.follow import SpoolFollower

        return SpoolFollower(folder, delivered, work)

    def close(self) -> None:
        """Nothing is held open: temporary copies live as long as their batches are read."""

    def _discover(self) -> _Found:
        with self._lock:
            if self._found is None:
                self._found = self._search()
            return self._found

    def _search(self) -> _Found:
        found = _Found()
        stores: list[scale.Store] = []
        segments: list[spool.Segment] = []
        folders: list[legacy.Store] = []
        for path in _places(self._roots, found.unreadable):
            try:
                store = _read_store(path)
            except SourceError as error:
                logger.warning("%s", error.message)
                found.unreadable.append(error)
                continue
            if isinstance(store, scale.Store):
                stores.append(store)
            elif isinstance(store, legacy.Store):
                folders.append(store)
            elif store is not None:
                segments.append(store)
        found.runs = {run.ref: run for run in scale.group_runs(stores)}
        for run in spool_runs.group_runs(segments):
            logs = found.runs.get(run.ref)  # the client's own log of the same run
            found.runs[run.ref] = replace(run, logs=logs.stores) if isinstance(logs, scale.ScaleRun) else run
        found.runs |= {run.ref: run for run in spool_legacy.group_legacy_runs(segments)}
        found.legacy = {run.container: run for run in legacy.group_runs(folders, self._run_ids)}
        if not found.runs and not found.legacy:
            raise _nothing(self._roots, found.unreadable)
        return found


def _read_store(path: Path) -> scale.Store | spool.Segment | legacy.Store | None:
    if path.is_dir():
        return legacy.read_store(path)
    return spool.read_store(path) if path.suffix == SUFFIX else scale.read_store(path)


def _homeless(count: int) -> SourceError:
    runs = "1 run" if count == 1 else f"{count} runs"
    return SourceError(
        f"The data of the Neptune client 1.x does not say to which project it belongs ({runs}).",
        "Name the project with -p ORG/PROJECT or --offline-project ORG/PROJECT.",
    )


def _default_paths() -> tuple[str, ...]:
    """What the clients write, and the spool of dual logging where there is one."""
    found = tuple(path for path in DEFAULT_PATHS if os.path.isdir(path))  # noqa: PTH112 - never raises
    return found or DEFAULT_PATHS[:1]


def _nothing(roots: list[Path], unreadable: list[SourceError]) -> ExporterError:
    where = ", ".join(map(str, roots))
    if unreadable:
        what = " ".join(f"{error.message} {error.hint}".strip() for error in unreadable)
        return SourceError(f"No offline Neptune data under {where} can be read. {what}", _HINT)
    return SourceError(f"No offline Neptune data found under {where}.", _HINT)


def _places(roots: list[Path], unreadable: list[SourceError]) -> Iterator[Path]:
    """Every database, segment of a spool and folder of the 1.x client below the roots, each once.

    Folders that cannot be listed are problems.
    """
    seen: set[str] = set()
    for root in roots:
        if not os.path.exists(root):  # noqa: PTH110 - unlike Path.exists it never raises
            raise SourceError(f"There is no folder {root}.", _HINT)
        for path in [root] if root.is_file() else _walk(root, unreadable):
            real = os.path.realpath(path)  # unlike Path.resolve it takes a loop of links
            if real not in seen:
                seen.add(real)
                yield path


def _walk(root: Path, unreadable: list[SourceError]) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        unreadable.append(SourceError(f"{error.filename} cannot be listed: {error.strerror or error}."))

    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, onerror=refused, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back to where we have been
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        if legacy.is_store(names, subfolders):
            yield Path(folder)
        for name in sorted(names):
            if name.endswith((".sqlite3", SUFFIX)):
                yield Path(folder, name)
