# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A run as the records of W&B's log: encoded by column where there are many, by hand where there are few."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.loaders.wandb import names
from neptune_exporter.loaders.wandb.entries import Entry
from neptune_exporter.loaders.wandb.history import Rows
from neptune_exporter.loaders.wandb.log import LogFile, field, records, varint
from neptune_exporter.model import NO_VALUE, Int64s, step_array

# Fields of Record.
_HISTORY, _SUMMARY, _CONFIG, _FILES, _ARTIFACT, _METRIC, _RUN, _EXIT, _HEADER = 2, 3, 5, 6, 8, 12, 17, 18, 21
_KEY, _NESTED_KEY, _VALUE_JSON = 1, 2, 16
_MEDIA_TYPE = 2  # of a file of the run
_NUMBERS = (("-0", "-0.0"), ("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity"))
_STEP, _TIME, _RUNTIME, _EXACT_STEP = range(4)
_ROW_KEYS = ("_step", "_timestamp", "_runtime", names.STEP_KEY)


def header(version: str) -> bytes:
    """The first record: who writes."""
    return field(_HEADER, field(1, field(1, f"{version}+neptune-exporter") + field(2, "0.70.0")))


def run(
    wandb_id: str,
    *,
    entity: str,
    project: str,
    name: str,
    group: str,
    job_type: str,
    notes: str,
    tags: Sequence[str],
    start_ms: int,
    config: Mapping[str, Any],
) -> bytes:
    """The record that makes the run."""
    seconds, millis = divmod(start_ms, 1000)
    message = field(1, wandb_id) + field(2, entity) + field(3, project) + field(4, _config(config))
    message += field(6, group) + field(7, job_type) + field(8, name) + field(9, notes)
    message += b"".join(field(10, tag) for tag in tags)
    message += field(17, field(1, seconds) + field(2, millis * 1_000_000))
    return field(_RUN, message)


def axes() -> list[bytes]:
    """What `define_metric` records: the exact step is the x axis of every metric, and no metric itself."""
    hidden = field(6, field(2, 1) + field(3, 1))  # hidden, defined
    synced = field(6, field(1, 1) + field(3, 1))  # step_sync, defined
    return [
        field(_METRIC, field(1, names.STEP_KEY) + hidden),
        field(_METRIC, field(2, "*") + field(4, names.STEP_KEY) + synced),
    ]


def config(values: Mapping[str, Any]) -> bytes:
    """A record that adds entries to the config."""
    return field(_CONFIG, _config(values))


def summary(values: Mapping[str, str], runtime: int) -> bytes:
    """The record of the last values, given as JSON."""
    nested = field(1, field(2, "_wandb") + field(2, "runtime") + field(_VALUE_JSON, str(runtime)))
    updates = b"".join(field(1, field(2, key) + field(_VALUE_JSON, text)) for key, text in values.items())
    return field(_SUMMARY, nested + updates)


def exit_(runtime: int, exit_code: int) -> bytes:
    """The record that ends the run."""
    return field(_EXIT, field(1, exit_code) + field(2, runtime))


def files(paths: Iterable[str]) -> bytes:
    """The record of files of the run, which lie in the folder `files` beside the log."""
    return field(_FILES, b"".join(field(1, field(1, path) + field(3, _MEDIA_TYPE)) for path in paths))


def artifact(wandb_id: str, entity: str, project: str, digest: str, entries: Iterable[Entry], client_ids: Any) -> bytes:
    """The record of the run's artifact, which `wandb sync` uploads from where its files lie."""
    contents = b"".join(
        field(4, field(1, e.path) + field(2, e.md5) + field(4, e.bytes) + field(6, str(e.local)) + field(8, 1))
        for e in entries
    )
    policy = field(3, field(1, "storageLayout") + field(2, '"V2"'))
    manifest = field(1, 1) + field(2, "wandb-storage-policy-v1") + policy + contents
    message = field(1, wandb_id) + field(2, project) + field(3, entity)
    message += field(4, names.ARTIFACT_TYPE) + field(5, names.artifact_name(wandb_id)) + field(6, digest)
    message += field(11, "latest") + field(12, manifest) + field(14, 1)
    message += field(15, client_ids[0]) + field(16, client_ids[1]) + field(20, "MANIFEST_MD5")
    return field(_ARTIFACT, message)


def _config(values: Mapping[str, Any]) -> bytes:
    return b"".join(
        field(1, field(_KEY, key) + field(_VALUE_JSON, json.dumps(value, allow_nan=False)))
        for key, value in values.items()
    )


# --- history


class HistoryEncoder:
    """Encodes rows of the history as records.

    Args:
        keys: the key of each code.
        start_ms: where `_runtime` counts from; stands in for missing times.
    """

    def __init__(self, keys: Sequence[str], start_ms: int) -> None:
        self._keys = [field(_NESTED_KEY, key) for key in (*_ROW_KEYS, *keys)]
        self._start_ms = start_ms
        self._prefixes: dict[int, bytes] = {}
        self.last: dict[int, str] = {}

    def texts(self, rows: Rows) -> pa.Array:
        """Every value as JSON."""
        return json_texts(rows.points.values, rows.points.texts)

    def encode(self, rows: Rows, texts: pa.Array) -> list[bytes]:
        """One record per row."""
        count = len(rows)
        times = np.where(rows.times == NO_VALUE, self._start_ms, rows.times)
        items = self._items(rows.points.codes.astype(np.int64) + len(_ROW_KEYS), texts)
        of_points = pc.binary_join(pa.ListArray.from_arrays(pa.array(rows.starts, pa.int32()), items), b"")
        steps = step_texts(rows.steps)
        exact = self._items(np.full(count, _EXACT_STEP), steps.fill_null("null"))
        contents = pc.binary_join_element_wise(
            self._items(np.full(count, _STEP), pc.cast(pa.array(rows.numbers), pa.string())),
            self._items(np.full(count, _TIME), pc.cast(pa.array(times / 1000), pa.string())),
            self._items(np.full(count, _RUNTIME), pc.cast(pa.array((times - self._start_ms) / 1000), pa.string())),
            pc.if_else(steps.is_null(), pa.scalar(b""), exact),
            of_points,
            b"",
        )
        lengths = np.asarray(pc.binary_length(contents))
        distinct, position = np.unique(lengths, return_inverse=True)
        heads = [varint(_HISTORY << 3 | 2) + varint(length) for length in distinct.tolist()]
        head = pa.array(heads, pa.binary()).take(pa.array(position))
        encoded: list[bytes] = pc.binary_join_element_wise(head, contents, b"").to_pylist()
        return encoded

    def _items(self, codes: Int64s, texts: pa.Array) -> pa.Array:
        """Each key and value as an item of a HistoryRecord."""
        lengths = np.asarray(pc.binary_length(texts)).astype(np.int64)
        distinct, position = np.unique(codes << 32 | lengths, return_inverse=True)
        table = pa.array([self._prefix(int(pair)) for pair in distinct.tolist()], pa.binary())
        return pc.binary_join_element_wise(table.take(pa.array(position)), texts.cast(pa.binary()), b"")

    def _prefix(self, pair: int) -> bytes:
        """What stands before a value of a key, by code and length of the value."""
        if pair not in self._prefixes:
            code, length = divmod(pair, 2**32)
            inner = self._keys[code] + varint(_VALUE_JSON << 3 | 2) + varint(length)
            self._prefixes[pair] = varint(1 << 3 | 2) + varint(len(inner) + length) + inner
        return self._prefixes[pair]


def json_texts(values: Any, texts: pa.Array) -> pa.Array:
    """Floats as JSON in their shortest exact form, NaN and the infinities as the client writes them."""
    numbers = pc.cast(pa.array(values), pa.string())
    if not np.isfinite(values).all() or not np.all(values):
        for plain, wanted in _NUMBERS:
            numbers = pc.if_else(pc.equal(numbers, plain), wanted, numbers)
    return numbers if texts.null_count == len(texts) else pc.coalesce(texts, numbers)


def step_texts(micros: Int64s) -> pa.Array:
    """Steps as decimal numbers; null without one."""
    text = pc.cast(step_array(micros), pa.string())  # six decimals, always
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def rest_of_log(log: Path, rows: int) -> Path:
    """A copy of a log, beside it, without its first rows."""
    rest = log.with_name(f"rest-{rows}-{log.name}")
    copy = LogFile(rest)
    for record in records(log):
        if rows and record[0] == _HISTORY << 3 | 2:
            rows -= 1
        else:
            copy.write(record)
    copy.close()
    return rest
