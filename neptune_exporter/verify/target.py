# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Compares one run of the staging area with what a target holds of it, read back and inverted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from neptune_exporter.errors import ExporterError
from neptune_exporter.fingerprint import Attribute, Fingerprint
from neptune_exporter.load import chosen
from neptune_exporter.loaders.loader import Readable, TargetRun, TargetState
from neptune_exporter.model import normalize
from neptune_exporter.selection import Selection
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.verify.compare import Mismatch, Side, first_difference, mismatches, worth_showing
from neptune_exporter.verify.finding import Finding, failure, finding_of

HERE = "the staging area"
_GATHERED_ROWS = 16_384
_GATHERED_BATCHES = 1_024  # a batch of one row weighs a hundred times what is in it


class TargetCheck:
    """Compares a run with a target.

    Args:
        run: the run as it is staged.
        state: what the target says of it, None if it does not know it.
        loader: the target; also a `Readable`.
        selection: which attributes were loaded.
    """

    def __init__(self, run: StagedRun, state: TargetState | None, loader: Any, selection: Selection) -> None:
        self._run = run
        self._state = state
        self._loader: Readable = loader
        self._there = str(loader.name)
        self._selection = selection

    def findings(self) -> Iterator[Finding]:
        """Everything that differs, or could not be compared."""
        if self._state is None:
            yield self._finding("absent", f"The run is not in {self._there}: load it.")
            return
        if not self._state.complete:
            yield self._finding("unfinished", f"The run is only half in {self._there}: load it again.")
            return
        staged, digest = chosen(self._run, self._selection)
        if self._state.digest != digest:
            yield self._finding("outdated", f"{self._there} holds another state of the run: load it again.")
        try:
            there = self._fingerprint()
        except ExporterError as error:
            if error.fatal:
                raise
            yield failure(self._run.ref, error, where="target")
            return
        found = mismatches(staged, there, expected_in=HERE, found_in=self._there)
        yield from self._with_values(found)

    def _fingerprint(self) -> list[Attribute]:
        target = self._loader.read(self._run.ref)
        fingerprint = Fingerprint(target.file_sha256)
        for batch in _gathered(target.batches):
            fingerprint.write(batch)
        present = {a[:2] for a in fingerprint.attributes()}
        for path, kind in sorted(set(target.attributes) - present):
            fingerprint.add(Attribute(path, kind))
        return fingerprint.attributes()

    def _with_values(self, found: list[Mismatch]) -> Iterator[Finding]:
        shown = worth_showing(found)
        sides = self._sides(shown) if shown else None
        for mismatch in found:
            message = mismatch.message
            if sides is not None and mismatch.key in shown:
                message = f"{message} {first_difference(mismatch.key, *sides)}".strip()
            yield self._finding(mismatch.kind, message, mismatch.path)

    def _sides(self, keys: set[tuple[str, str]]) -> tuple[Side, Side]:
        target: TargetRun = self._loader.read(self._run.ref)
        batches = (normalize(batch) for batch in target.batches)
        here = Side.of(HERE, self._run.read(), keys, self._run.files.sha256)
        return here, Side.of(self._there, batches, keys, target.file_sha256)

    def _finding(self, kind: str, message: str, attribute: str | None = None) -> Finding:
        return finding_of(self._run.ref, kind, message, attribute=attribute, where="target")


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches: a target gives one for each attribute, and most of those have one row."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(normalize(batch))
        rows += batch.num_rows
        if rows >= _GATHERED_ROWS or len(waiting) >= _GATHERED_BATCHES:
            yield from _joined(waiting)
            waiting, rows = [], 0
    if waiting:
        yield from _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if len(batches) == 1:
        return batches
    joined: list[pa.RecordBatch] = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
    return joined
