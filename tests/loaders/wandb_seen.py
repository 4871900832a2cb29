# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What a W&B server or a log of W&B's holds of a run, decoded without any code of ours: by the client's own protobuf
classes, Python's JSON and pyarrow."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from servers.wandb import WandbServer
from truth import Row, exact, rows_in


@dataclass
class Seen:
    """A run.

    Attributes:
        history: the rows, numbers as exact text.
        config: without wrappers, without what the client adds.
        summary: likewise.
        artifact: the content of every file by its path.
        about: id, name, group, job type, notes and tags.
    """

    history: list[dict[str, Any]]
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifact: dict[str, bytes] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads(self.artifact["neptune/manifest.json"])

    @cached_property
    def keys(self) -> dict[tuple[str, str], str]:
        """The key of every attribute, as the manifest has it."""
        return {(a["path"], a["type"]): a["key"] for a in self.manifest["attributes"]}

    @cached_property
    def points(self) -> list[tuple[str, Decimal, int, Any]]:
        """Every point: key, exact step, time in ms, value (a number, or a histogram's values and bins)."""
        found = []
        for row in self.history:
            step, seconds = Decimal(row["neptune_step"]), Decimal(row["_timestamp"])
            assert seconds * 1000 == int(seconds * 1000)
            for key, value in row.items():
                if key in ("_step", "_timestamp", "_runtime", "neptune_step"):
                    continue
                if isinstance(value, dict):
                    assert value["_type"] == "histogram"
                    assert 1 <= len(value["values"]) <= 512
                    value = tuple(tuple(float(n) for n in value[part]) for part in ("values", "bins"))
                else:
                    value = float(value)
                found.append((key, held_step(step), int(seconds * 1000), value))
        return found

    @cached_property
    def attached(self) -> list[Row]:
        """The rows in data.parquet, files by what they became."""
        if "neptune/data.parquet" not in self.artifact:
            return []
        table = pq.read_table(io.BytesIO(self.artifact["neptune/data.parquet"]))
        lines = self.artifact.get("neptune/files.jsonl", b"").decode().splitlines()
        became = {entry["path"]: self.artifact[entry["artifact"]] for entry in map(json.loads, lines)}
        return rows_in(table, became)


def _exact_numbers(text: str) -> Any:
    """JSON with numbers as text, so that no digit is lost."""
    return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)


def seen_by_server(server: WandbServer, name: str) -> Seen:
    """A run as it was posted."""
    run = server.run(name)
    assert run.torn == 0
    (artifact,) = server.artifacts.committed(name)
    return Seen(
        [_exact_numbers(line) for line in run.history],
        run.values,
        {key: value for key, value in run.last_values.items() if key != "_wandb"},
        server.artifacts.content(artifact),
        {
            "id": run.name,
            "name": run.display_name,
            "group": run.group,
            "job_type": run.job_type,
            "notes": run.notes,
            "tags": sorted(run.tags),
        },
    )


def seen_in_log(path: Path) -> Seen:
    """A run as its log has it."""
    seen = Seen([])
    for record in log_records(path):
        if record.HasField("run"):
            run = record.run
            seen.about = {
                "id": run.run_id,
                "name": run.display_name,
                "group": run.run_group,
                "job_type": run.job_type,
                "notes": run.notes,
                "tags": sorted(run.tags),
            }
            seen.config.update(_items(run.config.update, json.loads))
        elif record.HasField("config"):
            seen.config.update(_items(record.config.update, json.loads))
        elif record.HasField("history"):
            seen.history.append(_items(record.history.item, _exact_numbers))
        elif record.HasField("summary"):
            _items(record.summary.update, json.loads, seen.summary)
        elif record.HasField("artifact"):
            assert not seen.artifact
            seen.artifact = {
                entry.path: Path(entry.local_path).read_bytes() for entry in record.artifact.manifest.contents
            }
    seen.config.pop("_wandb", None)
    seen.summary.pop("_wandb", None)
    return seen


def _items(items: Any, parse: Any, found: dict[str, Any] | None = None) -> dict[str, Any]:
    found = {} if found is None else found
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = parse(item.value_json)
    return found


def log_records(path: Path) -> Iterator[Any]:
    """The records of a log, by the framing of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    data, position = path.read_bytes(), 7
    parts: list[bytes] = []  # the first piece of a record may be empty
    assert data[:7] == b":W&B\xe1\xbe\x00"
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            assert data[position : position + left] == bytes(left)
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        piece = data[position + 7 : position + 7 + length]
        assert len(piece) == length
        assert length + 7 <= left
        assert zlib.crc32(bytes([kind]) + piece) == checksum
        assert (kind in (1, 2)) == (not parts)
        position += 7 + length
        parts.append(piece)
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record
    assert not parts


def native_key(row: Row) -> tuple[Any, ...]:
    """A point of a metric as `Seen.points` has it, comparable: NaN equals NaN, -0.0 is 0.0."""
    value: Any = row.value
    if row.type == "histogram_series":
        value = (value.values, value.edges)
    return (held_step(row.step), round(row.time.timestamp() * 1000), comparable(value))


def held_step(step: Decimal) -> Decimal:
    """A step as W&B holds it: exactly up to 15 digits, else as near as a double is."""
    return step if abs(step) < 10**9 else Decimal(float(step))


def comparable(value: Any) -> Any:
    """A value of a point in a form that compares."""
    return tuple(tuple(n + 0.0 for n in part) for part in value) if isinstance(value, tuple) else exact(value + 0.0)
