# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which projects and runs there are, and which of them are wanted."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from neptune_exporter.errors import SourceError, UsageError
from neptune_exporter.exporters.neptune3 import Neptune3Options
from neptune_exporter.exporters.neptune3.client import LEADERBOARD, Client, EntriesPage, RequestError, value_of
from neptune_exporter.exporters.neptune3.points import micros_of
from neptune_exporter.model import MICRO, RunInfo, RunRef, utc
from neptune_exporter.selection import Selection

logger = logging.getLogger(__name__)

PAGE_RUNS = 10_000
_LISTINGS = 4  # a project that changes while it is listed is listed so often at most
IDS_AT_ONCE = 200
ATTRIBUTES = (
    "sys/id",
    "sys/custom_run_id",
    "sys/name",
    "sys/experiment/name",
    "sys/creation_time",
    "sys/modification_time",
    "sys/owner",
    "sys/state",
    "sys/failed",
    "sys/archived",
    "sys/trashed",
    "sys/tags",
    "sys/group_tags",
    "sys/forking/parent",
    "sys/forking/step",
)

Matcher = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Listed:
    """A run as the server lists it: its attributes `sys/...` by name."""

    project_id: str
    values: Mapping[str, Any]

    @property
    def sys_id(self) -> str:
        """The id that the server gave."""
        return str(self.values["sys/id"])

    @property
    def run_id(self) -> str:
        """The id that the user gave, or else the server's."""
        return self.values.get("sys/custom_run_id") or self.sys_id

    @property
    def parent(self) -> str | None:
        """What the server says of the run that this one was forked from: one of its ids."""
        return self.values.get("sys/forking/parent") or None

    @property
    def is_archived(self) -> bool:
        """Whether it is archived or in the trash."""
        return bool(self.values.get("sys/archived") or self.values.get("sys/trashed"))

    def info(self, parent: Listed | None) -> RunInfo:
        """The identity."""
        step, parent_ref = self.values.get("sys/forking/step"), None
        if self.parent is not None:
            parent_ref = RunRef(self.project_id, parent.run_id if parent is not None else self.parent)
        return RunInfo(
            ref=RunRef(self.project_id, self.run_id),
            name=self.values.get("sys/name") or None,
            sys_id=self.sys_id,
            experiment=self.values.get("sys/experiment/name") or None,
            parent=parent_ref,
            fork_step=None if step is None or parent_ref is None else _decimal(step),
            created=_time(self.values.get("sys/creation_time")),
            modified=_time(self.values.get("sys/modification_time")),
            owner=self.values.get("sys/owner") or None,
            state=self.values.get("sys/state"),
            failed=self.values.get("sys/failed"),
        )


def _decimal(step: float) -> Decimal:
    micros, fits = micros_of(np.array([step]))
    return Decimal(int(micros[0])) / MICRO if fits[0] else Decimal(repr(step))


def _time(millis: int | None) -> datetime | None:
    try:
        return None if millis is None else utc(millis)
    except OverflowError:
        return None


class Filters:
    """What the options ask of projects and runs.

    Raises:
        UsageError: an option cannot be understood.
    """

    def __init__(self, options: Neptune3Options) -> None:
        self._options = options
        self._project = _searches(options.project_pattern, "--project-pattern")
        self._not_project = _searches(options.project_exclude_pattern, "--project-exclude-pattern")
        self._experiment = _searches(options.experiment, "--experiment", exact=True)
        self._since, self._until = _moment(options.since, "--since"), _moment(options.until, "--until")
        self._file = _searches((options.file_pattern,) if options.file_pattern else (), "--file-pattern")

    @property
    def narrows_runs(self) -> bool:
        """Whether a run that exists may not be listed."""
        o = self._options
        asked = (o.runs_query, o.experiment, o.tag, o.since, o.until, o.max_runs)
        return any(asked) or not o.include_archived_runs

    def wants_project(self, project_id: str) -> bool:
        """Whether a project is wanted by its name."""
        workspace, _, name = project_id.partition("/")
        if self._options.workspace and workspace not in self._options.workspace:
            return False
        if self._project and not any(test(name) or test(project_id) for test in self._project):
            return False
        return not any(test(name) or test(project_id) for test in self._not_project)

    def wants_run(self, run: Listed) -> bool:
        """Whether a run is wanted, its id and the trash aside."""
        values = run.values
        names = [name for key in ("sys/experiment/name", "sys/name") if (name := values.get(key))]
        if self._experiment and not any(test(name) for test in self._experiment for name in names):
            return False
        tags = {*values.get("sys/tags", ()), *values.get("sys/group_tags", ())}
        if not tags.issuperset(self._options.tag):
            return False
        created = values.get("sys/creation_time")
        return (self._since is None or (created is not None and created >= self._since)) and (
            self._until is None or (created is not None and created < self._until)
        )

    def wants_file(self, attribute: str, size: int) -> bool:
        """Whether a file is wanted."""
        limit = self._options.file_size_limit
        return (not limit or size <= limit * 1_000_000) and (not self._file or self._file[0](attribute))


def _searches(patterns: Iterable[str], option: str, *, exact: bool = False) -> list[Matcher]:
    return [_search(pattern, option, exact=exact) for pattern in patterns]


def _search(pattern: str, option: str, *, exact: bool) -> Matcher:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{option} {pattern!r} is not a valid regular expression: {error}.",
            "Patterns are Python regular expressions, searched anywhere in the name.",
        ) from None
    return lambda text: (exact and text == pattern) or regex.search(text) is not None


def _moment(text: str, option: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a time.", "Write it like 2025-01-31 or 2025-01-31T12:00.") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


class Listing:
    """Asks a server for projects and runs.

    Args:
        client: the server.
        options: what is wanted.

    Attributes:
        filters: what the options ask for.
        notes: what the user should know of the choice that was made.
        unreadable: what could not be listed, though the rest could.
    """

    def __init__(self, client: Client, options: Neptune3Options) -> None:
        self._client = client
        self._options = options
        self.filters = Filters(options)
        self.notes: list[str] = []
        self.unreadable: list[SourceError] = []

    def projects(self, selection: Selection) -> Iterator[str]:
        """The selected projects. Raises `SourceError` if they cannot be listed."""
        found: Iterable[str] = selection.projects
        if not selection.projects:
            query = {"userRelation": "viewerOrHigher", "sortBy": "lastViewed"}
            try:
                found = sorted(self._client.get("/api/backend/v1/projects", _project_ids, query))
            except RequestError as error:
                raise SourceError(
                    f"The projects on {self._client.url} cannot be listed: {error.message}.",
                    "Name the projects with -p ORG/PROJECT.",
                ) from error
        wanted = [name for name in found if self.filters.wants_project(name)]
        if not wanted:
            self.notes.append("No project is selected: none matches, or the token gives access to none.")
        for name in wanted:
            if name.count("/") != 1 or not all(name.split("/")):
                raise UsageError(f"{name!r} is not the name of a project.", "Write it as WORKSPACE/PROJECT.")
            yield name

    def runs(self, project_id: str, selection: Selection) -> list[tuple[Listed, Listed | None]]:
        """The wanted runs of a project and the runs that they were forked from, as far as they exist.

        Raises:
            SourceError: the project does not exist, or may not be seen.
        """
        every = self._search(project_id, self._options.runs_query)
        chosen = [run for run in every if selection.wants_run(run.run_id) and self.filters.wants_run(run)]
        archived = [run for run in chosen if run.is_archived]
        if archived and not self._options.include_archived_runs:
            chosen = [run for run in chosen if not run.is_archived]
            self.notes.append(
                f"{project_id}: {len(archived)} archived runs are left out; --include-archived-runs adds them."
            )
        if self._options.max_runs:
            chosen = chosen[: self._options.max_runs]
        if not chosen:
            self.notes.append(f"{project_id}: none of its {len(every)} runs is selected.")
        return self._with_ancestors(project_id, chosen, every)

    def _with_ancestors(
        self, project_id: str, chosen: list[Listed], every: list[Listed]
    ) -> list[tuple[Listed, Listed | None]]:
        known = {run.sys_id: run for run in every} | {run.run_id: run for run in every}
        taken = {run.sys_id: run for run in chosen}
        added: list[Listed] = []
        current = chosen
        while current:
            self._look_up(project_id, {run.parent for run in current if run.parent} - known.keys(), known)
            parents = {p.sys_id: p for run in current if run.parent and (p := known.get(run.parent))}
            current = [run for sys_id, run in parents.items() if sys_id not in taken]
            if not self._options.include_ancestors:
                break
            added += current
            taken |= {run.sys_id: run for run in current}
        if added:
            self.notes.append(
                f"{project_id}: {len(added)} ancestors of forked runs are exported too; "
                "--no-include-ancestors leaves them out."
            )
        return [(run, known.get(run.parent) if run.parent else None) for run in (*chosen, *added)]

    def _look_up(self, project_id: str, ids: set[str], known: dict[str, Listed]) -> None:
        """Adds runs by one of their ids. One that the server does not have stays unknown."""
        missing = sorted(ids)
        for start in range(0, len(missing), IDS_AT_ONCE):
            part = missing[start : start + IDS_AT_ONCE]
            terms = [f'(`{name}`:string == "{_quoted(i)}")' for i in part for name in ("sys/custom_run_id", "sys/id")]
            found = self._search(project_id, " OR ".join(terms))
            for run in found:
                known.setdefault(run.sys_id, run)
            for run in found:
                known[run.run_id] = run
            for run_id in part:
                if run_id not in known:
                    logger.warning("%s: the run %s, from which others were forked, is gone", project_id, run_id)

    def _search(self, project_id: str, query: str) -> list[Listed]:
        """All runs of a project that the query finds, oldest first, each once.

        Pages are cut by position: if runs come or go meanwhile one may slip through, so the listing is repeated
        until it has as many as the server counts.
        """
        found: dict[str, Listed] = {}
        for _ in range(_LISTINGS):
            offset, count = 0, 0
            while True:
                page = self._page(project_id, query, offset)
                for entry in page.entries:
                    run = _listed(project_id, entry)
                    found[run.sys_id] = run
                offset += len(page.entries)
                count = page.matching_item_count
                if len(page.entries) < PAGE_RUNS:
                    break
            if len(found) >= count:
                break
        else:
            self.unreadable.append(
                SourceError(
                    f"The server lists only {len(found)} of the {count} runs of {project_id} that it counts.",
                    "Run the same command again.",
                )
            )
        return list(found.values())

    def _page(self, project_id: str, query: str, offset: int) -> Any:
        body: dict[str, Any] = {
            "attributeFilters": [{"path": name} for name in ATTRIBUTES],
            "pagination": {"limit": PAGE_RUNS, "offset": offset},
            "experimentLeader": False,
            "sorting": {"dir": "ascending", "sortBy": {"name": "sys/creation_time", "type": "datetime"}},
        }
        if query:
            body["query"] = {"query": query}
        try:
            return self._client.post(
                f"{LEADERBOARD}/proto/leaderboard/entries/search/",
                body,
                EntriesPage.FromString,
                params={"projectIdentifier": project_id, "type": "run"},
                known_good=not offset,
            )
        except RequestError as error:
            raise self._refusal(project_id, query, error) from error

    def _refusal(self, project_id: str, query: str, error: RequestError) -> Exception:
        if error.status == 404:
            return SourceError(
                f"There is no project {project_id} on {self._client.url}, or no Neptune 3.x server.",
                "Check the name (WORKSPACE/PROJECT) and the server; for servers 2.x use --exporter neptune2.",
            )
        if error.status == 403:
            return SourceError(
                f"The project {project_id} may not be read with this API token.", "Ask its owner for access."
            )
        if query and error.status in (400, 422):
            return UsageError(f"The server does not accept the query {query!r}: {error.message}.", "Check -q.")
        return SourceError(f"The runs of {project_id} cannot be listed: {error.message}.")


def _project_ids(content: bytes) -> list[str]:
    return [f"{entry['organizationName']}/{entry['name']}" for entry in json.loads(content)["entries"]]


def _listed(project_id: str, entry: Any) -> Listed:
    values = {attribute.name: value_of(attribute) for attribute in entry.attributes}
    return Listed(project_id, {name: value for name, value in values.items() if value is not None})


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"")
