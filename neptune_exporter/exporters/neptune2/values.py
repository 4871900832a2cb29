# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Single values of a run, from the one reply that holds them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from neptune_exporter.exporters.exporter import Findings
from neptune_exporter.model import VALUE_COLUMN, OutsideValue, RunRef, rows_batch, time_array

TYPES = {
    "float": "float",
    "int": "int",
    "bool": "bool",
    "string": "string",
    "datetime": "datetime",
    "stringSet": "string_set",
    "experimentState": "run_state",
    "gitRef": "git_ref",
    "notebookRef": "notebook_ref",
    "floatSeries": "float_series",
    "stringSeries": "string_series",
    "imageSeries": "file_series",
    "file": "file",
    "fileSet": "file_set",
    "artifact": "artifact",
}
SINGLE = frozenset({"float", "int", "bool", "string", "datetime", "string_set", "run_state", "git_ref", "notebook_ref"})
BATCH_ROWS = 10_000
_NAMES = ("attributeName", "attributeType")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = range(-(2**63), 2**63)


class Attribute(NamedTuple):
    """One attribute as the server describes it.

    Attributes:
        path: the attribute path.
        type: our name of its type; the server's own where we have none.
        properties: what the server says of it.
    """

    path: str
    type: str
    properties: Mapping[str, Any]


def attributes_of(reply: Mapping[str, Any]) -> list[Attribute]:
    """All attributes of a `getExperimentAttributes` reply."""
    return [
        Attribute(a["name"], TYPES.get(a["type"], a["type"]), a.get(f"{a['type']}Properties") or {})
        for a in reply["attributes"]
    ]


def parse_time(value: Any) -> int | None:
    """Milliseconds since the epoch from what the server writes, rounded; None if it is no time."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return round(since / timedelta(milliseconds=1))


def batches(ref: RunRef, attributes: Iterable[Attribute], findings: Findings) -> Iterator[pa.RecordBatch]:
    """Single values as batches, type by type; what the schema cannot hold is found beside the run."""
    by_type: dict[str, list[tuple[str, Any]]] = {}
    for attribute in attributes:
        value = _value(attribute)
        reason = _refusal(attribute, value)
        if reason:
            exact = json.loads(json.dumps(_own(attribute.properties)))
            findings.outside(OutsideValue(attribute.path, attribute.type, reason, exact))
        else:
            by_type.setdefault(attribute.type, []).append((attribute.path, value))
    for kind, found in by_type.items():
        for start in range(0, len(found), BATCH_ROWS):
            paths, values = zip(*found[start : start + BATCH_ROWS], strict=True)
            yield rows_batch(ref, pa.array(paths, pa.string()), kind, **{VALUE_COLUMN[kind]: _column(kind, values)})


def _own(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name not in _NAMES}


def _value(attribute: Attribute) -> Any:
    properties = attribute.properties
    if attribute.type in ("git_ref", "notebook_ref"):
        return json.dumps(_own(properties), ensure_ascii=False, sort_keys=True)
    if attribute.type == "string_set":
        return sorted(properties.get("values") or ())
    value = properties.get("value")
    if attribute.type == "run_state":
        return json.dumps(value, ensure_ascii=False)
    if attribute.type == "datetime":
        return parse_time(value)
    if attribute.type == "float" and isinstance(value, (int, str)):
        return _float(value)
    return value


def _float(value: int | str) -> float | None:
    """A number; Java writes "NaN" and "Infinity" as text."""
    try:
        return float(value)
    except ValueError:
        return None


def _refusal(attribute: Attribute, value: Any) -> str:
    """Why the schema cannot hold a value, or ""."""
    if attribute.type not in SINGLE:
        return "this version does not know the type"
    expected = {"float": float, "int": int, "bool": bool, "datetime": int, "string_set": list}.get(attribute.type, str)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        return f"the server sent no {attribute.type}"
    if attribute.type == "int" and value not in _INT64:
        return "a whole number of more than 64 bits"
    texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    if not all(is_text(text) for text in (*texts, attribute.path)):
        return "text with a lone surrogate"
    return ""


def is_text(value: Any) -> bool:
    """Whether it is text that UTF-8 can hold."""
    try:
        value.encode()
    except (UnicodeEncodeError, AttributeError):
        return False
    return True


def _column(kind: str, values: Iterable[Any]) -> pa.Array:
    if kind == "datetime":
        return time_array(np.array(list(values), np.int64))
    types = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "string_set": pa.list_(pa.string())}
    return pa.array(values, types.get(kind, pa.string()))
