# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What `verify` has to say, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from neptune_exporter.errors import (
    EXIT_DIFFERENT,
    EXIT_INCOMPLETE,
    EXIT_OK,
    DamagedDataError,
    ExporterError,
)
from neptune_exporter.model import Kind, RunRef
from neptune_exporter.secrets import masked

Level = Literal["difference", "unchecked", "note"]
Where = Literal["staging", "source", "target"]

LEVELS: dict[str, Level] = {
    # Something is not what it should be.
    "damaged": "difference",  # a manifest, index or part cannot be what was written
    "lost": "difference",  # what was a run is none any more
    "part": "difference",  # a part is missing, cut short or changed
    "file": "difference",  # a file is missing, cut short or changed
    "digest": "difference",  # the whole is not the sum of its parts
    "absent": "difference",  # a whole run is missing
    "unfinished": "difference",  # a run was begun in the target and not completed
    "outdated": "difference",  # the other side holds another state of the run
    "missing": "difference",  # an attribute or value is missing
    "surplus": "difference",  # an attribute is there that should not be
    "type": "difference",  # an attribute has another type
    "count": "difference",  # an attribute has another number of points
    "values": "difference",  # as many points, but not the same
    # Something could not be looked at.
    "unreadable": "unchecked",
    "unlisted": "unchecked",  # the source that it came from does not list it now
    # Good to know.
    "unproven": "note",  # exported by another tool: nothing says what it should be
    "partial": "note",  # the export says itself what is missing
    "merged": "note",  # other exports of the run have added to it
    "adopted": "note",  # has a manifest from now on
    "unstaged": "note",  # the target has a run that the staging area has not
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `verify` has found.

    Attributes:
        project: the project id, "" where the area as a whole is meant.
        run: the run id, "" where the project as a whole is meant.
        attribute: the attribute path, or None.
        kind: one of `LEVELS`.
        message: what was found, in a sentence.
        where: found within the staging area, or comparing it with the source or the target.
        run_kind: run, model or model_version.
    """

    project: str
    run: str
    attribute: str | None
    kind: str
    message: str
    where: Where = "staging"
    run_kind: Kind = "run"

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))

    @property
    def level(self) -> Level:
        """Whether it is a difference, something that could not be checked, or merely good to know."""
        return LEVELS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {"level": self.level, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one run, or of what is no run.

    Attributes:
        ref: the run, None where no run is meant.
        status: complete, partial, unproven, adopted or planned; "" without a run.
        findings: what was found.
        points: how many rows it has.
        compared: whether it was compared with the source, with the target.
    """

    ref: RunRef | None
    status: str = ""
    findings: tuple[Finding, ...] = ()
    points: int = 0
    compared: frozenset[Where] = frozenset()


def finding_of(
    ref: RunRef, kind: str, message: str, *, attribute: str | None = None, where: Where = "staging"
) -> Finding:
    """A finding about a run."""
    return Finding(ref.project_id, ref.run_id, attribute, kind, message, where, ref.kind)


def failure(ref: RunRef | None, error: ExporterError, *, kind: str = "damaged", where: Where = "staging") -> Finding:
    """An error as a finding: of damaged data a difference, of anything else something that could not be checked."""
    message = f"{error.message} {error.hint}".strip()
    kind = kind if isinstance(error, DamagedDataError) else "unreadable"
    return Finding("", "", None, kind, message, where) if ref is None else finding_of(ref, kind, message, where=where)


def exit_code(findings: Iterable[Finding]) -> int:
    """4 if anything differs, else 3 if anything could not be checked, else 0."""
    levels = {finding.level for finding in findings}
    return EXIT_DIFFERENT if "difference" in levels else EXIT_INCOMPLETE if "unchecked" in levels else EXIT_OK
