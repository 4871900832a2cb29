# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Lists the projects of a server, and the runs, models and model versions of a project."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from neptune_exporter.errors import SourceError, UsageError
from neptune_exporter.exporters.exporter import SourceRun
from neptune_exporter.exporters.neptune2 import Neptune2Options
from neptune_exporter.exporters.neptune2.client import BACKEND, LEADERBOARD, Client, RefusedError
from neptune_exporter.exporters.neptune2.values import parse_time
from neptune_exporter.exporters.patience import RequestError
from neptune_exporter.model import Kind, RunInfo, RunRef, utc

WINDOW_ROWS = 10_000  # beyond this offset the server refuses; a new window begins where the last one ended
PAGE_ROWS = (1_000, 100)  # what we ask for, and what the client asks for, which every server takes
_CREATED = "sys/creation_time"
_COLUMNS = (
    *("sys/id", "sys/name", "sys/owner", "sys/state", "sys/failed", "sys/trashed", "sys/model_id"),
    *(_CREATED, "sys/modification_time"),
)


@dataclass(frozen=True, slots=True)
class KindOnTheWire:
    """What tells one kind of container from another.

    Attributes:
        type: its name on the wire.
        query: the option that holds the user's NQL query.
        archived: the option that says whether the trash is wanted.
    """

    type: str
    query: str
    archived: str


KINDS: dict[Kind, KindOnTheWire] = {
    "run": KindOnTheWire("run", "runs_query", "include_archived_runs"),
    "model": KindOnTheWire("model", "models_query", "include_archived_models"),
    "model_version": KindOnTheWire("modelVersion", "", "include_archived_models"),
}


@dataclass(frozen=True, slots=True)
class Project:
    """A project as the server knows it."""

    id: str
    name: str


class Listing:
    """Lists what a server has.

    Args:
        client: to ask it.
        options: what is wanted.

    Raises:
        UsageError: a pattern or a time among the options cannot be read.
    """

    def __init__(self, client: Client, options: Neptune2Options) -> None:
        self._client, self._options = client, options
        self._since, self._until = _time_option("--since", options.since), _time_option("--until", options.until)
        self._patterns = [_pattern(text) for text in options.project_pattern]
        self._excluded = [_pattern(text) for text in options.project_exclude_pattern]
        self._page_rows = PAGE_ROWS[0]

    # --- projects

    def projects(self, wanted: Sequence[str]) -> list[str]:
        """The projects that are wanted, or all that the account can see, as `workspace/name`."""
        names = list(wanted) or self._visible()
        return [
            name
            for name in names
            if (not self._options.workspace or name.partition("/")[0] in self._options.workspace)
            and (not self._patterns or any(pattern.search(name) for pattern in self._patterns))
            and not any(pattern.search(name) for pattern in self._excluded)
        ]

    def _visible(self) -> list[str]:
        query = {"userRelation": "viewerOrHigher", "sortBy": "lastViewed"}
        reply = self._client.json(f"{BACKEND}/projects", query)
        found = _full_names(reply)
        while len(found) < reply["matchingItemCount"]:
            # In some versions a reply has a greatest length that the document does not tell.
            more = self._client.json(f"{BACKEND}/projects", {**query, "offset": len(found), "limit": 100})
            fresh = [name for name in _full_names(more) if name not in found]
            if not fresh:
                raise SourceError(
                    f"The server lists only {len(found)} of {reply['matchingItemCount']} projects.",
                    "Name the projects with -p.",
                )
            found += fresh
        return sorted(found)

    def project(self, name: str) -> Project:
        """One project.

        Raises:
            SourceError: it does not exist, is too old, or is not ours to read.
        """
        try:
            reply = self._client.json(f"{BACKEND}/projects/get", {"projectIdentifier": name})
        except RequestError as error:
            if error.status == 404:
                raise SourceError(f"There is no project {name}.", "Write it as WORKSPACE/PROJECT.") from None
            if error.status == 403:
                raise SourceError(f"The project {name} is not yours to read.", "Ask its owner for access.") from None
            raise SourceError(f"The project {name} cannot be read. {error.message}") from None
        if int(reply.get("version") or 1) < 2:
            raise SourceError(f"The project {name} is of a Neptune before 2.0 and cannot be read by its client.")
        return Project(str(reply["id"]), f"{reply['organizationName']}/{reply['name']}")

    # --- runs, models and versions

    def containers(self, project: Project, kind: Kind) -> Iterator[SourceRun]:
        """Everything of one kind in a project, oldest first, each once.

        Raises:
            SourceError: the list cannot be had, or not to its end; what was listed until then is right.
        """
        models = None
        if kind == "model_version" and self._options.models_query:
            models = {run.info.ref.run_id for run in self.containers(project, "model")}
        count = 0
        for entry in self._entries(project, kind):
            values = {a["name"]: (a.get(f"{a['type']}Properties") or {}).get("value") for a in entry["attributes"]}
            run = _source_run(project, kind, entry["experimentId"], values, self._filters())
            created = run.info.created
            if (
                (models is not None and values.get("sys/model_id") not in models)
                or (self._since and (created is None or created < self._since))
                or (self._until and (created is None or created >= self._until))
            ):
                continue
            yield run
            count += 1
            if count == self._options.max_runs:
                return

    def _filters(self) -> dict[str, Any]:
        """The options that leave parts of a run out: with others, it has to be exported again."""
        given = {"pattern": self._options.file_pattern, "limit": self._options.file_size_limit}
        return {name: value for name, value in given.items() if value}

    def _query(self, kind: Kind) -> list[str]:
        wire = KINDS[kind]
        conditions = [getattr(self._options, wire.query)] if wire.query else []
        if not getattr(self._options, wire.archived):
            conditions.append("`sys/trashed`:bool = false")
        conditions += [f'`sys/tags`:stringSet CONTAINS "{_quoted(tag)}"' for tag in self._options.tag]
        return [condition for condition in conditions if condition]

    def _entries(self, project: Project, kind: Kind) -> Iterator[dict[str, Any]]:
        """The rows of the listing in windows: the next one begins a millisecond before the last row of the one before.

        So no row with the same creation time is skipped; those that come twice are told apart by their id.
        """
        seen: set[str] = set()
        expected: int | None = None
        begin: datetime | None = None
        while True:
            last: datetime | None = None
            rows = 0
            for reply in self._window(project, kind, begin):
                expected = reply["matchingItemCount"] if expected is None else expected
                for entry in reply["entries"]:
                    rows += 1
                    last = _created(entry) or last
                    if entry["experimentId"] not in seen:
                        seen.add(entry["experimentId"])
                        yield entry
            if rows < WINDOW_ROWS:
                break
            if last is None or (begin is not None and last <= begin + timedelta(milliseconds=1)):
                raise SourceError(
                    f"{project.name} has {WINDOW_ROWS} or more of one creation time; the server lists no further.",
                    "Name parts of them with --runs-query or --models-query.",
                )
            begin = last - timedelta(milliseconds=1)
        if len(seen) < (expected or 0):
            raise SourceError(
                f"The server lists only {len(seen)} of {expected} {KINDS[kind].type}s in {project.name}.",
                "Run the same command again.",
            )

    def _window(self, project: Project, kind: Kind, begin: datetime | None) -> Iterator[dict[str, Any]]:
        conditions = self._query(kind)
        if begin is not None:
            time = begin.strftime("%Y-%m-%dT%H:%M:%S.") + f"{begin.microsecond // 1000:03d}Z"
            conditions.append(f'`{_CREATED}`:datetime > "{time}"')
        query = " AND ".join(f"({condition})" for condition in conditions)
        offset = 0
        while offset < WINDOW_ROWS:
            reply = self._page(project, kind, query, offset)
            yield reply
            offset += len(reply["entries"])
            if not reply["entries"] or offset >= reply["matchingItemCount"]:
                return

    def _page(self, project: Project, kind: Kind, query: str, offset: int) -> dict[str, Any]:
        body = {
            "query": {"query": query},
            "attributeFilters": [{"path": path} for path in _COLUMNS],
            "pagination": {"limit": min(self._page_rows, WINDOW_ROWS - offset), "offset": offset},
            "sorting": {
                "dir": "ascending",
                "aggregationMode": "none",
                "sortBy": {"name": _CREATED, "type": "datetime"},
            },
        }
        path = f"{LEADERBOARD}/leaderboard/entries/search"
        params = {"projectIdentifier": project.id, "type": KINDS[kind].type}
        try:
            reply: dict[str, Any] = self._client.json(path, params, method="POST", body=body)
        except RequestError as error:
            if isinstance(error, RefusedError) and error.title == "Syntax error":
                raise UsageError(f"The server cannot read the query {query}.", "See --runs-query and --models-query.")  # noqa: B904
            if isinstance(error, RefusedError) and error.for_good and self._page_rows > PAGE_ROWS[1]:
                self._page_rows = PAGE_ROWS[1]
                return self._page(project, kind, query, offset)
            raise SourceError(
                f"{project.name} cannot be listed. {error.message}", "Run the same command again."
            ) from None
        return reply


def _full_names(reply: Mapping[str, Any]) -> list[str]:
    return [f"{entry['organizationName']}/{entry['name']}" for entry in reply["entries"]]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _created(entry: Mapping[str, Any]) -> datetime | None:
    for attribute in entry["attributes"]:
        if attribute["name"] == _CREATED:
            millis = parse_time(attribute["datetimeProperties"]["value"])
            return None if millis is None else utc(millis)
    return None


def _source_run(
    project: Project, kind: Kind, identifier: str, values: Mapping[str, Any], filters: Mapping[str, Any]
) -> SourceRun:
    times = {}
    for name in (_CREATED, "sys/modification_time"):
        millis = parse_time(values.get(name))
        times[name] = None if millis is None else utc(millis)
    failed = values.get("sys/failed")
    info = RunInfo(
        ref=RunRef(project.name, str(values.get("sys/id") or identifier), kind),
        name=values.get("sys/name"),
        sys_id=values.get("sys/id"),
        created=times[_CREATED],
        modified=times["sys/modification_time"],
        owner=values.get("sys/owner"),
        state=values.get("sys/state"),
        failed=failed if isinstance(failed, bool) else None,
    )
    state = {
        "id": identifier,
        "modified": values.get("sys/modification_time"),
        "state": values.get("sys/state"),
        "trashed": bool(values.get("sys/trashed")),
        "files": dict(filters),
    }
    return SourceRun(info, state, as_of=info.modified)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is not a valid regular expression: {error}.") from None


def _time_option(flag: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{flag} {text} is not a time.", "Write it like 2024-05-31 or 2024-05-31T12:00:00Z.") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
