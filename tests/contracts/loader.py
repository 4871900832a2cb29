# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every loader must do. A test class inherits `LoaderContract` and gives it a loader of an empty target."""

from __future__ import annotations

from typing import Any

import pytest
from truth import Row, rows_in

from contracts.rows import assert_same, curve, everything, write_run
from neptune_exporter.load import to_load
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.pipeline import pump
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage.staging import Staging

PROJECT = "team/loaders"
MULTIPLIER = 1_000_000


class LoaderContract:
    """The suite. `loader` is to be overridden."""

    @pytest.fixture
    def loader(self) -> Any:
        """A loader whose target is empty."""
        raise NotImplementedError

    @pytest.fixture
    def staging(self, tmp_path) -> Staging:
        return Staging(tmp_path / "data", tmp_path / "files")

    def staged(self, staging: Staging, run_id: str = "run-1", rows: list[Row] | None = None) -> Any:
        ref = RunRef(PROJECT, run_id)
        return write_run(staging, ref, everything() if rows is None else rows, info=RunInfo(ref, name="the name"))

    def load(self, loader: Any, run: Any, *, commit: bool = True, batches: int | None = None) -> str:
        loading = to_load(run, EVERYTHING)
        sink = loader.start(loading, MULTIPLIER)
        pump(list(run.read(loader.limits.order))[:batches], sink)
        if commit:
            sink.commit()
        else:
            sink.abort()
        return loading.digest

    def test_an_empty_target_knows_no_run(self, loader):
        target = loader.states(PROJECT)
        assert dict(target.runs) == {}
        assert target.step_multiplier is None

    def test_what_is_loaded_is_complete_with_its_digest(self, loader, staging):
        run = self.staged(staging)
        loader.prepare(PROJECT, MULTIPLIER)
        digest = self.load(loader, run)
        target = loader.states(PROJECT)
        assert target.step_multiplier == MULTIPLIER
        assert target.runs[run.ref].complete
        assert target.runs[run.ref].digest == digest

    def test_what_was_given_up_is_not_complete_and_can_be_loaded_again(self, loader, staging):
        run = self.staged(staging)
        loader.prepare(PROJECT, MULTIPLIER)
        self.load(loader, run, commit=False)
        state = loader.states(PROJECT).runs.get(run.ref)
        assert state is None or not state.complete
        self.load(loader, run)
        assert loader.states(PROJECT).runs[run.ref].complete

    def test_a_changed_run_takes_the_place_of_the_old_one(self, loader, staging):
        loader.prepare(PROJECT, MULTIPLIER)
        first = self.load(loader, self.staged(staging))
        changed = self.staged(staging, rows=[*everything(), *curve("more", 5)])
        second = self.load(loader, changed)
        assert first != second
        assert loader.states(PROJECT).runs[changed.ref].digest == second

    def test_the_old_run_counts_until_the_new_one_does(self, loader, staging):
        loader.prepare(PROJECT, MULTIPLIER)
        first = self.load(loader, self.staged(staging))
        changed = self.staged(staging, rows=[*everything(), *curve("more", 5)])
        self.load(loader, changed, commit=False)
        state = loader.states(PROJECT).runs[changed.ref]
        assert state.complete
        assert state.digest == first

    def test_runs_are_told_apart(self, loader, staging):
        loader.prepare(PROJECT, MULTIPLIER)
        refs = {run.ref: self.load(loader, run) for run in (self.staged(staging, i) for i in ("a", "A", "a'b", "a b"))}
        target = loader.states(PROJECT)
        assert {ref: state.digest for ref, state in target.runs.items()} == refs

    def test_every_value_comes_back(self, loader, staging, tmp_path):
        if not hasattr(loader, "read"):
            pytest.skip("not Readable")
        run = self.staged(staging)
        loader.prepare(PROJECT, MULTIPLIER)
        self.load(loader, run)
        back = loader.read(run.ref)
        files = {row.path: row for row in everything() if isinstance(row.value, bytes)}
        found = [row for batch in back.batches for row in rows_in(batch, _Digests(back.file_sha256))]
        expected = [_digested(row) if row.path in files else row for row in everything()]
        assert_same(expected, found)


class _Digests(dict[str, Any]):
    """Gives the SHA-256 in place of a file's content."""

    def __init__(self, sha256: Any) -> None:
        super().__init__()
        self._sha256 = sha256

    def __getitem__(self, path: str) -> Any:
        return self._sha256(path)


def _digested(row: Row) -> Row:
    import hashlib
    from dataclasses import replace

    return replace(row, value=hashlib.sha256(row.value).hexdigest())
