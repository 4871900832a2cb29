# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What comes out of operations, whatever way their bytes take: against what was put into the client's own messages."""

from __future__ import annotations

import math
import sqlite3
import struct
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from collect import Collected, collect_all, offline
from hypothesis import given
from hypothesis import strategies as st
from neptune_api.proto.neptune_pb.ingest.v1.common_pb2 import UpdateRunSnapshot
from neptune_scale.sync.operations_repository import OperationsRepository
from truth import Logger

from neptune_exporter.exporters.offline_scale import columns, database
from neptune_exporter.exporters.offline_scale.columns import FloatDecoder, Paths
from neptune_exporter.model import step_micros, time_millis
from neptune_exporter.selection import Selection


def export(operations: list[bytes], tmp_path: Path, selection: Selection = Selection(), **options) -> Collected:  # noqa: B008
    """Exports a store of the client's own making that holds these operations."""
    folder = tmp_path / "neptune" / "store"
    repository = OperationsRepository((folder / "run_operations.sqlite3").absolute())
    repository.init_db()
    repository.save_metadata("team/project", "run")
    connection = repository._connection
    connection.execute("PRAGMA synchronous = OFF")  # only to be quick
    insert = (
        "INSERT INTO run_operations (timestamp, operation_type, operation, operation_size_bytes) VALUES (1, 0, ?, ?)"
    )
    connection.executemany(insert, [(blob, len(blob)) for blob in operations])
    connection.commit()
    repository.close(cleanup_files=False)
    return collect_all(offline(tmp_path / "neptune", **options), tmp_path / "files", selection)["run"]


def snapshot(step: int | None, micros: int | None, values: dict[str, float], *, preview: bool = False) -> bytes:
    """A message of appended floats. Steps are in micro-units, times in microseconds since the epoch."""
    message = UpdateRunSnapshot()
    if step is not None:
        message.step.whole, message.step.micro = divmod(step, 10**6)
        message.step.SetInParent()
    if micros is not None:
        message.timestamp.seconds, part = divmod(micros, 10**6)
        message.timestamp.nanos = part * 1000
        message.timestamp.SetInParent()
    for path, value in values.items():
        message.append[path].float64 = value
    if preview:
        message.preview.is_preview = True
    return message.SerializeToString()


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack(">d", value)


def points(found: Collected) -> Counter:
    """Every float point: path, step in micro-units, milliseconds, value."""
    counts: Counter = Counter()
    for batch in found.batches:
        paths, types = batch.column("attribute_path").to_pylist(), batch.column("attribute_type").to_pylist()
        columns = step_micros(batch.column("step")), time_millis(batch.column("timestamp"))
        rows = zip(paths, types, *(c.tolist() for c in columns), batch.column("float_value").to_pylist(), strict=True)
        counts.update((path, step, ms, bits(value)) for path, kind, step, ms, value in rows if kind == "float_series")
    return counts


NONE = np.iinfo(np.int64).min
names = st.sampled_from(["a", "b", "loss/train", "x" * 118, "x" * 119, "x" * 120, "é" * 500, "\0", "", "B\t\t12"])
times = st.none() | st.integers(-(10**15), 10**16) | st.sampled_from([0, 1, 499, 500, 1_700_000_000_000_500])
steps = st.none() | st.integers(0, 10**18 - 1) | st.sampled_from([0, 1, 10**6, 127 * 10**6, 10**18 - 1])
values = st.floats() | st.sampled_from([0.0, -0.0, math.nan, math.inf])
updates = st.lists(
    st.tuples(steps, times, st.dictionaries(names, values, min_size=1, max_size=6)), min_size=1, max_size=40
)


@given(updates)
def test_any_mix_of_operations(operations):
    with TemporaryDirectory() as folder:
        found = export([snapshot(*operation) for operation in operations], Path(folder))
    expected: Counter = Counter()
    for step, micros, of_operation in operations:
        ms = NONE if micros is None else (micros + 500) // 1000
        for path, value in of_operation.items():
            expected[path, NONE if step is None else step, ms, bits(value)] += 1
    assert points(found) == expected
    assert found.problems == []


@given(st.lists(st.binary(max_size=60), max_size=20), updates)
def test_any_bytes_cost_only_themselves(garbage, operations):
    """Random bytes may by chance be a message; never do they disturb their neighbours."""
    blobs = [snapshot(*operation) for operation in operations]
    mixed = [blob for pair in zip(garbage, blobs, strict=False) for blob in pair] + blobs[len(garbage) :]
    decoder = FloatDecoder(Paths(lambda _: True))
    alone, together = decoder.decode(blobs), decoder.decode(mixed)
    assert together.rest is not None
    assert _taken(alone) <= _taken(together)


def _taken(block: columns.Block) -> Counter:
    counts: Counter = Counter()
    for group in block.points:
        for code, row in zip(group.codes.tolist(), group.values, strict=True):
            counts.update((code, s, t, bits(v)) for s, t, v in zip(group.steps, group.times, row, strict=True))
    if block.singles is not None:
        of_singles = (block.singles.codes, block.singles.steps, block.singles.times, block.singles.values)
        counts.update((c, s, t, bits(v)) for c, s, t, v in zip(*of_singles, strict=True))
    return counts


def test_operations_of_one_loop_take_the_fast_way():
    """Not a single one may fall back, in whatever order the client's maps come out."""
    narrow = [snapshot(n * 10**6, 10**15 + n, {f"metric {n % 7}": float(n)}) for n in range(1000)]
    wide = [snapshot(n * 10**5, 10**15, {f"wide/{i}": i / (n + 1) for i in range(50 + n % 3)}) for n in range(300)]
    single_of_long_name = [snapshot(n, 1, {"n" * 1000: 0.1}) for n in range(10)]
    block = FloatDecoder(Paths(lambda _: True)).decode(narrow + wide + single_of_long_name)
    assert block.rest == []
    assert len(block.singles.values) == 1010
    assert sum(group.values.size for group in block.points) == sum(50 + n % 3 for n in range(300))


def test_what_the_client_writes_takes_the_fast_way(tmp_path):
    log = Logger(tmp_path / "neptune", "run")
    for step in range(30):
        log.metrics({f"wide/{i}": i / (step + 1) for i in range(100)}, str(step))
        log.metrics({"alone": 1.0}, f"{step}.29")
        log.metrics({"loss": 0.5, "accuracy": 0.25, "é": 1.0}, str(step))
    log.close()
    with sqlite3.connect(log.store / "run_operations.sqlite3") as connection:
        blobs = [
            blob for (blob,) in connection.execute("SELECT operation FROM run_operations WHERE operation_type = 0")
        ]
    connection.close()
    assert len(blobs) == 90
    assert FloatDecoder(Paths(lambda _: True)).decode(blobs).rest == []


def test_many_shapes_of_one_length(tmp_path):
    """More shapes than there are templates for: the rest is parsed one by one, and nothing is lost."""
    operations = [(n * 10**6, n * 1000, {f"{n % 40:02d}": 1.0, f"x{n % 40:02d}": 2.0}) for n in range(400)]
    found = export([snapshot(*operation) for operation in operations], tmp_path)
    expected = Counter(
        (path, step, micros // 1000, bits(value))
        for step, micros, of_one in operations
        for path, value in of_one.items()
    )
    assert points(found) == expected


def test_more_templates_than_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_TEMPLATE_BYTES", 300)
    operations = [(n, 0, {f"{'p' * (n % 20)}{i}": float(i) for i in range(3)}) for n in range(200)]
    found = export([snapshot(*operation) for operation in operations], tmp_path)
    assert points(found).total() == 600
    assert {path for path, *_ in points(found)} == {f"{'p' * n}{i}" for n in range(20) for i in range(3)}


def test_blocks_are_cut_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BLOCK_BYTES", 500)
    operations = [(n * 10**6, n * 1000, {"a": float(n), "b": -float(n)}) for n in range(300)]
    found = export([snapshot(*operation) for operation in operations], tmp_path)
    assert len(found.batches) > 20
    assert points(found) == Counter(
        (path, step, micros // 1000, bits(value))
        for step, micros, of_one in operations
        for path, value in of_one.items()
    )


@pytest.mark.parametrize("nanos", [678_900_957, 678_901_000, 678_901_043, 678_499_957])
def test_the_noise_of_the_clients_times_is_rounded_away(tmp_path, nanos):
    """678,500 µs comes as 678,499,957 ns: cut off it is another microsecond and another millisecond."""
    narrow, general = UpdateRunSnapshot(), UpdateRunSnapshot()
    for message in (narrow, general):
        message.step.whole = 1
        message.timestamp.seconds, message.timestamp.nanos = 1_700_000_000, nanos
        message.append["float"].float64 = 1.0
    general.append["text"].string = "x"
    halves = [snapshot(0, 1_700_000_000_000_500, {"half": 1.0}), snapshot(0, 1_700_000_000_000_499, {"half": 2.0})]
    found = export([narrow.SerializeToString(), general.SerializeToString(), *halves], tmp_path)
    of_path = {path: {ms for p, _, ms, _ in points(found) if p == path} for path in ("float", "half")}
    assert of_path == {"float": {1_700_000_000_679}, "half": {1_700_000_000_001, 1_700_000_000_000}}


@pytest.mark.parametrize("width", [1, 2, 30])
def test_a_step_of_1e12_costs_only_itself(tmp_path, width):
    limit = 10**18
    far = {f"m{i}": 1 / 3 for i in range(width)}
    operations = [snapshot(step, 10**15, far) for step in (limit - 1, limit, limit + 290_000, 18_446_744 * 10**18)]
    found = export(operations, tmp_path)
    assert {step for _, step, _, _ in points(found)} == {limit - 1}
    outsiders = {(o.attribute, o.type, o.step, o.value, o.time) for o in found.outsiders}
    steps = ("1000000000000", "1000000000000.29", "18446744000000000000")
    time = "2001-09-09T01:46:40+00:00"
    assert outsiders == {(p, "float_series", s, "0.3333333333333333", time) for p in far for s in steps}


def test_outside_values_of_every_series_type(tmp_path):
    message = UpdateRunSnapshot()
    message.step.whole = 10**12
    message.append["text"].string = "x"
    message.append["file"].file_ref.path = "nowhere"
    histogram = message.append["histogram"].histogram
    histogram.bin_edges.extend([0.0, 1.0])
    histogram.counts.values.append(3)
    exact = UpdateRunSnapshot()
    exact.step.whole = 1
    exact.append["counts"].histogram.bin_edges.extend([0.0, 1.0])
    exact.append["counts"].histogram.counts.values.append(2**53 + 1)
    late = UpdateRunSnapshot()
    late.step.whole = 1
    late.timestamp.seconds = 300_000_000_000
    late.append["late"].float64 = 0.5
    late.assign["when"].timestamp.seconds = 300_000_000_000
    found = export([message.SerializeToString(), exact.SerializeToString(), late.SerializeToString()], tmp_path)
    assert {(o.attribute, o.type, o.step) for o in found.outsiders} == {
        ("text", "string_series", "1000000000000"),
        ("histogram", "histogram_series", "1000000000000"),
        ("counts", "histogram_series", "1"),
        ("late", "float_series", "1"),
        ("when", "datetime", None),
    }
    (counts,) = [o for o in found.outsiders if o.attribute == "counts"]
    assert counts.value["values"] == [str(2**53 + 1)]
    assert [problem.attribute for problem in found.problems] == ["file"]


def test_values_of_a_kind_that_nobody_knows_are_counted(tmp_path):
    message = UpdateRunSnapshot()
    message.step.whole = 1
    message.assign["empty value"].SetInParent()
    message.append["int series"].int64 = 3
    message.modify_sets["empty change"].SetInParent()
    found = export([message.SerializeToString()] * 2, tmp_path)
    assert {(problem.attribute, problem.count) for problem in found.problems} == {
        ("empty value", 2),
        ("int series", 2),
        ("empty change", 2),
    }


previewed = st.lists(
    st.tuples(st.integers(0, 3).map(lambda n: n * 10**6), st.sets(st.sampled_from("abc"), min_size=1), st.booleans()),
    min_size=1,
    max_size=25,
)


@given(previewed, st.sampled_from([60, 2**21]))
def test_previews_are_replaced_by_what_comes_later(operations, block_bytes):
    """Among operations that are decoded together, in different ways, or in different blocks."""
    pending: dict = {}
    final: Counter = Counter()
    blobs = []
    for number, (step, paths, preview) in enumerate(operations):
        blobs.append(snapshot(step, 0, dict.fromkeys(sorted(paths), float(number)), preview=preview))
        for path in paths:
            pending.pop((path, step), None)
            if preview:
                pending[path, step] = number
            else:
                final[path, step, 0, bits(float(number))] += 1
    left = Counter((path, step, 0, bits(float(number))) for (path, step), number in pending.items())
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "BLOCK_BYTES", block_bytes)
        without = export(blobs, Path(folder, "without"))
        including = export(blobs, Path(folder, "with"), include_metric_previews=True)
    assert points(without) == final
    assert points(including) == final + left
    only_previews = {path for path, _ in pending} - {path for path, *_ in final}
    assert set(without.empties) == {(path, "float_series") for path in only_previews}
    assert without.problems == including.problems == []


def test_unwanted_metrics_are_not_decoded_into_batches(tmp_path):
    operations = [snapshot(n, 0, {"a": 1.0, "b": 2.0}) for n in range(50)] + [snapshot(0, 0, {"c": 3.0})] * 50
    found = export(operations, tmp_path, Selection(attributes=("b", "no such")))
    assert {path for path, *_ in points(found)} == {"b"}
    assert points(found).total() == 50
