# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`summary`: what was written is what it says, whoever wrote it, and damage costs only itself."""

from __future__ import annotations

import json
from datetime import timedelta

import areas
import pytest
from areas import PROJECT, TIME, floats, row, stage, text

from neptune_exporter.errors import Problem, StagingError
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.summary import summary


def test_counts_what_was_written(tmp_path):
    one, two = RunRef(PROJECT, "RUN-1"), RunRef(PROJECT, "RUN-2")
    stage(
        tmp_path, "RUN-1", floats(one, "loss", [1.0, 2.0, 3.0], every=2), text(one, "name", "a"), files={"m": b"12345"}
    )
    stage(
        tmp_path,
        "RUN-2",
        floats(two, "loss", [1.0], first_step=-7),
        floats(two, "acc", [float("nan")] * 4),
        parent="RUN-1",
        problems=[Problem("gone", "x", count=3), Problem("gone", "y")],
        empty=[("nothing", "float_series")],
        source=SourceRecord("offline", "offline"),
    )
    stage(tmp_path, "OTHER", text(RunRef("acme/other", "OTHER"), "a", "b"), project="acme/other")

    found = summary(areas.staging(tmp_path))

    assert found.exit_code == 0
    assert [project.project for project in found.projects] == ["acme/other", PROJECT]
    vision = found.projects[1]
    assert vision.runs == {"complete": 1, "partial": 1}
    assert vision.attributes == {"file": 1, "float_series": 4, "string": 1}
    assert vision.points == {"file": 1, "float_series": 8, "string": 1}
    assert (vision.first_step, vision.last_step) == ("-7", "4")
    assert vision.first_time == (TIME - timedelta(seconds=7)).isoformat(timespec="milliseconds")
    assert vision.last_time == (TIME + timedelta(seconds=4)).isoformat(timespec="milliseconds")
    assert (vision.forks, vision.problems) == (1, 4)
    assert vision.sources == {"listed a list": 1, "offline": 1}
    assert (vision.files, vision.file_bytes) == (1, 5)
    assert [(size.run, size.points) for size in vision.biggest] == [("RUN-1", 5), ("RUN-2", 5)]


def test_fractional_steps_are_shown_exactly(tmp_path):
    areas.official(tmp_path, "RUN-1", [row("a", "float_series", step="0.29", float_value=1.0, timestamp=TIME)])
    project = summary(areas.staging(tmp_path)).projects[0]
    assert (project.first_step, project.last_step) == ("0.29", "0.29")


def test_sizes_are_those_of_the_files_on_disk(tmp_path):
    ref = RunRef(PROJECT, "RUN-1")
    stage(tmp_path, "RUN-1", floats(ref, "loss", [float(i % 3) for i in range(100_000)]), files={"a": b"x" * 1000})
    project = summary(areas.staging(tmp_path)).projects[0]
    on_disk = sum(path.stat().st_size for path in areas.folder(tmp_path).glob("*.parquet"))
    assert project.part_bytes == on_disk
    assert project.biggest[0].bytes == on_disk
    assert project.file_bytes == sum(p.stat().st_size for p in (tmp_path / "files").rglob("*") if p.is_file())


def test_reads_no_part_of_a_proven_run(tmp_path):
    """From manifests: what a part holds cannot matter, so its content is replaced by as many other bytes."""
    stage(tmp_path, "RUN-1", floats(RunRef(PROJECT, "RUN-1"), "loss", [1.0, 2.0]))
    before = summary(areas.staging(tmp_path)).to_json()
    part = areas.part(tmp_path, "RUN-1")
    part.write_bytes(b"?" * part.stat().st_size)
    assert summary(areas.staging(tmp_path)).to_json() == before


# --- archives of the official exporter

ROWS = [
    row("sys/id", "string", string_value="RUN-1"),
    row("sys/tags", "string_set", string_set_value=["a", "b"]),
    row("empty/tags", "string_set", string_set_value=[]),
    row("lr", "float", float_value=0.1),
    row("loss", "float_series", step=1, timestamp=TIME, float_value=1.0),
    row("loss", "float_series", step=2, timestamp=TIME, float_value=None),  # a placeholder: it carries nothing
    row("gone", "float_series", step=3, timestamp=TIME),
    row("none", "string_set", string_set_value=None),
    row("plot", "file", file_value={"path": "RUN-1/plot.png"}),
    row("lost", "file", file_value={"path": None}),
    row(
        "hist",
        "histogram_series",
        step=5,
        timestamp=TIME,
        histogram_value={"type": "COUNTING", "edges": [0.0, 1.0], "values": [3.0]},
    ),
]


@pytest.mark.parametrize(
    "how",
    [{}, {"write_statistics": False}, {"row_group_size": 1}, {"row_group_size": 3}, {"use_dictionary": False}],
    ids=lambda how: str(how) or "plain",
)
def test_placeholder_rows_of_the_official_exporter_do_not_count(tmp_path, how):
    areas.official(tmp_path, "RUN-1", ROWS, **how)
    (tmp_path / "files" / areas.stem(PROJECT) / "RUN-1").mkdir()
    (tmp_path / "files" / areas.stem(PROJECT) / "RUN-1" / "plot.png").write_bytes(b"1234567")

    found = summary(areas.staging(tmp_path))

    (project,) = found.projects
    assert found.exit_code == 0
    assert project.runs == {"unproven": 1}
    assert project.points == {
        "file": 1,
        "float": 1,
        "float_series": 1,
        "histogram_series": 1,
        "string": 1,
        "string_set": 2,
    }
    assert project.attributes == project.points
    assert (project.first_step, project.last_step) == ("1", "5")
    assert (project.files, project.file_bytes, project.problems) == (1, 7, 0)
    assert project.sources == {"exported by another tool": 1}


def test_official_runs_with_strange_ids_and_several_parts(tmp_path):
    areas.official(tmp_path, "a_part_0", [row("x", "int", int_value=1)], [row("y", "int", int_value=2)])
    areas.official(tmp_path, "a", [row("x", "int", int_value=2**63 - 1)])
    areas.official(tmp_path, "fork", [row("sys/forking/parent", "string", string_value="a")])
    (project,) = summary(areas.staging(tmp_path)).projects
    assert project.runs == {"unproven": 3}
    assert project.points == {"int": 3, "string": 1}
    assert project.parts == 4
    assert project.forks == 1


def test_a_missing_file_of_an_official_run_is_a_problem(tmp_path):
    areas.official(tmp_path, "RUN-1", ROWS)
    assert summary(areas.staging(tmp_path)).projects[0].problems == 1


def test_runs_that_another_tool_added_to_our_area_are_strays(tmp_path):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    areas.official(tmp_path, "RUN-2", [row("x", "int", int_value=1)])
    (project,) = summary(areas.staging(tmp_path)).projects
    assert project.runs == {"complete": 1, "stray": 1}


def test_a_stray_that_was_cut_short_costs_only_itself(tmp_path):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    for run_id in ("RUN-2", "RUN-3"):
        areas.official(tmp_path, run_id, [row("x", "int", int_value=1)])
    areas.part(tmp_path, "RUN-2").write_bytes(b"PAR1")
    found = summary(areas.staging(tmp_path))
    assert found.exit_code == 3
    assert found.projects[0].runs == {"complete": 1, "stray": 1}
    assert [str(areas.part(tmp_path, "RUN-2")) in error.message for error in found.damaged] == [True]


def test_models_and_their_versions_are_found(tmp_path):
    for kind, run_id in (("run", "RUN-1"), ("model", "MOD"), ("model_version", "MOD-1")):
        stage(tmp_path, run_id, text(RunRef(PROJECT, run_id, kind), "a", "b"), kind=kind)
    found = summary(areas.staging(tmp_path))
    assert [(project.kind, project.runs) for project in found.projects] == [
        (kind, {"complete": 1}) for kind in ("run", "model", "model_version")
    ]


# --- damage


def one_and_two(root):
    for run_id in ("RUN-1", "RUN-2"):
        stage(root, run_id, text(RunRef(PROJECT, run_id), "a", "b"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: areas.manifest(root, "RUN-1").write_text("{"), "RUN-1"),
        (lambda root: areas.manifest(root, "RUN-1").write_text("[]"), "RUN-1"),
        (lambda root: areas.part(root, "RUN-1").unlink(), "_part_0.parquet is missing"),
        (
            lambda root: areas.changed_json(areas.manifest(root, "RUN-1"), lambda m: m.update(format=99)),
            "newer version",
        ),
    ],
    ids=["cut short", "no manifest", "part missing", "newer"],
)
def test_a_damaged_run_is_named_and_the_others_are_shown(tmp_path, damage, named):
    one_and_two(tmp_path)
    damage(tmp_path)
    found = summary(areas.staging(tmp_path))
    assert found.exit_code == 3
    assert len(found.damaged) == 1
    assert named in found.damaged[0].message
    assert found.projects[0].runs == {"complete": 1}


@pytest.mark.parametrize("size", [0, 100])
def test_a_part_of_an_official_run_that_was_cut_short_is_named(tmp_path, size):
    areas.official(tmp_path, "RUN-1", [row("x", "int", int_value=1)])
    areas.official(tmp_path, "RUN-2", [row("x", "int", int_value=1)])
    part = areas.part(tmp_path, "RUN-2")
    part.write_bytes(part.read_bytes()[:size])
    found = summary(areas.staging(tmp_path))
    assert found.exit_code == 3
    assert str(part) in found.damaged[0].message
    assert found.projects[0].runs == {"unproven": 1}


def test_a_missing_part_of_an_official_run_is_named(tmp_path):
    areas.official(tmp_path, "RUN-1", *[[row("x", "int", int_value=1)]] * 3)
    areas.part(tmp_path, "RUN-1", 1).unlink()
    found = summary(areas.staging(tmp_path))
    assert found.exit_code == 3
    assert "Part 1 of acme/vision/RUN-1 is missing" in found.damaged[0].message


def test_a_run_without_its_first_part_is_named(tmp_path):
    areas.official(tmp_path, "RUN-1", *[[row("x", "int", int_value=1)]] * 3)
    areas.official(tmp_path, "RUN-2", [row("x", "int", int_value=1)])
    areas.part(tmp_path, "RUN-1", 0).unlink()
    found = summary(areas.staging(tmp_path))
    assert found.exit_code == 3
    assert areas.stem("RUN-1") in found.damaged[0].message
    assert found.projects[0].runs == {"unproven": 1}


def test_a_damaged_project_costs_only_itself(tmp_path):
    one_and_two(tmp_path)
    stage(tmp_path, "X", text(RunRef("acme/other", "X"), "a", "b"), project="acme/other")
    (areas.folder(tmp_path) / "_manifest" / "area.json").write_text("nonsense")
    found = summary(areas.staging(tmp_path))
    assert found.exit_code == 3
    assert "area.json" in found.damaged[0].message
    assert [project.project for project in found.projects] == ["acme/other"]


def test_no_area_and_an_empty_one_are_errors(tmp_path):
    with pytest.raises(StagingError, match="no staging area"):
        summary(areas.staging(tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(StagingError, match="does not hold any Neptune project"):
        summary(areas.staging(tmp_path))


def test_only_the_projects_that_are_asked_for(tmp_path):
    one_and_two(tmp_path)
    stage(tmp_path, "X", text(RunRef("acme/other", "X"), "a", "b"), project="acme/other")
    found = summary(areas.staging(tmp_path), Selection(projects=("acme/other",)))
    assert [project.project for project in found.projects] == ["acme/other"]
    with pytest.raises(StagingError, match="does not hold acme/none"):
        summary(areas.staging(tmp_path), Selection(projects=("acme/none",)))


def test_json_is_json(tmp_path):
    one_and_two(tmp_path)
    value = json.loads(json.dumps(summary(areas.staging(tmp_path)).to_json()))
    assert value["projects"][0]["runs"] == {"complete": 2}
