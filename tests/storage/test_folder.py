# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Project folders: archives of the official exporter as they are, and what counts in an area of ours."""

from __future__ import annotations

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts import official
from contracts.official import official_name, write_official
from contracts.rows import (
    OFFICIAL,
    START,
    assert_same,
    curve,
    everything,
    point,
    read_rows,
    single,
    snapshot,
    write_run,
)

from neptune_exporter.errors import DamagedDataError, StagingError
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.storage import names
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

REF = RunRef("acme/small", "run-1")
IDS = ["run-1", "run_1", "run.1", "x_part_0", "x_part_0.parquet", "漢" * 60, "a/b", "a", "A", "x..y", "tab\there"]


@pytest.fixture(params=[True, False], ids=["unicode", "ascii"])
def archive(tmp_path, request, monkeypatch):
    """An archive of the official exporter: two projects, awkward run ids, several parts, files.

    How it spells other letters than ours on disk must not matter.
    """
    if not request.param:
        monkeypatch.setattr(official, "LETTERS", "a-zA-Z0-9_")
    staging = Staging(tmp_path / "data", tmp_path / "files")
    for number, run_id in enumerate(IDS):
        rows = [*everything(), *curve("own", number + 1), single("sys/id", f"ACME-{number}")]
        write_official(staging.data_path, staging.files_path, RunRef("acme/small", run_id), rows, part_rows=30)
    write_official(staging.data_path, staging.files_path, RunRef("acme/漢", "run-1"), curve("loss", 3))
    return staging


def test_an_archive_of_the_official_exporter_is_read_as_it_is(archive):
    before = snapshot(archive.data_path.parent)
    runs = {run.ref: run for run in archive.runs(EVERYTHING)}
    assert set(runs) == {*(RunRef("acme/small", run_id) for run_id in IDS), RunRef("acme/漢", "run-1")}
    for number, run_id in enumerate(IDS):
        run = runs[RunRef("acme/small", run_id)]
        rows = [*everything(), *curve("own", number + 1), single("sys/id", f"ACME-{number}")]
        assert run.status == "unproven"
        assert run.problems == ()
        for order in (None, "attribute", "step"):
            assert_same(rows, read_rows(run, archive, order))
        assert_same(rows, read_rows(archive.run(run.ref), archive))
    assert snapshot(archive.data_path.parent) == before


def test_a_series_goes_on_over_parts_in_order(archive):
    run = archive.run(REF)
    assert len(run.part_names()) > 2
    steps = [row.step for row in read_rows(run, archive, "attribute") if row.path == "loss"]
    assert steps == sorted(steps)
    rows = read_rows(run, archive, "step")
    ordered = [(row.step is not None, row.step or 0, row.time is not None, row.time or START) for row in rows]
    assert ordered == sorted(ordered)


def test_placeholders_are_not_counted(archive):
    """Loss 24."""
    attributes = {(a.path, a.type): a.rows for a in archive.run(REF).attributes()}
    assert ("never/logged", "float_series") not in attributes
    assert attributes["loss", "float_series"] == 43
    assert attributes["log", "string_series"] == 20


def test_the_identity_is_read_from_its_rows(archive):
    info = archive.run(REF).info
    assert info == RunInfo(REF, name="the name", sys_id="ACME-0")


def test_a_part_may_be_named_with_ten_parts_and_more(staging):
    rows = curve("loss", 25)
    write_official(staging.data_path, staging.files_path, REF, rows, part_rows=2, placeholders=False)
    run = staging.run(REF)
    assert len(run.part_names()) == 13
    assert [row.step for row in read_rows(run, staging)] == [row.step for row in rows]


def test_a_gap_in_the_parts_is_an_error_that_names_it(staging):
    parts = write_official(staging.data_path, staging.files_path, REF, curve("loss", 30), part_rows=10)
    parts[1].unlink()
    with pytest.raises(DamagedDataError, match="Part 1 of acme/small/run-1 is missing"):
        read_rows(staging.run(REF), staging)


def test_a_run_without_its_first_part_does_not_exist_and_is_not_forgotten(staging):
    parts = write_official(staging.data_path, staging.files_path, REF, curve("loss", 30), part_rows=10)
    parts[0].unlink()
    folder = staging.folder(REF.project_id)
    assert staging.run(REF) is None
    assert list(folder.runs()) == []
    assert "not the first one" in folder.lost()[names.stem(REF.run_id)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_part_cut_short_is_an_error_that_names_it(staging, number):
    parts = write_official(staging.data_path, staging.files_path, REF, curve("loss", 30), part_rows=10)
    parts[number].write_bytes(parts[number].read_bytes()[:-50])

    def read():
        for run in staging.folder(REF.project_id).runs():
            read_rows(run, staging)

    with pytest.raises(DamagedDataError, match=parts[number].name):
        read()


def test_a_missing_file_is_a_problem_and_costs_only_itself(staging):
    write_official(staging.data_path, staging.files_path, REF, everything())
    (staging.folder(REF.project_id).files / "run-1/model.bin").unlink()
    (staging.folder(REF.project_id).files / "run-1/images/step_1_000000.png").unlink()
    run = staging.run(REF)
    gone = [row for row in everything() if row.path == "model" or (row.path == "images" and row.step == 1)]
    assert_same([row for row in everything() if row not in gone], read_rows(run, staging))
    assert sorted(p.attribute for p in run.problems) == ["images", "model"]
    assert all("is missing" in p.message for p in run.problems)
    assert ("model", "file") not in [a[:2] for a in run.attributes()]


@pytest.mark.parametrize("path", ["../../secret", "/etc/hostname", "run-1/../../../secret"])
def test_a_file_outside_the_folder_is_a_problem_and_never_read(staging, path):
    (staging.data_path.parent / "secret").write_text("secret")
    (part,) = write_official(staging.data_path, staging.files_path, REF, [single("model", b"x"), single("a", 1)])
    rows = pq.read_table(part, schema=OFFICIAL).to_pylist()
    rows[0]["file_value"] = {"path": path}
    pq.write_table(pq.read_table(part).from_pylist(rows, schema=OFFICIAL), part)
    run = staging.run(REF)
    assert_same([single("a", 1)], read_rows(run, staging))
    (problem,) = run.problems
    assert "leaves the files folder" in problem.message


def test_rows_of_another_run_are_an_error(staging):
    (part,) = write_official(staging.data_path, staging.files_path, REF, curve("loss", 3), placeholders=False)
    (other,) = write_official(
        staging.data_path, staging.files_path, RunRef("acme/small", "run-2"), curve("loss", 3), placeholders=False
    )
    pq.write_table(pa.concat_tables([pq.read_table(p, schema=OFFICIAL) for p in (part, other)]), part)
    with pytest.raises(DamagedDataError, match="rows of another run"):
        read_rows(staging.run(REF), staging)


def test_other_files_beside_are_no_runs(archive):
    folder = archive.folder("acme/small").data
    for name in ("notes.txt", "part_0.parquet", "run-1_part_0.parquet", ".hidden", "x-0123456789abcdef.parquet"):
        (folder / name).write_text("x")
    (archive.data_path / "README.md").write_text("x")
    (archive.data_path / "empty").mkdir()
    assert len(list(archive.runs(EVERYTHING))) == len(IDS) + 1


def test_a_selection_of_runs_and_projects(archive):
    assert [r.ref.project_id for r in archive.runs(Selection(projects=("acme/漢",)))] == ["acme/漢"]
    chosen = archive.runs(Selection(run_ids=("x_part_0",)))
    assert [run.ref.run_id for run in chosen] == ["x_part_0"]
    found = archive.runs(Selection(run_patterns=("^run.1$",), projects=("acme/small",)))
    assert sorted(run.ref.run_id for run in found) == ["run-1", "run.1", "run_1"]


# --- an area of ours


def test_a_run_without_a_manifest_does_not_exist(staging):
    write_run(staging, REF, curve("loss", 3))
    folder = staging.folder(REF.project_id)
    (folder.data / "_manifest" / f"{names.stem(REF.run_id)}.json").unlink()
    assert staging.run(REF) is None
    assert list(folder.runs()) == []
    assert names.stem(REF.run_id) in folder.lost()


def test_runs_that_were_there_before_us_stay_readable(archive):
    new = RunRef("acme/small", "new")
    write_run(archive, new, curve("loss", 7))
    runs = {run.ref.run_id: run for run in archive.folder("acme/small").runs()}
    assert set(runs) == {*IDS, "new"}
    assert {run_id for run_id, run in runs.items() if run.status == "unproven"} == set(IDS)
    assert_same([*everything(), *curve("own", 1), single("sys/id", "ACME-0")], read_rows(runs["run-1"], archive))
    assert archive.folder("acme/small").strays() == []


def test_runs_that_another_tool_adds_later_are_strays(staging):
    write_run(staging, REF, curve("loss", 3))
    late = RunRef(REF.project_id, "late")
    write_official(staging.data_path, staging.files_path, late, curve("loss", 5))
    folder = staging.folder(REF.project_id)
    assert staging.run(late) is None
    assert [run.ref for run in folder.runs()] == [REF]
    assert folder.strays() == [names.stem("late")]
    assert_same(curve("loss", 5), read_rows(folder.stray(names.stem("late")), staging))


def test_adoption_proves_a_run(archive):
    folder = archive.folder("acme/small")
    rows = [*everything(), *curve("own", 1), single("sys/id", "ACME-0")]
    before = archive.run(REF)
    digest, attributes = before.digest, before.attributes()
    files = snapshot(archive.files_path)
    folder.adopt(before)
    run = archive.run(REF)
    assert run.status == "complete"
    assert run.digest == digest
    assert run.attributes() == attributes
    assert run.info.name == "the name"
    assert len(run.manifest.files) == 5
    for order in (None, "attribute", "step"):
        assert_same(rows, read_rows(run, archive, order))
    assert snapshot(archive.files_path) == files
    assert [r.status for r in folder.runs()].count("unproven") == len(IDS) - 1


def test_adoption_of_a_run_with_missing_files_lists_them(staging):
    write_official(staging.data_path, staging.files_path, REF, everything())
    (staging.folder(REF.project_id).files / "run-1/model.bin").unlink()
    staging.folder(REF.project_id).adopt(staging.run(REF))
    run = staging.run(REF)
    assert run.status == "partial"
    assert [p.attribute for p in run.problems] == ["model"]
    assert_same([row for row in everything() if row.path != "model"], read_rows(run, staging))


def test_a_stray_can_be_adopted(staging):
    write_run(staging, REF, curve("loss", 3))
    late = RunRef(REF.project_id, "late")
    write_official(staging.data_path, staging.files_path, late, curve("loss", 5))
    folder = staging.folder(REF.project_id)
    folder.adopt(folder.stray(names.stem("late")))
    assert_same(curve("loss", 5), read_rows(staging.run(late), staging))
    assert folder.strays() == []


def test_a_removed_run_is_gone_and_its_neighbour_is_not(staging, small_pieces):
    other = RunRef(REF.project_id, "other")
    write_run(staging, REF, everything() + curve("more", 200))
    write_run(staging, other, everything())
    folder = staging.folder(REF.project_id)
    folder.remove(staging.run(REF))
    assert staging.run(REF) is None
    assert not [name for name in snapshot(staging.data_path.parent) if "run-1" in name]
    assert_same(everything(), read_rows(staging.run(other), staging))
    assert folder.lost() == {}


def test_kinds_have_folders_of_their_own(staging):
    refs = [RunRef("p/q", "X-1", "run"), RunRef("p/q", "X-1", "model"), RunRef("p/q", "X-1", "model_version")]
    for number, ref in enumerate(refs):
        write_run(staging, ref, [single("n", number), single("f", b"%d" % number)])
    for number, ref in enumerate(refs):
        assert_same([single("n", number), single("f", b"%d" % number)], read_rows(staging.run(ref), staging))
        (found,) = staging.runs(EVERYTHING, ref.kind)
        assert found.ref == ref


def test_parallel_first_exports_of_a_project_all_count(tmp_path):
    """Runs that mark a new area at the same time wait for each other."""
    for attempt in range(5):
        staging = Staging(tmp_path / str(attempt) / "data", tmp_path / str(attempt) / "files")
        refs = [RunRef("p/q", f"run-{n}") for n in range(8)]
        errors: list[BaseException] = []
        barrier = threading.Barrier(len(refs))

        def work(ref, staging=staging, errors=errors, barrier=barrier):
            barrier.wait()
            try:
                write_run(staging, ref, curve("loss", 3))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(ref,)) for ref in refs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(run.ref for run in staging.folder("p/q").runs()) == refs


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"project_id": 5}', "\0"])
def test_a_damaged_area_file_is_named(staging, content):
    write_run(staging, REF, curve("loss", 3))
    path = staging.folder(REF.project_id).data / "_manifest" / "area.json"
    path.write_text(content)
    with pytest.raises(DamagedDataError, match=r"area\.json is damaged"):
        staging.projects()
    if "{" not in content:
        with pytest.raises(DamagedDataError, match=r"area\.json is damaged"):
            staging.writer(RunInfo(REF), SourceRecord("memory", "here"))


def test_an_area_of_a_newer_version_is_not_written(staging):
    write_run(staging, REF, curve("loss", 3))
    path = staging.folder(REF.project_id).data / "_manifest" / "area.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99, "tool": "neptune-exporter 9"}))
    with pytest.raises(StagingError, match=r"newer version of neptune-exporter \(neptune-exporter 9\)"):
        staging.writer(RunInfo(REF), SourceRecord("memory", "here"), staging.run(REF))


def test_no_staging_area_is_explained(staging):
    with pytest.raises(StagingError, match="There is no staging area at") as raised:
        staging.projects()
    assert "--data-path" in raised.value.hint


def test_projects_are_found_by_what_they_hold(archive):
    write_run(archive, RunRef("other/project", "r"), [point("loss", 1, 0.5)])
    found = {folder.project_id: folder.data.name for folder in archive.projects()}
    assert found == {project: official_name(project) for project in ("acme/small", "acme/漢", "other/project")}
    assert {project: archive.folder(project).data.name for project in found} == found


def test_a_run_that_another_tool_names_otherwise_is_one_run(archive):
    """Union, adoption and removal find its parts, and nothing of it is left beside."""
    ref = RunRef("acme/small", "漢" * 60)
    folder = archive.folder(ref.project_id)
    rows = [*everything(), *curve("own", IDS.index(ref.run_id) + 1), single("sys/id", f"ACME-{IDS.index(ref.run_id)}")]
    folder.adopt(archive.run(ref))
    assert archive.run(ref).status == "complete"
    assert len(list(folder.runs())) == len(IDS)
    run = write_run(archive, ref, curve("new", 3), policy="union")
    assert_same([*rows, *curve("new", 3)], read_rows(run, archive))
    assert len(list(folder.runs())) == len(IDS)
    assert sorted(p.name for p in folder.data.glob(f"*{names.digest(ref.run_id)}_part_*")) == run.part_names()
    folder.remove(run)
    assert len(list(folder.runs())) == len(IDS) - 1
    assert folder.strays() == []
