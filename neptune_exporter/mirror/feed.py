# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Feeds one run of the spool to a target, from where the target has got to; runs in a process of its own.

How far the target has got is recorded only after the target has everything up to there. So whatever ends this, and
whenever, the next one goes on at that point; what the target may have got twice is told it as such.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neptune_exporter import plugins
from neptune_exporter.errors import ExporterError, StagingError, UsageError
from neptune_exporter.mirror import spool
from neptune_exporter.mirror.settings import STAGING
from neptune_exporter.mirror.spool import Progress
from neptune_exporter.secrets import masked

if TYPE_CHECKING:
    from neptune_exporter.exporters.exporter import Follower
    from neptune_exporter.loaders.loader import LiveTarget
    from neptune_exporter.storage.place import Place

logger = logging.getLogger(__name__)

MULTIPLIER = "NEPTUNE_EXPORTER_STEP_MULTIPLIER"
DATA_PATH, FILES_PATH = "NEPTUNE_EXPORTER_DATA_PATH", "NEPTUNE_EXPORTER_FILES_PATH"
STORE_ENDPOINT = "NEPTUNE_EXPORTER_STORE_ENDPOINT"
_POLL_SECONDS = 0.3
_BEAT_SECONDS = 15.0


def feed(folder: Path, target: str, *, wait: bool, stop: Callable[[], bool] = lambda: False) -> Progress:
    """Feeds a run until everything has arrived.

    Args:
        folder: the run's folder in the spool.
        target: the loader, or `staging`.
        wait: whether to go on as long as the run may still be written to; otherwise what is there is fed.
        stop: asked between parts whether to stop early.

    Returns:
        How far the target has got.

    Raises:
        ExporterError: the target takes nothing.
    """
    if target == STAGING:
        return _stage(folder, wait=wait, stop=stop)
    progress = Progress.load(folder, target)
    with tempfile.TemporaryDirectory(prefix="neptune-exporter-feed-") as work:
        follower: Follower = _offline(folder).follow(folder, progress.offsets, Path(work))
        live = _live_target(target)
        progress.target_id = live.open(follower.info, follower.files)
        _record(progress, folder, target, "feeding")
        beat = time.monotonic()
        while not stop():
            status = follower.status  # asked before reading: what comes after the end is seen by the next turn
            news = _deliver(follower, live, progress, folder, target, stop)
            if news:
                beat = time.monotonic()
            elif status != "running":
                live.finish(status)
                _record(progress, folder, target, "done")
                return progress
            elif not wait:
                live.flush()
                return progress
            else:
                time.sleep(_POLL_SECONDS)
                if time.monotonic() - beat > _BEAT_SECONDS:
                    beat = time.monotonic()
                    live.flush()
    return progress


def _deliver(
    follower: Follower, live: LiveTarget, progress: Progress, folder: Path, target: str, stop: Callable[[], bool]
) -> bool:
    news = False
    for part in follower.parts():
        for rows in part.rows:
            live.append(rows, again=part.again)
        live.flush()
        follower.files.clear()
        if not part.again:
            news = True
            progress.offsets.update(part.offsets)
            _record(progress, folder, target, "feeding")
        if stop():
            break
    return news


def _record(progress: Progress, folder: Path, target: str, state: str) -> None:
    progress.state, progress.error = state, ""
    progress.save(folder, target)


def _place(text: str) -> Place:
    from neptune_exporter.storage.place import parse_place

    place = parse_place(text, os.environ.get(STORE_ENDPOINT, ""))
    return place.absolute() if isinstance(place, Path) else place


def _stage(folder: Path, *, wait: bool, stop: Callable[[], bool]) -> Progress:
    """Exports the run into a staging area once it has ended, or as it is."""
    from neptune_exporter.export import export
    from neptune_exporter.selection import EVERYTHING
    from neptune_exporter.storage.staging import Staging

    offline = _offline(folder)
    with tempfile.TemporaryDirectory(prefix="neptune-exporter-feed-") as work:
        follower = offline.follow(folder, {}, Path(work))
        while wait and follower.status == "running" and not stop():
            time.sleep(_POLL_SECONDS)
            for _ in follower.parts():
                follower.files.clear()
    sizes = {path.name: path.stat().st_size for path in spool.segments(folder)}
    data = _place(os.environ.get(DATA_PATH) or "exports/data")
    files = _place(os.environ.get(FILES_PATH) or "exports/files")
    options = _offline_options(folder)
    report = export("offline", options, Staging(data, files), EVERYTHING, workers=1)
    failed = [outcome for outcome in report.outcomes if outcome.status == "failed"]
    if failed or report.errors:
        reason = failed[0].reason if failed else str(report.errors[0])
        raise StagingError(f"{folder} could not be exported: {reason}")
    progress = Progress(sizes, target_id=str(data))
    _record(progress, folder, STAGING, "done")
    return progress


def _offline_options(folder: Path) -> Any:
    return plugins.find(plugins.EXPORTERS, "offline").options(offline_path=(str(folder),))


def _offline(folder: Path) -> Any:
    return plugins.find(plugins.EXPORTERS, "offline").make(_offline_options(folder))


def _live_target(name: str) -> LiveTarget:
    plugin = plugins.find(plugins.LOADERS, name)
    from neptune_exporter.loaders.loader import LoadOptions

    loader = plugin.make(options_from(plugin.options, os.environ), LoadOptions())
    live = getattr(loader, "live", None)
    if live is None:
        raise UsageError(f"{name} cannot be fed while a run is being logged.", "Use the target staging, then load.")
    wanted = os.environ.get(MULTIPLIER, "")
    target: LiveTarget = live(int(wanted) if wanted.isdecimal() and int(wanted) else None)
    return target


def options_from(kind: type, environment: Mapping[str, str]) -> Any:
    """A loader's options as the environment gives them: each from the variables that its option names."""
    given = {}
    for field in fields(kind):
        names = field.metadata.get("env") or ()
        text = next((environment[n] for n in ([names] if isinstance(names, str) else names) if environment.get(n)), "")
        if text:
            given[field.name] = _parsed(field.default, text)
    return kind(**given)


def _parsed(default: object, text: str) -> object:
    if isinstance(default, bool):
        return text.lower() in ("1", "true", "yes")
    if isinstance(default, (int, float)):
        return type(default)(text)
    return (text,) if isinstance(default, tuple) else text


def explain(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, ExporterError):
        return f"{error.message} {error.hint}".strip()
    return masked(f"{type(error).__name__}: {error}")
