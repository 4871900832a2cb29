# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The writer: what becomes of the rows, files, findings and problems that were there, by policy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pyarrow as pa
import pytest
from contracts.official import write_official
from contracts.rows import (
    OFFICIAL,
    assert_same,
    batch_of,
    curve,
    everything,
    point,
    read_rows,
    rows_on_disk,
    single,
    snapshot,
    write_run,
)

from neptune_exporter.errors import DamagedDataError, InterruptedRunError, Problem
from neptune_exporter.fingerprint import Fingerprint, run_digest
from neptune_exporter.model import OutsideValue, RunInfo, RunRef
from neptune_exporter.storage import names
from neptune_exporter.storage.manifest import SourceRecord, read_manifest

REF = RunRef("team/writer", "run-1")
SOURCE, OTHER = SourceRecord("memory", "here"), SourceRecord("memory", "there")


def export(staging, rows, policy="replace", *, source=SOURCE, problems=(), outside=(), empty=()):
    writer = staging.writer(RunInfo(REF), source, staging.run(REF), policy)
    writer.write(batch_of(REF, rows, writer.files))
    for problem in problems:
        writer.problem(problem)
    for value in outside:
        writer.outside(value)
    for path, kind in empty:
        writer.empty(path, kind)
    writer.commit()
    return staging.run(REF)


def outside(attribute, value="1", reason="a step of 1e12"):
    return OutsideValue(attribute, "float_series", reason, value, "1000000000000", None)


def kept_beside(run):
    return [OutsideValue(**json.loads(line)) for line in (run.extra() or b"").decode().splitlines()]


def manifest_folder(staging):
    return staging.folder(REF.project_id).data / "_manifest"


def test_the_manifest_names_everything(staging, small_pieces):
    run = export(staging, everything() + curve("more", 200), outside=[outside("far")])
    folder = staging.folder(REF.project_id)
    manifest = read_manifest(manifest_folder(staging) / f"{names.stem(REF.run_id)}.json")
    for entry, root in [
        *((part, folder.data) for part in manifest.parts),
        *((file, folder.files) for file in manifest.files),
        (manifest.index, manifest_folder(staging)),
        (manifest.extra, manifest_folder(staging)),
    ]:
        content = (root / entry.path).read_bytes()
        assert entry.bytes == len(content)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert len(manifest.parts) > 2
    assert len(manifest.files) == 5
    on_disk = {name for name in (*snapshot(folder.data), *snapshot(folder.files)) if not name.endswith(".lock")}
    on_disk.remove("_manifest/area.json")
    named = {p.path for p in manifest.parts} | {f.path for f in manifest.files}
    stem = names.stem(REF.run_id)
    assert on_disk == named | {f"_manifest/{stem}{end}" for end in (".json", ".parquet", ".extra.jsonl")}
    assert run.digest == run_digest(run.attributes(), manifest.extra.sha256)


def test_the_index_is_the_fingerprint_of_what_was_given(staging, small_pieces):
    rows = everything() + curve("more", 200)
    run = export(staging, rows, empty=[("nothing", "float_series"), ("loss", "float_series")])
    content = {row.path: row.value for row in rows if isinstance(row.value, bytes)}
    expected = Fingerprint(run.files.hash_content)
    for batch in run.read():
        expected.write(batch)
    assert [a for a in run.attributes() if a.rows] == expected.attributes()
    assert [a[:3] for a in run.attributes() if not a.rows] == [("nothing", "float_series", 0)]
    assert len(content) == 3


def test_totals_are_those_of_the_rows(staging):
    totals = export(staging, everything()).manifest.totals
    assert totals.types["float_series"] == (1, 43)
    assert totals.types["file_series"] == (1, 3)
    assert totals.types["int"] == (1, 1)
    assert (totals.first_step, totals.last_step) == (-1_250_000, 41_000_001)


# --- replace


def test_replace_leaves_the_new_rows_and_files(staging, small_pieces):
    export(staging, everything() + curve("gone", 300), outside=[outside("far")], empty=[("nothing", "float_series")])
    new = [*curve("loss", 20, seed=1), single("model", b"new"), single("sys/tags", frozenset("z"))]
    run = export(staging, new)
    assert run.generation == 2
    assert_same(new, read_rows(run, staging))
    assert_same(new, rows_on_disk(staging, REF))
    assert kept_beside(run) == []
    assert [a.path for a in run.attributes()] == ["loss", "model", "sys/tags"]
    files = staging.folder(REF.project_id).files
    assert list(snapshot(files).values()) == [b"new"]
    assert not (manifest_folder(staging) / f"{names.stem(REF.run_id)}.extra.jsonl").exists()


def test_a_re_export_never_leaves_less_than_there_was(staging, small_pieces):
    """An attribute that fails now keeps its rows, files and values beside the run, and what was wrong with them."""
    cut = Problem("cut short", "far", "permanent", 3)
    old = [
        *curve("loss", 100),
        *curve("far", 10),
        *(point("images", n, b"%d" % n, n) for n in range(3)),
        single("a", 1),
    ]
    export(staging, old, problems=[cut], outside=[outside("far"), outside("loss")])
    timeout = [Problem("timed out", path, "retry") for path in ("images", "far")]
    run = export(staging, [*curve("loss", 120), single("b", 2)], problems=timeout)
    kept = [row for row in old if row.path in ("images", "far")]
    assert_same([*curve("loss", 120), single("b", 2), *kept], read_rows(run, staging))
    assert kept_beside(run) == [outside("far")]
    assert cut in run.problems
    assert set(timeout) < set(run.problems)
    assert not any(p.attribute == "loss" for p in run.problems)
    assert run.status == "partial"


def test_an_attribute_that_half_fails_has_the_points_of_both(staging):
    export(staging, curve("loss", 50))
    half = [row for row in curve("loss", 80) if row.step >= 40]
    run = export(staging, half, problems=[Problem("a page is missing", "loss", "retry")])
    assert_same(curve("loss", 80), read_rows(run, staging))


def test_a_run_that_fails_as_a_whole_keeps_all(staging):
    old = [*curve("loss", 50), single("a", 1), single("b", 1)]
    export(staging, old, outside=[outside("far")], empty=[("nothing", "int")])
    run = export(staging, [single("a", 2)], problems=[Problem("the listing broke off", None, "retry")])
    assert_same([*curve("loss", 50), single("a", 2), single("b", 1)], read_rows(run, staging))
    assert kept_beside(run) == [outside("far")]
    assert ("nothing", "int") in [a[:2] for a in run.attributes()]


def test_replace_does_not_read_what_it_does_not_keep(staging):
    """A run whose parts or index are damaged can be exported again, as the hint says."""
    export(staging, everything())
    folder = staging.folder(REF.project_id)
    for path in [*folder.data.glob("*.parquet"), *manifest_folder(staging).glob("*.parquet")]:
        path.write_bytes(b"damaged")
    run = export(staging, curve("loss", 5))
    assert_same(curve("loss", 5), read_rows(run, staging))


def test_what_must_be_kept_and_cannot_be_read_is_an_error(staging):
    export(staging, everything())
    before = snapshot(staging.data_path.parent)
    (part,) = staging.folder(REF.project_id).data.glob("*.parquet")
    part.write_bytes(b"damaged")
    writer = staging.writer(RunInfo(REF), SOURCE, staging.run(REF))
    writer.problem(Problem("timed out", "loss", "retry"))
    with pytest.raises(DamagedDataError, match=part.name):
        writer.commit()
    writer.abort()
    after = snapshot(staging.data_path.parent)
    assert {k for k in before if before[k] != after.get(k)} == {str(part.relative_to(staging.data_path.parent))}


# --- extend


def test_extend_takes_the_place_of_what_was_exported_anew_and_keeps_the_rest(staging, small_pieces):
    old = [*curve("loss", 90), *curve("bad", 10), single("a", 1), single("model", b"m")]
    failed = Problem("timed out", "bad", "retry")
    export(staging, old, problems=[failed], outside=[outside("far")])
    new = curve("bad", 50, seed=1)
    run = export(staging, new, "extend")
    expected = [row for row in old if row.path != "bad"] + new
    assert_same(expected, read_rows(run, staging))
    assert kept_beside(run) == [outside("far")]
    assert run.generation == 2
    assert staging.folder(REF.project_id).files.joinpath("run").exists() is False
    assert [e.path for e in run.manifest.files] == [f"{names.stem(REF.run_id)}/model.bin"]


def test_extend_settles_what_was_exported_anew(staging):
    problems = [Problem("timed out", "bad", "retry"), Problem("lost", "worse", "permanent", 7)]
    export(staging, curve("bad", 3), problems=problems)
    standing = SourceRecord("memory", "here", problems=tuple(problems))
    run = export(staging, curve("bad", 5), "extend", source=standing)
    assert run.problems == (problems[1],)


def test_extend_keeps_the_rows_of_what_fails_again(staging):
    failed = Problem("timed out", "bad", "retry")
    export(staging, curve("bad", 3), problems=[failed])
    run = export(staging, curve("new", 5), "extend", problems=[failed])
    assert_same([*curve("bad", 3), *curve("new", 5)], read_rows(run, staging))
    assert run.problems == (failed,)


def test_an_empty_answer_takes_nothing_away(staging):
    export(staging, curve("loss", 3))
    run = export(staging, [], "extend", empty=[("loss", "float_series")])
    assert_same(curve("loss", 3), read_rows(run, staging))


# --- union


def test_union_keeps_the_problems_of_each_source(staging):
    theirs, ours = Problem("damaged", "a", "permanent", 9), Problem("timed out", "a", "retry")
    export(staging, [], source=OTHER, problems=[theirs])
    run = export(staging, [], "union", problems=[ours])
    assert {s.name: s.problems for s in run.sources} == {OTHER.name: (theirs,), SOURCE.name: (ours,)}
    assert run.problems == (theirs, ours)
    run = export(staging, [], "union")
    assert run.problems == (theirs,)


def test_union_keeps_the_values_beside_the_run_of_both(staging):
    export(staging, [], source=OTHER, outside=[outside("a", "1"), outside("b", "1")])
    run = export(staging, [], "union", outside=[outside("b", "1"), outside("b", "2")])
    assert kept_beside(run) == [outside("a", "1"), outside("b", "1"), outside("b", "2")]


def test_what_another_tool_left_counts_as_a_source(staging):
    write_official(staging.data_path, staging.files_path, REF, curve("old", 20))
    run = export(staging, curve("new", 5), "union")
    assert [source.name for source in run.sources] == [("unknown", "unknown"), SOURCE.name]
    assert_same([*curve("old", 20), *curve("new", 5)], read_rows(run, staging))


def test_files_of_another_tool_stay_where_they_are(staging):
    write_official(staging.data_path, staging.files_path, REF, everything())
    before = snapshot(staging.files_path)
    run = export(staging, [single("extra", b"x")], "union")
    assert_same([*everything(), single("extra", b"x")], read_rows(run, staging))
    after = snapshot(staging.files_path)
    assert {k: v for k, v in after.items() if k in before} == before
    export(staging, everything())
    assert {k: v for k, v in snapshot(staging.files_path).items() if k in before} == before


# --- findings


def test_values_outside_the_schema_cost_nothing_else(staging):
    """Loss 4: one bad value lost its batch."""
    values = [outside("loss", "1"), outside("loss", "2"), outside("s", "\\ud800", "text with a lone surrogate")]
    run = export(staging, curve("loss", 5), outside=values)
    assert_same(curve("loss", 5), read_rows(run, staging))
    assert kept_beside(run) == values
    assert [asdict(p) for p in run.problems] == [
        asdict(Problem("Kept beside the run: a step of 1e12.", "loss", "permanent", 2)),
        asdict(Problem("Kept beside the run: text with a lone surrogate.", "s", "permanent", 1)),
    ]


def test_a_lone_surrogate_is_kept_exactly(staging):
    value = OutsideValue("s\udcff", "string_series", "a lone surrogate", "x\ud800", None, "2026-01-01T00:00:00Z")
    run = export(staging, [], outside=[value], problems=[Problem("odd \ud800", "s\udcff")])
    assert kept_beside(run) == [value]
    assert run.problems[0].message == "odd \ud800"


def test_attributes_without_values_are_known(staging):
    """Loss 9: empty series left no trace."""
    run = export(staging, [single("a", 1)], empty=[("e", "float_series"), ("a", "int")])
    assert [(a.path, a.type, a.rows) for a in run.attributes()] == [("a", "int", 1), ("e", "float_series", 0)]
    assert run.manifest.totals.types == {"int": (1, 1), "float_series": (1, 0)}


def test_rows_without_a_value_are_dropped(staging):
    writer = staging.writer(RunInfo(REF), SOURCE)
    names_only = {"project_id": REF.project_id, "run_id": REF.run_id, "attribute_path": "e", "attribute_type": "int"}
    writer.write(pa.RecordBatch.from_pylist([names_only, {**names_only, "int_value": 5}], schema=OFFICIAL))
    writer.commit()
    assert_same([single("e", 5)], rows_on_disk(staging, REF))


# --- giving up


@pytest.mark.parametrize("before", [None, "old"])
def test_an_abort_leaves_the_folder_as_it_was(staging, small_pieces, before):
    if before:
        export(staging, everything())
    else:
        staging.writer(RunInfo(REF), SOURCE).abort()
    known = snapshot(staging.data_path.parent)
    writer = staging.writer(RunInfo(REF), SOURCE, staging.run(REF))
    writer.write(batch_of(REF, everything() + curve("more", 300), writer.files))
    writer.abort()
    assert snapshot(staging.data_path.parent) == known


def test_a_stop_while_committing_leaves_the_folder_as_it_was(staging, small_pieces):
    export(staging, everything())
    known = snapshot(staging.data_path.parent)
    asked = iter([False, False, True])
    writer = staging.writer(RunInfo(REF), SOURCE, staging.run(REF), "replace", lambda: next(asked))
    writer.write(batch_of(REF, everything() + curve("more", 300), writer.files))
    with pytest.raises(InterruptedRunError):
        writer.commit()
    writer.abort()
    assert snapshot(staging.data_path.parent) == known


def test_files_that_no_row_names_are_removed(staging):
    writer = staging.writer(RunInfo(REF), SOURCE)
    writer.files.add("forgotten", "", [b"x"])
    writer.write(batch_of(REF, [single("model", b"y")], writer.files))
    writer.commit()
    assert list(snapshot(staging.folder(REF.project_id).files).values()) == [b"y"]


def test_two_runs_do_not_touch_each_other(staging):
    """Loss 7: `run.1` and `run_1` shared a path."""
    refs = [RunRef(REF.project_id, run_id) for run_id in ("run.1", "run_1", "RUN_1", "run_1_part_0", "..", "a/b", "a")]
    for number, ref in enumerate(refs):
        write_run(staging, ref, [*curve("loss", number + 1), single("model", b"%d" % number)])
    for number, ref in enumerate(refs):
        assert_same([*curve("loss", number + 1), single("model", b"%d" % number)], read_rows(staging.run(ref), staging))
        assert_same([*curve("loss", number + 1), single("model", b"%d" % number)], rows_on_disk(staging, ref))
    assert sorted(run.ref for run in staging.folder(REF.project_id).runs()) == sorted(refs)
