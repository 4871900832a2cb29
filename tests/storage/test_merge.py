# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Two exports of one run together, against Python sets of rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from contracts.rows import START, assert_same, curve, everything, point, read_rows, single, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from truth import HistogramValue, Row

from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage import sort
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging

REF = RunRef("team/merge", "run-1")
EARLIER, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
HEAD = SourceRecord("neptune3", "https://server", as_of=EARLIER)
TAIL = SourceRecord("offline", "offline", as_of=LATER)


def both(staging, first, second, sources=(HEAD, TAIL)):
    write_run(staging, REF, first, source=sources[0])
    run = write_run(staging, REF, second, source=sources[1], policy="union")
    return read_rows(run, staging)


def union(first: list[Row], second: list[Row], *, second_wins: bool) -> list[Row]:
    """What must come of two exports, by the definition."""
    winner, loser = (second, first) if second_wins else (first, second)
    taken = {row.path for row in winner if row.step is None}
    points = {row.key: row for row in [*first, *second] if row.step is not None}
    singles = [row for row in winner if row.step is None]
    singles += [row for row in loser if row.step is None and row.path not in taken]
    return [*points.values(), *singles]


@pytest.mark.parametrize("sources", [(HEAD, TAIL), (TAIL, HEAD)], ids=["head first", "tail first"])
@pytest.mark.parametrize("small", [True, False], ids=["many blocks", "one block"])
def test_a_partly_synced_tail_and_the_servers_head(staging, small, sources, request):
    if small:
        request.getfixturevalue("small_pieces")
    head = [
        *curve("loss", 100),
        *curve("only/server", 20),
        *(point("log", n, f"line {n}", n) for n in range(60)),
        single("lr", 0.1),
        single("only/config", "server"),
        single("model", b"first"),
    ]
    tail = [
        *(row for row in curve("loss", 160) if row.step >= 80),
        *curve("only/offline", 30),
        *(point("log", n, f"line {n}", n) for n in range(50, 90)),
        single("lr", 0.2),
        single("note", "offline"),
        single("model", b"second"),
        point("weights", 0, HistogramValue("COUNTING", (0.0, 1.0), (2.0,)), 0),
    ]
    first, second = (head, tail) if sources[0] is HEAD else (tail, head)
    found = both(staging, first, second, sources)
    assert_same(union(first, second, second_wins=sources[0] is HEAD), found)
    assert [row.value for row in found if row.path == "lr"] == [0.2]  # what was written later wins, not what came later
    assert [row.value for row in found if row.path == "model"] == [b"second"]


def test_the_sources_are_both_recorded(staging):
    both(staging, curve("loss", 3), curve("loss", 5))
    assert [source.name for source in staging.run(REF).sources] == [HEAD.name, TAIL.name]


ROWS = st.lists(
    st.one_of(
        st.builds(
            point,
            st.sampled_from(["a", "b"]),
            st.integers(0, 4),
            st.sampled_from([0.0, -0.0, float("nan"), 1.5]),
            st.integers(0, 3).map(lambda n: n * 10),
        ),
        st.builds(point, st.sampled_from(["s", "a"]), st.integers(0, 2), st.sampled_from(["x", "y"]), st.just(0)),
        st.builds(single, st.sampled_from(["p", "q", "r"]), st.sampled_from([0.0, -0.0, 1, True, "x", b"x", b"y"])),
    ),
    max_size=25,
    unique_by=lambda row: row.key if row.step is not None else row.path,
)


@settings(max_examples=60)
@given(ROWS, ROWS, st.booleans(), st.integers(2, 40))
def test_any_two_exports(tmp_path_factory, first, second, second_wins, chunk):
    root = tmp_path_factory.mktemp("merge")
    staging = Staging(root / "data", root / "files")
    sources = (HEAD, TAIL) if second_wins else (TAIL, HEAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sort, "CHUNK_ROWS", chunk)
        patch.setattr(sort, "BLOCK_ROWS", 3)
        found = both(staging, first, second, sources)
    assert_same(union(first, second, second_wins=second_wins), found)


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_point_counts_once_if_its_time_was_rounded_otherwise(staging, shift):
    moved = [replace(row, time=row.time + timedelta(milliseconds=shift)) for row in curve("loss", 50)]
    assert_same(curve("loss", 50), both(staging, curve("loss", 50), moved))


def test_points_two_milliseconds_apart_are_two(staging):
    moved = [replace(row, time=row.time + timedelta(milliseconds=2)) for row in curve("loss", 50)]
    assert_same(curve("loss", 50) + moved, both(staging, curve("loss", 50), moved))


def test_the_same_time_counts_before_a_neighbouring_one(staging):
    """Two points a millisecond apart that both exports agree on, and one that only the second has."""
    old = [point("s", 1, "x", 100)]
    new = [point("s", 1, "x", 100), point("s", 1, "x", 101)]
    assert_same(new, both(staging, old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.0, -0.0),
        (float("nan"), 0.0),
        (1.0, 1.0000000000000002),
        ("x", "x "),
        (b"x", b"y"),
        (HistogramValue("COUNTING", (0.0, 1.0), (1.0,)), HistogramValue("DENSITY", (0.0, 1.0), (1.0,))),
    ],
)
def test_points_with_other_values_are_two(staging, old, new):
    first, second = point("s", 1, old, 5), point("s", 1, new, 5)
    assert_same([first, second], both(staging, [first], [second]))


@pytest.mark.parametrize("value", [float("nan"), -0.0, float("inf"), "", "ü", b"", b"file"])
def test_points_with_the_same_value_are_one(staging, value):
    assert_same([point("s", 1, value, 5)], both(staging, [point("s", 1, value, 5)], [point("s", 1, value, 5)]))


def test_points_without_a_time_are_told_apart_by_the_rest(staging):
    rows = [replace(row, time=None) for row in curve("loss", 10)]
    assert_same(rows, both(staging, rows, rows))


@pytest.mark.parametrize("chunk", [2, 1000])
@pytest.mark.parametrize("second_wins", [True, False])
def test_a_single_value_whose_type_changed_has_one_winner(staging, monkeypatch, chunk, second_wins):
    """Wherever blocks end: rows of one path and two types are not neighbours."""
    monkeypatch.setattr(sort, "CHUNK_ROWS", chunk)
    monkeypatch.setattr(sort, "BLOCK_ROWS", 1)
    first = [single("p", 1), *curve("p", 5), single("q", "x"), single("r", True)]
    second = [single("p", "text"), single("q", 2), *curve("q", 5), single("r", 0.5)]
    found = both(staging, first, second, (HEAD, TAIL) if second_wins else (TAIL, HEAD))
    assert_same(union(first, second, second_wins=second_wins), found)


def test_tags_are_joined(staging):
    first = [
        single("sys/tags", frozenset("ab")),
        single("sys/group_tags", frozenset("x")),
        single("set", frozenset("a")),
    ]
    second = [single("sys/tags", frozenset("bc")), single("set", frozenset("b")), single("sys/name", "n")]
    expected = [
        single("sys/tags", frozenset("abc")),
        single("sys/group_tags", frozenset("x")),
        single("set", frozenset("b")),
        single("sys/name", "n"),
    ]
    assert_same(expected, both(staging, first, second))


def test_the_same_again_adds_nothing(staging, small_pieces):
    rows = everything() + curve("more", 150)
    found = both(staging, rows, rows)
    assert_same(rows, found)
    files = staging.folder(REF.project_id).files
    assert len([p for p in files.rglob("*") if p.is_file()]) == 5  # of each file there is one copy


def test_the_identity_is_that_of_the_later_one(staging):
    head = RunInfo(REF, name="head", owner="me", modified=START)
    tail = RunInfo(REF, name="tail", modified=START + timedelta(days=1), state="Active")
    write_run(staging, REF, [], source=TAIL, info=tail)
    run = write_run(staging, REF, [], source=HEAD, info=head, policy="union")
    assert run.info == replace(tail, owner="me")
