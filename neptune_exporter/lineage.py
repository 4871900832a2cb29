# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which run was forked from which, as trees that can be shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForkNode:
    """One run in a tree of forks; a tree is listed from its root on, each run before its forks.

    Attributes:
        run: its id.
        depth: how many forks lie between the root and it.
        step: at which step it was forked, exact text; None for a root, or where nobody knows.
        here: whether the run itself is there, or only named as a parent.
        forks: how many runs were forked from it.
    """

    run: str
    depth: int
    step: str | None
    here: bool
    forks: int


def fork_trees(parents: Mapping[str, tuple[str, str | None]], known: frozenset[str]) -> Iterator[ForkNode]:
    """All trees that have a fork, the biggest family of a root first.

    Runs that name one another as parents, which no real source has, are listed from one of them on, each once.

    Args:
        parents: by run id, the run that it was forked from and the step.
        known: the ids of all runs that are there.
    """
    children: dict[str, list[str]] = {}
    for run, (parent, _) in sorted(parents.items()):
        children.setdefault(parent, []).append(run)
    roots = sorted(children.keys() - parents.keys(), key=lambda run: (-len(children[run]), run))
    listed: set[str] = set()
    for root in [*roots, *sorted(parents)]:
        waiting = [(root, 0)] if root not in listed else []
        while waiting:
            run, depth = waiting.pop()
            if run in listed:
                continue
            listed.add(run)
            below = children.get(run, [])
            yield ForkNode(run, depth, parents[run][1] if run in parents else None, run in known, len(below))
            waiting += [(child, depth + 1) for child in reversed(below)]
