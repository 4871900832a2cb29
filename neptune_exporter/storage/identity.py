# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The identity of a run from its `sys/*` rows, for archives without manifests."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa

from neptune_exporter.model import VALUE_COLUMN, RunInfo, RunRef, utc

_WANTED = {
    "sys/id",
    "sys/name",
    "sys/owner",
    "sys/state",
    "sys/failed",
    "sys/creation_time",
    "sys/modification_time",
    "sys/experiment/name",
    "sys/forking/parent",
    "sys/forking/step",
}


def info_from_rows(ref: RunRef, batches: Iterable[pa.RecordBatch]) -> RunInfo:
    """The identity of a run from all its rows, in `BATCH_SCHEMA`."""
    values: dict[str, Any] = {}
    for batch in batches:
        values.update(sys_values(batch))
    return info_from_values(ref, values)


def names_the_run(batch: pa.RecordBatch) -> bool:
    """Whether some of these rows may be part of a run's identity."""
    return not _WANTED.isdisjoint(batch.column("attribute_path").dictionary.to_pylist())


def sys_values(batch: pa.RecordBatch) -> dict[str, Any]:
    """The `sys/*` values in some rows that make up a run's identity, by attribute path."""
    if not names_the_run(batch):
        return {}
    dictionary = batch.column("attribute_path").dictionary
    is_wanted = pa.compute.is_in(dictionary, pa.array(sorted(_WANTED)))
    return _single_values(batch.filter(is_wanted.take(batch.column("attribute_path").indices)))


def info_from_values(ref: RunRef, values: dict[str, Any]) -> RunInfo:
    """The identity of a run from its `sys/*` values by attribute path."""
    parent, fork_step = _text(values, "sys/forking/parent"), values.get("sys/forking/step")
    return RunInfo(
        ref=ref,
        name=_text(values, "sys/name"),
        sys_id=_text(values, "sys/id"),
        experiment=_text(values, "sys/experiment/name"),
        parent=RunRef(ref.project_id, parent, ref.kind) if parent else None,
        fork_step=Decimal(repr(fork_step)) if isinstance(fork_step, (int, float)) and isfinite(fork_step) else None,
        created=_time(values, "sys/creation_time"),
        modified=_time(values, "sys/modification_time"),
        owner=_text(values, "sys/owner"),
        state=_text(values, "sys/state"),
        failed=values["sys/failed"] if isinstance(values.get("sys/failed"), bool) else None,
    )


def _text(values: dict[str, Any], path: str) -> str | None:
    value = values.get(path)
    return value if isinstance(value, str) else None


def _time(values: dict[str, Any], path: str) -> datetime | None:
    value = values.get(path)
    return value if isinstance(value, datetime) else None


def _single_values(rows: pa.RecordBatch) -> dict[str, Any]:
    values: dict[str, Any] = {}
    paths, types = rows.column("attribute_path").to_pylist(), rows.column("attribute_type").to_pylist()
    for row, (path, kind) in enumerate(zip(paths, types, strict=True)):
        if kind == "datetime":
            with suppress(OverflowError):  # a time that no calendar has says nothing of the run
                values[path] = utc(rows.column("datetime_value")[row].value)
        elif kind in ("float", "int", "bool", "string"):
            values[path] = rows.column(VALUE_COLUMN[kind])[row].as_py()
    return values
