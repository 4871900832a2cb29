# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The state that a log's operations lead to, where later ones undo earlier ones: single values, sets and previews."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neptune_exporter.exporters.offline_scale.attachments import Attachments
from neptune_exporter.exporters.offline_scale.columns import Block, Paths
from neptune_exporter.exporters.offline_scale.wire import micros_of_step, millis_of_timestamp
from neptune_exporter.model import MICRO

_ADD, _REMOVE = 1, 2
_ATOMS = {"float64": "float", "int64": "int", "bool": "bool", "string": "string"}


@dataclass(frozen=True, slots=True)
class Created:
    """What a CREATE_RUN operation says.

    Attributes:
        time: the run's creation time in milliseconds, None if not given.
        experiment: the experiment name, None if not given.
        parent_project: the project of the run that this one was forked from, None for the same project.
        parent: that run's id, None if this is not a fork.
        fork_step: the step of the fork in micro-units.
    """

    time: int | None = None
    experiment: str | None = None
    parent_project: str | None = None
    parent: str | None = None
    fork_step: int | None = None

    @classmethod
    def from_message(cls, message: Any) -> Created:
        """From a parsed CREATE_RUN message."""
        fork = message.fork_point if message.HasField("fork_point") else None
        return cls(
            time=millis_of_timestamp(message.creation_time) if message.HasField("creation_time") else None,
            experiment=message.experiment_id or None,
            parent_project=(fork.parent_project or None) if fork else None,
            parent=(fork.parent_run_id or None) if fork else None,
            fork_step=micros_of_step(fork.step) if fork and fork.HasField("step") else None,
        )

    def joined(self, later: Created) -> Created:
        """This run resumed: it was created once, and may have been given another experiment since."""
        return Created(
            time=self.time if self.time is not None else later.time,
            experiment=later.experiment or self.experiment,
            parent_project=self.parent_project if self.parent else later.parent_project,
            parent=self.parent or later.parent,
            fork_step=self.fork_step if self.parent else later.fork_step,
        )

    def system_values(self, run_id: str) -> Iterator[tuple[str, str, Any]]:
        """Path, type and value of what the server would have made of it."""
        yield "sys/custom_run_id", "string", run_id
        if self.experiment:
            yield "sys/name", "string", self.experiment
            yield "sys/experiment/name", "string", self.experiment
        if self.time is not None:
            yield "sys/creation_time", "datetime", self.time
        if self.parent:
            yield "sys/forking/parent", "string", self.parent
        if self.parent and self.fork_step is not None:
            yield "sys/forking/step", "float", self.fork_step / MICRO


class SingleValues:
    """Assigned values: the last one counts, sets are folded.

    Attributes:
        values: type and value by attribute path; a set is a dict without values, a time is in
            milliseconds, a file is `Located`.
        relative_sets: sets that were changed and never assigned.
    """

    def __init__(self) -> None:
        self.values: dict[str, tuple[str, Any]] = {}
        self.relative_sets: set[str] = set()
        self._assigned_sets: set[str] = set()

    def assign(self, path: str, value: Any, attachments: Attachments) -> bool:
        """Takes a `Value` message; returns False if it holds nothing that is known."""
        kind = value.WhichOneof("value")
        if kind in _ATOMS:
            self.values[path] = (_ATOMS[kind], getattr(value, kind))
        elif kind == "timestamp":
            self.values[path] = ("datetime", millis_of_timestamp(value.timestamp))
        elif kind == "string_set":
            self.values[path] = ("string_set", dict.fromkeys(value.string_set.values))
            self._assigned_sets.add(path)
        elif kind == "file_ref":
            # Located now: references to one destination are paired with uploads in their order.
            self.values[path] = ("file", attachments.locate(value.file_ref.path, value.file_ref.size_bytes))
        else:
            return False
        return True

    def modify(self, path: str, change: Any) -> bool:
        """Takes a `ModifySet` message; returns False if it holds nothing that is known."""
        if not change.HasField("string"):
            return False
        kind, elements = self.values.get(path, ("", None))
        if kind != "string_set":
            elements = {}
            self.values[path] = ("string_set", elements)
        if path not in self._assigned_sets:
            self.relative_sets.add(path)
        for element, action in change.string.values.items():
            if action == _ADD:
                elements[element] = None
            elif action == _REMOVE:
                elements.pop(element, None)
        return True


class Previews:
    """Points logged as previews that no later point at the same step has replaced."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._pending: dict[int | None, dict[int, tuple[int, int | None, float]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._pending.values()))

    def add(self, step: int | None, code: int, place: int, time: int | None, value: float) -> None:
        """A preview, by the code of its path; `place` is its operation's place in the order of all."""
        self._pending.setdefault(step, {})[code] = (place, time, value)

    def replace(self, step: int | None, codes: Iterable[int], place: int) -> None:
        """Points that are final, from the operation at `place`."""
        pending = self._pending.get(step)
        if pending is None:
            return
        for code in codes:
            if code in pending and pending[code][0] < place:
                del pending[code]
        if not pending:
            del self._pending[step]

    def replace_block(self, block: Block, places: Sequence[int]) -> None:
        """All final points of a decoded block, `places` being those of its operations."""
        if not self._pending:
            return
        steps = np.array([step for step in self._pending if step is not None], np.int64)
        for points in block.points:
            hits = np.flatnonzero(np.isin(points.steps, steps))
            codes = points.codes.tolist() if len(hits) else []
            for operation, step in zip(points.operations[hits].tolist(), points.steps[hits].tolist(), strict=True):
                self.replace(step, codes, places[operation])
        singles = block.singles
        if singles is not None:
            hits = np.flatnonzero(np.isin(singles.steps, steps))
            columns = (singles.operations, singles.steps, singles.codes)
            for operation, step, code in zip(*(c[hits].tolist() for c in columns), strict=True):
                self.replace(step, (code,), places[operation])

    def by_path(self) -> Mapping[str, int]:
        """How many are left of each path."""
        counts: dict[str, int] = {}
        for pending in self._pending.values():
            for code in pending:
                name = self._paths.names[code]
                counts[name] = counts.get(name, 0) + 1
        return counts

    def left(self) -> Iterator[tuple[int, int | None, int | None, float]]:
        """Code, step, time and value of each that is left."""
        for step, pending in self._pending.items():
            for code, (_, time, value) in pending.items():
                yield code, step, time, value
