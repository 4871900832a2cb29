# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The commit of a run: one file that says everything, then renames that anybody can finish.

`<run>.next.json` holds the whole new manifest, the renames that make it true, and what to remove after. Once
it is on disk the new generation is certain: every command that finds it does the rest first. Until then the
old generation is untouched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neptune_exporter.errors import DamagedDataError
from neptune_exporter.storage import disk, names
from neptune_exporter.storage.claims import being_worked_on, nobody_comes
from neptune_exporter.storage.manifest import MANIFESTS, Manifest, manifest_from, read_json
from neptune_exporter.storage.shapes import check_plan

PATIENCE_SECONDS = 10.0


def next_path(folder: Path, run_stem: str) -> Path:
    """Where a commit that has begun is written down."""
    return folder / MANIFESTS / f"{run_stem}.next.json"


def manifest_path(folder: Path, run_stem: str) -> Path:
    """Where the manifest lies."""
    return folder / MANIFESTS / f"{run_stem}.json"


def claim_path(folder: Path, run_stem: str) -> Path:
    """Where the claim lies."""
    return folder / MANIFESTS / f"{run_stem}.claim"


def commit(
    folder: Path,
    files: Path,
    run_stem: str,
    manifest: Manifest,
    renames: Sequence[tuple[str, str]],
    removals: Mapping[str, Sequence[str]],
) -> None:
    """Makes a new generation count. The caller holds the run's claim; everything new is on disk and synced.

    Args:
        folder: the project's data folder.
        files: the project's files folder.
        run_stem: the run's name on disk.
        manifest: the new manifest.
        renames: pairs of paths relative to `folder`, in the order in which they are to be done.
        removals: what the old generation leaves: paths relative to `folder` under `data`, to `files` under `files`.
    """
    plan = {
        "format": 1,
        "manifest": manifest.to_json(),
        "renames": [list(pair) for pair in renames],
        "removals": {key: list(paths) for key, paths in removals.items()},
    }
    disk.sync_folder(folder / MANIFESTS)
    disk.write_json(next_path(folder, run_stem), plan)
    _finish(folder, files, run_stem, plan)


def roll_forward(folder: Path, files: Path, run_stem: str) -> None:
    """Finishes a commit that was interrupted. Waits for a living command that is doing so itself.

    Raises:
        StagingError: the folder cannot be written.
        DamagedDataError: the plan cannot be read.
    """
    path = next_path(folder, run_stem)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while path.exists():
        with nobody_comes(claim_path(folder, run_stem)) as holder:
            if holder is None:
                finish(folder, files, run_stem)
                return
        if time.monotonic() > deadline:
            raise being_worked_on(run_stem, holder)
        time.sleep(0.05)


def finish(folder: Path, files: Path, run_stem: str) -> None:
    """Finishes a commit that was interrupted, if there is one. The caller holds the run's claim, or keeps it free."""
    path = next_path(folder, run_stem)
    if path.exists():
        _finish(folder, files, run_stem, read_json(path))


def _touched(
    folder: Path, files: Path, renames: Sequence[tuple[str, str]], removals: Mapping[str, Sequence[str]]
) -> list[tuple[Path, str]]:
    """Every path that a commit renames or removes, with the folder that it must not leave."""
    renamed = [(folder, name) for pair in renames for name in pair]
    return [
        *renamed,
        *((folder, n) for n in removals.get("data", ())),
        *((files, n) for n in removals.get("files", ())),
    ]


def _finish(folder: Path, files: Path, run_stem: str, plan: Any) -> None:
    """Does the renames that are left; every step may have been done before."""
    path = next_path(folder, run_stem)
    try:
        manifest = manifest_from(plan["manifest"], path)
        check_plan(plan)
        renames, removals = [(str(a), str(b)) for a, b in plan["renames"]], plan["removals"]
        for root, name in _touched(folder, files, renames, removals):
            names.check_inside(root, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedDataError(f"{path} is not a commit: {error}.", "Restore it from a backup.") from error
    sizes = {part.path: part.bytes for part in manifest.parts}
    for source, target in renames:
        there = folder / target
        for name in (source, target):  # once more: what was renamed just now may be the way out
            names.check_inside(folder, name)
        if os.path.lexists(folder / source):
            disk.check_regular(folder / source)
            disk.replace(folder / source, there)
        elif not there.exists() or there.stat().st_size != sizes.get(target, there.stat().st_size):
            raise DamagedDataError(
                f"{folder / source} is missing: the commit in {path} cannot be finished.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )
    disk.sync_folder(folder)
    disk.sync_folder(folder / MANIFESTS)
    disk.write_json(manifest_path(folder, run_stem), plan["manifest"])
    for name in removals.get("data", ()):
        names.check_inside(folder, name)
        disk.remove(folder / name)
    for name in removals.get("files", ()):
        names.check_inside(files, name)
        disk.remove(files / name)
        disk.remove_empty_folder((files / name).parent)
    disk.remove(path)
    disk.sync_folder(folder / MANIFESTS)
