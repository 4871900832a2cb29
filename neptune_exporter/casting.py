# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Brings a column into another type, or says that it would not be the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def exactly(column: Any, type_: pa.DataType) -> Any:
    """The column in another type. Raises `pyarrow.ArrowInvalid` where a value would be another one.

    Arrow itself rounds floats to decimals, decimals to floats, and takes every number but 0 for true.
    """
    found = column.type
    if pa.types.is_dictionary(type_) and not pa.types.is_dictionary(found):
        column = column.cast(pa.string()).dictionary_encode()
    if pa.types.is_decimal(found) and pa.types.is_floating(type_):
        cast = column.cast(pa.string()).cast(type_)  # the nearest float: Arrow's own way may miss it
    else:
        cast = column.cast(type_)
    same = True
    if pa.types.is_floating(found) and pa.types.is_decimal(type_):
        same = _is_close(column, cast.cast(found))
    elif pa.types.is_decimal(found) and pa.types.is_floating(type_):
        # As it is, or as the shortest text that is this float.
        same = cast.cast(found).equals(column) or cast.cast(pa.string()).cast(found).equals(column)
    elif pa.types.is_boolean(type_) and (pa.types.is_integer(found) or pa.types.is_floating(found)):
        same = cast.cast(found).equals(column)
    if not same:
        raise pa.ArrowInvalid(f"Casting {found} to {type_} would cause data loss")
    return cast


def _is_close(column: Any, again: Any) -> bool:
    """Whether floats are the nearest ones to what they became, as far as Arrow's own rounding goes."""
    was, became = (values.drop_null().to_numpy(zero_copy_only=False) for values in (column, again))
    return bool(np.all(np.abs(was - became) <= 2 * np.abs(np.spacing(was))))
