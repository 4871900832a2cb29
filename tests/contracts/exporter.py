# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every exporter must do. A test class inherits `ExporterContract` and gives it a source with known content."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from truth import Content, Row, rows_in

from contracts.rows import assert_same
from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Exporter, SourceRun
from neptune_exporter.model import OutsideValue, RunRef, normalize
from neptune_exporter.selection import CLASS_OF_TYPE, CLASSES, EVERYTHING, Selection
from neptune_exporter.storage.files import FileWriter


@dataclass
class Collector:
    """Findings of one run."""

    problems: list[Problem] = field(default_factory=list)
    outsiders: list[OutsideValue] = field(default_factory=list)
    empties: list[tuple[str, str]] = field(default_factory=list)

    def problem(self, problem: Problem) -> None:
        self.problems.append(problem)

    def outside(self, value: OutsideValue) -> None:
        self.outsiders.append(value)

    def empty(self, path: str, attribute_type: str) -> None:
        self.empties.append((path, attribute_type))


class ExporterContract:
    """The suite. `exporter` and `expected` are to be overridden."""

    @pytest.fixture
    def exporter(self) -> Exporter:
        """The exporter."""
        raise NotImplementedError

    @pytest.fixture
    def expected(self) -> dict[RunRef, list[Row]]:
        """All rows of all runs of the source; it has at least one run of at least two classes of attributes."""
        raise NotImplementedError

    def all_runs(self, exporter: Exporter, selection: Selection = EVERYTHING) -> list[SourceRun]:
        return [run for project in exporter.projects(selection) for run in exporter.runs(project, selection)]

    def rows(
        self, exporter: Exporter, run: SourceRun, folder: Path, selection: Selection = EVERYTHING
    ) -> tuple[list[Row], Collector]:
        files, findings = FileWriter(folder, "run", 1), Collector()
        rows: list[Row] = []
        for batch in exporter.batches(run, selection, files, findings):
            assert 0 < batch.num_rows <= 200_000
            for name, value in (("project_id", run.info.ref.project_id), ("run_id", run.info.ref.run_id)):
                assert set(batch.column(name).to_pylist()) == {value}
            rows += rows_in(normalize(batch), Content(folder))
        return rows, findings

    def test_lists_every_run_once(self, exporter, expected):
        listed = self.all_runs(exporter)
        assert sorted(run.info.ref for run in listed) == sorted(expected)

    def test_projects_are_those_of_the_runs(self, exporter, expected):
        projects = list(exporter.projects(EVERYTHING))
        assert sorted(projects) == sorted({ref.project_id for ref in expected})

    def test_lists_only_what_is_selected(self, exporter, expected):
        ref = min(expected)
        selection = Selection(projects=(ref.project_id,), run_patterns=(f"^{re.escape(ref.run_id)}$",))
        assert [run.info.ref for run in self.all_runs(exporter, selection)] == [ref]
        nobody = Selection(projects=("nobody/nothing",))
        assert [r for p in exporter.projects(nobody) if nobody.wants_project(p) for r in exporter.runs(p, nobody)] == []

    def test_gives_every_value(self, exporter, expected, tmp_path):
        for number, run in enumerate(self.all_runs(exporter)):
            found, findings = self.rows(exporter, run, tmp_path / str(number))
            assert findings.problems == []
            assert_same(expected[run.info.ref], found)

    def test_gives_the_same_again(self, exporter, tmp_path):
        run = self.all_runs(exporter)[0]
        first, _ = self.rows(exporter, run, tmp_path / "first")
        second, _ = self.rows(exporter, run, tmp_path / "second")
        assert_same(first, second)

    @pytest.mark.parametrize("wanted", CLASSES)
    def test_gives_one_class_of_attributes(self, exporter, expected, tmp_path, wanted):
        for number, run in enumerate(self.all_runs(exporter)):
            found, _ = self.rows(exporter, run, tmp_path / str(number), Selection(classes=frozenset({wanted})))
            assert_same([row for row in expected[run.info.ref] if CLASS_OF_TYPE[row.type] == wanted], found)

    def test_gives_the_attributes_that_are_named(self, exporter, expected, tmp_path):
        run = self.all_runs(exporter)[0]
        rows = expected[run.info.ref]
        paths = sorted({row.path for row in rows})[:3]
        selection = Selection(attributes=(*paths, "no/such/attribute"))
        found, _ = self.rows(exporter, run, tmp_path / "files", selection)
        assert_same([row for row in rows if row.path in paths], found)

    def test_runs_travel_to_other_processes_and_states_into_manifests(self, exporter):
        for run in self.all_runs(exporter):
            copy: Any = pickle.loads(pickle.dumps(run))
            assert copy.info == run.info
            assert json.loads(json.dumps(run.state)) == run.state
            assert exporter.compare(json.loads(json.dumps(run.state)), run.state) == "same"

    def test_can_be_closed_twice(self, exporter):
        exporter.close()
        exporter.close()
