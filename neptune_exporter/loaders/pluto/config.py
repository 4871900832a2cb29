# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Single values as entries of a Pluto config, natively where JSON in JavaScript and PostgreSQL keeps them, and back.

Numbers are numbers, truth values truth values, sets sorted lists. Whole numbers beyond 2^53, NaN, infinities and -0.0
are text, as are times (ISO 8601). A text that is very long or holds a NUL is replaced by a pointer to the attachment.
"""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from neptune_exporter.loaders.attachments import DATA, FOLDER
from neptune_exporter.loaders.parameters import held_text, parameter_text, parameter_value, pointer_text
from neptune_exporter.loaders.pluto.marks import CONFIG_TEXT_LENGTH
from neptune_exporter.model import VALUE_COLUMN

LARGEST_INT = 2**53 - 1  # JavaScript, in which Pluto's server is written, has no larger ones
WHERE = f"{FOLDER}/{DATA}"
Json = bool | int | float | str | list[str] | None


def config_value(attribute_type: str, value: pa.Array) -> Json:
    """The entry of a value, given as an array of length one from the type's value column."""
    column = VALUE_COLUMN.get(attribute_type, "string_value")
    python: Any = value[0].as_py() if column != "datetime_value" else None
    if column == "bool_value":
        return bool(python)
    if column == "int_value" and abs(python) <= LARGEST_INT:
        return int(python)
    if column == "float_value" and math.isfinite(python) and (python or math.copysign(1, python) > 0):
        return float(python)
    text = parameter_text(attribute_type, value)
    if column != "string_set_value":
        return held_text(text, CONFIG_TEXT_LENGTH, WHERE)
    if len(text) > CONFIG_TEXT_LENGTH or any("\0" in element for element in python):
        return pointer_text(text, WHERE)
    return sorted(python)


def config_array(attribute_type: str, entry: Any) -> pa.Array:
    """The inverse of `config_value`, as an array of length one.

    Raises:
        ValueError: no value of this type has this entry.
    """
    column = VALUE_COLUMN.get(attribute_type, "string_value")
    if isinstance(entry, list) and column == "string_set_value":
        return pa.array([[str(element) for element in entry]], pa.list_(pa.string()))
    if isinstance(entry, bool):
        if column != "bool_value":
            raise ValueError(f"{entry!r} is no {attribute_type}")
        return pa.array([entry], pa.bool_())
    if isinstance(entry, int | float) and column == "float_value":
        return pa.array([float(entry)], pa.float64())
    if isinstance(entry, int) and column == "int_value":
        return pa.array([entry], pa.int64())
    if isinstance(entry, str) and column not in ("bool_value", "string_set_value"):
        return parameter_value(attribute_type, entry)
    raise ValueError(f"{entry!r} is no {attribute_type}")


def shown_text(entry: Any) -> str:
    """An entry that we did not write, as text."""
    return entry if isinstance(entry, str) else str(entry)
