# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Logs with the real `neptune` 1.14 client and remembers, as plain Python objects, what it was given.

Nothing here looks at what the server or the client made of it, nor at anything of ours.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

START = 1_700_000_000.25  # a time that a double holds exactly; points follow in quarters of a second
QUIET = {
    "capture_stdout": False,
    "capture_stderr": False,
    "capture_hardware_metrics": False,
    "capture_traceback": False,
}
_COLUMN = {
    "float": "float_value",
    "float_series": "float_value",
    "int": "int_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    **dict.fromkeys(("file", "file_series", "file_set", "artifact"), "file_value"),
}


class Value(NamedTuple):
    """One value of a run.

    Attributes:
        path: the attribute path.
        type: the attribute type.
        step: the exact step, None for single values.
        time: milliseconds since the epoch, None for single values and images.
        value: floats as their bytes; files as content; members of sets and artifacts as (name, content).
    """

    path: str
    type: str
    step: Decimal | None
    time: int | None
    value: Any


def exact(value: Any) -> Any:
    """A value that compares exactly: -0.0 is not 0.0, NaN is NaN, 1 is not True."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value)
    return type(value).__name__, value


def millis(time: datetime) -> int:
    """Milliseconds since the epoch."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def values_in(records: Iterable[Mapping[str, Any]], content: Mapping[str, bytes]) -> set[Value]:
    """Rows of the archive's schema (as dicts) as `Value`s; no two of them may be the same."""
    found = [_value(record, content) for record in records]
    assert len(set(found)) == len(found), "a row that is there twice"
    return set(found)


def _value(record: Mapping[str, Any], content: Mapping[str, bytes]) -> Value:
    kind = record["attribute_type"]
    value = record[_COLUMN.get(kind, "string_value")]
    if kind == "string_set":
        value = frozenset(value)
    elif kind == "datetime":
        value = millis(value)
    elif kind in ("file_set", "artifact"):
        value = record["string_value"], content[value["path"]]
    elif kind in ("file", "file_series"):
        value = content[value["path"]]
    time = record["timestamp"]
    step = record["step"]
    exact_step = None if step is None else step.normalize() + Decimal(0)
    return Value(record["attribute_path"], kind, exact_step, None if time is None else millis(time), exact(value))


def single(path: str, kind: str, value: Any) -> Value:
    """A value without step and time."""
    return Value(path, kind, None, None, exact(value))


@dataclass
class Truth:
    """What must be found of one run, model or version.

    Attributes:
        values: everything that was logged.
        empty: attributes that exist without values.
    """

    values: set[Value] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)

    @property
    def paths(self) -> set[str]:
        """The attributes that hold something."""
        return {value.path for value in self.values}


def picture(color: int) -> bytes:
    """A small PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (color, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def log_series(run: Any, truth: Truth, path: str, steps: list[float | None], values: list[Any]) -> None:
    """Logs points with steps and times of their own."""
    times = [START + 0.25 * n for n in range(len(values))]
    given = None if all(step is None for step in steps) else steps
    run[path].extend(values, steps=given, timestamps=times)
    kind = "string_series" if isinstance(values[0], str) else "float_series"
    for n, (step, value) in enumerate(zip(steps, values, strict=True)):
        counted = Decimal(repr(step)) if step is not None else Decimal(n)
        value = float(value) if kind == "float_series" else value
        truth.values.add(Value(path, kind, counted.normalize() + Decimal(0), int(times[n] * 1000), exact(value)))


ATOMS: dict[str, tuple[str, Any]] = {
    "params/epochs": ("int", 12),
    "params/int_max": ("int", 2**31 - 1),
    "params/int_min": ("int", -(2**31)),
    "params/rate": ("float", 0.1),
    "params/zero": ("float", -0.0),
    "params/tiny": ("float", 5e-324),
    "params/large": ("float", 1.7976931348623157e308),
    "params/on": ("bool", True),
    "params/off": ("bool", False),
    "params/text": ("string", 'zażółć 🚀\ttab\nline "quotes" \'n \\ backslash'),
    "params/number in text": ("string", "1e5"),
    "params/no text": ("string", ""),
    "ключ/значение ☃": ("string", "unicode path"),
    "a/b": ("int", 1),
    "a_b": ("int", 2),
    "a b": ("int", 3),
    "a.b": ("int", 4),
    "ns/Case": ("int", 5),
    "ns/case": ("int", 6),
    "very/deep/" + "x/" * 20 + "leaf": ("float", 1.5),
}


def log_atoms(run: Any, truth: Truth) -> None:
    """Single values of every type."""
    for path, (kind, value) in ATOMS.items():
        run[path] = value
        truth.values.add(single(path, kind, value))
    time = datetime(2023, 11, 14, 22, 13, 20, 124_000, tzinfo=UTC)
    run["params/when"] = time
    truth.values.add(single("params/when", "datetime", millis(time)))
    run["sets/words"].add(["ß", "a b", "日本"])
    truth.values.add(single("sets/words", "string_set", frozenset({"ß", "a b", "日本"})))


def log_all_series(run: Any, truth: Truth, *, points: int = 20_000) -> None:
    """Series with counted, whole, fractional and negative steps, and one of many pages."""
    log_series(run, truth, "metrics/loss", [None] * 50, [1.0 / (n + 1) for n in range(50)])
    log_series(run, truth, "metrics/long", [None] * points, [n * 0.1 for n in range(points)])
    steps = [-3.0, -0.5, 0.1, 0.29, 0.57, 0.999999, 1.0, 1000000.000001, 123456789012.0]
    log_series(run, truth, "metrics/steps", steps, [float(n) for n in range(len(steps))])
    log_series(run, truth, "logs/text", [None] * 3, ["", 'line\nbreak, "quotes", {braces}', "日本 " * 300])
    run["metrics/configured"].append(1.0, step=1, timestamp=START)
    truth.values.add(Value("metrics/configured", "float_series", Decimal(1), int(START * 1000), exact(1.0)))


def log_files(run: Any, truth: Truth, folder: Path) -> None:
    """Files by path and by content, sets of one and of several, images, an artifact on disk.

    The folder must be the current one: the client names the members of sets from there.
    """
    from neptune.types import File

    folder.mkdir(parents=True, exist_ok=True)
    contents = {"files/model": (b"weights" * 1000, "pt"), "files/empty": (b"", "txt")}
    contents["files/ümlaut name"] = ("ä".encode(), "txt")
    contents["files/large"] = (bytes(range(256)) * 4096 * 6, "bin")  # 6 MB: goes up in several parts
    for path, (content, extension) in contents.items():
        run[path].upload(File.from_content(content, extension=extension))
        truth.values.add(single(path, "file", content))
    tree = {"one.txt": b"1", "sub/two.txt": b"22", "sub/deeper/three.bin": b"\0\xff"}
    for name, content in tree.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(content)
    run["sets/files"].upload_files(str(folder / "tree"))
    run["sets/single"].upload_files(str(folder / "tree" / "one.txt"))
    truth.values |= {single("sets/files", "file_set", (f"tree/{name}", content)) for name, content in tree.items()}
    truth.values.add(single("sets/single", "file_set", ("tree/one.txt", b"1")))
    for step in range(3):
        run["images/epoch"].append(File.from_content(picture(step), extension="png"), name=f"n{step}")
        truth.values.add(Value("images/epoch", "file_series", Decimal(step), None, exact(picture(step))))
    run["data/local"].track_files(str(folder / "tree"))
    truth.values |= {single("data/local", "artifact", (name, content)) for name, content in tree.items()}


def without_lists(values: set[Value]) -> set[Value]:
    """Values but for the lists of artifacts."""
    return {v for v in values if not (v.type == "artifact" and v.value[1][0] is None)}
