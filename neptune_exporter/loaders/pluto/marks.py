# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What identifies a run in Pluto, and the names that Pluto accepts.

Our own entries in a run's config begin with `neptune.`, on one level: whether a server merges configs deeply or not,
each can be set by itself. A run is found by them among the runs that have the tag `import:neptune`. It is made with
an external id of its own: making one that exists would open that run again.

Names of metrics, series, files and projects become ASCII, injectively: they travel in headers, in addresses of
files, and Pluto's own client would turn every other character into `-`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from neptune_exporter.loaders.keys import KeyRule, target_key
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.model import RunRef

TAG, SUPERSEDED_TAG = "import:neptune", "neptune:superseded"
PREFIX = "neptune."
PROJECT, RUN, KIND = "neptune.project_id", "neptune.run_id", "neptune.kind"
LOAD, LOADED, GENERATION, MANIFEST = "neptune.load", "neptune.loaded", "neptune.generation", "neptune.manifest"
MULTIPLIER = "neptune.step_multiplier"
STARTED, COMPLETE, ABANDONED, SUPERSEDED = "started", "complete:", "abandoned", "superseded"
SETTINGS = "neptune-exporter"

FOLDER_NAME = "neptune"  # the log name of what travels beside a run: no attribute gets it
KEY_RULE = KeyRule(illegal=r"[^ -~]|^ +| +$|^(?=neptune$)", length=250)
CONFIG_RULE = KeyRule(illegal=r"[\x00-\x1f\x7f]|^(?=neptune\.)", length=500)
PROJECT_RULE = KeyRule(illegal=r"[^ -~]|^ +| +$", length=200)
FILE_RULE = KeyRule(illegal=r"[^A-Za-z0-9_.\-]", length=200, segment_bytes=200)
CONFIG_TEXT_LENGTH = 10_000
SERIES_TEXT_LENGTH = 200  # what Pluto's own client sends of a value of a string series
_RESERVED_TAGS = ("group:", "sweep:", "linear:", "import:", "neptune:")  # they mean something to Pluto, or to us


def project_name(project_id: str, prefix: str, chosen: str) -> str:
    """The name of the Pluto project of a Neptune project."""
    return target_key(prefix + (chosen or project_id), PROJECT_RULE)


def external_id(ref: RunRef, generation: int) -> str:
    """What Pluto knows one load of a run by."""
    counted = "neptune::" if generation == 1 else f"neptune:{generation}:"
    kind = "" if ref.kind == "run" else f"{ref.kind}:"
    return f"{counted}{kind}{printable(ref.project_id)}/{printable(ref.run_id)}"


def identity(run: RunToLoad, multiplier: int, generation: int) -> dict[str, Any]:
    """Our entries in the config that a run is made with."""
    info = run.info
    entries: dict[str, Any] = {
        PROJECT: info.ref.project_id,
        RUN: info.ref.run_id,
        KIND: info.ref.kind,
        "neptune.sys_id": info.sys_id,
        "neptune.experiment": info.experiment,
        "neptune.owner": info.owner,
        "neptune.state": info.state,
        "neptune.created": info.created and info.created.isoformat(),
        "neptune.fork.parent": info.parent and info.parent.run_id,
        "neptune.fork.step": None if info.fork_step is None else f"{info.fork_step.normalize():f}",
        "neptune.export": "partial" if run.problems else "complete",
        "neptune.problems": len(run.problems) or None,
        MULTIPLIER: multiplier,
        GENERATION: generation,
        LOAD: STARTED,
        LOADED: time.time_ns() // 1_000_000,
    }
    kept = {key: value for key, value in entries.items() if value is not None}
    return {key: printable(value) if isinstance(value, str) else value for key, value in kept.items()}


def labels(names: Iterable[str]) -> list[str]:
    """The tags of a run as Pluto shows them."""
    shown = (f"neptune:{name}" if name.lower().startswith(_RESERVED_TAGS) else name for name in names)
    return sorted({printable(name) for name in shown if name.strip()})


def ascii_name(name: str) -> str:
    """A name as it can stand in a header."""
    return re.sub(r"[^ -~]", "_", name)[:200].strip() or "_"


def printable(text: str) -> str:
    """The text without NUL, which PostgreSQL does not take."""
    return text.replace("\0", "\\0")
