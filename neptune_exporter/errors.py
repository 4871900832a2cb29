# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The one exception family, and `Problem`: a failure as a value.

An `ExporterError` ends what it interrupts and is shown to the user as `Error:` and `Hint:`.
A `Problem` is one thing that the source refused or lost, or that the schema cannot hold; it is
recorded beside the run and never costs anything but itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from neptune_exporter.secrets import masked

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_DIFFERENT = 4
EXIT_INTERRUPTED = 130


class ExporterError(Exception):
    """A failure with a message for humans and, where there is one, the next thing to do.

    Survives pickling with its arguments, so that worker processes can raise it.
    """

    exit_code = EXIT_ERROR
    fatal = False  # whether it ends the whole command and not only the run

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = masked(message)
        self.hint = masked(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return self.message


class UsageError(ExporterError):
    """The command was asked for something that cannot be done as asked."""

    exit_code = EXIT_USAGE


class MissingExtraError(ExporterError):
    """A client library that this command needs is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"{package} is not installed.",
            f"Install it with: pip install 'neptune-exporter[{extra}]'",
        )
        self.args = (extra, package)


class SourceError(ExporterError):
    """The source cannot be reached, refuses us, or is not what it should be."""


class AccessError(SourceError):
    """The source refuses our credentials: going on would only leave holes, so the command ends."""

    fatal = True


class TargetAccessError(ExporterError):
    """The target refuses our credentials: the command ends."""

    fatal = True


class TargetError(ExporterError):
    """The target cannot be reached, refuses us, or cannot hold what it was given."""


class StartAgainError(TargetError):
    """Nobody knows what the target took of this run: only a load from its beginning, as a new one, is exact."""


class StagingError(ExporterError):
    """The staging area cannot be read or written."""


class StoreAccessError(ExporterError):
    """The object store of the staging area refuses us, or its bucket is not there: the command ends."""

    fatal = True


class DamagedDataError(StagingError):
    """Something in the staging area is not what its manifest says."""


class ClaimedError(StagingError):
    """Another command is working on this run."""


class InterruptedRunError(ExporterError):
    """The command was asked to stop while this run was being worked on."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str = "Interrupted.", hint: str = "") -> None:
        super().__init__(message, hint)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing of a run that could not be carried over.

    Attributes:
        message: what happened, in a sentence.
        attribute: the attribute path, or None where the run as a whole is meant.
        kind: `retry` if a later export may succeed, `permanent` if only `--retry-failed` tries again.
        count: how many values are concerned, where that is known.
    """

    message: str
    attribute: str | None = None
    kind: Literal["retry", "permanent"] = "permanent"
    count: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))

    def to_json(self) -> dict[str, Any]:
        """The problem as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            message=str(value["message"]),
            attribute=value.get("attribute"),
            kind=value.get("kind", "permanent"),
            count=int(value.get("count", 1)),
        )
