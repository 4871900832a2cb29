# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Selections, and what may be claimed of two exports: by brute force over a universe of attributes."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.errors import UsageError
from neptune_exporter.selection import CLASS_OF_TYPE, CLASSES, Selection

PATHS = ["loss", "metrics/loss", "a", "a/b", "a_b", "b", "ä", ""]
UNIVERSE = list(product(PATHS, CLASS_OF_TYPE))
ALL = frozenset(CLASSES)


def wanted(selection: Selection) -> set[tuple[str, str]]:
    return {(path, kind) for path, kind in UNIVERSE if selection.wants(path, kind)}


filters = (
    st.just(())
    | st.sampled_from([("loss",), ("^a",), ("a|b",), ("",)])
    | st.lists(st.sampled_from(PATHS), min_size=2, max_size=4).map(tuple)
)
selections = st.builds(Selection, attributes=filters, classes=st.frozensets(st.sampled_from(CLASSES)))


@given(selections, selections)
def test_what_covers_wants_everything_that_the_other_wants(a, b):
    if a.covers(b):
        assert wanted(b) <= wanted(a)


@given(selections)
def test_covers_is_not_too_modest(selection):
    assert Selection().covers(selection)
    assert selection.covers(selection)
    assert selection.covers(Selection(classes=frozenset()))


@given(selections, selections)
def test_what_is_done_and_what_goes_beyond_are_all_that_is_wanted(wish, done):
    rest = wish.beyond(done)
    assert wanted(done) | wanted(rest) >= wanted(wish)
    assert wanted(rest) <= wanted(wish)
    if done.covers(wish):
        assert not wanted(rest)


@given(selections, selections)
def test_two_exports_together_claim_nothing_that_neither_did(a, b):
    assert wanted(a.joined(b)) <= wanted(a) | wanted(b)


@given(selections, selections)
def test_the_latest_export_is_always_claimed(a, b):
    """`a.joined(b)`: a was exported before, b just now. Otherwise b would be exported again for ever."""
    assert wanted(a.joined(b)) >= wanted(b)
    assert a.joined(b).covers(b)


@given(selections, selections)
def test_after_going_beyond_the_wish_is_claimed(done, wish):
    assert wanted(done.joined(wish)) >= wanted(wish)


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (Selection(classes=frozenset({"metrics"})), Selection(classes=frozenset({"files"})), {"metrics", "files"}),
        (Selection(), Selection(classes=frozenset({"files"})), ALL),
        (Selection(classes=frozenset()), Selection(), ALL),
    ],
)
def test_classes_add_up(a, b, both):
    assert a.joined(b) == Selection(classes=frozenset(both))


def test_exact_names_add_up():
    assert Selection(attributes=("a", "b")).joined(Selection(attributes=("b", "loss"))).attributes == ("a", "b", "loss")


def test_only_the_missing_classes_are_fetched():
    done = Selection(classes=frozenset({"parameters"}))
    assert Selection().beyond(done).classes == ALL - {"parameters"}
    assert Selection(attributes=("loss",)).beyond(done) == Selection(attributes=("loss",), classes=ALL - {"parameters"})


def test_one_attribute_is_a_pattern_and_several_are_names():
    assert Selection(attributes=("loss",)).wants_attribute("metrics/loss")
    assert not Selection(attributes=("^loss",)).wants_attribute("metrics/loss")
    names = Selection(attributes=("loss", "a.b"))
    assert names.wants_attribute("loss")
    assert not names.wants_attribute("metrics/loss")
    assert not names.wants_attribute("a/b")


def test_runs_by_pattern_and_by_id():
    assert Selection().wants_run("anything")
    assert Selection(run_patterns=("RUN-*",)).wants_run("my RUN-12")
    assert Selection(run_patterns=("x", "2$")).wants_run("RUN-12")
    assert not Selection(run_patterns=("x", "3$")).wants_run("RUN-12")
    assert not Selection(run_ids=("RUN-1",)).wants_run("RUN-12")
    assert Selection(run_ids=("RUN-1", "RUN-12")).wants_run("RUN-12")
    assert not Selection(run_ids=("RUN-12",), run_patterns=("x",)).wants_run("RUN-12")


def test_projects():
    assert Selection().wants_project("ws/p")
    assert Selection(projects=("ws/p",)).wants_project("ws/p")
    assert not Selection(projects=("ws/p",)).wants_project("ws/p2")


def test_unknown_types_are_parameters_and_never_lost():
    assert Selection().wants("p", "type of the future")
    assert Selection(classes=frozenset({"parameters"})).wants("p", "type of the future")
    assert not Selection(classes=frozenset({"metrics"})).wants("p", "type of the future")


def test_whole_runs():
    assert Selection().whole_runs
    assert Selection(projects=("p",), run_ids=("r",)).whole_runs
    assert not Selection(attributes=("",)).whole_runs
    assert not Selection(classes=ALL - {"files"}).whole_runs


@pytest.mark.parametrize(
    "fields", [{"run_patterns": ("RUN-[",)}, {"attributes": ("*loss",)}, {"classes": frozenset({"metric"})}]
)
def test_what_makes_no_sense_is_refused_at_once(fields):
    with pytest.raises(UsageError) as caught:
        Selection(**fields)
    assert caught.value.hint


def test_several_exact_names_may_look_like_broken_patterns():
    assert Selection(attributes=("a[", "*b")).wants_attribute("*b")


@given(selections)
def test_a_manifest_records_attributes_and_classes(selection):
    text = json.dumps(selection.attributes_to_json())
    assert Selection.attributes_from_json(json.loads(text)) == selection
