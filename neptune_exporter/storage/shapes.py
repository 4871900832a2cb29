# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the JSON of an archive must look like before it is believed: archives come from strangers, too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from neptune_exporter.model import Kind
from neptune_exporter.storage import names

_LARGEST = 2**63
_GENERATIONS = 2**31  # the next one must be readable, too
_LONGEST_PATH = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STEP = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?(E[+-]?[0-9]{1,3})?|-?Infinity|NaN")
_TEXTS = ("name", "sys_id", "experiment", "created", "modified", "owner", "state")


def check_manifest(value: Mapping[str, Any]) -> None:
    """Raises `ValueError` (or what a missing member raises) if a manifest is not of the form that we write."""
    _need(_is_count(value["generation"]) and value["generation"] < _GENERATIONS, "generation")
    _need(isinstance(value["digest"], str), "digest")
    _need(isinstance(value["sorted"], bool), "sorted")
    _check_run(value["run"])
    _check_totals(value["totals"])
    _each(value["sources"], _check_source, "sources")
    _need(bool(value["sources"]), "sources")
    _each(value["parts"], _check_entry, "parts")
    _check_entry(value["index"])
    if value["extra"] is not None:
        _check_entry(value["extra"])
    _each(value["files"], lambda file: _check_file(*file), "files")


def check_plan(value: Mapping[str, Any]) -> None:
    """Raises likewise if what is to be renamed and removed in a commit is not all inside the area."""
    _each(value["renames"], lambda pair: _need(len(pair) == 2 and all(map(_is_path, pair)), "renames"), "renames")
    _need(isinstance(value["removals"], dict) and value["removals"].keys() <= {"data", "files"}, "removals")
    for paths in value["removals"].values():
        _each(paths, lambda path: _need(_is_path(path), "removals"), "removals")


def is_area(value: Any) -> bool:
    """Whether this can be an `area.json`."""
    if not isinstance(value, dict) or not isinstance(value.get("project_id"), str):
        return False
    foreign = value.get("foreign", [])
    has_format = type(value.get("format", 0)) is int
    return has_format and isinstance(foreign, list) and all(isinstance(stem, str) for stem in foreign)


def _need(holds: bool, member: str) -> None:
    if not holds:
        raise ValueError(f"{member} cannot be what was written")


def _each(values: Any, check: Callable[[Any], None], member: str) -> None:
    _need(isinstance(values, list | tuple), member)
    for value in values:
        check(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_number_or_none(value: Any) -> bool:
    return value is None or (type(value) is int and -_LARGEST <= value < _LARGEST)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_PATH and names.is_inside(value)


def _is_ref(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(part, str) for part in value):
        return False
    return value[2] in get_args(Kind)


def _check_run(run: Mapping[str, Any]) -> None:
    _need(_is_ref(run["ref"]), "run.ref")
    _need(run.get("parent") is None or _is_ref(run["parent"]), "run.parent")
    for name in _TEXTS:
        _need(_is_text_or_none(run.get(name)), f"run.{name}")
    _need(run.get("failed") is None or isinstance(run["failed"], bool), "run.failed")
    step = run.get("fork_step")
    _need(step is None or (isinstance(step, str) and bool(_STEP.fullmatch(step))), "run.fork_step")


def _check_totals(totals: Mapping[str, Any]) -> None:
    _need(isinstance(totals, dict) and isinstance(totals["types"], dict), "totals.types")
    for counts in totals["types"].values():
        _need(isinstance(counts, list | tuple) and len(counts) == 2 and all(map(_is_count, counts)), "totals.types")
    for name in ("first_step", "last_step", "first_time", "last_time"):
        _need(_is_number_or_none(totals[name]), f"totals.{name}")


def _check_source(source: Mapping[str, Any]) -> None:
    _need(isinstance(source["exporter"], str) and isinstance(source["source"], str), "sources")
    _need(isinstance(source["state"], dict), "sources.state")
    for problem in source["problems"]:
        _need(isinstance(problem["message"], str) and _is_text_or_none(problem.get("attribute")), "problems")
        _need(problem.get("kind", "permanent") in ("retry", "permanent"), "problems.kind")
        _need(_is_count(problem.get("count", 1)), "problems.count")


def _check_entry(entry: Mapping[str, Any]) -> None:
    _check_file(entry["path"], entry["bytes"], entry["sha256"])
    _need(_is_count(entry["rows"]), "rows")


def _check_file(path: Any, size: Any, sha256: Any) -> None:
    _need(_is_path(path), f"the path {path!r}")
    _need(_is_count(size), f"the size of {path}")
    _need(isinstance(sha256, str) and bool(_SHA256.fullmatch(sha256)), f"the SHA-256 of {path}")
