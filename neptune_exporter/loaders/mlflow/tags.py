# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The names, tags and times of a run in MLflow: what identifies it, and what people see of it.

Our own tags begin with `neptune.`. A tag of `sys/tags` or `sys/group_tags` becomes an MLflow tag of that name with
the value `true` (so that it can be searched for by its name and shows as one), after `neptune.tag.` where the name
begins with `mlflow.` or `neptune.`; both sets are also kept whole as JSON.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from neptune_exporter.loaders.keys import KeyRule, folded, shortened, target_keys
from neptune_exporter.loaders.loader import LoadOptions, RunToLoad
from neptune_exporter.loaders.runs import title
from neptune_exporter.model import RunRef

PROJECT, RUN, KIND, REF = "neptune.project_id", "neptune.run_id", "neptune.kind", "neptune.ref"
PARENT, PARENT_REF, MULTIPLIER = "neptune.fork.parent", "neptune.fork.parent_ref", "neptune.step_multiplier"
LOAD, LOADED, MANIFEST = "neptune.load", "neptune.loaded", "neptune.manifest"
PLACE = "neptune.place"
STARTED, COMPLETE = "started", "complete:"
MLFLOW_PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
USER, RUN_NAME = "mlflow.user", "mlflow.runName"
TAG_SETS = {"sys/tags": "neptune.tags", "sys/group_tags": "neptune.group_tags"}

RUN_NAME_LENGTH = 250  # the database columns; MLflow checks neither
USER_LENGTH = 256
TAG_LENGTH = 8000
KEY_RULE = KeyRule(illegal=r"[^/\w.\- :]", length=250, dots_first=False)


def ref_digest(ref: RunRef) -> str:
    """Stands for a run in searches: no quote, no length, nothing to escape."""
    return hashlib.blake2b(f"{ref.project_id}\0{ref.run_id}\0{ref.kind}".encode(), digest_size=16).hexdigest()


def run_name(run: RunToLoad, options: LoadOptions) -> str:
    """The run's title, as long as MLflow's column takes it."""
    return shortened(printable(title(run, options)), RUN_NAME_LENGTH)


def creation_tags(run: RunToLoad, multiplier: int, parent_run: str | None) -> dict[str, str]:
    """The tags that a run is made with."""
    info = run.info
    tags: dict[str, str | None] = {
        PROJECT: info.ref.project_id,
        RUN: info.ref.run_id,
        KIND: info.ref.kind,
        REF: ref_digest(info.ref),
        "neptune.sys_id": info.sys_id,
        "neptune.experiment": info.experiment,
        PARENT: info.parent.run_id if info.parent else None,
        PARENT_REF: ref_digest(info.parent) if info.parent else None,
        "neptune.fork.step": None if info.fork_step is None else f"{info.fork_step.normalize():f}",
        "neptune.export": "partial" if run.problems else "complete",
        "neptune.problems": str(len(run.problems)) if run.problems else None,
        MULTIPLIER: str(multiplier),
        USER: info.owner and shortened(printable(info.owner), USER_LENGTH),
        MLFLOW_PARENT: parent_run,
        LOAD: STARTED,
        LOADED: str(time.time_ns() // 1_000_000),
    }
    return {key: shortened(printable(value), TAG_LENGTH) for key, value in tags.items() if value}


def label_tags(names: Iterable[str]) -> dict[str, str]:
    """One MLflow tag for each tag of a run."""
    reserved = ("mlflow.", "neptune.")
    wanted = {f"neptune.tag.{name}" if folded(name).startswith(reserved) else name for name in names}
    return dict.fromkeys(target_keys(((name, "tag") for name in wanted), KEY_RULE).values(), "true")


def note(description: str) -> str:
    """A description as the run's note; the whole of it is a parameter, too."""
    text = printable(description)
    return text if len(text) <= TAG_LENGTH else text[: TAG_LENGTH - 1] + "…"


def printable(text: str) -> str:
    """The text without NUL, which PostgreSQL does not take."""
    return text.replace("\0", "\\0")
