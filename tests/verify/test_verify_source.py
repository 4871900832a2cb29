# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`verify --exporter`: whatever the source has and the staging area has not, or otherwise, is named."""

from __future__ import annotations

import areas
import pyarrow as pa
import pytest
from areas import PROJECT, Listed, ListedOptions, floats, stage, tags, text
from checking import checked, exit_code, findings, told

from neptune_exporter.cli.main import main
from neptune_exporter.errors import AccessError, Problem, SourceError
from neptune_exporter.model import OutsideValue, RunRef, rows_batch
from neptune_exporter.selection import Selection

ONE, TWO = RunRef(PROJECT, "RUN-1"), RunRef(PROJECT, "RUN-2")
LISTED = ("listed", ListedOptions())
VALUES = [0.5 * i for i in range(50)]


@pytest.fixture
def source(monkeypatch):
    """A source with two runs, one of them with a file."""
    rows = {
        "RUN-1": [floats(ONE, "loss", VALUES), floats(ONE, "acc", VALUES), text(ONE, "name", "adam")],
        "RUN-2": [text(TWO, "name", "sgd")],
    }
    listed = Listed(rows, {("RUN-1", "model"): b"weights"}, empty={"RUN-1": [("none", "float_series")]})
    return areas.offered(monkeypatch, listed)


def exported(root, source, *more):
    """Exports by the real command."""
    paths = ["--data-path", str(root / "data"), "--files-path", str(root / "files")]
    code = main(["export", "--exporter", source.name, *paths, *more])
    assert code in (0, 3)
    return root


def compare(root, **kwargs):
    return findings(root, source=LISTED, **kwargs)


def test_what_was_exported_is_what_the_source_has(tmp_path, source):
    exported(tmp_path, source)
    found = checked(tmp_path, source=LISTED)
    assert [finding for one in found for finding in one.findings] == []
    assert all("source" in one.compared for one in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda s: s.rows["RUN-1"].__setitem__(0, floats(ONE, "loss", [*VALUES[:-1], 7.0])),
            ("RUN-1", "loss", "values"),
        ),
        (lambda s: s.rows["RUN-1"].__setitem__(0, floats(ONE, "loss", [*VALUES, 7.0])), ("RUN-1", "loss", "count")),
        (lambda s: s.rows["RUN-1"].append(text(ONE, "new", "x")), ("RUN-1", "new", "missing")),
        (lambda s: s.rows["RUN-1"].pop(2), ("RUN-1", "name", "surplus")),
        (
            lambda s: s.rows["RUN-1"].__setitem__(
                2, rows_batch(ONE, "name", "int", int_value=pa.array([1], pa.int64()))
            ),
            ("RUN-1", "name", "type"),
        ),
        (lambda s: s.files.__setitem__(("RUN-1", "model"), b"weightz"), ("RUN-1", "model", "values")),
        (lambda s: s.empty["RUN-1"].append(("more", "string_series")), ("RUN-1", "more", "missing")),
        (lambda s: s.rows.__setitem__("RUN-3", []), ("RUN-3", None, "absent")),
        (lambda s: setattr(s, "changed", "newer"), ("RUN-1", None, "outdated")),
    ],
    ids=["value", "count", "missing", "surplus", "type", "file", "empty series", "whole run", "changed since"],
)
def test_every_difference_is_named(tmp_path, source, change, expected):
    exported(tmp_path, source)
    change(source)
    found = compare(tmp_path)
    assert expected in told(found)
    assert exit_code(found) == 4
    assert len([f for f in found if f.kind != "outdated"]) <= 1


def test_the_first_difference_is_shown_with_step_and_values(tmp_path, source):
    exported(tmp_path, source)
    source.rows["RUN-1"][0] = floats(ONE, "loss", [*VALUES[:30], 0.125, *VALUES[31:40], -1.0, *VALUES[41:]])
    (found,) = compare(tmp_path)
    assert "at step 30: 0.125 (2024-05-01T10:00:30.250+00:00) in the source" in found.message
    assert "15.0 (2024-05-01T10:00:30.250+00:00) in the staging area" in found.message


def test_a_run_that_the_source_lists_no_more_could_not_be_checked(tmp_path, source):
    exported(tmp_path, source)
    del source.rows["RUN-2"]
    found = compare(tmp_path)
    assert told(found) == [("RUN-2", None, "unlisted")]
    assert exit_code(found) == 3


def test_runs_of_other_sources_are_left_alone(tmp_path, source):
    exported(tmp_path, source)
    stage(
        tmp_path,
        "RUN-9",
        text(RunRef(PROJECT, "RUN-9"), "a", "b"),
        source=areas.SourceRecord("neptune3", "https://neptune.example"),
    )
    found = checked(tmp_path, source=LISTED)
    assert [finding for one in found for finding in one.findings] == []
    assert {one.ref.run_id: "source" in one.compared for one in found} == {"RUN-1": True, "RUN-2": True, "RUN-9": False}


# --- selections


def test_what_was_not_asked_for_is_not_missing(tmp_path, source):
    exported(tmp_path, source, "-a", "loss|model")
    assert compare(tmp_path) == []


def test_only_what_is_asked_for_is_compared(tmp_path, source):
    exported(tmp_path, source)
    source.rows["RUN-1"][0] = floats(ONE, "loss", [])
    assert told(compare(tmp_path)) == [("RUN-1", "loss", "surplus")]
    assert findings(tmp_path, Selection(attributes=("acc",)), source=LISTED) == []
    assert findings(tmp_path, Selection(run_ids=("RUN-2",)), source=LISTED) == []


# --- problems


def test_a_problem_that_the_source_reports_again_is_no_difference(tmp_path, source):
    source.problems["RUN-1"] = [Problem("Cannot be downloaded.", "model"), Problem("Half a store.")]
    del source.files["RUN-1", "model"]
    exported(tmp_path, source)
    found = compare(tmp_path)
    assert {f.kind for f in found} == {"partial"}
    assert exit_code(found) == 0


def test_what_the_source_has_again_is_not_taken_for_lost(tmp_path, source):
    content = source.files.pop(("RUN-1", "model"))
    source.problems["RUN-1"] = [Problem("Cannot be downloaded.", "model", "retry")]
    exported(tmp_path, source)
    source.files["RUN-1", "model"] = content
    source.problems.clear()
    found = compare(tmp_path)
    assert {(f.attribute, f.kind) for f in found} == {("model", "partial")}
    assert any("export it again" in f.message for f in found)


def test_what_the_source_cannot_give_now_could_not_be_checked(tmp_path, source):
    exported(tmp_path, source)
    del source.files["RUN-1", "model"]
    source.problems["RUN-1"] = [Problem("Cannot be downloaded.", "model")]
    found = compare(tmp_path)
    assert told(found) == [("RUN-1", "model", "unreadable")]
    assert exit_code(found) == 3


def test_a_loss_is_not_excused_by_another_problem(tmp_path, source):
    source.problems["RUN-1"] = [Problem("Cannot be downloaded.", "model")]
    exported(tmp_path, source)
    source.rows["RUN-1"][0] = floats(ONE, "loss", [*VALUES, 1.0])
    assert exit_code(compare(tmp_path)) == 4


@pytest.mark.parametrize("error", [SourceError("It broke."), ValueError("A bug.")])
def test_a_run_that_cannot_be_read_now_could_not_be_checked(tmp_path, source, monkeypatch, error):
    exported(tmp_path, source)
    real = Listed.batches

    def batches(self, run, *args):
        if run.info.ref == ONE:
            raise error
        return real(self, run, *args)

    monkeypatch.setattr(Listed, "batches", batches)
    found = compare(tmp_path)
    assert told(found) == [("RUN-1", None, "unreadable")]
    assert exit_code(found) == 3


def test_refused_credentials_end_the_command(tmp_path, source, monkeypatch):
    exported(tmp_path, source)

    def batches(self, *args):
        raise AccessError("The token is refused.")

    monkeypatch.setattr(Listed, "batches", batches)
    with pytest.raises(AccessError):
        compare(tmp_path)


# --- values outside the schema


def test_values_outside_the_schema_are_compared(tmp_path, source):
    value = OutsideValue("loss", "float_series", "a step of 1e12", "1.0", "1000000000000")
    source.outside["RUN-1"] = [value]
    exported(tmp_path, source)
    assert exit_code(compare(tmp_path)) == 0
    source.outside["RUN-1"] = [value, OutsideValue("loss", "float_series", "a step of 1e12", "2.0", "1000000000000")]
    found = compare(tmp_path)
    assert ("RUN-1", "loss", "missing") in told(found)
    assert exit_code(found) == 4


# --- runs of several sources


@pytest.fixture
def merged(tmp_path, source, monkeypatch):
    """RUN-1 from the source, and 50 later points, tags and a later name from another one."""
    source.rows["RUN-1"].append(tags(ONE, ["mine"]))
    exported(tmp_path, source)
    other = Listed(
        {"RUN-1": [floats(ONE, "loss", VALUES, first_step=50), text(ONE, "name", "later"), tags(ONE, ["theirs"])]},
        name="other",
        source="another list",
    )
    areas.offered(monkeypatch, other)
    monkeypatch.setattr(areas, "TIME", areas.TIME.replace(year=2030))
    exported(tmp_path, other)
    monkeypatch.undo()
    areas.offered(monkeypatch, source)
    return tmp_path


def test_all_points_of_a_merged_source_are_proven_to_be_there(merged):
    found = compare(merged)
    assert told(found) == [("RUN-1", None, "merged")]
    assert "3 attributes" in found[0].message
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        (lambda s: s.rows["RUN-1"].__setitem__(0, floats(ONE, "loss", [*VALUES[:-1], 7.0])), "loss"),
        (lambda s: s.rows["RUN-1"].__setitem__(0, floats(ONE, "loss", VALUES * 3)), "loss"),
        (lambda s: s.rows["RUN-1"].__setitem__(3, tags(ONE, ["mine", "too"])), "sys/tags"),
        (lambda s: s.rows["RUN-1"].append(text(ONE, "new", "x")), "new"),
    ],
    ids=["value", "count", "tag", "attribute"],
)
def test_a_point_that_a_merged_run_lacks_is_found(merged, source, change, attribute):
    change(source)
    found = compare(merged)
    assert attribute in {f.attribute for f in found if f.level == "difference"}
    assert exit_code(found) == 4


def test_a_merged_run_is_proven_in_groups_that_fit_memory(merged, source, monkeypatch):
    monkeypatch.setattr("neptune_exporter.verify.source.GROUP_ROWS", 1)
    assert told(compare(merged)) == [("RUN-1", None, "merged")]
    source.rows["RUN-1"][0] = floats(ONE, "loss", [*VALUES[:-1], 7.0])
    assert ("RUN-1", "loss", "count") in told(compare(merged))


def test_a_later_value_of_another_type_is_no_loss(merged, source):
    source.rows["RUN-1"][2] = rows_batch(ONE, "name", "int", int_value=pa.array([1], pa.int64()))
    assert exit_code(compare(merged)) == 0


def test_another_tools_archive_is_compared_with_the_source(tmp_path, source):
    """What the official exporter lost is still in the source."""
    area = [
        areas.row("loss", "float_series", step=i, timestamp=areas.TIME.replace(second=i), float_value=value)
        for i, value in enumerate(VALUES[:-1])
    ]
    areas.official(tmp_path, "RUN-1", area)
    found = compare(tmp_path)
    assert {("RUN-1", "loss", "count"), ("RUN-1", "acc", "missing"), ("RUN-1", "name", "missing")} <= set(told(found))
    assert ("RUN-2", None, "absent") in told(found)
