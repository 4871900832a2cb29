# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`verify` of the staging area: every kind of damage, done by hand, is found and named."""

from __future__ import annotations

import hashlib
import json

import areas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from areas import PROJECT, TIME, flipped, floats, row, stage, text
from checking import checked, exit_code, findings, told

from neptune_exporter.errors import Problem, StagingError
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection
from neptune_exporter.storage.staging import Staging

ONE, TWO = RunRef(PROJECT, "RUN-1"), RunRef(PROJECT, "RUN-2")


@pytest.fixture
def area(tmp_path):
    """Two runs: 3,000 points and a file, and one parameter."""
    values = [0.001 * i for i in range(1000)]
    stage(
        tmp_path,
        "RUN-1",
        *(floats(ONE, f"metrics/{name}", values) for name in "abc"),
        text(ONE, "params/name", "adam"),
        files={"model": b"weights" * 100},
        empty=[("metrics/none", "float_series")],
    )
    stage(tmp_path, "RUN-2", text(TWO, "params/name", "sgd"))
    return tmp_path


def file_of(root):
    (path,) = (path for path in (root / "files").rglob("*") if path.is_file())
    return path


def rewritten(root, change):
    """Changes the rows of RUN-1 behind the manifest's back: part, size and checksum are made to agree."""
    part = areas.part(root, "RUN-1")
    rows = pq.read_table(part).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), part)

    def forge(manifest):
        data = part.read_bytes()
        manifest["parts"][0].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=len(rows))

    areas.changed_json(areas.manifest(root, "RUN-1"), forge)


def where(rows, path, step=None):
    return next(i for i, r in enumerate(rows) if r["attribute_path"] == path and (step is None or r["step"] == step))


@pytest.mark.parametrize("read_data", [False, True])
def test_nothing_is_found_where_nothing_is_wrong(area, read_data):
    found = checked(area, read_data=read_data)
    assert [(one.ref, one.status, one.findings, one.points) for one in sorted(found, key=lambda one: one.ref)] == [
        (ONE, "complete", (), 3002),
        (TWO, "complete", (), 1),
    ]


def test_processes_find_the_same(area):
    flipped(areas.part(area, "RUN-1"), 200)
    assert told(findings(area, read_data=True, executor="processes")) == told(findings(area, read_data=True))


# --- parts


def test_a_part_that_was_cut_short(area):
    part = areas.part(area, "RUN-1")
    part.write_bytes(part.read_bytes()[:-1])
    found = findings(area)
    assert told(found) == [("RUN-1", None, "part")]
    assert str(part) in found[0].message
    assert exit_code(found) == 4


def test_a_part_that_is_missing(area):
    areas.part(area, "RUN-1").unlink()
    assert told(findings(area)) == told(findings(area, read_data=True)) == [("RUN-1", None, "part")]


def test_a_part_with_other_rows_of_the_same_size_in_bytes(area):
    def forge(manifest):
        manifest["parts"][0]["rows"] += 1

    areas.changed_json(areas.manifest(area, "RUN-1"), forge)
    assert ("RUN-1", None, "part") in told(findings(area))


def test_one_bit_of_a_part_is_found_by_reading_the_data_only(area):
    flipped(areas.part(area, "RUN-1"), 200)
    assert findings(area) == []
    found = findings(area, read_data=True)
    assert ("RUN-1", None, "part") in told(found)
    assert exit_code(found) == 4


@pytest.mark.parametrize("offset", range(4, 30_000, 1711))
def test_every_bit_counts(area, offset):
    """Wherever it is: pages, their headers, the footer."""
    part = areas.part(area, "RUN-1")
    flipped(part, offset % part.stat().st_size)
    assert exit_code(findings(area, read_data=True)) == 4


def test_one_value_is_named_even_if_the_checksum_was_forged(area):
    def change(rows):
        rows[where(rows, "metrics/b", 500)]["float_value"] = 7.0

    rewritten(area, change)
    found = findings(area, read_data=True)
    assert told(found) == [("RUN-1", "metrics/b", "values")]
    assert exit_code(found) == 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows.pop(where(rows, "metrics/a", 3)), ("metrics/a", "count")),
        (lambda rows: rows.append(dict(rows[where(rows, "metrics/a", 3)])), ("metrics/a", "count")),
        (lambda rows: rows.pop(where(rows, "params/name")), ("params/name", "missing")),
        (
            lambda rows: rows[where(rows, "params/name")].update(attribute_path="params/other"),
            ("params/name", "missing"),
        ),
        (lambda rows: rows[where(rows, "metrics/a", 3)].update(timestamp=TIME), ("metrics/a", "values")),
        (
            lambda rows: rows[where(rows, "params/name")].update(attribute_type="int", string_value=None, int_value=3),
            ("params/name", "type"),
        ),
        (lambda rows: rows[where(rows, "metrics/a", 3)].update(run_id="RUN-9"), (None, "unknown")),
    ],
    ids=["row gone", "row doubled", "attribute gone", "attribute renamed", "time", "type", "another run's row"],
)
def test_changed_rows_are_found_by_attribute(area, change, expected):
    rewritten(area, change)
    found = findings(area, read_data=True)
    assert exit_code(found) == 4
    if expected[1] != "unknown":
        assert ("RUN-1", *expected) in told(found)


# --- files


def test_a_file_that_is_missing(area):
    file_of(area).unlink()
    found = findings(area)
    assert told(found) == [("RUN-1", "model", "file")]
    assert "is missing" in found[0].message


def test_a_file_that_was_cut_short(area):
    file_of(area).write_bytes(b"weights")
    found = findings(area)
    assert told(found) == [("RUN-1", "model", "file")]
    assert "7 bytes instead of 700" in found[0].message


def test_a_file_of_the_same_size_is_found_by_reading_it(area):
    flipped(file_of(area), 3)
    assert findings(area) == []
    assert told(findings(area, read_data=True)) == [("RUN-1", "model", "file")]


# --- manifests, indexes and what lies beside them


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "\x00"])
def test_a_damaged_manifest_is_named_and_the_rest_is_checked(area, content):
    areas.manifest(area, "RUN-1").write_text(content)
    file_of(area)
    areas.part(area, "RUN-2").unlink()
    found = findings(area)
    assert exit_code(found) == 4
    assert sorted(f.kind for f in found) == ["damaged", "part"]
    assert areas.manifest(area, "RUN-1").name in " ".join(f.message for f in found)


def test_a_manifest_from_a_newer_version_cannot_be_checked(area):
    areas.changed_json(areas.manifest(area, "RUN-1"), lambda manifest: manifest.update(format=2))
    found = findings(area)
    assert [f.kind for f in found] == ["unreadable"]
    assert "newer version" in found[0].message
    assert exit_code(found) == 3


def test_a_manifest_that_is_gone(area):
    areas.manifest(area, "RUN-1").unlink()
    found = findings(area)
    assert exit_code(found) == 4
    assert {f.kind for f in found} == {"lost", "unproven"}


def test_an_index_that_was_changed_or_is_gone(area):
    flipped(areas.index(area, "RUN-1"), 10)
    areas.index(area, "RUN-2").unlink()
    found = findings(area, read_data=True)
    assert told(found) == [("RUN-1", None, "damaged"), ("RUN-2", None, "damaged")]
    assert exit_code(found) == 4


def test_a_digest_that_does_not_add_up(area):
    areas.changed_json(areas.manifest(area, "RUN-1"), lambda manifest: manifest.update(digest="0" * 32))
    assert told(findings(area)) == [("RUN-1", None, "digest")]


def test_totals_that_do_not_add_up(area):
    areas.changed_json(areas.manifest(area, "RUN-1"), lambda m: m["totals"]["types"].update(float_series=[3, 2999]))
    assert told(findings(area)) == [("RUN-1", None, "digest")]


def test_a_damaged_project_is_named_and_the_others_are_checked(area):
    stage(area, "X", text(RunRef("acme/other", "X"), "a", "b"), project="acme/other")
    areas.part(area, "X", project="acme/other").unlink()
    (areas.folder(area) / "_manifest" / "area.json").write_text("nonsense")
    found = findings(area)
    assert sorted((f.project, f.kind) for f in found) == [("", "damaged"), ("acme/other", "part")]


def test_all_damage_is_found_in_one_go(area):
    flipped(areas.part(area, "RUN-1"), 200)
    file_of(area).unlink()
    areas.index(area, "RUN-2").unlink()
    areas.official(area, "RUN-3", *[[row("x", "int", int_value=1)]] * 3)
    areas.part(area, "RUN-3", 1).unlink()
    kinds = {(run, kind) for run, _, kind in told(findings(area, read_data=True))}
    assert kinds >= {
        ("RUN-1", "part"),
        ("RUN-1", "file"),
        ("RUN-2", "damaged"),
        ("RUN-3", "part"),
        ("RUN-3", "unproven"),
    }


# --- partial and unproven runs


def test_partial_runs_are_listed_and_no_difference(tmp_path):
    stage(
        tmp_path,
        "RUN-1",
        text(ONE, "a", "b"),
        problems=[Problem("No such file.", "model"), Problem("Busy.", "x", "retry")],
    )
    found = findings(tmp_path, read_data=True)
    assert told(found) == [("RUN-1", "model", "partial"), ("RUN-1", "x", "partial")]
    assert exit_code(found) == 0
    assert [one.status for one in checked(tmp_path)] == ["partial"]


def official(root):
    areas.official(
        root,
        "RUN-1",
        [row("loss", "float_series", step=i, timestamp=TIME, float_value=i / 7) for i in range(100)],
        [row("loss", "float_series", step=100, timestamp=TIME), row("model", "file", file_value={"path": "RUN-1/m"})],
    )
    files = root / "files" / areas.stem(PROJECT) / "RUN-1"
    files.mkdir()
    (files / "m").write_bytes(b"abc")


@pytest.mark.parametrize("read_data", [False, True])
def test_official_archives_are_unproven_and_no_difference(tmp_path, read_data):
    official(tmp_path)
    found = findings(tmp_path, read_data=read_data)
    assert told(found) == [("RUN-1", None, "unproven")]
    assert exit_code(found) == 0
    assert [one.points for one in checked(tmp_path)] == [101]


def test_damage_of_official_archives_is_a_difference(tmp_path):
    official(tmp_path)
    (tmp_path / "files" / areas.stem(PROJECT) / "RUN-1" / "m").unlink()
    found = findings(tmp_path)
    assert told(found) == [("RUN-1", "model", "file"), ("RUN-1", None, "unproven")]
    areas.part(tmp_path, "RUN-1", 1).write_bytes(b"PAR1")
    assert exit_code(findings(tmp_path)) == 4


def test_write_manifests_proves_what_is_there_from_now_on(tmp_path):
    official(tmp_path)
    before = areas.part(tmp_path, "RUN-1").read_bytes()
    found = findings(tmp_path, write_manifests=True)
    assert told(found) == [("RUN-1", None, "adopted")]
    assert exit_code(found) == 0
    assert areas.part(tmp_path, "RUN-1").read_bytes() == before
    assert findings(tmp_path, read_data=True) == []

    flipped(areas.part(tmp_path, "RUN-1"), 60)
    assert exit_code(findings(tmp_path, read_data=True)) == 4


def test_write_manifests_takes_strays_too(tmp_path):
    stage(tmp_path, "RUN-2", text(TWO, "a", "b"))
    official(tmp_path)
    assert told(findings(tmp_path)) == [("RUN-1", None, "unproven")]
    assert told(findings(tmp_path, write_manifests=True)) == [("RUN-1", None, "adopted")]
    assert findings(tmp_path, read_data=True) == []
    assert areas.staging(tmp_path).run(ONE) is not None


def test_an_adopted_run_that_lacks_a_file_is_partial(tmp_path):
    official(tmp_path)
    (tmp_path / "files" / areas.stem(PROJECT) / "RUN-1" / "m").unlink()
    assert exit_code(findings(tmp_path, write_manifests=True)) == 4
    found = findings(tmp_path)
    assert told(found) == [("RUN-1", "model", "partial")]


def test_what_cannot_be_read_is_not_adopted(tmp_path):
    official(tmp_path)
    part = areas.part(tmp_path, "RUN-1", 1)
    part.write_bytes(part.read_bytes()[:-10])
    found = findings(tmp_path, write_manifests=True)
    assert exit_code(found) == 4
    assert not areas.manifest(tmp_path, "RUN-1").exists()


def test_a_run_that_was_here_before_us_and_is_gone(tmp_path):
    official(tmp_path)
    stage(tmp_path, "RUN-2", text(TWO, "a", "b"))
    for path in areas.folder(tmp_path).glob(f"{areas.stem('RUN-1')}*"):
        path.unlink()
    found = findings(tmp_path)
    assert [f.kind for f in found] == ["lost"]
    assert areas.stem("RUN-1") in found[0].message


def test_an_official_run_without_its_first_part(tmp_path):
    official(tmp_path)
    areas.official(tmp_path, "RUN-2", [row("x", "int", int_value=1)])
    areas.part(tmp_path, "RUN-1", 0).unlink()
    assert sorted(f.kind for f in findings(tmp_path)) == ["lost", "unproven"]


# --- what is asked for


def test_only_the_runs_that_are_asked_for(area):
    areas.part(area, "RUN-1").unlink()
    assert findings(area, Selection(run_ids=("RUN-2",))) == []
    assert [one.ref for one in checked(area, Selection(run_ids=("RUN-2",)))] == [TWO]


def test_a_dry_run_checks_and_writes_nothing(area):
    areas.part(area, "RUN-1").unlink()
    planned = checked(area, dry_run=True, write_manifests=True)
    assert sorted((one.ref.run_id, one.status, one.points) for one in planned) == [
        ("RUN-1", "planned", 3002),
        ("RUN-2", "planned", 1),
    ]


def test_no_area(tmp_path):
    with pytest.raises(StagingError, match="no staging area"):
        findings(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(StagingError, match="does not hold any"):
        findings(tmp_path)


def test_findings_are_json(area):
    areas.part(area, "RUN-1").unlink()
    (found,) = findings(area)
    value = json.loads(json.dumps(found.to_json()))
    assert value == {
        "level": "difference",
        "project": PROJECT,
        "run": "RUN-1",
        "attribute": None,
        "kind": "part",
        "message": found.message,
        "where": "staging",
        "run_kind": "run",
    }


def test_an_area_elsewhere_is_as_good(area, tmp_path_factory):
    """Nothing in a manifest depends on where the area lies."""
    moved = tmp_path_factory.mktemp("moved") / "area"
    area.rename(moved)
    assert Staging(moved / "data", moved / "files").run(ONE) is not None
    assert findings(moved, read_data=True) == []
