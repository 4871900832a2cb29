# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the environment says about dual logging."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_SPOOL = ".neptune_exporter"
TARGET, SPOOL, CLOSE_SECONDS = "NEPTUNE_EXPORTER_TARGET", "NEPTUNE_EXPORTER_SPOOL", "NEPTUNE_EXPORTER_CLOSE_SECONDS"
LINGER_SECONDS = "NEPTUNE_EXPORTER_LINGER_SECONDS"
DISABLE_NEPTUNE, OFF = "DISABLE_NEPTUNE_LOGGING", "NEPTUNE_EXPORTER_DISABLE"
STAGING = "staging"
_SEEDS = {"pluto": ("MLOP_PROJECT", "PLUTO_PROJECT")}
MOST_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What is wanted.

    Attributes:
        target: the loader that is fed, `staging`, or "" for Neptune only.
        why: the variable that said so.
        spool: the spool's root, absolute.
        close_seconds: how long closing a run and leaving the process may take beyond Neptune's own time.
        linger_seconds: how long a target is fed after the script has ended.
        without_neptune: whether Neptune is not to be called.
    """

    target: str
    why: str
    spool: Path
    close_seconds: float = MOST_CLOSE_SECONDS
    linger_seconds: float = 60.0
    without_neptune: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """What the environment says now."""
        given = os.environ if environment is None else environment
        target, why = _target(given)
        if _is_true(given.get(OFF, "")):
            target, why = "", OFF
        return cls(
            target=target,
            why=why,
            spool=Path(given.get(SPOOL) or DEFAULT_SPOOL).expanduser().absolute(),
            close_seconds=min(_seconds(given.get(CLOSE_SECONDS, ""), MOST_CLOSE_SECONDS), MOST_CLOSE_SECONDS),
            linger_seconds=_seconds(given.get(LINGER_SECONDS, ""), 60.0),
            without_neptune=_is_true(given.get(DISABLE_NEPTUNE, "")) and not _is_true(given.get(OFF, "")),
        )

    @property
    def active(self) -> bool:
        """Whether anything is to be mirrored. Without Neptune it always is: the spool is then what remains."""
        return bool(self.target) or self.without_neptune


def stand_in_project(environment: Mapping[str, str]) -> str:
    """A project of the form that Neptune wants, for a script that runs without Neptune and names none."""
    name = next((environment[v] for v in _SEEDS["pluto"] if environment.get(v)), "dual-logging")
    return name if "/" in name.strip("/") else f"local/{name}"


def _target(given: Mapping[str, str]) -> tuple[str, str]:
    named = given.get(TARGET, "").strip().lower()
    if named:
        return {"mlop": "pluto", "none": "", "neptune": ""}.get(named, named), TARGET
    for target, variables in _SEEDS.items():
        for variable in variables:
            if given.get(variable):
                return target, variable
    return "", ""


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes")


def _seconds(text: str, default: float) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return default
