# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Feeds a target with what is left in the spool."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neptune_exporter.errors import UsageError
from neptune_exporter.mirror import spool
from neptune_exporter.mirror.feed import explain, feed
from neptune_exporter.mirror.spool import Progress
from neptune_exporter.mirror.worker import only_one

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one run.

    Attributes:
        run: the run, by project and id.
        state: `complete before`, `fed`, `still running`, `being fed`, `left over` or `failed`.
        error: what went wrong, "" if nothing did.
    """

    run: str
    state: str
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def replay(root: Path, target: str, *, dry_run: bool = False) -> list[Replayed]:
    """Feeds all runs below a spool's root; one that fails costs only itself.

    Raises:
        UsageError: there is no spool.
    """
    if not root.is_dir():
        raise UsageError(f"There is no spool at {root}.", "Name it with --spool.")
    return [_replay(folder, target, dry_run=dry_run) for folder in spool.run_folders(root)]


def _replay(folder: Path, target: str, *, dry_run: bool) -> Replayed:
    header = next(filter(None, map(spool.read_header, spool.segments(folder))), None)
    if header is None:
        return Replayed(folder.name, "failed", "no segment says which run this is")
    name = f"{header.project}/{header.run_id}"
    if _has_arrived(folder, target):
        return Replayed(name, "complete before")
    if dry_run:
        return Replayed(name, "left over")
    with only_one(folder, target) as chosen:
        if not chosen:
            return Replayed(name, "being fed")
        try:
            progress = feed(folder, target, wait=False)
        except Exception as error:
            logger.info("%s", name, exc_info=True)
            failed = Progress.load(folder, target)
            failed.state, failed.error = "failing", explain(error)
            with suppress(OSError):
                failed.save(folder, target)
            return Replayed(name, "failed", explain(error))
    return Replayed(name, "fed" if progress.state == "done" else "still running")


def _has_arrived(folder: Path, target: str) -> bool:
    """Whether the target has every whole record of every segment, and the end of the run."""
    progress = Progress.load(folder, target)
    if progress.state != "done":
        return False
    for path in spool.segments(folder):
        delivered = progress.offsets.get(path.name, 0)
        # A file without the operation that names it is what a killed script leaves now and then.
        if any(record.kind != spool.FILE for record in spool.read_records(path, delivered)):
            return False
    return True
