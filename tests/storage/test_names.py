# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Names on disk: the official exporter's for ordinary names, and never one file for two names."""

from __future__ import annotations

import unicodedata

import pytest
from contracts.official import official_name
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.storage import names

TEXT = st.text(st.characters(), min_size=1, max_size=60)
HOSTILE = [
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../b",
    "con",
    "COM1",
    "com¹",
    "nul.txt",
    "con .txt",
    "a\0b",
    "a\\..\\b",
    "c:\\windows",
    ".hidden",
    "trailing.",
    "trailing ",
    "a//b",
    "",
    "a:b",
    "tab\tname",
    "line\nname",
    "\ud800",
    "é",
    unicodedata.normalize("NFD", "é"),
    "x" * 5000,
    "漢" * 300,
    "/".join("d" * 40),
]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("acme/small", "acme_small-70e900ce600857c1"),
        ("acme/bulk", "acme_bulk-638e442f654f563b"),
        ("run-00002", "run-00002-0a6ce3f63ea9937a"),
        ("run-00000", "run-00000-427beaaab6d48884"),
        ("sim-ws/demo", "sim-ws_demo-ffcc6cab54b6ec4d"),
        ("DEMO-1", "DEMO-1-02300346818d8079"),
        ("DEMO-10", "DEMO-10-9d654f713f83a81d"),
    ],
)
def test_stems_are_those_of_the_official_exporter(name, stem):
    assert names.stem(name) == stem == official_name(name)


def test_ids_over_215_bytes_can_be_written(tmp_path):
    """Loss 15."""
    stems = {names.stem("漢" * 300 + end) for end in ("", "a", "b")}
    assert len(stems) == 3
    for stem in stems:
        assert len(stem.encode()) <= names.STEM_BYTES
        assert stem.startswith("漢" * 61 + "-")
        (tmp_path / f"{names.part_name(stem, 10**6)}").touch()
        (tmp_path / f"{stem}.g1000000.part_1000000.tmp").touch()


@pytest.mark.parametrize("name", HOSTILE)
def test_stems_are_harmless(name, tmp_path):
    stem = names.stem(name)
    assert all(c.isalnum() or c in "_-" for c in stem)
    assert len(stem.encode()) <= names.STEM_BYTES
    (tmp_path / stem).touch()
    assert [p.name for p in tmp_path.iterdir()] == [stem]


@given(TEXT, TEXT)
def test_two_names_never_share_a_stem(first, second):
    assert (names.stem(first) == names.stem(second)) == (first == second)
    if first != second:
        assert names.collision_key(names.stem(first)) != names.collision_key(names.stem(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("run.1", "run_1"),
        ("a.b", "a_b"),
        ("A", "a"),
        ("é", unicodedata.normalize("NFD", "é")),
        ("x" * 300, "x" * 301),
        ("ß", "ss"),
    ],
)
def test_names_that_look_alike_have_other_stems(first, second):
    """Loss 7."""
    assert names.collision_key(names.stem(first)) != names.collision_key(names.stem(second))


@given(TEXT, st.integers(0, 999))
def test_part_names_are_read_back_whatever_the_id(run_id, number):
    """Loss 13: an id may contain `_part_0`."""
    for tricky in (run_id, f"{run_id}_part_0", f"{run_id}_part_0.parquet", f"_part_{number}"):
        stem = names.stem(tricky)
        assert names.parse_part(names.part_name(stem, number)) == (stem, number)


@pytest.mark.parametrize(
    "name",
    [
        "run_part_0.parquet",
        "run-0a6ce3f63ea9937a_part_.parquet",
        "run-0a6ce3f63ea9937a_part_00.parquet",
        "run-0a6ce3f63ea9937a_part_٣.parquet",
        "run-0a6ce3f63ea9937a_part_0.parquet.tmp",
        "run-0a6ce3f63ea9937A_part_0.parquet",
        "run-0a6ce3f63ea9937a.json",
        "area.json",
    ],
)
def test_other_files_are_not_parts(name):
    assert names.parse_part(name) is None


@pytest.mark.parametrize("path", ["a", "a/b", "a b/c.d-e_f", "ünï/漢字", "train/loss.1"])
def test_ordinary_attribute_paths_are_used_as_they_are(path):
    assert names.readable_path(path) == path


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_attribute_paths_are_not(path):
    used = names.readable_path(path)
    if path == "é":
        assert used == path
    else:
        assert used is None
    flat = names.flat_name(path, path)
    assert all(c.isalnum() or c in "_-" for c in flat)
    assert len(flat.encode()) < 120


@given(TEXT)
def test_readable_paths_stay_inside(path):
    used = names.readable_path(path)
    if used is not None:
        assert names.is_inside(used)
        assert not any(part.startswith(".") or not part for part in used.split("/"))


@pytest.mark.parametrize(
    "path", ["", "/a", "\\a", "../a", "a/../b", "a\\..\\b", "..", "a\0", "c:/a", "c:a", "//server/share"]
)
def test_paths_that_leave_their_folder_are_refused(path):
    assert not names.is_inside(path)


@pytest.mark.parametrize("path", ["a", "a/b", "a..b/c", "...", "run-1/images/i0/step_1_000000.png", "a:b" * 0 + "x"])
def test_paths_that_stay_are_not(path):
    assert names.is_inside(path)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.png", ".png"),
        ("a.tar.gz", ".gz"),
        ("a", ""),
        ("", ""),
        (".bashrc", ""),
        ("a.p/../../x", ""),
        ("a\\b.txt", ".txt"),
        ("a.ex e", ""),
        ("a." + "x" * 17, ""),
        ("a.\0", ""),
        ("a.", ""),
    ],
)
def test_extensions_are_harmless(name, extension):
    assert names.extension(name) == extension


@pytest.mark.parametrize(
    ("micros", "name"), [(0, "step_0_000000"), (3_500_000, "step_3_500000"), (-1, "step_-0_000001")]
)
def test_steps_have_the_official_names(micros, name):
    assert names.step_name(micros) == name


@given(st.integers(-(10**18) + 1, 10**18 - 1), st.integers(-(10**18) + 1, 10**18 - 1))
def test_two_steps_never_share_a_name(first, second):
    assert (names.step_name(first) == names.step_name(second)) == (first == second)


@given(TEXT, st.integers(0, 200))
def test_a_cut_is_a_beginning_that_fits(text, limit):
    text = text.encode("utf-8", "ignore").decode()
    short = names.cut(text, limit)
    assert text.startswith(short)
    assert len(short.encode()) <= limit
    assert short == text or len(text[: len(short) + 1].encode()) > limit
