# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Compares one run of the staging area with its source, which is read once more; nothing is stored."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from decimal import Decimal

import pyarrow as pa

from neptune_exporter.errors import ExporterError, Problem
from neptune_exporter.exporters.exporter import Exporter, SourceRun
from neptune_exporter.fingerprint import Attribute, Fingerprint
from neptune_exporter.model import SERIES_TYPES, OutsideValue, normalize
from neptune_exporter.selection import Selection
from neptune_exporter.storage.manifest import UNKNOWN, SourceRecord
from neptune_exporter.storage.merge import TAG_SETS
from neptune_exporter.storage.parquet import without_placeholders
from neptune_exporter.storage.run import StagedRun, rows_of
from neptune_exporter.verify.compare import (
    Key,
    Mismatch,
    Side,
    first_difference,
    mismatches,
    not_contained,
    worth_showing,
)
from neptune_exporter.verify.finding import Finding, failure, finding_of

HERE = "the staging area"
THERE = "the source"
GROUP_ROWS = 4_000_000  # of both sides together; some 70 bytes each


class HashedFiles:
    """Takes the files of a run and keeps nothing but their SHA-256."""

    def __init__(self) -> None:
        self._sha256: list[str] = []
        self._lock = threading.Lock()

    def add(self, attribute: str, name: str, chunks: Iterable[bytes], *, step: Decimal | None = None) -> str:
        """Hashes one file; see `exporters.exporter.Files`."""
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        with self._lock:
            self._sha256.append(digest.hexdigest())
            return str(len(self._sha256) - 1)

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file by what `add` returned."""
        return self._sha256[int(path)]


class Learned:
    """What the source says beside its rows; see `exporters.exporter.Findings`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.values: list[OutsideValue] = []
        self.empties: set[Key] = set()
        self._lock = threading.Lock()

    def problem(self, problem: Problem) -> None:
        """Something was refused or lost."""
        with self._lock:
            self.problems.append(problem)

    def outside(self, value: OutsideValue) -> None:
        """Something that the schema cannot hold."""
        with self._lock:
            self.values.append(value)

    def empty(self, path: str, attribute_type: str) -> None:
        """An attribute without values."""
        with self._lock:
            self.empties.add((path, attribute_type))


class SourceCheck:
    """Compares a run with its source.

    Args:
        run: the run as it is staged.
        source_run: the run as its source lists it.
        exporter: the source.
        selection: what the user wants compared.
    """

    def __init__(self, run: StagedRun, source_run: SourceRun, exporter: Exporter, selection: Selection) -> None:
        self._run = run
        self._source_run = source_run
        self._exporter = exporter
        name = (exporter.name, exporter.source)
        self._record = next((r for r in run.sources if r.name == name), None)
        self._asked = selection if self._record is None or not selection.whole_runs else self._record.selection
        self._selections = [selection, *([self._record.selection] if self._record else [])]

    def findings(self) -> Iterator[Finding]:
        """Everything that differs, or could not be compared."""
        if self._record is not None and self._is_newer(self._record):
            yield self._finding("outdated", "The source has changed since it was exported: export it again.")
        files, learned = HashedFiles(), Learned()
        fingerprint = Fingerprint(files.sha256)
        try:
            for batch in self._source_rows(self._asked, files, learned):
                fingerprint.write(batch)
        except ExporterError as error:
            if error.fatal:
                raise
            yield failure(self._run.ref, error, where="source")
            return
        for path, kind in sorted(learned.empties - {a[:2] for a in fingerprint.attributes()}):
            if self._wants(path, kind):
                fingerprint.add(Attribute(path, kind))
        staged = [a for a in self._run.attributes() if self._wants(a.path, a.type)]
        found = mismatches(fingerprint.attributes(), staged, expected_in=THERE, found_in=HERE)
        yield from self._judged(found, learned)
        yield from self._outside(learned)

    # --- reading

    def _wants(self, path: str, kind: str) -> bool:
        return all(selection.wants(path, kind) for selection in self._selections)

    def _source_rows(self, selection: Selection, files: HashedFiles, learned: Learned) -> Iterator[pa.RecordBatch]:
        for batch in self._exporter.batches(self._source_run, selection, files, learned):
            yield rows_of(without_placeholders(normalize(batch)), self._wants)

    def _sides(self, keys: set[Key]) -> tuple[Side, Side]:
        """The rows of some attributes in the source and in the staging area."""
        files = HashedFiles()
        paths = sorted({path for path, _ in keys})
        selection = Selection(attributes=(*paths, paths[0]))  # two and more are exact names
        there = Side.of(THERE, self._source_rows(selection, files, Learned()), keys, files.sha256)
        return there, Side.of(HERE, self._run.read(), keys, self._run.files.sha256)

    # --- judging

    def _is_newer(self, record: SourceRecord) -> bool:
        return self._exporter.compare(record.state, self._source_run.state) == "newer"

    def _finding(self, kind: str, message: str, attribute: str | None = None) -> Finding:
        return finding_of(self._run.ref, kind, message, attribute=attribute, where="source")

    def _judged(self, found: list[Mismatch], learned: Learned) -> Iterator[Finding]:
        """What a mismatch means, given what could not be exported then and cannot be read now."""
        then = {(p.attribute, p.message) for p in self._run.problems}
        now = {(p.attribute, p.message) for p in learned.problems}
        compared_beside = {value.attribute for value in learned.values}
        known = {attribute for attribute, _ in then - now} - compared_beside
        unreadable = {attribute for attribute, _ in now - then}
        for attribute, message in sorted(now - then, key=str):
            if attribute is None or self._wants_path(attribute):
                yield self._finding("unreadable", f"The source does not give all of it now: {message}", attribute)
        real = []
        for mismatch in found:
            fewer = mismatch.expected is not None and (
                mismatch.found is None or mismatch.found.rows < mismatch.expected.rows
            )
            if {mismatch.path, None} & unreadable and not fewer:
                continue
            if {mismatch.path, None} & known and fewer:
                message = f"{mismatch.message} The export could not carry it over; export it again."
                yield self._finding("partial", message, mismatch.path)
                continue
            real.append(mismatch)
        if self._others_added:
            real = yield from self._without_merged(real)
        yield from self._with_values(real)

    def _wants_path(self, path: str) -> bool:
        return all(selection.wants_attribute(path) for selection in self._selections)

    def _with_values(self, real: list[Mismatch]) -> Iterator[Finding]:
        shown = worth_showing(real)
        sides = self._sides(shown) if shown else None
        for mismatch in real:
            message = mismatch.message
            if sides is not None and mismatch.key in shown:
                message = f"{message} {first_difference(mismatch.key, *sides)}".strip()
            yield self._finding(mismatch.kind, message, mismatch.path)

    # --- runs that other exports have added to

    @property
    def _others_added(self) -> bool:
        """Whether the staging area may rightly hold more of the run than this source has now."""
        others = [s for s in self._run.sources if s.exporter != UNKNOWN and s is not self._record]
        return bool(others) or self._run.generation > 1

    @property
    def _is_latest(self) -> bool:
        """Whether this source's single values are the ones to be kept."""
        if self._record is None or len(self._run.sources) == 1:
            return True
        times = [source.as_of for source in self._run.sources if source.as_of is not None]
        return self._record.as_of is not None and self._record.as_of >= max(times)

    def _without_merged(self, found: list[Mismatch]) -> Generator[Finding, None, list[Mismatch]]:
        """Drops what other exports of the run explain, and says for how many attributes that is so.

        Proven is that every point of the source is there; that the rest is right only its own source can prove.
        """
        real, explained, open_questions = [], 0, []
        for mismatch in found:
            is_superseded = mismatch.kind == "type" and mismatch.type not in SERIES_TYPES and not self._is_latest
            if mismatch.kind == "surplus" or is_superseded:
                explained += 1
            elif mismatch.kind in ("count", "values"):
                open_questions.append(mismatch)
            else:
                real.append(mismatch)
        for group in _grouped(open_questions):
            sides = self._sides({mismatch.key for mismatch in group})
            missed = [mismatch for mismatch in group if self._missing_points(mismatch, *sides)]
            explained += len(group) - len(missed)
            real += missed
        if explained:
            yield self._finding(
                "merged",
                f"{explained} attributes hold more than this source has: other exports of the run have added to them.",
            )
        return sorted(real, key=lambda mismatch: mismatch.key)

    def _missing_points(self, mismatch: Mismatch, there: Side, here: Side) -> int:
        if mismatch.path in TAG_SETS:  # sets of several sources are joined
            return len(_tags(there, mismatch.key) - _tags(here, mismatch.key))
        if mismatch.type not in SERIES_TYPES and not self._is_latest:
            return 0  # a later value from another source has taken its place
        return not_contained(mismatch.key, there, here)

    # --- values outside the schema

    def _outside(self, learned: Learned) -> Iterator[Finding]:
        kept = set((self._run.extra() or b"").decode().splitlines())
        lost: Counter[str] = Counter()
        for value in learned.values:
            if self._wants(value.attribute, value.type) and json.dumps(asdict(value), ensure_ascii=True) not in kept:
                lost[value.attribute] += 1
        for attribute, count in sorted(lost.items()):
            message = f"{count:,} values outside the schema are in {THERE}, missing in {HERE}."
            yield self._finding("missing", message, attribute)


def _grouped(found: list[Mismatch]) -> Iterator[list[Mismatch]]:
    """Cuts a list so that the rows of each group fit memory on both sides."""
    group: list[Mismatch] = []
    rows = 0
    for mismatch in found:
        size = sum(side.rows for side in (mismatch.expected, mismatch.found) if side is not None)
        if group and rows + size > GROUP_ROWS:
            yield group
            group, rows = [], 0
        group.append(mismatch)
        rows += size
    if group:
        yield group


def _tags(side: Side, key: Key) -> set[str]:
    column = side.rows(key).column("string_set_value").to_pylist()
    return {tag for tags in column for tag in tags or ()}
