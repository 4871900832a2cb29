# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One run of the staging area, as its readers see it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from neptune_exporter.errors import DamagedDataError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.model import RunInfo, RunRef, codes_of
from neptune_exporter.storage import disk, names
from neptune_exporter.storage.folders import with_members
from neptune_exporter.storage.identity import info_from_rows, info_from_values, sys_values
from neptune_exporter.storage.manifest import (
    MANIFESTS,
    UNKNOWN,
    FileEntry,
    Manifest,
    SourceRecord,
    Totals,
)
from neptune_exporter.storage.misplaced import Misplaced
from neptune_exporter.storage.parquet import open_part, part_batches, read_index
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.sort import ExternalSort, Order
from neptune_exporter.storage.whole_values import check_whole

if TYPE_CHECKING:
    from neptune_exporter.storage.folder import ProjectFolder

Wanted = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of a run without a manifest, after reading it.

    Attributes:
        info: its identity.
        attributes: the attribute index.
        problems: the files that are missing, and the values that are not where their type says.
        files: the paths of all its files.
        missing: those of the missing ones.
    """

    info: RunInfo
    attributes: list[Attribute]
    problems: tuple[Problem, ...]
    files: frozenset[str]
    missing: frozenset[str]


class StagedRun:
    """A run with its rows, files and what is known of them.

    A run with a manifest is proven: only what the manifest names is read. A run without one, as other tools
    write it, is unproven: it has the parts that lie there, and what a manifest would say is computed on demand.

    Args:
        folder: the project.
        ref: the run.
        manifest: its manifest, or None.
        parts: for an unproven run, the file names of its parts in order.
    """

    def __init__(
        self, folder: ProjectFolder, ref: RunRef, manifest: Manifest | None, parts: Sequence[str] = ()
    ) -> None:
        self.ref = ref
        self.manifest = manifest
        self._folder = folder
        self._parts = [part.path for part in manifest.parts] if manifest else list(parts)
        entries = {file.path: file for file in manifest.files} if manifest else None
        self.checks_content = True  # whether a part that was changed since is refused
        self.checked_parts: set[str] = set()
        self.files = folder.file_reader(entries, partial(self.check_unchanged, suspect=True))

    # --- what it is

    @property
    def status(self) -> str:
        """`complete`, `partial` or `unproven`."""
        return self.manifest.status if self.manifest else "unproven"

    @property
    def generation(self) -> int:
        """How many exports of this run there have been; 1 for an unproven run."""
        return self.manifest.generation if self.manifest else 1

    @property
    def sources(self) -> tuple[SourceRecord, ...]:
        """The exports that contributed; none for an unproven run."""
        return self.manifest.sources if self.manifest else ()

    @cached_property
    def info(self) -> RunInfo:
        """The run's identity, from the manifest or else from its `sys/*` rows."""
        if self.manifest:
            return self.manifest.info
        if "_scan" in self.__dict__:
            return self._scan.info
        return info_from_rows(self.ref, self._part_batches(verified=False))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the export could not carry over; for an unproven run, missing files and misplaced values."""
        return self.manifest.problems if self.manifest else self._scan.problems

    def attributes(self) -> list[Attribute]:
        """The attribute index, sorted by path and type."""
        if self.manifest is None:
            return self._scan.attributes
        return read_index(self._folder.data / MANIFESTS / self.manifest.index.path, self._read(self.manifest.index))

    @property
    def digest(self) -> str:
        """The run's digest."""
        return self.manifest.digest if self.manifest else run_digest(self._scan.attributes)

    def extra(self) -> bytes | None:
        """The values outside the schema as JSON lines, or None. Raises `DamagedDataError`."""
        return self._read(self.manifest.extra) if self.manifest and self.manifest.extra else None

    def _read(self, entry: FileEntry) -> bytes:
        """A file beside the manifest, whole and as the manifest says."""
        path = self._folder.data / MANIFESTS / entry.path
        if isinstance(path, Path):
            disk.check_regular(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            self.check_unchanged(suspect=True)
            raise DamagedDataError(
                f"{path} cannot be read: {error.strerror}.",
                "Restore it from a backup, or export the run again with --overwrite.",
            ) from error
        self.check_unchanged()
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise DamagedDataError(
                f"{path} is not what the manifest says.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )
        return data

    # --- its rows

    def read(self, order: Order | None = None, wanted: Wanted | None = None) -> Iterator[pa.RecordBatch]:
        """The rows as batches in `BATCH_SCHEMA`, rows without a value left out, with bounded memory.

        Args:
            order: `attribute` sorts by (path, type, step), `step` by (step, time, path, type), None does not sort.
            wanted: which attributes, by path and type; None for all.

        Raises:
            DamagedDataError: a part is missing, cut short or not what the manifest says; no row is skipped.
        """
        batches = self._part_batches()
        if wanted is not None:
            batches = (rows_of(batch, wanted) for batch in batches)
        if order is None or (order == "attribute" and self.manifest is not None and self.manifest.sorted):
            yield from (batch for batch in batches if batch.num_rows)
            return
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="neptune-exporter-"))
            sort = ExternalSort(self.ref, order, Path(scratch))
            stack.callback(sort.close)
            for batch in batches:
                sort.add(batch)
            yield from sort.batches()

    def _part_batches(self, *, verified: bool = True, misplaced: Misplaced | None = None) -> Iterator[pa.RecordBatch]:
        with ExitStack() as stack:
            parts = self._open_parts(stack)
            missing = self._missing_files if verified and self.manifest is None else frozenset()
            for path, part in parts:
                vouched = self.manifest is not None and self.checks_content
                for batch in part_batches(part, path, vouched=vouched, misplaced=misplaced):
                    check_whole(batch, path)
                    own = self._own_rows(batch)
                    if self.manifest is None or not self.manifest.sorted:
                        own = with_members(own, self.files)
                    if self.manifest:
                        own = _with_files(own, self.files.known)
                    yield _without_files(own, missing) if missing else own

    def _open_parts(self, stack: ExitStack) -> Iterable[tuple[Place, Any]]:
        try:
            self._check_numbers()
            parts = stack.enter_context(self._folder.parts(self))
        except DamagedDataError:
            self.check_unchanged(suspect=True)
            raise
        self.check_unchanged()
        return parts

    def check_unchanged(self, *, suspect: bool = False) -> None:
        """What was opened or read just now belongs to this generation and not to one that came meanwhile.

        Args:
            suspect: whether something of it could not be read.

        Raises:
            StagingError: it does not.
        """
        if self._folder.was_replaced(self, suspect=suspect):
            raise StagingError(f"{self.ref} was exported again while it was being read.", "Run the same command again.")

    def _own_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for column, expected in (("project_id", self.ref.project_id), ("run_id", self.ref.run_id)):
            found = batch.column(column)
            present = np.flatnonzero(np.bincount(codes_of(found))).tolist()
            values = [found.dictionary[code].as_py() for code in present]
            if any(value != expected for value in values):
                raise DamagedDataError(
                    f"The parts of {self.ref} hold rows of another run ({column} {values}).",
                    "The archive was changed. Restore it from a backup.",
                )
        return batch

    # --- what lies on disk

    def part_names(self) -> list[str]:
        """The file names of the parts, in order."""
        return list(self._parts)

    def part_paths(self) -> list[Any]:
        """The parts, in order. Raises `DamagedDataError` if numbers of an unproven run are missing."""
        self._check_numbers()
        return [self._folder.data / name for name in self._parts]

    def part_size(self, name: str) -> int:
        """The size of a part as it is now, in bytes. Raises `FileNotFoundError`."""
        return self._folder.size_of(name)

    def part_sha256(self, name: str) -> str:
        """The SHA-256 of a part as it is now, hex."""
        return self._folder.entry(name, 0).sha256

    def _check_numbers(self) -> None:
        if self.manifest is not None:
            return
        numbers = [parsed[1] for name in self._parts if (parsed := names.parse_part(name))]
        if numbers != list(range(len(numbers))):
            absent = next(n for n in range(len(numbers) + 1) if n not in numbers)
            raise DamagedDataError(
                f"Part {absent} of {self.ref} is missing in {self._folder.data}.",
                "Restore it from a backup, or export the run again.",
            )

    def file_entries(self) -> dict[str, FileEntry]:
        """What is known of its files, by path; computed for an unproven run."""
        if self.manifest:
            return {file.path: file for file in self.manifest.files}
        return {
            path: FileEntry(path, self.files.size(path), self.files.sha256(path))
            for path in sorted(self._scan.files - self._missing_files)
        }

    def file_paths(self) -> list[str]:
        """The paths of its files."""
        return [file.path for file in self.manifest.files] if self.manifest else sorted(self._scan.files)

    def owned_file_paths(self) -> list[str]:
        """The paths of files that this tool has written for this run and no other tool may point at."""
        own = self._folder.run_folder(names.stem(self.ref.run_id)) + "/"
        return [path for path in self.file_paths() if path.startswith(own)] if self.manifest else []

    # --- an unproven run

    @property
    def _missing_files(self) -> frozenset[str]:
        return self._scan.missing

    @cached_property
    def _scan(self) -> Scan:
        """What a manifest would say, from one reading of all rows."""
        paths: set[str] = set()
        missing: set[str] = set()
        problems: list[Problem] = []
        identity: dict[str, Any] = {}
        fingerprint = Fingerprint(self.files.sha256)
        misplaced = Misplaced()
        for batch in self._part_batches(verified=False, misplaced=misplaced):
            identity.update(sys_values(batch))
            here = file_rows(batch)
            paths.update(path for _, path in here)
            for attribute, path in here:
                try:
                    self.files.check(path)
                except DamagedDataError as error:
                    missing.add(path)
                    problems.append(Problem(error.message, attribute))
            fingerprint.write(_without_files(batch, missing) if missing else batch)
        info = info_from_values(self.ref, identity)
        problems += misplaced.problems()
        return Scan(info, fingerprint.attributes(), tuple(problems), frozenset(paths), frozenset(missing))

    def remembered(self) -> dict[str, Any]:
        """What reading an unproven run has told, as a JSON object for `recalled`."""
        scan = self._scan
        return {
            "parts": self._parts,
            "info": scan.info.to_json(),
            "attributes": scan.attributes,
            "problems": [problem.to_json() for problem in scan.problems],
            "files": sorted(scan.files),
            "missing": sorted(scan.missing),
            "hashed": self.files.hashed,
        }

    @classmethod
    def recalled(cls, folder: ProjectFolder, value: Mapping[str, Any]) -> Self:
        """The run that `remembered` this; it need not be read to say what it is."""
        info = RunInfo.from_json(value["info"])
        run = cls(folder, info.ref, None, value["parts"])
        problems = tuple(Problem.from_json(problem) for problem in value["problems"])
        attributes = [Attribute(*row) for row in value["attributes"]]
        run._scan = Scan(info, attributes, problems, frozenset(value["files"]), frozenset(value["missing"]))
        run.files.hashed.update(value["hashed"])
        return run

    def as_manifest(self, generation: int = 1) -> Manifest:
        """What a manifest of this unproven run would say; its index is not written yet."""
        attributes = self.attributes()
        parts = tuple(self._folder.entry(path.name, open_part(path).metadata.num_rows) for path in self.part_paths())
        return Manifest(
            generation=generation,
            info=self.info,
            sources=(SourceRecord(UNKNOWN, UNKNOWN, problems=self.problems),),
            parts=parts,
            files=tuple(self.file_entries().values()),
            index=FileEntry("", 0, ""),
            extra=None,
            digest=run_digest(attributes),
            totals=Totals.of(attributes),
            sorted=False,
        )


def rows_of(batch: pa.RecordBatch, wanted: Wanted) -> pa.RecordBatch:
    """The rows of the attributes that are wanted."""
    paths = batch.column("attribute_path").dictionary.to_pylist()
    types = batch.column("attribute_type").dictionary.to_pylist()
    key = codes_of(batch.column("attribute_path")).astype(np.int64) * max(len(types), 1)
    key += codes_of(batch.column("attribute_type"))
    present, position = np.unique(key, return_inverse=True)
    keep = np.array([wanted(paths[k // len(types)], types[k % len(types)]) for k in present.tolist()], np.bool_)
    return batch if keep.all() else batch.filter(pa.array(keep[position]))


def file_rows(batch: pa.RecordBatch) -> list[tuple[str, str]]:
    """(attribute path, file path) of every row with a file."""
    column = batch.column("file_value")
    if column.null_count == len(column):
        return []
    rows = pa.array(np.flatnonzero(np.asarray(column.is_valid())))
    attributes = batch.column("attribute_path").take(rows).to_pylist()
    return list(zip(attributes, pa.compute.struct_field(column.take(rows), "path").to_pylist(), strict=True))


def _with_files(batch: pa.RecordBatch, known: Mapping[str, FileEntry]) -> pa.RecordBatch:
    """The batch without rows whose file the manifest does not name: it was missing and is listed as a problem."""
    column = batch.column("file_value")
    if column.null_count == len(column):
        return batch
    named = pa.compute.is_in(pa.compute.struct_field(column, "path"), pa.array(list(known), pa.string()))
    keep = pa.compute.or_(named, column.is_null())
    return batch if pa.compute.all(keep).as_py() else batch.filter(keep)


def _without_files(batch: pa.RecordBatch, missing: frozenset[str] | set[str]) -> pa.RecordBatch:
    column = batch.column("file_value")
    if column.null_count == len(column):
        return batch
    gone = pa.compute.is_in(pa.compute.struct_field(column, "path"), pa.array(sorted(missing), pa.string()))
    return batch.filter(pa.compute.invert(gone))
