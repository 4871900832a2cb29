# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a Pluto server keeps: runs as JavaScript and PostgreSQL hold them, rows as ClickHouse does, files as S3 does."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

UINT64 = range(2**64)


class RefusedError(Exception):
    """The server says no, with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Run:
    """A run.

    Attributes:
        metrics: every row that was ever taken: (time, value) by log name and step, in order of arrival.
        data: rows of series, in order of arrival; one that is sent twice is there twice.
        logs: lines of the console, likewise.
        files: what was announced, likewise.
    """

    id: int
    name: str
    project: str
    external_id: str | None
    config: dict[str, Any]
    settings: Any
    tags: list[str]
    created_ms: int
    fork: tuple[int, int] | None = None
    status: str = "RUNNING"
    status_ms: int | None = None
    log_names: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, list[tuple[int, float]]]] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[tuple[str, int]] = field(default_factory=list)

    def points(self, name: str) -> list[tuple[int, int, float]]:
        """The points of a metric as people see them: of each step the one with the latest time."""
        return [(step, *max(rows, key=lambda row: row[0])) for step, rows in sorted(self.metrics[name].items())]

    @property
    def point_count(self) -> int:
        return sum(len(steps) for steps in self.metrics.values())


class Store:
    """All of it.

    Attributes:
        strict: refuses lines with NaN or Infinity, as older servers do.
        keeps_all: reads give every row of a step, as older servers do.
        stale: how many more runs are given up, FAILED, when somebody says that they are COMPLETED.
        objects: uploaded files by their key.
    """

    def __init__(self, *, strict: bool = True, keeps_all: bool = False) -> None:
        self.strict, self.keeps_all = strict, keeps_all
        self.runs: dict[int, Run] = {}
        self.objects: dict[str, bytes] = {}
        self.stale = 0
        self.lock = threading.RLock()
        self._signed: dict[str, str] = {}

    def of_project(self, project: str) -> list[Run]:
        return [run for run in self.runs.values() if run.project == project]

    # --- runs

    def create(self, value: dict[str, Any]) -> tuple[Run, bool]:
        with self.lock:
            external = value.get("externalId")
            found = next(
                (r for r in self.of_project(value["projectName"]) if external and r.external_id == external), None
            )
            if found is not None:
                found.status = "RUNNING"
                found.config = merged(found.config, as_stored(value.get("config")) or {})
                return found, True
            if value.get("forkRunId") is not None and value["forkRunId"] not in self.runs:
                raise RefusedError(404, "Fork parent not found")
            made = Run(
                len(self.runs) + 1,
                checked_text(value["runName"]),
                checked_text(value["projectName"]),
                external and checked_text(external),
                as_stored(value.get("config")) or {},
                as_stored(value.get("loggerSettings")),
                checked_tags(value.get("tags") or []),
                value.get("createdAt") or 1,
                None if value.get("forkRunId") is None else (value["forkRunId"], int(value["forkStep"])),
            )
            self.runs[made.id] = made
            return made, False

    def run(self, run_id: Any) -> Run:
        found = self.runs.get(int(run_id))
        if found is None:
            raise RefusedError(404, "Run not found")
        return found

    def add_names(self, run: Run, log_type: str, names: list[str]) -> None:
        if log_type not in {"METRIC", "HISTOGRAM", "TABLE", "DATA", "IMAGE", "AUDIO", "VIDEO", "TEXT", "ARTIFACT"}:
            raise RefusedError(400, f"Invalid log type {log_type}")
        with self.lock:
            for name in names:
                run.log_names.setdefault(checked_text(name), log_type)

    def set_status(self, run: Run, status: str, when: int | None) -> None:
        if status not in {"RUNNING", "COMPLETED", "FAILED", "TERMINATED", "CANCELLED"}:
            raise RefusedError(400, "Invalid status")
        with self.lock:
            if status == "COMPLETED" and self.stale > 0:
                self.stale -= 1
                run.status = "FAILED"
            elif run.status == "FAILED" and status == "COMPLETED":
                return  # the status of a run that was given up stays, without a word
            else:
                run.status, run.status_ms = status, when

    # --- rows

    def take(self, kind: str, run_id: str, body: bytes) -> int:
        """Takes lines up to the first that cannot be read, as a stream is processed. Gives the number of records."""
        run = self.runs.get(int(run_id)) or Run(int(run_id), "", "", None, {}, None, [], 0)
        lines = body.split(b"\n")
        records = 0
        with self.lock:
            run.bodies.append((kind, len(body)))
            for line in lines:
                if line.strip():
                    records += getattr(self, f"_{kind}")(run, self._parsed(line))
        return records

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            return json.loads(line, parse_constant=refuse if self.strict else None)
        except ValueError as error:
            raise RefusedError(400, f"Failed to parse JSON line: {error}") from None

    def _metrics(self, run: Run, line: dict[str, Any]) -> int:
        expect(line, {"time", "step", "data"})
        time, step = whole(line["time"]), whole(line["step"])
        if not line["data"]:
            raise RefusedError(400, "'data' field cannot be empty")
        for name, value in line["data"].items():
            if not name.strip() or isinstance(value, bool) or not isinstance(value, int | float):
                raise RefusedError(400, "invalid metric")
            run.metrics.setdefault(name, {}).setdefault(step, []).append((time, float(value)))
        return len(line["data"])

    def _data(self, run: Run, line: dict[str, Any]) -> int:
        expect(line, {"time", "step", "data", "dataType", "logName"})
        whole(line["time"]), whole(line["step"])
        if (
            not all(isinstance(line[name], str) for name in ("data", "dataType", "logName"))
            or not line["logName"].strip()
        ):
            raise RefusedError(400, "invalid data")
        run.data.append(line)
        return 1

    def _logs(self, run: Run, line: dict[str, Any]) -> int:
        expect(line, {"time", "message", "lineNumber", "logType"})
        whole(line["time"]), whole(line["lineNumber"])
        run.logs.append(line)
        return 1

    # --- files

    def announce(self, run: Run, project: str, file: dict[str, Any], content_type: str) -> str:
        """Registers a file, whether it is uploaded or not, and gives the key that its address is signed for."""
        for name in ("step", "time", "fileSize"):
            whole(file[name])
        with self.lock:
            run.files.append(file)
            key = f"{project}/{run.id}/{file['logName']}/{file['fileName']}"
            self._signed[key] = content_type
        return key

    def upload(self, key: str, content: bytes, content_type: str) -> None:
        if self._signed.get(key) != content_type:
            raise RefusedError(403, "SignatureDoesNotMatch")
        with self.lock:
            self.objects[key] = content


def as_stored(text: str | None) -> Any:
    """JSON after JavaScript has parsed it and PostgreSQL has stored it."""
    if text is None or text == "null":
        return None
    if "\\u0000" in text.replace("\\\\", ""):
        raise RefusedError(500, "unsupported Unicode escape sequence")
    return _as_javascript(json.loads(text, parse_constant=refuse))


def _as_javascript(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_javascript(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_as_javascript(member) for member in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A deep merge."""
    result = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def checked_text(text: str) -> str:
    if "\0" in text:
        raise RefusedError(500, "invalid byte sequence for encoding UTF8: 0x00")
    return text


def checked_tags(tags: list[str]) -> list[str]:
    if sum(tag.startswith("group:") for tag in tags) > 1:
        raise RefusedError(400, "A run can have at most one group:* tag.")
    return [checked_text(tag) for tag in tags]


def expect(line: dict[str, Any], members: set[str]) -> None:
    if set(line) != members:
        raise RefusedError(400, f"unknown or missing field in {sorted(line)}")


def whole(value: Any) -> int:
    """A number that fits u64."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in UINT64:
        raise RefusedError(400, f"invalid value {value!r}, expected u64")
    return value


def refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")
