# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every target offers, what it is given, and what it says about itself as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from neptune_exporter.errors import Problem
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.pace import check_rate
from neptune_exporter.pipeline import Sink

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

Order = Literal["attribute", "step"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a target can hold. The core adapts the data; the loader only declares.

    Attributes:
        integer_steps: the attribute types whose steps the target stores as integers.
        order: how it wants a run's rows: by (attribute, step) or by (step, time).
        writers: how many processes may write at once, None for any number.
        key_length: the longest key, in characters.
        value_length: the longest parameter value, in characters.
        tag_length: the longest tag value, in characters.
    """

    integer_steps: frozenset[str]
    order: Order = "attribute"
    writers: int | None = None
    key_length: int = 250
    value_length: int = 6000
    tag_length: int = 8000


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What is asked of every loader alike.

    Attributes:
        name_prefix: put before the name of the experiment or project in the target.
        run_name: name runs after `sys/name` (the id where that is empty or "Untitled"), or after the id.
        attach_all: attach every row as Parquet, not only those that the target does not hold exactly.
        models: models and model versions are loaded, apart from runs.
        max_requests_per_second: of all workers of the command together; 0 for no limit.

    Raises:
        UsageError: that is no rate.
    """

    name_prefix: str = ""
    run_name: Literal["name", "id"] = "name"
    attach_all: bool = False
    models: bool = False
    max_requests_per_second: float = 0.0

    def __post_init__(self) -> None:
        # Whether the target is a server or not: what is no rate is a slip.
        check_rate(self.max_requests_per_second)

    def place(self, project_id: str) -> str:
        """What a project is called in the target, before the prefix: its models have a place of their own."""
        return f"{project_id}/models" if self.models else project_id


class RunFiles(Protocol):
    """Reads the files of a run by what its rows say in `file_value.path`."""

    def open(self, path: str) -> BinaryIO:
        """The content. Raises `DamagedDataError` if the file is missing or escapes the files folder."""

    def local(self, path: str) -> Path:
        """A path on this machine that holds the content. Raises like `open`."""

    def sha256(self, path: str) -> str:
        """The SHA-256 of the content, hex. Raises like `open`."""

    def size(self, path: str) -> int:
        """The size in bytes. Raises like `open`."""


@dataclass(frozen=True, slots=True)
class RunToLoad:
    """One run of a staging area as a loader sees it, without its rows.

    Attributes:
        info: the run's identity.
        digest: the run's digest; goes into the completion marker.
        attributes: every attribute that will come, from the index.
        files: reads its files.
        problems: what the export could not carry over; not empty means the run is partial.
        extra: the values outside the schema as JSON lines, or None.
        source: where the export came from, for the target's manifest.
    """

    info: RunInfo
    digest: str
    attributes: Sequence[Attribute]
    files: RunFiles
    problems: tuple[Problem, ...] = ()
    extra: bytes | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class TargetState:
    """What the target says of one run that was loaded before.

    Attributes:
        target_id: the run's id in the target.
        complete: whether the completion marker is there.
        digest: the digest in that marker.
        live: whether it is being fed by dual logging right now: `load` leaves it alone.
    """

    target_id: str
    complete: bool
    digest: str = ""
    live: bool = False


@dataclass(frozen=True, slots=True)
class TargetProject:
    """What the target already holds of one project.

    Attributes:
        runs: the runs by Neptune's names, complete ones preferred.
        step_multiplier: the multiplier recorded there, None if nothing was loaded yet.
    """

    runs: Mapping[RunRef, TargetState] = field(default_factory=dict)
    step_multiplier: int | None = None


class Loader(Protocol):
    """A target. Made once in the command's process and once in each worker.

    Attributes:
        name: the loader's name, as in `--loader`.
        limits: what the target can hold.
    """

    name: str
    limits: Limits

    def states(self, project_id: str) -> TargetProject:
        """What the target holds of a project, in one search.

        Raises:
            TargetError: it does not answer.
            TargetAccessError: it refuses our credentials.
        """

    def prepare(self, project_id: str, step_multiplier: int) -> None:
        """Makes what all runs of the project share (an experiment, a project) and records the multiplier there.

        Called in the command's process before any worker starts a run.
        """

    def start(self, run: RunToLoad, step_multiplier: int) -> Sink:
        """Begins one run; a half-loaded one of the same name is replaced, a complete one superseded at commit.

        The sink takes the run's rows in the order of `limits.order`, null values dropped. Its `commit` writes
        the completion marker last.
        """

    def close(self) -> None:
        """Lets go of connections."""

    def describe(self) -> str:
        """Where the data goes, for humans, without secrets; with the command that opens it if there is one."""


@dataclass(frozen=True, slots=True)
class TargetRun:
    """A run rebuilt from the target alone.

    Attributes:
        batches: Neptune's names, types, steps and values, in the fixed schema, rows in any order.
        file_sha256: the SHA-256 of a file by its `file_value.path` in these batches.
        attributes: the attributes that the target's manifest names, empty series included.
    """

    batches: Iterator[pa.RecordBatch]
    file_sha256: Callable[[str], str]
    attributes: Sequence[tuple[str, str]] = ()


class OnDisk(Protocol):
    """The optional power of a loader to say where on this machine its target grows, so that no disk is filled."""

    @property
    def folders(self) -> Sequence[Path]:
        """These folders, whether they are there yet or not."""


class Readable(Protocol):
    """The optional power of a loader to read a run back, which `verify` needs."""

    def read(self, ref: RunRef) -> TargetRun:
        """The run as the target holds it. Raises `TargetError` if it is not there or cannot be read."""


class LiveTarget(Protocol):
    """One run of a target that is fed while it is still being logged.

    Every row comes with the batch it was logged in, a single value anew whenever it has changed; what the target
    cannot hold is left out here and comes with a later `load`. Every method may raise `TargetError`; the caller
    begins again with a new `LiveTarget` then, and repeats what had arrived before as `again`.
    """

    def open(self, info: RunInfo, files: RunFiles) -> str:
        """Finds or makes the run, marked as live so that `load` leaves it alone; returns its id in the target."""

    def append(self, rows: pa.RecordBatch, *, again: bool) -> None:
        """Takes rows of the run.

        Args:
            rows: in the fixed schema, in the order in which they were logged.
            again: they had arrived before: only for the target's own memory, not to be sent.
        """

    def flush(self) -> None:
        """Sends what was taken; afterwards it counts as arrived. Also called when there is nothing, as a heartbeat."""

    def finish(self, status: Literal["finished", "failed", "killed"]) -> None:
        """Ends the run; it is not live any more."""


class Live(Protocol):
    """The optional power of a loader to be fed while a run is being logged, which dual logging needs."""

    def live(self, step_multiplier: int | None) -> LiveTarget:
        """A run that is still to be opened.

        Args:
            step_multiplier: what steps are multiplied with where the target wants whole ones; None for the one
                that the project was loaded with before, else 1.
        """


@dataclass(frozen=True, slots=True)
class VersionToRegister:
    """A model version that was loaded.

    Attributes:
        info: its identity.
        loaded_as: its run in the target, None while that is not complete.
        stage: `none`, `staging`, `production` or `archived`, as Neptune says; "" if it does not.
        description: `sys/description`.
        labels: `sys/tags`.
        has_files: whether it has any files.
        rows: gives the rows of its file attributes, anew whenever it is called; None while it is not loaded.
        files: reads these files.
    """

    info: RunInfo
    loaded_as: str | None
    stage: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()
    has_files: bool = False
    rows: Callable[[], Iterator[pa.RecordBatch]] | None = None
    files: RunFiles | None = None


@dataclass(frozen=True, slots=True)
class ModelToRegister:
    """A model and its versions, oldest first.

    Attributes:
        info: the model's identity; no more than its name where it was not exported.
        loaded_as: its run in the target, None while that is not complete, or where it was not exported.
        description: `sys/description`.
        labels: `sys/tags`.
        versions: its versions.
    """

    info: RunInfo
    loaded_as: str | None = None
    description: str = ""
    labels: tuple[str, ...] = ()
    versions: tuple[VersionToRegister, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryDifference:
    """One thing in which a target's registry is not what `register` makes of a model.

    Attributes:
        ref: the model or the version.
        kind: absent, surplus, outdated or values.
        message: what differs.
    """

    ref: RunRef
    kind: Literal["absent", "surplus", "outdated", "values"]
    message: str


class Registry(Protocol):
    """The optional power of a loader whose target has a model registry, which `load-models` uses."""

    def register(self, model: ModelToRegister) -> Sequence[RunRef]:
        """Registers a model and its versions, in their order, so that nothing is there twice.

        Stops before the first version that is not loaded: what comes after it would be out of order.

        Returns:
            What was changed.

        Raises:
            TargetError: the target does not take it.
        """

    def compare(self, model: ModelToRegister) -> Iterator[RegistryDifference]:
        """Everything in which the target's registry differs from what was loaded."""
