# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Parameter values as text that says what they are, and back.

int `12`, float `12.0` (`nan`, `inf`, `-0.0`), bool `true`, datetime `2024-01-31T12:00:00.000Z`, string as it is,
string_set a sorted JSON array, `git_ref`, `notebook_ref` and `run_state` as they are.
"""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pyarrow as pa

from neptune_exporter.model import TIME_TYPE, VALUE_COLUMN, time_millis

_WORDS = {"true": True, "false": False}


def parameter_text(attribute_type: str, value: pa.Array) -> str:
    """The text of a value, given as an array of length one from the type's value column."""
    column = VALUE_COLUMN.get(attribute_type, "string_value")
    if column == "datetime_value":
        return time_text(int(time_millis(value)[0]))
    python = value[0].as_py()
    if column == "float_value":
        return "nan" if math.isnan(python) else repr(python)
    if column == "bool_value":
        return "true" if python else "false"
    if column == "string_set_value":
        return json.dumps(sorted(python), ensure_ascii=False)
    return str(python)


def parameter_value(attribute_type: str, text: str) -> pa.Array:
    """The inverse of `parameter_text`, as an array of length one.

    Raises:
        ValueError: no value of this type has this text.
    """
    value = _parsed(VALUE_COLUMN.get(attribute_type, "string_value"), text)
    if parameter_text(attribute_type, value) != text:
        raise ValueError(f"{text!r} is not how a {attribute_type} is written")
    return value


def _parsed(column: str, text: str) -> pa.Array:
    try:
        if column == "datetime_value":
            millis = np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64)
            return pa.array([millis], pa.int64()).cast(TIME_TYPE)  # the smallest one of all is a value, too
        if column == "float_value":
            return pa.array([float(text)], pa.float64())
        if column == "int_value":
            return pa.array([int(text)], pa.int64())
        if column == "bool_value":
            return pa.array([_WORDS[text]], pa.bool_())
        if column == "string_set_value":
            return pa.array([json.loads(text)], pa.list_(pa.string()))
    except (ValueError, KeyError, TypeError, OverflowError, pa.ArrowException) as error:
        raise ValueError(f"{text!r} is no value of {column}") from error
    return pa.array([text], pa.string())


def time_text(millis: int) -> str:
    """ISO 8601 with milliseconds in UTC, for every time that int64 can hold."""
    return f"{np.datetime64(millis, 'ms')}Z"


def pointer_text(text: str, where: str) -> str:
    """What stands for a value that the target cannot hold: where it is, its length and its hash."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{where}: {len(text)} characters, blake2b {digest}"


def held_text(text: str, length: int, where: str) -> str:
    """The text if a target that takes `length` characters and no NUL can hold it, else a pointer to `where`."""
    return text if len(text) <= length and "\0" not in text else pointer_text(text, where)
