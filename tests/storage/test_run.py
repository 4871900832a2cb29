# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a run: in any order, any attributes, one generation, and no damage unnoticed."""

from __future__ import annotations

import threading

import areas
import pytest
from contracts.rows import (
    assert_same,
    batch_of,
    curve,
    everything,
    point,
    read_rows,
    rows_on_disk,
    single,
    write_run,
)
from truth import rows_in

from neptune_exporter.errors import DamagedDataError, StagingError
from neptune_exporter.model import RunRef, normalize
from neptune_exporter.storage import names
from neptune_exporter.storage.counting import Counted
from neptune_exporter.storage.run import file_rows, rows_of

REF = RunRef("team/reading", "run-1")


@pytest.fixture
def rows():
    return everything() + curve("more", 200) + curve("a", 5)


@pytest.fixture
def run(staging, small_pieces, rows):
    return write_run(staging, REF, rows)


def test_by_attribute(staging, run, rows):
    found = read_rows(run, staging, "attribute")
    assert_same(rows, found)
    keys = [(row.path, row.type, row.step is not None, row.step or 0) for row in found]
    assert keys == sorted(keys)


def test_by_step(staging, run, rows):
    found = read_rows(run, staging, "step")
    assert_same(rows, found)
    keys = [
        (
            row.step is not None,
            row.step or 0,
            row.time is not None,
            row.time and row.time.timestamp(),
            row.path,
            row.type,
        )
        for row in found
    ]
    assert [k[:3] for k in keys] == sorted(k[:3] for k in keys)
    pointed = [k for k in keys if k[0]]
    assert pointed == sorted(pointed)


@pytest.mark.parametrize("order", [None, "attribute", "step"])
def test_some_attributes(staging, run, rows, order):
    found = read_rows(run, staging, order, lambda path, kind: path.startswith("l") or kind == "int")
    assert_same([row for row in rows if row.path.startswith("l") or row.type == "int"], found)
    assert read_rows(run, staging, order, lambda _path, _kind: False) == []


def test_rows_of_asks_once_for_each_attribute():
    asked = []

    def wanted(path, kind):
        asked.append((path, kind))
        return path == "b"

    batch = normalize(batch_of(REF, [point(p, n, 0.5) for n in range(9) for p in "abc"] + [single("b", 1)]))
    assert rows_of(batch, wanted).num_rows == 10
    assert sorted(asked) == [("a", "float_series"), ("b", "float_series"), ("b", "int"), ("c", "float_series")]


def test_file_rows_name_attribute_and_path():
    rows = [single("a", 1), single("m", b"x"), single("n", b"y")]
    batch = normalize(batch_of(REF, rows, paths={rows[1]: "p/m", rows[2]: "p/n"}))
    assert file_rows(batch) == [("m", "p/m"), ("n", "p/n")]
    assert file_rows(normalize(batch_of(REF, rows[:1]))) == []


# --- damage


def manifest_file(staging, end):
    return staging.folder(REF.project_id).data / "_manifest" / f"{names.stem(REF.run_id)}{end}"


def parts(staging):
    return sorted(staging.folder(REF.project_id).data.glob("*.parquet"))


def test_a_missing_part_is_named(staging, run):
    parts(staging)[1].unlink()
    with pytest.raises(DamagedDataError, match=parts(staging)[1].name[:-9]):
        read_rows(run, staging)


def test_a_part_cut_short_is_named(staging, run):
    part = parts(staging)[1]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DamagedDataError, match=part.name):
        read_rows(run, staging)


def test_a_part_of_another_export_is_named(staging, run):
    first, second = parts(staging)[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(DamagedDataError, match="not what the manifest says"):
        read_rows(run, staging)


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_index_is_named(staging, run, content):
    path = manifest_file(staging, ".parquet")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DamagedDataError, match=path.name):
        run.attributes()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 1}', b"\xff\xfe", b'{"format": "x"}'])
def test_a_damaged_manifest_is_named(staging, run, content):
    manifest_file(staging, ".json").write_bytes(content)
    with pytest.raises(DamagedDataError, match=manifest_file(staging, ".json").name):
        staging.run(REF)


def test_a_damaged_manifest_costs_only_its_run(staging, run):
    write_run(staging, RunRef(REF.project_id, "other"), curve("loss", 3))
    manifest_file(staging, ".json").write_bytes(b"{")
    failed: list[StagingError] = []
    assert [r.ref.run_id for r in staging.folder(REF.project_id).runs(failed.append)] == ["other"]
    assert [str(error).split(" ")[0].split("/")[-1] for error in failed] == [manifest_file(staging, ".json").name]


def test_a_manifest_of_a_newer_version_is_refused(staging, run):
    path = manifest_file(staging, ".json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StagingError, match="newer version") as raised:
        staging.run(REF)
    assert "pip install -U" in raised.value.hint


# --- one generation


def test_a_reader_that_has_begun_goes_on_with_what_it_has(staging, run, rows):
    reading = run.read()
    found = [next(reading)]
    write_run(staging, REF, curve("other", 500))
    found += reading
    files = {path: row.value for row in rows if isinstance(row.value, bytes) for path in _paths_of(row, found)}
    assert_same(rows, [row for batch in found for row in rows_in(batch, files)])


def _paths_of(row, batches):
    """What the rows of a file attribute say of its path."""
    return [
        record["file_value"]["path"]
        for batch in batches
        for record in batch.to_pylist()
        if record["file_value"] and (record["attribute_path"], record["step"]) == (row.path, row.step)
    ]


def test_a_reader_that_comes_too_late_says_so(staging, run):
    """The new parts have the same names, and perhaps the same sizes: they are not the rows that were asked for."""
    attributes = run.attributes()
    (model,) = [path for path in run.file_paths() if "model" in path]
    write_run(staging, REF, [single("x", 1)])
    readers = (run.attributes, lambda: read_rows(run, staging), lambda: read_rows(run, staging, "step"))
    for use in (*readers, lambda: run.files.open(model), lambda: run.files.size(model)):
        with pytest.raises(StagingError, match="was exported again while it was being read") as raised:
            use()
        assert "Run the same command again" in raised.value.hint
        assert not isinstance(raised.value, DamagedDataError)
    assert attributes


def test_values_that_take_the_same_room_are_not_mixed_up(staging):
    old = write_run(staging, REF, [single("x", 1.0)])
    new = write_run(staging, REF, [single("x", 2.0)])
    assert old.manifest.parts[0].bytes == new.manifest.parts[0].bytes
    with pytest.raises(StagingError, match="exported again"):
        read_rows(old, staging)


def test_readers_beside_a_writer_see_whole_generations(staging, small_pieces):
    """Generation n has n in every row, in its files, its index and its values."""

    def generation(number: int):
        return [
            *(point("loss", step, float(number), step) for step in range(100 + number % 7)),
            single("n", number),
            single("model", b"%d" % number),
        ]

    write_run(staging, REF, generation(0))
    done = threading.Event()
    failed: list[BaseException] = []

    def write():
        try:
            for number in range(1, 40):
                write_run(staging, REF, generation(number))
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen, late = set(), []
    while not done.is_set():
        run = staging.run(REF)
        try:
            found = read_rows(run, staging, "step" if len(seen) % 2 else None)
            index = {a.path: a.rows for a in run.attributes()}
        except (StagingError, FileNotFoundError) as error:  # the test opens the file itself: it may be gone
            late.append(type(error))
            continue
        (number,) = [row.value for row in found if row.path == "n"]
        assert_same(generation(number), found)
        assert index == {"loss": 100 + number % 7, "n": 1, "model": 1}
        seen.add(number)
    writer.join()
    assert failed == []
    assert DamagedDataError not in late
    assert_same(generation(39), read_rows(staging.run(REF), staging))
    assert_same(generation(39), rows_on_disk(staging, REF))


# --- values that other tools have put elsewhere


def test_values_that_are_not_where_their_type_says_are_named(tmp_path):
    places = [("x", "int", "float_value", 2.5), ("z", "int_series", "int_value", 9), ("u", "new", "float_value", 1.0)]
    lost = [areas.row(path, kind, **{column: value}) for path, kind, column, value in places]
    nothing = [areas.row("e", "int"), areas.row("f", "file", file_value={"path": None})]
    areas.official(tmp_path, "RUN-1", [*lost, areas.row("n", "int", int_value=3)], [*lost, *nothing])
    run = areas.staging(tmp_path).run(RunRef(areas.PROJECT, "RUN-1"))
    for problems in (run.problems, Counted(run).problems, run.as_manifest().problems):
        assert {(p.attribute, p.count, p.kind) for p in problems} == {(p[0], 2, "permanent") for p in places}
        for path, kind, column, _ in places:
            (message,) = [p.message for p in problems if p.attribute == path]
            assert f"the type {kind}" in message or f"the type is {kind}," in message
            assert column in message
    assert Counted(run).rows == sum(a.rows for a in run.attributes()) == 1


def test_rows_without_any_value_are_no_problem(tmp_path):
    areas.official(
        tmp_path, "RUN-1", [areas.row("e", "int"), areas.row("e", "new"), areas.row("n", "int", int_value=3)]
    )
    run = areas.staging(tmp_path).run(RunRef(areas.PROJECT, "RUN-1"))
    assert run.problems == ()
    assert Counted(run).problems == []


@pytest.mark.parametrize(
    "value",
    [
        {"string_set_value": ["a", None]},
        {"histogram_value": {"type": None, "edges": [0.0, 1.0], "values": [1.0]}},
        {"histogram_value": {"type": "COUNTING", "edges": [0.0, None], "values": [1.0]}},
        {"histogram_value": {"type": "COUNTING", "edges": [0.0, 1.0], "values": None}},
    ],
)
def test_a_null_inside_of_a_value_is_damage_of_its_run(tmp_path, value):
    kind = "string_set" if "string_set_value" in value else "histogram_series"
    whole = {"string_set_value": ["a", "b"]}, {"histogram_value": {"type": "COUNTING", "edges": [], "values": []}}
    rows = [
        areas.row("n", "int", int_value=1),
        areas.row("s", "string_set", **whole[0]),
        areas.row("h", "histogram_series", **whole[1]),
    ]
    areas.official(tmp_path, "RUN-1", [areas.row("holed", kind, **value), *rows])
    areas.official(tmp_path, "RUN-2", rows)
    holed, good = (areas.staging(tmp_path).run(RunRef(areas.PROJECT, run_id)) for run_id in ("RUN-1", "RUN-2"))
    assert sum(batch.num_rows for batch in good.read()) == len(good.attributes()) == 3
    for look in (lambda: list(holed.read()), holed.attributes):
        with pytest.raises(DamagedDataError, match="null inside, of holed"):
            look()
