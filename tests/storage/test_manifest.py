# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Manifests come back as they were, and identities are found in an archive without any."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from contracts.rows import batch_of, everything, single, write_run
from hypothesis import given
from hypothesis import strategies as st
from truth import Row

from neptune_exporter.errors import DamagedDataError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute
from neptune_exporter.model import RunInfo, RunRef, normalize
from neptune_exporter.selection import CLASSES, Selection
from neptune_exporter.storage import disk, names
from neptune_exporter.storage.identity import info_from_rows
from neptune_exporter.storage.manifest import FileEntry, Manifest, SourceRecord, Totals, read_json, read_manifest

REF = RunRef("team/manifests", "run-1")
TEXT = st.text(st.characters(), max_size=12)
TIMES = st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC))
PROBLEMS = st.builds(Problem, TEXT, TEXT | st.none(), st.sampled_from(["retry", "permanent"]), st.integers(1, 99))
PATHS = TEXT.filter(names.is_inside)
COUNTS = st.integers(0, 2**63 - 1)
ENTRIES = st.builds(FileEntry, PATHS, COUNTS, st.just("0" * 64))
REFS = st.builds(RunRef, TEXT, TEXT, st.sampled_from(["run", "model", "model_version"]))
INFOS = st.builds(
    RunInfo,
    REFS,
    name=TEXT | st.none(),
    parent=REFS | st.none(),
    fork_step=st.decimals(-(10**11), 10**11, places=6) | st.none(),
    created=TIMES | st.none(),
    failed=st.booleans() | st.none(),
)
SOURCES = st.builds(
    SourceRecord,
    TEXT,
    TEXT,
    st.dictionaries(TEXT, st.integers() | TEXT | st.none() | st.lists(TEXT), max_size=3),
    TIMES | st.none(),
    st.builds(
        Selection,
        attributes=st.lists(TEXT, min_size=2, max_size=3).map(tuple) | st.just(()),
        classes=st.frozensets(st.sampled_from(CLASSES)),
    ),
    st.lists(PROBLEMS, max_size=3).map(tuple),
    TIMES,
)
MANIFESTS = st.builds(
    Manifest,
    st.integers(1, 99),
    INFOS,
    st.lists(SOURCES, min_size=1, max_size=2).map(tuple),
    st.lists(st.builds(FileEntry, PATHS, COUNTS, st.just("a" * 64), COUNTS), max_size=2).map(tuple),
    st.lists(ENTRIES, max_size=2).map(tuple),
    ENTRIES,
    ENTRIES | st.none(),
    TEXT,
    st.builds(Totals, st.dictionaries(TEXT, st.tuples(COUNTS, COUNTS)), st.integers(-(2**63), 2**63 - 1) | st.none()),
    st.booleans(),
)


@given(MANIFESTS)
def test_a_manifest_comes_back(tmp_path_factory, manifest):
    path = tmp_path_factory.mktemp("manifests") / "run.json"
    disk.write_json(path, manifest.to_json())
    assert read_manifest(path) == manifest
    assert json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))["status"] == manifest.status


def test_a_manifest_can_be_read_by_people(staging):
    write_run(staging, REF, everything(), info=RunInfo(REF, name="the name", fork_step=Decimal("0.5")))
    (path,) = [p for p in staging.data_path.rglob("*.json") if p.name != "area.json"]
    content = json.loads(path.read_text())
    assert content["run"]["ref"] == ["team/manifests", "run-1", "run"]
    assert content["run"]["fork_step"] == "0.5"
    assert content["status"] == "complete"
    assert content["tool"].startswith("neptune-exporter ")
    assert len(path.read_text().splitlines()) > 20


def test_problems_are_those_of_all_sources():
    one, two = Problem("x", "a"), Problem("y", "b", "retry", 4)
    sources = (SourceRecord("a", "1", problems=(one,)), SourceRecord("b", "2", problems=(two,)), SourceRecord("c", "3"))
    manifest = Manifest(1, RunInfo(REF), sources, (), (), FileEntry("", 0, ""), None, "", Totals())
    assert manifest.problems == (one, two)
    assert manifest.status == "partial"


def test_totals_are_sums():
    attributes = [
        Attribute("a", "float_series", 10, 0, 5, 50, 0, 100, 200),
        Attribute("b", "float_series", 3, 0, -7, 9, 0, 50, 150),
        Attribute("c", "string", 1),
        Attribute("d", "string_series"),
    ]
    expected = {"float_series": (2, 13), "string": (1, 1), "string_series": (1, 0)}
    assert Totals.of(attributes) == Totals(expected, -7, 50, 50, 200)
    assert Totals.of([]) == Totals()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff", b'{"a": 1'])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DamagedDataError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StagingError, match=r"Cannot read .*x\.json"):
        read_json(tmp_path / "x.json")


def test_any_missing_member_is_damage(tmp_path, staging):
    run = write_run(staging, REF, everything())
    whole = run.manifest.to_json()
    for name in set(whole) - {"tool", "status"}:
        path = tmp_path / "run.json"
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(DamagedDataError, match=r"run\.json is not a manifest"):
            read_manifest(path)


def test_a_generation_after_which_none_can_follow_is_damage(tmp_path, staging):
    whole = write_run(staging, REF, everything()).manifest.to_json()
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**whole, "generation": 2**31 - 1}))
    read_manifest(path)
    path.write_text(json.dumps({**whole, "generation": 2**31}))
    with pytest.raises(DamagedDataError, match=r"run\.json is not a manifest"):
        read_manifest(path)


@pytest.mark.parametrize("step", ["NaN", "Infinity", "-Infinity"])
def test_a_fork_step_that_is_no_number_is_none(tmp_path, staging, step):
    """Manifests made of official archives may have one."""
    manifest = write_run(staging, REF, everything()).manifest.to_json()
    manifest["run"]["fork_step"] = step
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert read_manifest(tmp_path / "run.json").info.fork_step is None
    assert identity(single("sys/forking/step", float(step))).fork_step is None


# --- the identity of a run without a manifest


def identity(*rows: Row):
    batches = [normalize(batch_of(REF, rows[n : n + 2])) for n in range(0, len(rows), 2)]
    return info_from_rows(REF, batches)


def test_the_identity_is_what_the_rows_say():
    created = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    info = identity(
        single("sys/id", "TEAM-1"),
        single("sys/name", "the name"),
        single("lr", 0.1),
        single("sys/owner", "me"),
        single("sys/state", "Inactive", "string"),
        single("sys/failed", value=True),
        single("sys/creation_time", created),
        single("sys/modification_time", created),
        single("sys/experiment/name", "the experiment"),
        single("sys/forking/parent", "run-0"),
        single("sys/forking/step", 10.5),
    )
    assert info == RunInfo(
        REF,
        "the name",
        "TEAM-1",
        "the experiment",
        RunRef(REF.project_id, "run-0"),
        Decimal("10.5"),
        created,
        created,
        "me",
        "Inactive",
        failed=True,
    )


def test_values_of_other_types_are_no_identity():
    info = identity(
        single("sys/name", 5),
        single("sys/creation_time", "yesterday"),
        single("sys/failed", "no"),
        single("sys/id", 1.5),
    )
    assert info == RunInfo(REF)


def test_without_rows_there_is_the_id():
    assert identity() == RunInfo(REF)
