# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Single values as entries of W&B's config, and back; and the entry that identifies a run.

Ints, floats, bools and strings are what they are, times are ISO 8601, sets sorted lists. What JSON or a browser would
change is text: NaN and the infinities, and ints beyond 2^53. The type of each is in the run's manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.loaders.parameters import held_text, parameter_value, time_text
from neptune_exporter.loaders.wandb import names
from neptune_exporter.model import VALUE_COLUMN, RunRef, time_millis

FORMAT = 1  # of the rows: a load goes on only where one of the same format has stopped
STARTED, COMPLETE, SUPERSEDED = "started", "complete", "superseded"
LARGEST_INT = 2**53
TEXT_LENGTH = 20_000  # every search for runs brings their whole config along
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def config_value(attribute_type: str, value: pa.Array, where: str) -> Any:
    """The JSON value of a single value, given as an array of length one.

    Args:
        attribute_type: its type.
        value: from the type's value column.
        where: the file that a pointer names, for texts that are too long.
    """
    column = VALUE_COLUMN.get(attribute_type, "string_value")
    if column == "datetime_value":
        return time_text(int(time_millis(value)[0]))
    python = value[0].as_py()
    if column == "float_value":
        return python if math.isfinite(python) else next(t for t, n in _NUMBERS.items() if repr(n) == repr(python))
    if column == "int_value":
        return python if abs(python) <= LARGEST_INT else str(python)
    if column == "string_set_value":
        return sorted(python)
    return python if column == "bool_value" else held_text(python, TEXT_LENGTH, where)


def value_of(attribute_type: str, held: Any) -> pa.Array:
    """The inverse of `config_value`, as an array of length one.

    Raises:
        ValueError: no value of this type looks so in a config.
    """
    column = VALUE_COLUMN.get(attribute_type, "string_value")
    number = isinstance(held, int | float) and not isinstance(held, bool)
    if column == "float_value" and (number or held in _NUMBERS):
        return pa.array([float(held) if number else _NUMBERS[held]], pa.float64())
    if column == "int_value" and (isinstance(held, str) or (number and held == int(held))):
        return pa.array([int(held)], pa.int64())
    if column == "bool_value" and isinstance(held, bool):
        return pa.array([held])
    if column == "datetime_value" and isinstance(held, str):
        return parameter_value(attribute_type, held)
    if column == "string_value" and isinstance(held, str):
        return pa.array([held], pa.string())
    if column == "string_set_value" and isinstance(held, list) and all(isinstance(item, str) for item in held):
        return pa.array([held], pa.list_(pa.string()))
    raise ValueError(f"{held!r} is not how a {attribute_type} looks in a config")


def comes_back(attribute_type: str, row: pa.RecordBatch, value: pa.Array, held: Any) -> bool:
    """Whether a row can be rebuilt from its config value alone."""
    if not (row.column("step").null_count and row.column("timestamp").null_count):
        return False
    try:
        back = value_of(attribute_type, held)
    except ValueError:
        return False
    if attribute_type == "string_set":
        return sorted(back[0].as_py()) == sorted(value[0].as_py())
    if VALUE_COLUMN.get(attribute_type) == "datetime_value":
        return int(time_millis(back)[0]) == int(time_millis(value)[0])
    return repr(back[0].as_py()) == repr(value[0].as_py()) != "-0.0"  # which JSON loses on its way


def same(held: Any, expected: Any) -> bool:
    """Whether two config values are equal as JSON, where 1 and 1.0 are."""
    return (type(held) is type(expected) and held == expected) or (
        isinstance(held, int | float)
        and isinstance(expected, int | float)
        and not isinstance(held, bool)
        and not isinstance(expected, bool)
        and held == expected
    )


def wrapped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a config as the server has them."""
    return {key: {"desc": None, "value": value} for key, value in values.items()}


def identity(run: RunToLoad, generation: int, multiplier: int, plan: str) -> dict[str, Any]:
    """What identifies a run in W&B: the config entry `neptune`. Its `load` says how far the load has come."""
    info = run.info
    value: dict[str, Any] = {
        "project_id": info.ref.project_id,
        "run_id": info.ref.run_id,
        "kind": info.ref.kind,
        "sys_id": info.sys_id,
        "experiment": info.experiment,
        "owner": info.owner,
        "created": info.created and info.created.isoformat(),
        "modified": info.modified and info.modified.isoformat(),
        "failed": info.failed,
        "parent": info.parent and info.parent.run_id,
        "parent_wandb_id": info.parent and names.run_id(info.parent, 1),
        "fork_step": None if info.fork_step is None else f"{info.fork_step.normalize():f}",
        "export": "partial" if run.problems else "complete",
        "problems": len(run.problems) or None,
        "step_multiplier": multiplier,
        "generation": generation,
        "load": {"state": STARTED, "digest": run.digest, "plan": plan},
    }
    return {key: entry for key, entry in value.items() if entry is not None}


def ref_of(config: Mapping[str, Any]) -> RunRef | None:
    """The Neptune run that a config (without wrappers) names."""
    ours = config.get(names.OURS)
    if not isinstance(ours, dict) or "project_id" not in ours or "run_id" not in ours:
        return None
    return RunRef(ours["project_id"], ours["run_id"], ours.get("kind", "run"))


def load_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """How far the load of a run has come: `state`, `digest`, `plan`, and once it is complete what was loaded."""
    ours = config.get(names.OURS)
    load = ours.get("load") if isinstance(ours, dict) else None
    return load if isinstance(load, dict) else {}
