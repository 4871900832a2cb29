# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which projects, runs, attributes and classes of attributes a command is about.

Parsed once from the command line; an exporter may push any part of it down to its server, but
`Selection.wants` decides in the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

from neptune_exporter.errors import UsageError

CLASSES = ("parameters", "metrics", "series", "files")

CLASS_OF_TYPE = {
    "float": "parameters",
    "int": "parameters",
    "string": "parameters",
    "bool": "parameters",
    "datetime": "parameters",
    "string_set": "parameters",
    "git_ref": "parameters",
    "notebook_ref": "parameters",
    "run_state": "parameters",
    "float_series": "metrics",
    "string_series": "series",
    "histogram_series": "series",
    "file": "files",
    "file_series": "files",
    "file_set": "files",
    "artifact": "files",
}


@lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is not a valid regular expression: {error}.",
            "Patterns are Python regular expressions, searched anywhere in the name.",
        ) from None


@dataclass(frozen=True, slots=True)
class Selection:
    """What to export or load. The default is everything.

    Attributes:
        projects: project ids, or none for all that the source has.
        run_patterns: regular expressions searched in the run id; a run is wanted if any matches.
        run_ids: exact run ids; a run is wanted if it is one of them.
        attributes: one entry is a regular expression searched in the attribute path, several are exact paths.
        classes: the classes of attributes that are wanted (`CLASSES`).
        kinds: the kinds of things that are wanted, of a source that has several.
    """

    projects: tuple[str, ...] = ()
    run_patterns: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    classes: frozenset[str] = frozenset(CLASSES)
    kinds: tuple[str, ...] = ("run",)

    def __post_init__(self) -> None:
        unknown = self.classes - set(CLASSES)
        if unknown:
            raise UsageError(
                f"Unknown class of attributes: {', '.join(sorted(unknown))}.", f"Use {', '.join(CLASSES)}."
            )
        for pattern in self.run_patterns:
            _regex(pattern)
        if len(self.attributes) == 1:
            _regex(self.attributes[0])

    def wants_project(self, project_id: str) -> bool:
        """Whether the project is selected."""
        return not self.projects or project_id in self.projects

    def wants_run(self, run_id: str) -> bool:
        """Whether the run is selected by its id."""
        if self.run_ids and run_id not in self.run_ids:
            return False
        return not self.run_patterns or any(_regex(p).search(run_id) for p in self.run_patterns)

    def wants_attribute(self, path: str) -> bool:
        """Whether the attribute path is selected, whatever its type."""
        if not self.attributes:
            return True
        if len(self.attributes) == 1:
            return _regex(self.attributes[0]).search(path) is not None
        return path in self.attributes

    def wants(self, path: str, attribute_type: str) -> bool:
        """Whether an attribute of this path and type is selected. An unknown type counts as a parameter."""
        return CLASS_OF_TYPE.get(attribute_type, "parameters") in self.classes and self.wants_attribute(path)

    @property
    def whole_runs(self) -> bool:
        """Whether every attribute of a selected run is wanted."""
        return not self.attributes and self.classes == frozenset(CLASSES)

    def covers(self, other: Selection) -> bool:
        """Whether every attribute that `other` wants of a run is wanted here too.

        Regular expressions are compared as text: of two different ones neither covers the other.
        """
        if not other.classes <= self.classes:
            return False
        if not other.classes or not self.attributes or self.attributes == other.attributes:
            return True
        exact = len(self.attributes) > 1 and len(other.attributes) > 1
        return exact and set(other.attributes) <= set(self.attributes)

    def beyond(self, done: Selection) -> Selection:
        """What this selection wants of a run that `done` does not hold yet.

        Never less than the difference; the whole selection where the difference cannot be expressed.
        """
        if done.covers(self):
            return replace(self, classes=frozenset())
        if not done.attributes or done.attributes == self.attributes:
            return replace(self, classes=self.classes - done.classes)
        return self

    def joined(self, other: Selection) -> Selection:
        """A selection of attributes that both exports together satisfy: what a manifest may claim."""
        if self.covers(other):
            return self
        if other.covers(self):
            return other
        if self.attributes == other.attributes:
            return replace(self, classes=self.classes | other.classes)
        # Different attribute filters over different classes: claim only what is certain.
        if self.classes == other.classes and len(self.attributes) > 1 and len(other.attributes) > 1:
            return replace(self, attributes=tuple(dict.fromkeys(self.attributes + other.attributes)))
        return other

    def attributes_to_json(self) -> dict[str, Any]:
        """The part of the selection that a run's manifest records: attributes and classes."""
        return {"attributes": list(self.attributes), "classes": sorted(self.classes)}

    @classmethod
    def attributes_from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `attributes_to_json`."""
        return cls(attributes=tuple(value["attributes"]), classes=frozenset(value["classes"]))


EVERYTHING = Selection()
