# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the attributes of a run become in Pluto, and under which names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neptune_exporter.loaders.attachments import AttributeRecord, Place
from neptune_exporter.loaders.file_names import FILE_TYPES
from neptune_exporter.loaders.keys import target_keys
from neptune_exporter.loaders.pluto.config import LARGEST_INT
from neptune_exporter.loaders.pluto.marks import CONFIG_RULE, KEY_RULE, SERIES_TEXT_LENGTH
from neptune_exporter.loaders.pluto.points import LAST_MS
from neptune_exporter.model import MICRO, NO_VALUE, Int64s, step_micros, time_millis

TAG_SETS = frozenset({"sys/tags", "sys/group_tags"})
CONSOLE = {"stdout": "INFO", "stderr": "ERROR"}
DATA_TYPES = {"string_series": "string-series", "histogram_series": "HISTOGRAM"}


def place_of(path: str, attribute_type: str) -> Place:
    """What an attribute becomes in Pluto."""
    if attribute_type == "float_series":
        return "metric"
    if attribute_type in FILE_TYPES:
        return "artifact"
    if attribute_type in DATA_TYPES:
        return "log" if attribute_type == "string_series" and path.rpartition("/")[2] in CONSOLE else "series"
    return "tag" if attribute_type == "string_set" and path in TAG_SETS else "parameter"


def records_of(attributes: Iterable[Any]) -> dict[tuple[str, str], AttributeRecord]:
    """Where each attribute of a run goes, in order of path and type.

    Metrics, series and files share one set of names: Pluto knows one kind of thing by a name.
    """
    names = sorted({(a.path, a.type) for a in attributes})
    records = {name: AttributeRecord(*name, place_of(*name), "") for name in names}
    config = [name for name in names if records[name].place in ("parameter", "tag")]
    logged = [name for name in names if records[name].place in ("metric", "series", "artifact")]
    for some, rule in ((config, CONFIG_RULE), (logged, KEY_RULE)):
        for name, key in target_keys(some, rule).items():
            records[name].key = key
    for (path, _), record in records.items():
        if record.place == "log":
            record.key = CONSOLE[path.rpartition("/")[2]]
    return records


def shown_steps(rows: pa.RecordBatch, multiplier: int) -> Int64s:
    """The steps of a series as Pluto shows them: whole, from 0 on. The exact ones are attached."""
    micros = step_micros(rows.column("step"))
    whole, part = np.divmod(np.where(micros == NO_VALUE, 0, micros), MICRO)
    whole = np.clip(whole, 0, LARGEST_INT // multiplier - 1)
    return np.where(micros < 0, 0, whole * multiplier + part * multiplier // MICRO)


def shown_times(rows: pa.RecordBatch, start_ms: int) -> Int64s:
    """The times of a series as Pluto can hold them."""
    times = time_millis(rows.column("timestamp"))
    return np.clip(np.where(times == NO_VALUE, start_ms, times), 0, LAST_MS)


def shown_texts(values: pa.Array) -> pa.Array:
    """The values of a string series as Pluto shows them: not too long. The exact ones are attached."""
    short = pc.binary_join_element_wise(pc.utf8_slice_codeunits(values, 0, SERIES_TEXT_LENGTH - 1), "…", "")
    return pc.if_else(pc.greater(pc.utf8_length(values), SERIES_TEXT_LENGTH), short, values)
