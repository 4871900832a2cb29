# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The offline exporter against what was logged with the real client."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest
from collect import collect, collect_all, offline
from truth import PROJECT, Row, Truth, differences, log_everything, millis

from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Truth:
    return log_everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def exported(truth, tmp_path_factory):
    return collect_all(offline(truth.directory), tmp_path_factory.mktemp("files"))


def tree(folder: Path) -> dict[str, tuple]:
    """Every file and folder with its content and times."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else sorted(p.name for p in path.iterdir()),
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_every_run_is_found_once(truth, exported):
    assert set(exported) == set(truth.runs)


def test_every_value_step_and_time_is_what_was_logged(truth, exported):
    for run_id, run in truth.runs.items():
        missing, extra = differences(run.all_rows, exported[run_id].rows)
        assert not missing, f"{run_id}: {missing[:5]}"
        assert not extra, f"{run_id}: {extra[:5]}"


def test_the_truth_holds_every_type(truth):
    assert {row.type for run in truth.runs.values() for row in run.rows} == {
        "float", "int", "string", "bool", "datetime", "string_set",
        "float_series", "string_series", "histogram_series", "file", "file_series",
    }  # fmt: skip


def test_without_damage_there_is_no_problem(exported):
    for run in exported.values():
        assert run.problems == []
        assert run.outsiders == []


def test_identity(truth, exported):
    for run_id, run in truth.runs.items():
        info = exported[run_id].source.info
        assert info.ref == RunRef(PROJECT, run_id)
        assert info.created == run.created
        assert info.experiment == info.name == run.experiment
        assert info.parent == (None if run.parent is None else RunRef(PROJECT, run.parent))
        assert info.fork_step == run.fork_step


def test_previews_are_left_out_and_their_series_still_known(truth, exported):
    assert {(row.path, row.step) for row in truth.runs["everything"].previews} == {
        ("previewed/only", Decimal(1)),
        ("previewed/loss", Decimal(2)),
    }
    assert exported["everything"].empties == [("previewed/only", "float_series")]
    assert exported["resumed"].empties == []


def test_previews_come_when_asked_for(truth, tmp_path):
    found = collect_all(offline(truth.directory, include_metric_previews=True), tmp_path)
    for run_id, run in truth.runs.items():
        assert differences(run.all_rows + run.previews, found[run_id].rows) == ([], [])


def test_file_names_keep_their_extension(exported):
    names = set(exported["everything"].files.names.values())
    assert {"model.bin", "empty.txt", "résumé (1).tar.gz", "table.csv"} <= names


def test_nothing_in_the_users_folder_changes(truth, tmp_path):
    before = tree(truth.directory.parent)
    collect_all(offline(truth.directory), tmp_path)
    assert tree(truth.directory.parent) == before


@pytest.mark.parametrize("classes", [{"parameters"}, {"metrics"}, {"series"}, {"files"}, {"metrics", "files"}])
def test_only_selected_classes(truth, tmp_path, classes):
    of_class = {
        "parameters": {"float", "int", "string", "bool", "datetime", "string_set"},
        "metrics": {"float_series"},
        "series": {"string_series", "histogram_series"},
        "files": {"file", "file_series"},
    }
    types = set().union(*(of_class[name] for name in classes))
    found = collect_all(offline(truth.directory), tmp_path, Selection(classes=frozenset(classes)))
    for run_id, run in truth.runs.items():
        expected = [row for row in run.all_rows if row.type in types]
        assert differences(expected, found[run_id].rows) == ([], [])


def test_only_selected_attributes_and_runs(truth, tmp_path):
    selection = Selection(projects=(PROJECT,), run_patterns=("^every",), attributes=("^series/(loss|a.b)$",))
    found = collect_all(offline(truth.directory), tmp_path, selection)
    assert set(found) == {"everything"}
    paths = {"series/loss", "series/a/b", "series/a_b", "series/a b"}
    expected = [row for row in truth.runs["everything"].rows if row.path in paths]
    assert differences(expected, found["everything"].rows) == ([], [])
    assert list(offline(truth.directory).projects(Selection(projects=("team/other",)))) == []


def test_a_folder_that_was_copied_adds_nothing(truth, tmp_path):
    import shutil

    shutil.copytree(truth.directory, tmp_path / "copy")
    renamed = next((tmp_path / "copy").glob("*resumed*"))
    renamed.rename(renamed.with_name("renamed by hand"))
    found = collect_all(offline(truth.directory, tmp_path / "copy"), tmp_path / "files")
    for run_id, run in truth.runs.items():
        assert differences(run.all_rows, found[run_id].rows) == ([], [])
        assert found[run_id].problems == []


def test_a_single_database_may_be_named(truth, tmp_path):
    database = next(truth.directory.glob("*fork*/*.sqlite3"))
    found = collect_all(offline(database), tmp_path)
    assert differences(truth.runs["fork"].all_rows, found["fork"].rows) == ([], [])


def test_a_run_is_read_again_from_what_was_listed(truth, tmp_path):
    """Batches are asked for by another process than the one that listed the run."""
    listed = {run.info.ref: run for run in offline(truth.directory).runs(PROJECT, Selection())}
    run = listed[RunRef(PROJECT, "fork")]
    found = collect(offline(truth.directory), run, tmp_path)
    assert differences(truth.runs["fork"].all_rows, found.rows) == ([], [])


def test_times_are_rounded_to_milliseconds():
    from datetime import UTC, datetime

    assert millis(datetime(2026, 1, 1, 0, 0, 0, 678_901, tzinfo=UTC)).microsecond == 679_000
    assert millis(datetime(2026, 1, 1, 0, 0, 0, 999_500, tzinfo=UTC)) == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert Row("a", "float", None, None, 0.0).key != Row("a", "float", None, None, -0.0).key
