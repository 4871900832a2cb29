# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Points in logs of the 1.x client: every way of reading them gives what was logged, bit by bit, or refuses."""

from __future__ import annotations

import json
import math
import struct
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neptune_exporter.exporters.offline_legacy import points as module
from neptune_exporter.exporters.offline_legacy.lines import Lines, parsed, pieces_of
from neptune_exporter.exporters.offline_legacy.log import Log
from neptune_exporter.exporters.offline_legacy.points import Points, UncommonError, decode, points_of

START = 1_700_000_000.25


class Logged(NamedTuple):
    """A point as it was logged, comparable to the last bit."""

    path: str
    version: int
    step: float | None
    time: float
    value: bytes | str


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack(">d", value)


def found_in(points: Points) -> list[Logged]:
    paths, values = points.paths.to_pylist(), points.values.to_pylist()
    rows = zip(paths, points.versions.tolist(), points.steps.tolist(), points.times.tolist(), values, strict=True)
    return [
        Logged(p, version, None if math.isnan(s) else s, t, bits(v) if isinstance(v, float) else v)
        for p, version, s, t, v in rows
    ]


def line(path: list[str], version: int, values: list[dict[str, Any]], *, kind="LogFloats", at: bool = True) -> bytes:
    """A record as the client writes it."""
    record = {"obj": {"type": kind, "path": path, "values": values}, "version": version}
    return json.dumps({**record, "at": START} if at else record).encode()


def point(value: Any, step: float | None = None, time: float = START) -> dict[str, Any]:
    return {"value": value, "step": step, "ts": time}


def logged_in(records: list[tuple[list[str], list[dict[str, Any]]]]) -> list[Logged]:
    return [
        Logged(
            "/".join(path), number, None if p["step"] is None else float(p["step"]), p["ts"], bits(float(p["value"]))
        )
        for number, (path, points) in enumerate(records, 1)
        for p in points
    ]


def body_of(records: list[tuple[list[str], list[dict[str, Any]]]], *, at: bool = True) -> bytes:
    return b"\n".join(line(path, number, points, at=at) for number, (path, points) in enumerate(records, 1))


def one_by_one(kind: str, body: bytes) -> list[Logged]:
    """The general way: record by record."""
    return found_in(points_of(kind, [r for text in pieces_of(body) if (r := parsed(text)) and r.type == kind]))


FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = FINITE | st.integers() | st.sampled_from([1e308, -0.0, 5e-324, 2**53 + 1, 2**70, 0, 1e-7, 123456789.125])
PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["a:b", '": ', "ß", "x", "[{"]))
STEPS = st.none() | NUMBERS
TIMES = st.floats(0, 4e9) | st.integers(0, 4_000_000_000)
PIECES = [b"", b"0", b"-", b".", b"e", b'"', b",", b" ", b"\n", b"\0", b"}", b"]", b"9", b'{"obj": {"type": "']
RECORDS = st.lists(st.tuples(PARTS.filter(bool), st.lists(st.builds(point, NUMBERS, STEPS, TIMES), max_size=3)))
SINGLE = st.lists(
    st.tuples(PARTS.filter(bool), st.lists(st.builds(point, NUMBERS, STEPS, TIMES), min_size=1, max_size=1)), min_size=1
)


@settings(max_examples=150, deadline=None)
@given(SINGLE, st.booleans())
def test_the_clients_own_layout_is_read_by_columns(records, at):
    body = body_of(records, at=at)
    try:
        decoded = module._decode_columns(body)
    except UncommonError:  # names that look like the layout itself
        assert any(mark in json.dumps(path) for path, _ in records for mark in ('": ', "\\u0000")) or len(body) < 99
        return
    assert found_in(decoded.points) == logged_in(records)
    assert decoded.versions.tolist() == list(range(1, len(records) + 1))


@settings(max_examples=150, deadline=None)
@given(RECORDS.filter(bool), st.booleans())
def test_every_way_gives_what_was_logged(records, at):
    body, expected = body_of(records, at=at), logged_in(records)
    assert one_by_one("LogFloats", body) == expected
    try:
        decoded = decode("LogFloats", body)
    except UncommonError:
        return
    assert found_in(decoded.points) == expected
    assert decoded.versions.tolist() == list(range(1, len(records) + 1))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_lines_are_counted_or_read_as_what_they_are(data):
    """Whatever byte is wrong: a log gives just what `json` finds in it, record by record, and counts the rest."""
    records = [(["m", "x"], [point(1.5, None)]), (["m", "y"], [point(-20.25, 3)]), (["m", "x"], [point(1e-05, 0.5)])]
    body = bytearray(body_of(records, at=False))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(st.sampled_from(PIECES))
        body[at : at + data.draw(st.integers(0, 2))] = piece
    damaged = bytes(body)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data-1.log").write_bytes(damaged + b"\n")
        log = Log(Path(folder))
        decisions = list(log.decisions())
        found = [logged for points in log.points("LogFloats") for logged in found_in(points)]
    parts = [parsed(piece) for piece in pieces_of(damaged)]
    assert found == one_by_one("LogFloats", damaged)
    assert decisions == [record for record in parts if record is not None and record.type != "LogFloats"]
    assert log.health.unreadable == parts.count(None)
    assert log.health.count == len(parts) - parts.count(None)


def test_what_is_read_by_columns_and_what_is_not():
    """So that the quick way is the one that is taken."""
    common = [(["metrics", f"name {n % 3}"], [point(n / 8, None)]) for n in range(20)]
    for records in (
        common,
        [(["ключ", "ß ☃"], [point(1.5)])] * 2,
        [(["a:b", "c: d"], [point(1)])] * 2,
        [(["x"], [point(v, s)]) for v, s in ((1e308, 0), (-0.0, None), (5e-324, 0.5), (2**70, 1e12))],
    ):
        for at in (True, False):
            assert found_in(module._decode_columns(body_of(records, at=at)).points) == logged_in(records)
    uncommon = {
        "several points": [*common, (["x"], [point(1.0), point(2.0)])],
        "no points": [*common, (["x"], [])],
        "not a number": [*common, (["x"], [point(math.nan)])],
        "infinity": [*common, (["x"], [point(-math.inf)])],
    }
    for name, records in uncommon.items():
        with pytest.raises(UncommonError):
            module._decode_columns(body_of(records))
        assert one_by_one("LogFloats", body_of(records)) == logged_in(records), name


@pytest.mark.parametrize(
    "number", ["+1", "01", "-01", ".5", "-.5", "5.", "1.e5", "nan", "inf", "-inf", "", "-", "1 ", "0x1"]
)
def test_numbers_that_json_does_not_have_are_refused(number):
    body = body_of([(["x"], [point(1.5)]), (["x"], [point(7)])])
    assert found_in(module._decode_columns(body).points)
    for given_number in (b"7", b"1.5"):
        with pytest.raises(UncommonError):
            module._decode_columns(body.replace(b'value": ' + given_number, b'value": ' + number.encode()))


def test_only_what_a_record_says_of_its_own_time_is_not_looked_at():
    body = body_of([(["x"], [point(1.5)]), (["x"], [point(7)])])
    decoded = decode("LogFloats", body.replace(b'"at": 17', b'"at": x'))
    assert found_in(decoded.points) == found_in(decode("LogFloats", body).points)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["LogFloats", "LogStrings", "LogImages", "AssignInt"]), min_size=1), st.booleans())
def test_lines_are_told_apart_by_how_they_begin(kinds, damaged):
    texts = [line(["x"], n, [], kind=kind) for n, kind in enumerate(kinds)]
    body = b"\n".join(texts)
    lines = Lines.of(body)
    assert lines.clean
    assert lines.added() == set(kinds) - {"AssignInt"}
    for kind in ("LogFloats", "LogStrings", "LogImages"):
        mine = [text for text, its in zip(texts, kinds, strict=True) if its == kind]
        assert lines.texts(kind) == mine
        assert lines.only(kind) == b"\n".join(mine)
    assert lines.texts(None) == [text for text, its in zip(texts, kinds, strict=True) if its == "AssignInt"]
    if damaged:
        assert not Lines.of(body[:-20] + texts[0]).clean
        assert not Lines.of(b"x" + body).clean
        assert not Lines.of(body + b"\n").clean


@pytest.mark.parametrize("block_bytes", [700, 5_000, 1 << 20])
def test_logs_of_all_kinds_in_blocks_of_all_sizes(tmp_path, monkeypatch, block_bytes):
    """Also written by someone who spells JSON in another way, with lines that are longer than a block."""
    from neptune_exporter.exporters.offline_legacy import log

    monkeypatch.setattr(log, "BLOCK_BYTES", block_bytes)
    texts, floats, strings = [], [], []
    for n in range(1, 301):
        path = [f"s{n % 4}", 'with ": in it'] if n % 7 == 0 else [f"s{n % 4}"]
        if n % 50 == 0:
            texts.append(json.dumps({"obj": {"type": "AssignInt", "path": ["n"], "value": n}, "version": n}).encode())
        elif n % 5 == 0:
            texts.append(line(path, n, [point(f"line {n} ☃" * (n if n % 25 == 0 else 1))], kind="LogStrings"))
            strings += [("/".join(path), n, f"line {n} ☃" * (n if n % 25 == 0 else 1))]
        else:
            values = [point(n / 7, n)] * (3 if n % 11 == 0 else 1)
            text = line(path, n, values)
            texts.append(text.replace(b": ", b":") if n % 90 == 1 and n % 7 else text)
            floats += logged_in([(path, values)] * n)[-len(values) :]
    (tmp_path / "data-1.log").write_bytes(b"\n".join(texts) + b"\n")
    read = Log(tmp_path)
    assert [r.detail["value"] for r in read.decisions()] == [50, 100, 150, 200, 250, 300]
    assert [p for points in read.points("LogFloats") for p in found_in(points)] == floats
    found = [
        (path, version, value.decode() if isinstance(value, bytes) else value)
        for points in read.points("LogStrings")
        for path, version, value in zip(
            points.paths.to_pylist(), points.versions.tolist(), points.values.to_pylist(), strict=True
        )
    ]
    assert found == strings
    assert (read.health.count, read.health.first, read.health.last, read.health.holes) == (300, 1, 300, 0)
    assert (read.health.unreadable, read.health.torn) == (0, False)
