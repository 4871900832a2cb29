# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every sink must do. A test class inherits `SinkContract` and says how to open one and to look behind it."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from truth import Row

from contracts.rows import assert_same, batch_of, curve, point, single
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Sink, pump

REF = RunRef("team/sinks", "run-1")
ROWS = [single("name", "x"), single("flag", True), *curve("loss", 30), *(point("log", s, f"l{s}") for s in range(9))]


class Behind(Protocol):
    """A place that one run is written to, again and again."""

    def open(self) -> Sink:
        """Begins to write the run."""

    def rows(self) -> list[Row] | None:
        """What a reader finds there, None if the run does not count."""


class SinkContract:
    """The suite. `behind` is to be overridden."""

    @pytest.fixture
    def behind(self) -> Any:
        """A `Behind` that nothing was written to."""
        raise NotImplementedError

    def batches(self, rows: list[Row] = ROWS, size: int = 10) -> list[Any]:
        return [batch_of(REF, rows[start : start + size]) for start in range(0, len(rows), size)]

    def test_nothing_counts_before_the_commit(self, behind):
        sink = behind.open()
        pump(self.batches(), sink)
        assert behind.rows() is None
        sink.commit()
        assert_same(ROWS, behind.rows())

    def test_an_abort_leaves_nothing(self, behind):
        for batches in ([], self.batches()):
            sink = behind.open()
            pump(batches, sink)
            sink.abort()
            assert behind.rows() is None

    def test_an_abort_may_come_twice_and_after_the_commit(self, behind):
        sink = behind.open()
        sink.abort()
        sink.abort()
        sink = behind.open()
        pump(self.batches(), sink)
        sink.commit()
        sink.abort()
        assert_same(ROWS, behind.rows())

    def test_an_abort_leaves_what_was_there(self, behind):
        sink = behind.open()
        pump(self.batches(), sink)
        sink.commit()
        sink = behind.open()
        pump(self.batches(curve("other", 40)), sink)
        assert_same(ROWS, behind.rows())
        sink.abort()
        assert_same(ROWS, behind.rows())

    def test_a_run_without_rows_counts(self, behind):
        sink = behind.open()
        sink.commit()
        assert behind.rows() == []

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_the_cut_of_batches_does_not_matter(self, behind, size):
        sink = behind.open()
        pump(self.batches(size=size), sink)
        sink.commit()
        assert_same(ROWS, behind.rows())
