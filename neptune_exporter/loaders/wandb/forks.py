# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Forks of Neptune as forks of W&B: a run that continues another one after one of its steps.

What `fork_from` of the client leaves on the wire is an entry of the config with the parent's id and step; the
fork's own rows count from 0 as those of any run. W&B knows whole steps only, so what counts is the `_step` of the
parent's last row that is not after the fork.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from neptune_exporter.loaders.wandb import names

INTERNAL = "_wandb"  # the entry of the config that belongs to the client
_POINT = "branch_point"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a run branches off.

    Attributes:
        parent: the id of the run that it continues, in the same project.
        step: the `_step` after which its own rows begin.
    """

    parent: str
    step: int

    def to_json(self) -> dict[str, Any]:
        """As the client writes it."""
        return {"run_id": self.parent, "step": self.step}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Fork | None:
        """The inverse of `to_json`; None of None."""
        return None if value is None else cls(str(value["run_id"]), int(value["step"]))

    @property
    def moment(self) -> str:
        """As `wandb.init(fork_from=…)` takes it."""
        return f"{self.parent}?_step={self.step}"


def internal_config(fork: Fork | None, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config entry of the client with the fork in it, none without a fork.

    Args:
        fork: where the run branches off.
        held: the entry as it is.
    """
    return {} if fork is None else {INTERNAL: {**(held or {}), _POINT: fork.to_json()}}


def first_step(fork_step: Decimal, multiplier: int) -> int:
    """The lowest `_step` that the parent's row at the fork can have."""
    return max(int(fork_step * multiplier // 1), 0)


def branch_step(pages: Iterable[Iterable[Mapping[str, Any]]], fork_step: Decimal, multiplier: int) -> int:
    """The `_step` of the parent's last row that is not after the fork.

    Args:
        pages: the parent's rows in their order, from `first_step` on.
        fork_step: the step in Neptune.
        multiplier: what steps were multiplied with.
    """
    last = first_step(fork_step, multiplier)
    for page in pages:
        for row in page:
            exact = row.get(names.STEP_KEY)
            if isinstance(exact, int | float) and Decimal(repr(exact)) > fork_step:
                return last
            last = max(last, int(row.get("_step", 0)))
    return last
