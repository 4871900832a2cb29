# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Logs runs with the real neptune-scale client and remembers, as plain Python objects, what it was given.

Nothing here looks at what the client wrote or at anything of ours: `Truth` is what a reader must find.
"""

from __future__ import annotations

import io
import math
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

PROJECT = "team/truth"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2026, 3, 1, 12, 0, 0, 678_901, tzinfo=UTC)


class HistogramValue(NamedTuple):
    """A histogram as it was logged; `type` is COUNTING or DENSITY."""

    type: str
    edges: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One value.

    Attributes:
        path: the attribute path.
        type: the attribute type.
        step: the exact step, None for single values.
        time: rounded to milliseconds, None for single values, ... where the client chose it.
        value: int, float, str, bool, datetime, frozenset of str, `HistogramValue`, or bytes of a file.
    """

    path: str
    type: str
    step: Decimal | None
    time: datetime | EllipsisType | None
    value: Any

    @property
    def key(self) -> tuple[Any, ...]:
        """A form that compares exactly: NaN equals NaN, -0.0 is not 0.0, 1 is not 1.0; an unknown time is no time."""
        return self.path, self.type, self.step, "any" if self.time is ... else self.time, exact(self.value)


def exact(value: Any) -> Any:
    """A value in a form that compares exactly."""
    if isinstance(value, HistogramValue):
        return value.type, tuple(map(exact, value.edges)), tuple(map(exact, value.values))
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value)
    return type(value).__name__, value


def millis(time: datetime) -> datetime:
    """A time as Arrow milliseconds hold it: rounded, halves up."""
    micros = (time - EPOCH) // timedelta(microseconds=1)
    return EPOCH + timedelta(milliseconds=(micros + 500) // 1000)


@dataclass
class RunTruth:
    """What was logged to one run.

    Attributes:
        run_id: the run id.
        rows: every value that must be found, files included (`value` is their content).
        previews: points that were still previews at the end.
        experiment: the experiment name, None if not given.
        created: the creation time.
        parent: the id of the run it was forked from.
        fork_step: the step of the fork.
    """

    run_id: str
    rows: list[Row] = field(default_factory=list)
    previews: list[Row] = field(default_factory=list)
    experiment: str | None = None
    created: datetime | None = None
    parent: str | None = None
    fork_step: Decimal | None = None

    @property
    def files(self) -> dict[tuple[str, Decimal | None], bytes]:
        """The content of every file by attribute path and step."""
        return {(row.path, row.step): row.value for row in self.rows if row.type in ("file", "file_series")}

    @property
    def system_rows(self) -> list[Row]:
        """What Neptune's server makes of the run's identity."""
        values: dict[tuple[str, str], Any] = {("sys/custom_run_id", "string"): self.run_id}
        if self.experiment is not None:
            values["sys/name", "string"] = values["sys/experiment/name", "string"] = self.experiment
        if self.created is not None:
            values["sys/creation_time", "datetime"] = self.created
        if self.parent is not None and self.fork_step is not None:
            values["sys/forking/parent", "string"] = self.parent
            values["sys/forking/step", "float"] = float(self.fork_step)
        return [Row(path, kind, None, None, value) for (path, kind), value in values.items()]

    @property
    def all_rows(self) -> list[Row]:
        """All rows of the run, those of its identity included."""
        return self.rows + self.system_rows


@dataclass
class Truth:
    """What was logged.

    Attributes:
        directory: the client's log directory (what `--offline-path` takes).
        project: the project id.
        runs: the runs by id.
    """

    directory: Path
    project: str = PROJECT
    runs: dict[str, RunTruth] = field(default_factory=dict)


class Logger:
    """One session of the real client, and what it was told. Several sessions of one run share a `RunTruth`.

    Args:
        directory: the client's log directory.
        run_id: the run id.
        truth: continues this run.
        options: for `neptune_scale.Run`.
    """

    def __init__(self, directory: Path, run_id: str, *, truth: RunTruth | None = None, **options: Any) -> None:
        from neptune_scale import Run

        self.truth = truth or RunTruth(run_id)
        self._single: dict[str, Row] = {row.path: row for row in self.truth.rows if row.step is None}
        self._points = [row for row in self.truth.rows if row.step is not None]
        self._previews = {(row.path, row.step): row for row in self.truth.previews}
        created = options.setdefault("creation_time", START)
        options.setdefault("project", PROJECT)
        options.setdefault("enable_console_log_capture", False)
        options.setdefault("source_tracking_config", None)
        if self.truth.created is None:
            self.truth.created = millis(created)
            self.truth.parent = options.get("fork_run_id")
            self.truth.fork_step = None if self.truth.parent is None else Decimal(str(options["fork_step"]))
        self.truth.experiment = options.get("experiment_name") or self.truth.experiment
        self.run = Run(run_id=run_id, mode="offline", log_directory=directory, **options)

    @property
    def store(self) -> Path:
        """The folder that the client made for this session."""
        return Path(self.run._storage_directory_path)

    def configs(self, values: Mapping[str, Any]) -> None:
        """`log_configs`: the last value of an attribute counts."""
        self.run.log_configs(dict(values))
        for path, value in values.items():
            kind, kept = _single_value(value)
            self._single[path] = Row(path, kind, None, None, kept)

    def tags(self, *tags: str, group: bool = False, remove: bool = False) -> None:
        """`add_tags` and `remove_tags`."""
        (self.run.remove_tags if remove else self.run.add_tags)(list(tags), group_tags=group)
        path = "sys/group_tags" if group else "sys/tags"
        before = self._single[path].value if path in self._single else frozenset()
        after = before - set(tags) if remove else before | set(tags)
        self._single[path] = Row(path, "string_set", None, None, frozenset(after))

    def metrics(self, values: Mapping[str, float], step: str, time: datetime = START, *, preview: bool = False) -> None:
        """`log_metrics`: a later point at the same step replaces a preview."""
        self.run.log_metrics(dict(values), step=_number(step), timestamp=time, preview=preview)
        for path, value in values.items():
            row = Row(path, "float_series", Decimal(step), millis(time), float(value))
            self._previews.pop((path, row.step), None)
            if preview:
                self._previews[path, row.step] = row
            else:
                self._points.append(row)

    def texts(self, values: Mapping[str, str], step: str, time: datetime = START) -> None:
        """`log_string_series`."""
        self.run.log_string_series(dict(values), step=_number(step), timestamp=time)
        self._points += [Row(p, "string_series", Decimal(step), millis(time), v) for p, v in values.items()]

    def histograms(self, values: Mapping[str, HistogramValue], step: str, time: datetime = START) -> None:
        """`log_histograms`."""
        from neptune_scale.types import Histogram

        native = {}
        for path, value in values.items():
            heights = {"counts": [int(v) for v in value.values]}
            if value.type == "DENSITY":
                heights = {"densities": list(value.values)}
            native[path] = Histogram(bin_edges=list(value.edges), **heights)
        self.run.log_histograms(native, step=_number(step), timestamp=time)
        self._points += [Row(p, "histogram_series", Decimal(step), millis(time), v) for p, v in values.items()]

    def files(self, values: Mapping[str, Any], step: str | None = None, time: datetime = START) -> None:
        """`assign_files`, or `log_files` with a step. Values are bytes, paths or `neptune_scale.types.File`."""
        if step is None:
            self.run.assign_files(dict(values))
        else:
            self.run.log_files(dict(values), step=_number(step), timestamp=time)
        for path, value in values.items():
            source = getattr(value, "source", value)
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            if step is None:
                self._single[path] = Row(path, "file", None, None, content)
            else:
                self._points.append(Row(path, "file_series", Decimal(step), millis(time), content))

    def printed(self, path: str, lines: list[str], first_step: Decimal = Decimal(0)) -> None:
        """Lines that the client has captured from the console: their steps count millionths."""
        for number, line in enumerate(lines, 1):
            self._points.append(Row(path, "string_series", first_step + number * Decimal("0.000001"), ..., line))

    def close(self) -> RunTruth:
        """Ends the session."""
        self.run.close()
        return self.settle()

    def settle(self) -> RunTruth:
        """The truth so far, for a session that never ends properly."""
        self.truth.rows = [*self._single.values(), *self._points]
        self.truth.previews = list(self._previews.values())
        return self.truth


def _number(step: str) -> float | int:
    return float(step) if "." in step else int(step)


def _single_value(value: Any) -> tuple[str, Any]:
    if isinstance(value, datetime):
        return "datetime", millis(value)
    if isinstance(value, list | set | tuple):
        return "string_set", frozenset(value)
    return type(value).__name__.replace("str", "string"), value


@contextmanager
def console() -> Iterator[None]:
    """A console of our own, so that the client captures what is printed here and nothing else."""
    from neptune_scale.logging import console_log_capture as capture

    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    capture._stdout_with_memory = capture._stderr_with_memory = None
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        capture._stdout_with_memory = capture._stderr_with_memory = None


def log_everything(directory: Path) -> Truth:
    """Logs every type of value there is, in several runs.

    Args:
        directory: an empty folder. The client writes below `.neptune` in it, files logged by path lie beside that.

    Returns:
        What was logged.
    """
    truth = Truth(directory / ".neptune")
    for log in (_log_types, _log_fork, _log_resumed, _log_hostile_names):
        for run in log(directory):
            truth.runs[run.run_id] = run
    return truth


LONG_NAME = "long/" + "ü" * 497 + "x"  # 1,000 bytes
METRIC_NAMES = ("loss", "metrics/acc", "a/b", "a_b", "a b", "метрика/日本", LONG_NAME)
# The client multiplies by 1e6 in floating point: the last step is one that survives it.
STEPS = ("0", "0.1", "0.29", "0.57", "1", "2.000001", "1000000", "999999999998")


def _log_types(directory: Path) -> Iterator[RunTruth]:
    with console():
        log = Logger(directory / ".neptune", "everything", experiment_name="Grün & co", enable_console_log_capture=True)
        for line in ("epoch 1: loss 0.5", "tab\there", "日本 ✓"):
            sys.stdout.write(line + "\n")
        sys.stderr.write("a warning\n")
        _configs(log)
        _series(log)
        _files(log, directory)
        log.run.close()
    log.printed("runtime/stdout", ["epoch 1: loss 0.5", "tab\there", "日本 ✓"])
    log.printed("runtime/stderr", ["a warning"])
    yield log.settle()


def _configs(log: Logger) -> None:
    log.configs({"lr": 1, "same": "old"})
    log.configs(
        {
            "int/largest": 2**63 - 1,
            "int/smallest": -(2**63),
            "int/odd": 2**53 + 1,
            "int/zero": 0,
            "float/nan": math.nan,
            "float/inf": math.inf,
            "float/-inf": -math.inf,
            "float/-0.0": -0.0,
            "float/0.0": 0.0,
            "float/tiny": 5e-324,
            "float/whole": 12.0,
            "string/empty": "",
            "string/lines": "a\nb\r\n\tc\0d",
            "string/emoji": "😀 e\u0301 \u202e",
            "string/1MiB": "é" * 2**19,
            "bool/true": True,
            "bool/false": False,
            "datetime/utc": datetime(2024, 2, 29, 23, 59, 59, 999_499, tzinfo=UTC),
            "datetime/zone": datetime(2024, 6, 1, 1, 2, 3, 4_500, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "set/list": ["b", "a", "a", ",", ""],
            "set/tuple": ("x",),
            "a/b": 1,
            "a_b": 2,
            "a b": 3,
            LONG_NAME: "a name of 1,000 bytes",
        }
    )
    log.configs({"lr": 0.001, "same": "new"})
    log.tags("one", "two", "drei, vier")
    log.tags("two", "never added", remove=True)
    log.tags("two", "five")
    log.tags("group", "other", group=True)
    log.tags("other", group=True, remove=True)


def _series(log: Logger) -> None:
    special = (0.5, math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324, 1 / 3)
    for number, (step, value) in enumerate(zip(STEPS, special, strict=True)):
        time = START + timedelta(seconds=number, microseconds=100 * number)
        log.metrics({f"series/{name}": value + index for index, name in enumerate(METRIC_NAMES)}, step, time)
        log.metrics({"series/alone": value}, step, time)
        log.texts({"text/one": f"line {number}\nand more", "text/日本": ""}, step, time)
    log.metrics({"series/back": 2.0}, "2")
    log.metrics({"series/back": 1.0}, "1")
    log.metrics({"series/back": 1.0}, "1")
    log.metrics({"series/back": 7}, "1", START + timedelta(days=1))
    log.metrics({"mixed": 1.0}, "1")
    log.texts({"mixed": "text under the name of a metric", "text/1MiB": "x" * 2**20}, "1")
    log.metrics({"previewed/loss": 1.0, "previewed/only": 1.0}, "1", preview=True)
    log.metrics({"previewed/loss": 2.0}, "1", preview=True)
    log.metrics({"previewed/loss": 3.0}, "1")
    log.metrics({"previewed/loss": 4.0}, "2", preview=True)
    counts = HistogramValue("COUNTING", (0.0, 1.5, 3.0), (2.0, 2.0**53))
    density = HistogramValue("DENSITY", (-1.0, 0.25, 0.5, 1e300), (0.1, 0.0, 1 / 3))
    widest = HistogramValue("COUNTING", tuple(float(edge) for edge in range(513)), tuple(float(n) for n in range(512)))
    for step in ("0.1", "0.29", "3"):
        log.histograms({"hist/counts": counts, "hist/density": density, "hist/widest": widest}, step)


def _files(log: Logger, directory: Path) -> None:
    from neptune_scale.types import File

    attached = directory / "attached files"
    attached.mkdir()
    (attached / "model.bin").write_bytes(bytes(range(256)) * 9000)
    (attached / "empty.txt").write_bytes(b"")
    (attached / "résumé (1).tar.gz").write_bytes(b"not really")
    log.files({"files/model": b"first version"})
    log.files(
        {
            "files/model": attached / "model.bin",
            "files/text": str(attached / "empty.txt"),
            "files/bytes": b"\x89PNG\r\n\x1a\n and more",
            "files/named": File(b"a,b\n1,2\n", mime_type="text/csv", destination="my/own/table.csv"),
            "a.b": b"dot",
            "a/b/file": b"slash",
            "a_b/file": b"underscore",
        }
    )
    for step, content in (("0", b"zero"), ("0.29", b"0.29"), ("12", b"twelve")):
        log.files({"file series/image": content, "file series/log": attached / "résumé (1).tar.gz"}, step)


def _log_fork(directory: Path) -> Iterator[RunTruth]:
    log = Logger(
        directory / ".neptune",
        "fork",
        experiment_name="Grün & co",
        fork_run_id="everything",
        fork_step=0.57,
        creation_time=START + timedelta(hours=1),
    )
    log.metrics({"series/loss": 0.25}, "0.58")
    log.configs({"lr": 0.002})
    yield log.close()


def _log_resumed(directory: Path) -> Iterator[RunTruth]:
    """Three sessions of one run: each is a store of its own."""
    run = RunTruth("resumed")
    for session in range(3):
        log = Logger(
            directory / ".neptune",
            "resumed",
            truth=run,
            creation_time=START + timedelta(days=session),
            experiment_name=f"session {session}" if session < 2 else None,
        )
        log.configs({"session": session, f"only/{session}": True})
        log.tags(f"from {session}")
        if session:
            log.tags(f"from {session - 1}", remove=True)
        for step in range(10 * session, 10 * session + 12):  # two steps are logged twice
            log.metrics({"loss": 1 / (step + 1), "session": session}, str(step), START + timedelta(seconds=step))
        log.metrics({"previewed": float(session)}, "7" if session < 2 else "8", preview=session != 1)
        log.files({"artifact": f"of session {session}".encode()})
        run = log.close()
    yield run


def _log_hostile_names(directory: Path) -> Iterator[RunTruth]:
    for run_id in ("run.1", "run_1", "..", "run_part_0 ünï:*?", "漢" * 100):
        log = Logger(directory / ".neptune", run_id)
        log.configs({"id": run_id})
        log.metrics({"loss": 1.0}, "0")
        yield log.close()


class Content(Mapping[str, bytes]):
    """The content of files by what `file_value.path` says, read when asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __getitem__(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def __iter__(self) -> Iterator[str]:
        return (str(p.relative_to(self._root)) for p in self._root.rglob("*") if p.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)


_COLUMN = {
    "float": "float_value",
    "float_series": "float_value",
    "int": "int_value",
    "bool": "bool_value",
    "string": "string_value",
    "string_series": "string_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    "histogram_series": "histogram_value",
    "file": "file_value",
    "file_series": "file_value",
}


def rows_in(table: Any, content: Mapping[str, bytes]) -> list[Row]:
    """The rows of an Arrow table or batch in the archive's schema as `Row`s.

    Every column but the one of the row's type must be null.
    """
    return [_row(record, content) for record in table.to_pylist()]


def _row(record: dict[str, Any], content: Mapping[str, bytes]) -> Row:
    kind = record["attribute_type"]
    filled = {name for name, value in record.items() if name.endswith("_value") and value is not None}
    assert filled == {_COLUMN[kind]}, record
    value = record[_COLUMN[kind]]
    if kind == "string_set":
        assert len(set(value)) == len(value), record
        value = frozenset(value)
    elif kind == "histogram_series":
        value = HistogramValue(value["type"], tuple(value["edges"]), tuple(value["values"]))
    elif kind in ("file", "file_series"):
        value = content[value["path"]]
    return Row(record["attribute_path"], kind, _exact_step(record["step"]), record["timestamp"], value)


def _exact_step(step: Decimal | None) -> Decimal | None:
    return None if step is None else step.normalize() if step else Decimal(0)


def differences(expected: list[Row], found: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that are missing and rows that are too many; order does not count, duplicates do.

    Where the expected time is unknown, any time will do, but there must be one.
    """
    unknown_time = {(row.path, row.type) for row in expected if row.time is ...}
    seen: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        if (row.path, row.type) in unknown_time and row.time is not None:
            row = replace(row, time=...)
        seen.setdefault(replace(row, step=_exact_step(row.step)).key, []).append(row)
    missing = []
    for row in expected:
        same = seen.get(replace(row, step=_exact_step(row.step)).key)
        if same:
            same.pop()
        else:
            missing.append(row)
    return missing, [row for rows in seen.values() for row in rows]
