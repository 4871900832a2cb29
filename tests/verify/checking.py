# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs `verify` and gives back what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import areas

from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.verify.check import Depth, Source, Target, verify
from neptune_exporter.verify.finding import Checked, Finding, exit_code


def checked(
    root: Path,
    selection: Selection = EVERYTHING,
    *,
    source: Any = None,
    target: Any = None,
    executor: str = "threads",
    dry_run: bool = False,
    **depth: bool,
) -> list[Checked]:
    """All that verify yields for the area below a folder."""
    how = Depth(selection, source=source and Source(*source), target=target and Target(*target), **depth)
    return list(verify(areas.staging(root), how, workers=2, executor=executor, dry_run=dry_run))


def findings(root: Path, *args: Any, **kwargs: Any) -> list[Finding]:
    """All findings of all runs."""
    return [finding for one in checked(root, *args, **kwargs) for finding in one.findings]


def told(found: list[Finding]) -> list[tuple[str, str | None, str]]:
    """(run, attribute, kind) of each finding, sorted."""
    return sorted(((f.run, f.attribute, f.kind) for f in found), key=str)


__all__ = ["checked", "exit_code", "findings", "told"]
