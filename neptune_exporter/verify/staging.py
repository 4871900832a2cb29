# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Checks one run of the staging area against its own manifest."""

from __future__ import annotations

from collections.abc import Iterator

from neptune_exporter.errors import DamagedDataError, ExporterError
from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.storage import disk
from neptune_exporter.storage.counting import Counted
from neptune_exporter.storage.manifest import FileEntry, Manifest, Totals
from neptune_exporter.storage.parquet import open_part
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.verify.compare import mismatches
from neptune_exporter.verify.finding import Finding, failure, finding_of


class StagedCheck:
    """Checks a run against its own manifest.

    Args:
        run: the run.
        data: the data folder of its project.
        read_data: whether every row and file is read, or only footers and sizes.

    Attributes:
        points: how many rows the run has, as far as that is known.
    """

    def __init__(self, run: StagedRun, data: Place, *, read_data: bool) -> None:
        self._run = run
        self._data = data
        self._read_data = read_data
        self.points = run.manifest.points if run.manifest else 0

    def findings(self) -> Iterator[Finding]:
        """Everything that is not as it should be; goes on after each finding."""
        run, manifest = self._run, self._run.manifest
        if manifest is None:
            yield from self._check_unproven()
            return
        for problem in manifest.problems:
            message = f"Exported without it: {problem.message}"
            message += "" if problem.kind == "permanent" else " (tried again by the next export)"
            yield finding_of(run.ref, "partial", message, attribute=problem.attribute)
        damage = [*_check_parts(run, self._data, manifest, read_data=self._read_data), *_check_index(run, manifest)]
        yield from damage
        yield from _check_files(run, manifest, read_data=self._read_data)
        if self._read_data:
            yield from _check_rows(run, is_known=bool(damage))

    def _check_unproven(self) -> Iterator[Finding]:
        run = self._run
        message = "Unproven: another tool has exported it, and nothing says what it should hold."
        yield finding_of(run.ref, "unproven", message)
        try:
            counted = Counted(run)
        except ExporterError as error:
            yield failure(run.ref, error, kind="part")
            return
        self.points = counted.rows
        for problem in counted.problems:
            yield finding_of(run.ref, "partial", problem.message, attribute=problem.attribute)
        for path, attribute in counted.files.items():
            try:
                run.files.check(path)
            except ExporterError as error:
                found = failure(run.ref, error, kind="file")
                yield finding_of(run.ref, found.kind, found.message, attribute=attribute)
        if self._read_data:
            try:
                run.attributes()
            except ExporterError as error:
                yield failure(run.ref, error, kind="part")


def _check_parts(run: StagedRun, data: Place, manifest: Manifest, *, read_data: bool) -> Iterator[Finding]:
    for part in manifest.parts:
        path = data / part.path
        try:
            _check_size(run, path, part)
            rows = open_part(path).metadata.num_rows
            if rows != part.rows:
                yield finding_of(run.ref, "part", f"{path} has {rows:,} rows instead of {part.rows:,}.")
            elif read_data and run.part_sha256(part.path) != part.sha256:
                yield finding_of(run.ref, "part", f"{path} was changed: its SHA-256 is not that of the manifest.")
        except ExporterError as error:
            yield failure(run.ref, error, kind="part")


def _check_files(run: StagedRun, manifest: Manifest, *, read_data: bool) -> Iterator[Finding]:
    broken: dict[str, Finding] = {}
    for file in manifest.files:
        try:
            if not read_data:
                run.files.check(file.path)
            elif run.files.hash_content(file.path) != file.sha256:
                message = f"{run.files.place(file.path)} was changed: its SHA-256 is not that of the manifest."
                broken[file.path] = finding_of(run.ref, "file", message)
        except ExporterError as error:
            broken[file.path] = failure(run.ref, error, kind="file")
    attributes = _attributes_of_files(run) if broken else {}
    for path, found in broken.items():
        yield Finding(found.project, found.run, attributes.get(path), found.kind, found.message, run_kind=run.ref.kind)


def _attributes_of_files(run: StagedRun) -> dict[str, str]:
    """Which attribute each file belongs to; nothing if the parts cannot be read, which is found elsewhere."""
    try:
        return Counted(run).files
    except ExporterError:
        return {}


def _check_index(run: StagedRun, manifest: Manifest) -> Iterator[Finding]:
    """Index and values outside the schema are what the manifest says, and add up to its digest and totals."""
    try:
        run.extra()
    except ExporterError as error:
        yield failure(run.ref, error)
    try:
        attributes = run.attributes()
    except ExporterError as error:
        yield failure(run.ref, error)
        return
    if run_digest(attributes, manifest.extra.sha256 if manifest.extra else "") != manifest.digest:
        yield finding_of(run.ref, "digest", "The manifest's digest is not that of the attribute index.")
    # Parts that another tool has written may have rows without a value besides.
    rows_fit = manifest.points == manifest.rows if manifest.sorted else manifest.points <= manifest.rows
    if Totals.of(attributes) != manifest.totals or not rows_fit:
        yield finding_of(run.ref, "digest", "The manifest's totals are not those of the attribute index.")


def _check_rows(run: StagedRun, *, is_known: bool) -> Iterator[Finding]:
    """The rows are those of the index, attribute by attribute. Known damage need not be told again."""
    try:
        index, rows = run.attributes(), rows_fingerprint(run)
    except ExporterError as error:
        if not is_known:
            yield failure(run.ref, error, kind="part")
        return
    index = [attribute for attribute in index if attribute.rows]
    for found in mismatches(index, rows, expected_in="the index", found_in="the parts"):
        yield finding_of(run.ref, found.kind, found.message, attribute=found.path)


def rows_fingerprint(run: StagedRun) -> list[Attribute]:
    """The fingerprints of all attributes that have rows, from the rows."""
    run.checks_content = False  # what was changed is named, attribute by attribute
    fingerprint = Fingerprint(run.files.sha256)
    for batch in run.read():
        fingerprint.write(batch)
    return fingerprint.attributes()


def _check_size(run: StagedRun, path: Place, entry: FileEntry) -> None:
    """Raises `DamagedDataError` if a file is missing or has another size, else `StagingError`."""
    with disk.explained("read", path):
        try:
            size = run.part_size(entry.path)
        except FileNotFoundError:
            hint = "Restore it from a backup, or export the run again."
            raise DamagedDataError(f"{path} is missing.", hint) from None
    if size != entry.bytes:
        raise DamagedDataError(
            f"{path} has {size:,} bytes instead of {entry.bytes:,}.",
            "Restore it from a backup, or export the run again with --overwrite.",
        )
