# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Loads runs into the Pluto server of the tests, and reads what it received without any reader of ours."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from logged_run import LoggedRun
from servers.pluto import KEY, PlutoServer
from servers.pluto_store import Run
from truth import Row, rows_in

from neptune_exporter.errors import StartAgainError
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.pluto import PlutoOptions
from neptune_exporter.loaders.pluto.loader import PlutoLoader
from neptune_exporter.model import step_micros, time_millis

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = ("attribute_path", "attribute_type")


def loader_of(server: PlutoServer, *, project: str = "", **common: Any) -> PlutoLoader:
    return PlutoLoader(PlutoOptions(server.url, pluto_api_key=KEY, pluto_project=project), LoadOptions(**common))


def batches_by_step(run: LoggedRun, batch_rows: int = 1000) -> list[pa.RecordBatch]:
    """The rows of a run in the order that Pluto's loader asks for: step, time, path, type; null first."""
    batches = run.batches()
    if not batches:
        return []
    table = pa.Table.from_batches(batches).combine_chunks()
    (batch,) = table.to_batches()
    names = [np.unique(batch.column(name).cast(pa.string()), return_inverse=True)[1] for name in NAMES]
    order = np.lexsort((*reversed(names), time_millis(batch.column("timestamp")), step_micros(batch.column("step"))))
    return table.take(pa.array(order)).combine_chunks().to_batches(max_chunksize=batch_rows)


def load(loader: PlutoLoader, run: LoggedRun, multiplier: int = 1, batch_rows: int = 1000) -> int:
    """Loads a run as the command does. Gives Pluto's number of it."""
    loader.prepare(run.ref.project_id, multiplier)
    for _ in range(5):
        sink = loader.start(run.to_load(), multiplier)
        try:
            for batch in batches_by_step(run, batch_rows):
                sink.write(batch)
            sink.commit()
        except StartAgainError:
            sink.abort()
            continue
        return int(loader.states(run.ref.project_id).runs[run.ref].target_id)
    raise AssertionError("began anew too often")


def manifest_of(server: PlutoServer, run: Run) -> dict[str, Any]:
    return json.loads(server.content(run, "neptune/manifest.json"))


def attached_rows(server: PlutoServer, run: Run) -> list[Row]:
    """What travels in data.parquet, files with the content that was uploaded for them."""
    if f"{run.project}/{run.id}/neptune/data.parquet" not in server.store.objects:
        return []
    table = pq.read_table(io.BytesIO(server.content(run, "neptune/data.parquet")))
    return rows_in(table, uploaded(server, run))


def uploaded(server: PlutoServer, run: Run) -> dict[str, bytes]:
    """The content of each file by what its row says."""
    key = f"{run.project}/{run.id}/neptune/files.jsonl"
    if key not in server.store.objects:
        return {}
    entries = [json.loads(line) for line in server.store.objects[key].splitlines()]
    return {entry["path"]: server.content(run, entry["artifact"]) for entry in entries}


def names_of(server: PlutoServer, run: Run) -> dict[tuple[str, str], str]:
    """The Neptune path of each name in Pluto, by place."""
    found = {}
    for entry in manifest_of(server, run)["attributes"]:
        place = "config" if entry["place"] in ("parameter", "tag") else "logged"
        if entry["place"] != "log":
            assert (place, entry["key"]) not in found, "two attributes share a name"
            found[place, entry["key"]] = entry["path"]
    return found


def metric_rows(server: PlutoServer, run: Run) -> list[Row]:
    """The points that people see, as what they were in Neptune."""
    multiplier = run.config["neptune.step_multiplier"]
    names = names_of(server, run)
    return [
        Row(names["logged", name], "float_series", Decimal(step) / multiplier, at(time), value)
        for name in run.metrics
        for step, time, value in run.points(name)
    ]


def at(millis: int) -> datetime:
    return EPOCH + timedelta(milliseconds=millis)


def native_counts(run: Run) -> dict[str, int]:
    """How many things of each kind Pluto holds natively; a row that was sent twice counts twice."""
    counts: dict[str, int] = defaultdict(int)
    counts["metric"] = sum(len(rows) for steps in run.metrics.values() for rows in steps.values())
    counts["log"] = len(run.logs)
    counts["file"] = sum(file["logName"] != "neptune" for file in run.files)
    counts["config"] = sum(not key.startswith("neptune.") for key in run.config)
    for row in run.data:
        counts[row["dataType"]] += 1
    return dict(counts)
