# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of the W&B server: what is upserted, what is streamed, and what can be asked about them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from servers.http import HttpError, Reply

_UPSERTED = {
    "displayName": "display_name",
    "notes": "notes",
    "groupName": "group",
    "jobType": "job_type",
    "tags": "tags",
    "state": "state",
    "host": "host",
}


@dataclass
class Run:
    """A run as it was posted.

    Attributes:
        history: the lines of the history, as they came.
        config: as upserted, with its `value` wrappers and `_wandb`.
        streams: the lines of the other streams, by file name.
        complete: whether the client said that it ended.
        overwritten: how many history lines came twice with the same offset; those that differed are `torn`.
    """

    entity: str
    project: str
    name: str
    storage_id: str
    config: dict[str, Any] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    streams: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    display_name: str = ""
    notes: str = ""
    group: str = ""
    job_type: str = ""
    host: str = ""
    state: str = "running"
    summary: str = "{}"
    complete: bool = False
    exit_code: int | None = None
    overwritten: int = 0
    torn: int = 0

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, parsed by Python's own JSON, which knows NaN and Infinity."""
        return [json.loads(line) for line in self.history]

    @property
    def values(self) -> dict[str, Any]:
        """The config without its wrappers and without what the client adds."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}

    @property
    def last_values(self) -> dict[str, Any]:
        """The summary."""
        return json.loads(self.summary)


class Runs:
    """All runs of a server.

    Attributes:
        deleted: ids that were deleted, which nobody may use again.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, str], Run] = {}
        self.deleted: set[str] = set()

    def all(self) -> list[Run]:
        """Every run, oldest first."""
        return list(self._runs.values())

    def of(self, entity: str, project: str, name: str) -> Run:
        """A run, which is there. Raises `LookupError`."""
        return self._runs[entity or "tester", project, name]

    # --- file stream

    def stream(self, key: tuple[str, ...], body: dict[str, Any]) -> dict[str, Any]:
        """What `file_stream` does: chunks are placed at their offsets."""
        run = self.of(*key)
        for name, chunk in (body.get("files") or {}).items():
            if name == "wandb-summary.json":
                run.summary = chunk["content"][-1]
                continue
            lines = run.history if name == "wandb-history.jsonl" else run.streams.setdefault(name, [])
            self._place(run, lines, chunk["offset"], chunk["content"])
        if body.get("complete"):
            run.complete, run.exit_code = True, body.get("exitcode")
            run.state = "failed" if body.get("exitcode") else "finished"
        elif body.get("files"):
            run.state = "running"
        return {"limits": {}, "exitcode": None}

    def _place(self, run: Run, lines: list[str], offset: int, content: list[str]) -> None:
        assert offset <= len(lines), f"a hole: {offset} after {len(lines)} lines"
        before = lines[offset : offset + len(content)]
        run.overwritten += len(before)
        run.torn += sum(_plain(old) != _plain(new) for old, new in zip(before, content, strict=False))
        lines[offset : offset + len(content)] = content

    # --- GraphQL

    def op_UpsertBucket(self, v: dict[str, Any]) -> Any:  # noqa: N802
        entity, project = v.get("entity") or "tester", v.get("project") or "uncategorized"
        by_id = [run for run in self._runs.values() if run.storage_id == v.get("id")]
        key = (entity, project, v.get("name") or "")
        if v.get("name") in self.deleted:
            message = f"run {v['name']} was previously created and deleted; try a new run name"
            raise HttpError(Reply.json({"errors": [{"message": message}]}, 409))
        inserted = not by_id and key not in self._runs
        if inserted:
            number = f"Run:v1:{v['name']}:{project}:{entity}"
            self._runs[key] = Run(*key, base64.b64encode(number.encode()).decode())
        run = by_id[0] if by_id else self._runs[key]
        for name, attribute in _UPSERTED.items():
            if v.get(name) is not None:
                setattr(run, attribute, v[name])
        if v.get("config") is not None:
            run.config = json.loads(v["config"], parse_constant=_refused)
        if v.get("summaryMetrics") is not None:
            run.summary = v["summaryMetrics"]
        bucket = {
            **self._node(run),
            "project": {"id": project, "name": project, "entity": {"id": entity, "name": entity}},
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def op_RunResumeStatus(self, v: dict[str, Any]) -> Any:  # noqa: N802
        entity = {"id": v["entity"], "name": v["entity"]}
        run = self._runs.get((v["entity"] or "tester", v["project"], v["name"]))
        return {"model": {"id": "1", "name": v["project"], "entity": entity, "bucket": run and self._node(run)}}

    def op_RunState(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self._runs.get((v["entity"], v["project"], v["run"]))
        return {"project": {"run": run and self._node(run)}}

    def op_Runs(self, v: dict[str, Any]) -> Any:  # noqa: N802
        mine = [run for run in self._runs.values() if (run.entity, run.project) == (v["entity"], v["project"])]
        if not mine:
            return {"project": None}
        start = int(v.get("cursor") or 0)
        page = mine[start : start + v["perPage"]]
        edges = [{"node": self._node(run), "cursor": str(start + n + 1)} for n, run in enumerate(page)]
        end = start + len(page)
        return {"project": {"runs": {"edges": edges, "pageInfo": _page(end, more=end < len(mine))}}}

    def op_GetProjects(self, v: dict[str, Any]) -> Any:  # noqa: N802
        projects = sorted({run.project for run in self._runs.values() if run.entity == v["entity"]})
        start = int(v.get("cursor") or 0)
        end = start + v["perPage"]
        edges = [{"node": {"name": name}} for name in projects[start:end]]
        return {"models": {"edges": edges, "pageInfo": _page(end, more=end < len(projects))}}

    def op_Run(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self._runs.get((v["entity"], v["project"], v["name"]))
        return {"project": {"run": run and self._node(run)}}

    def op_HistoryPage(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self.of(v["entity"], v["project"], v["run"])
        low, high = int(v["minStep"]), int(v["maxStep"])
        wanted = [line for line in run.history if low <= json.loads(line)["_step"] < high]
        return {"project": {"run": {"history": wanted[: v["pageSize"]]}}}

    def _node(self, run: Run) -> dict[str, Any]:
        internal = run.config.get("_wandb", {}).get("value", {})
        return {
            "id": run.storage_id,
            "name": run.name,
            "displayName": run.display_name,
            "description": "",
            "notes": run.notes,
            "group": run.group,
            "jobType": run.job_type,
            "tags": run.tags,
            "state": run.state,
            "config": json.dumps(run.config),
            "summaryMetrics": run.summary,
            "sweepName": None,
            "wandbConfig": json.dumps({"t": internal["t"]} if "t" in internal else {}),
            "historyLineCount": len(run.history),
            "logLineCount": len(run.streams.get("output.log", [])),
            "eventsLineCount": len(run.streams.get("wandb-events.jsonl", [])),
            "historyTail": json.dumps(run.history[-1:]),
            "eventsTail": json.dumps(run.streams.get("wandb-events.jsonl", [])[-1:]),
        }


def _page(end: int, *, more: bool) -> dict[str, Any]:
    return {"endCursor": str(end), "hasNextPage": more}


def _plain(line: str) -> str:
    """A line, its keys in order: the client writes them in any."""
    return json.dumps(json.loads(line), sort_keys=True)


def _refused(name: str) -> Any:
    raise AssertionError(f"{name} in a config")
