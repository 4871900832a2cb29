# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every source of runs offers, and what it is given to work with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol

from neptune_exporter.errors import Problem
from neptune_exporter.model import OutsideValue, RunInfo
from neptune_exporter.selection import Selection

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class SourceRun:
    """A run as a source lists it.

    Attributes:
        info: the run's identity.
        state: JSON: what tells later whether the source has changed (`Exporter.compare`).
        as_of: the time of the last write that the source knows of; decides between two sources.
        estimated_rows: about how many rows to expect, for progress; 0 if unknown.
    """

    info: RunInfo
    state: Mapping[str, Any] = field(default_factory=dict)
    as_of: datetime | None = None
    estimated_rows: int = 0


class Files(Protocol):
    """Takes the files of the run that is being exported."""

    def add(self, attribute: str, name: str, chunks: Iterable[bytes], *, step: Decimal | None = None) -> str:
        """Stores one file.

        Args:
            attribute: the attribute path.
            name: a file name to take the extension from, "" if there is none. It may be hostile.
            chunks: the content. Whatever it raises is raised again, and the file is gone.
            step: the step, for a file series.

        Returns:
            What belongs into `file_value.path`.

        Raises:
            StagingError: the file cannot be written (a full disk, no permission).
        """


class Findings(Protocol):
    """Takes what an exporter learns of a run beside its rows. Calls may come from several threads."""

    def problem(self, problem: Problem) -> None:
        """Something was refused or lost."""

    def outside(self, value: OutsideValue) -> None:
        """Something that the schema cannot hold: it is kept exactly, and reported as a problem."""

    def empty(self, path: str, attribute_type: str) -> None:
        """The attribute exists and has no values."""


LiveStatus = Literal["running", "finished", "failed", "killed"]


class Part(Protocol):
    """Some of what was logged to a run, in order.

    Attributes:
        rows: batches in the fixed schema; a single value comes anew whenever it has changed.
        again: whether this was delivered before and is only repeated, so that the target can know its own state.
        offsets: how far each segment has been read afterwards; opaque.
    """

    @property
    def rows(self) -> Sequence[pa.RecordBatch]: ...  # noqa: D102
    @property
    def again(self) -> bool: ...  # noqa: D102
    @property
    def offsets(self) -> Mapping[str, int]: ...  # noqa: D102


class Follower(Protocol):
    """A run that may still be written to; what dual logging reads. Made by the offline exporter's `follow`.

    Attributes:
        info: the run's identity.
        files: the content of the files in the last part: a `RunFiles` of the loaders, with `clear`.
    """

    info: RunInfo
    files: Any

    def parts(self) -> Iterator[Part]:
        """What has been written since the last call."""

    @property
    def status(self) -> LiveStatus:
        """Whether anybody may still write; else how it ended."""

    def close(self) -> None:
        """Lets go of temporary files."""


class Exporter(Protocol):
    """A source of runs. All methods but `close` may be called from several threads.

    Attributes:
        name: the exporter's name, as in `--exporter`.
        source: names this source in manifests (a server's address, the word offline); no secrets.
        lists_all: whether a run that it does not list is gone for good, and not merely elsewhere.
    """

    name: str
    source: str
    lists_all: bool

    def projects(self, selection: Selection) -> Iterator[str]:
        """The project ids that are selected and exist. Raises `SourceError` where that cannot be told."""

    def runs(self, project_id: str, selection: Selection) -> Iterator[SourceRun]:
        """The selected runs of a project, each once. Raises `SourceError` if the project cannot be listed."""

    def batches(
        self, run: SourceRun, selection: Selection, files: Files, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        """The selected attributes of a run, rows in any order, in batches of at most about 100,000 rows.

        A failing attribute costs that attribute: it is reported to `findings` and its rows are not sent.

        Raises:
            AccessError: the source refuses our credentials.
            SourceError: the run as a whole cannot be read.
        """

    def compare(self, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
        """How a recorded state of a run relates to the current one.

        Returns:
            `same` if nothing changed; `newer` if the source now has all it had, and more;
            `apart` if what was exported then may hold something that the source no longer has.
        """

    def close(self) -> None:
        """Lets go of connections and temporary files."""
