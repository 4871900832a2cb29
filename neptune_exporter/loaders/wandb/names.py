# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The names of things in W&B: projects, run ids, keys, artifacts, tags.

W&B takes nearly every character in a key, so names stay as they are. Only what W&B keeps for itself (names that begin
with `_`), what its client strips (a `-` at the beginning), what this loader keeps, control characters, and one path
with two types are changed, injectively: what has changed ends in a hash of the original, and a name that looks so by
nature is changed too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

from neptune_exporter.loaders.keys import KeyRule, shortened, suffixed
from neptune_exporter.loaders.loader import LoadOptions, RunToLoad
from neptune_exporter.loaders.runs import title
from neptune_exporter.model import RunInfo, RunRef

STEP_KEY = "neptune_step"  # the exact decimal step: the x axis of all metrics
OURS = "neptune"  # the config entry that identifies a run
ARTIFACT_TYPE = "neptune-run"
RESERVED_METRICS = frozenset({STEP_KEY})
RESERVED_CONFIG = frozenset({OURS, "wandb_version"})

PROJECT_LENGTH = 128
RUN_NAME_LENGTH = 128
GROUP_LENGTH = 128
TAG_LENGTH = 64

_KEY_RULE = KeyRule(illegal=r"[\x00-\x1f\x7f]", length=1000)
_CHANGED = re.compile(r"--[0-9a-f]{8}$")
_NOT_IN_PROJECTS = re.compile(r"[/\\#?%:\x00-\x1f\x7f]+")
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]+")


def ref_digest(ref: RunRef) -> str:
    """Stands for a run: 16 hex digits."""
    return hashlib.blake2b(f"{ref.project_id}\0{ref.run_id}\0{ref.kind}".encode(), digest_size=8).hexdigest()


def run_id(ref: RunRef, generation: int) -> str:
    """The W&B id of a generation of a run: the same for ever, and never one for two runs."""
    readable = _NOT_IN_IDS.sub("-", ref.run_id)[:32].strip("-")
    later = f"-g{generation}" if generation > 1 else ""
    return f"{readable or 'run'}-{ref_digest(ref)}{later}"


def artifact_name(wandb_id: str) -> str:
    """The name of a run's artifact."""
    return f"neptune-{wandb_id}"


def project_name(project_id: str, prefix: str, experiment: str | None = None) -> str:
    """The W&B project of a Neptune project, or of one experiment in it.

    Two projects may share one: runs are told apart by what their config says.
    """
    wanted = prefix + project_id + (f"-{experiment}" if experiment else "")
    return shortened(_NOT_IN_PROJECTS.sub("-", wanted).strip(" -") or "neptune", PROJECT_LENGTH)


def run_name(run: RunToLoad, options: LoadOptions) -> str:
    """The run's title."""
    return shortened(_clean(title(run, options)), RUN_NAME_LENGTH)


def group_of(info: RunInfo) -> str:
    """The group of a run: its experiment."""
    return shortened(_clean(info.experiment or ""), GROUP_LENGTH)


def tags_of(names: Iterable[str]) -> list[str]:
    """What W&B takes as tags: 1 to 64 characters. The sets as they were are in the config."""
    return list(dict.fromkeys(shortened(_clean(name), TAG_LENGTH) for name in sorted(names) if name.strip()))


def native_keys(names: Iterable[tuple[str, str]], reserved: Collection[str]) -> Mapping[tuple[str, str], str]:
    """The keys of attributes, given by path and type, in one of W&B's name spaces."""
    keys: dict[tuple[str, str], str] = {}
    plain: set[str] = set()
    for path, attribute_type in sorted(set(names)):
        keys[path, attribute_type] = native_key(path, attribute_type, reserved, taken=path in plain)
        plain.add(path)
    return keys


def native_key(path: str, attribute_type: str, reserved: Collection[str], *, taken: bool = False) -> str:
    """The key of one attribute.

    Args:
        path: its path.
        attribute_type: its type.
        reserved: what W&B or this loader keeps for itself.
        taken: whether the path with another type has the plain key.
    """
    if taken or not _is_native(path, reserved):
        return suffixed(_readable(path), f"{path}\0{attribute_type}", _KEY_RULE)
    return path


def _is_native(path: str, reserved: Collection[str]) -> bool:
    return bool(path) and _readable(path) == path and path not in reserved and not _CHANGED.search(path)


def _readable(path: str) -> str:
    text = re.sub(_KEY_RULE.illegal, "_", path)[: _KEY_RULE.length]
    return f"neptune{text}" if not text or text.startswith(("_", "-")) else text


def _clean(text: str) -> str:
    return re.sub(_KEY_RULE.illegal, " ", text)
