# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 2.x server as a source of runs, models and model versions: one code path, told apart by `RunRef.kind`."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from neptune_exporter.errors import Problem, SourceError, UsageError
from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.exporters.neptune2 import Neptune2Options, values
from neptune_exporter.exporters.neptune2.client import ARTIFACTS, ATTRIBUTES, Client
from neptune_exporter.exporters.neptune2.downloads import Downloads
from neptune_exporter.exporters.neptune2.listing import KINDS, Listing, Project
from neptune_exporter.exporters.neptune2.series import SeriesReader
from neptune_exporter.exporters.neptune2.values import Attribute
from neptune_exporter.exporters.patience import RequestError
from neptune_exporter.exporters.tracked_files import TrackedFile, TrackedFiles
from neptune_exporter.model import RunRef
from neptune_exporter.selection import CLASS_OF_TYPE, Selection

MEGABYTE = 10**6
_AHEAD = 8  # attributes of a run that are asked for before their turn

Batches = Iterator[pa.RecordBatch]


class Neptune2Exporter:
    """A server.

    Args:
        options: how to reach it and what is wanted.

    Raises:
        AccessError: the token is malformed or refused.
        SourceError: the server does not answer, or is not a Neptune 2.x server.
        UsageError: an option cannot be understood.
    """

    name = "neptune2"

    def __init__(self, options: Neptune2Options) -> None:
        if options.connections < 1:
            raise UsageError("--connections must be at least 1.")
        try:
            self._file_pattern = re.compile(options.file_pattern)
        except re.error as error:
            raise UsageError(f"--file-pattern {options.file_pattern!r} is no regular expression: {error}.") from None
        rate = options.max_requests_per_second
        self._client = Client(options.api_token, options.retry_timeout, options.connections, rate)
        self.source = self._client.url
        narrowed = (options.runs_query, options.models_query, options.tag, options.since, options.until)
        everything = options.include_archived_runs and options.include_archived_models and not options.max_runs
        self.lists_all = everything and not any(narrowed)
        self._listing = Listing(self._client, options)
        self._series = SeriesReader(self._client)
        self._size_limit = options.file_size_limit * MEGABYTE
        self._downloads = Downloads(self._client)
        self._tracked = TrackedFiles(options.s3_endpoint_url)
        self._pool = ThreadPoolExecutor(options.connections, thread_name_prefix="neptune2")
        self._lock = threading.Lock()
        self._projects: dict[str, Project] = {}

    def projects(self, selection: Selection) -> Iterator[str]:
        """The selected projects, or all that the account can see. Raises `SourceError` if they cannot be listed."""
        try:
            yield from self._listing.projects(selection.projects)
        except RequestError as error:
            raise SourceError(f"The projects cannot be listed. {error.message}", "Name them with -p.") from None

    def runs(self, project_id: str, selection: Selection) -> Iterator[SourceRun]:
        """The selected runs, models and versions of a project, each once, oldest first.

        Raises:
            SourceError: the project does not exist, is not ours to read, or cannot be listed to its end.
        """
        project = self._project(project_id)
        for kind in KINDS:
            if kind in selection.kinds:
                for run in self._listing.containers(project, kind):
                    if selection.wants_run(run.info.ref.run_id):
                        yield run

    def batches(self, run: SourceRun, selection: Selection, files: Files, findings: Findings) -> Batches:
        """The selected attributes of a run. One that fails costs itself, and of a long series what had not come yet.

        Raises:
            AccessError: the token is refused.
            SourceError: the run's attributes cannot be had, or the server is gone.
        """
        ref, container_id = run.info.ref, str(run.state["id"])
        try:
            reply = self._client.json(ATTRIBUTES, {"experimentId": container_id})
        except RequestError as error:
            raise SourceError(f"{ref} cannot be read. {error.message}", "Run the same command again.") from None
        found = [a for a in values.attributes_of(reply) if selection.wants(a.path, a.type) and self._wants_file(a)]
        fetchers = self._fetchers(container_id, ref, files, findings)
        yield from values.batches(ref, (a for a in found if a.type not in fetchers), findings)
        fetched = ((a, partial(fetchers[a.type], a)) for a in found if a.type in fetchers)
        yield from self._in_turn(fetched, findings)

    def compare(self, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
        """`apart` if another run now has the id; `newer` if it was written to since, or other files are wanted now."""
        if recorded.get("id") != current.get("id"):
            return "apart"
        known = current.get("modified") is not None
        return "same" if known and dict(recorded) == dict(current) else "newer"

    def interrupt(self) -> None:
        """Ends all waiting: what is being done fails as interrupted."""
        self._client.patience.end()

    def close(self) -> None:
        """Closes the connections; what was not begun is given up."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # --- one run

    def _project(self, name: str) -> Project:
        with self._lock:
            known = self._projects.get(name)
        if known is None:
            known = self._listing.project(name)
            with self._lock:
                self._projects[name] = known
        return known

    def _wants_file(self, attribute: Attribute) -> bool:
        if CLASS_OF_TYPE.get(attribute.type) != "files":
            return True
        small_enough = not self._size_limit or (attribute.properties.get("size") or 0) <= self._size_limit
        return small_enough and self._file_pattern.search(attribute.path) is not None

    def _small_enough(self, file: TrackedFile) -> bool:
        return not self._size_limit or (file.size or 0) <= self._size_limit

    def _fetchers(
        self, container_id: str, ref: RunRef, files: Files, findings: Findings
    ) -> Mapping[str, Callable[[Attribute], Batches]]:
        """How each type that takes requests of its own is had."""
        downloads = self._downloads

        def series(attribute: Attribute) -> Batches:
            return self._series.open(container_id, ref, attribute, findings)

        return {
            "float_series": series,
            "string_series": series,
            "file": lambda a: downloads.file(container_id, ref, a, files),
            "file_set": lambda a: downloads.file_set(container_id, ref, a, files, findings),
            "file_series": lambda a: downloads.images(container_id, ref, a, files, findings),
            "artifact": lambda a: self._artifact(ref, a, files, findings),
        }

    def _artifact(self, ref: RunRef, attribute: Attribute, files: Files, findings: Findings) -> Batches:
        identifier = attribute.properties.get("hash")
        if not identifier:
            findings.empty(attribute.path, attribute.type)
            return iter(())
        query = {"projectIdentifier": self._project(ref.project_id).id, "hash": identifier}
        reply = self._client.json(f"{ARTIFACTS}/artifact/files", query, **{"X-Neptune-Artifact-Api-Version": "2"})
        tracked = [TrackedFile.from_json(file) for file in reply["files"]]
        return iter(
            list(self._tracked.rows(ref, attribute.path, identifier, tracked, files, findings, self._small_enough))
        )

    def _in_turn(self, fetched: Iterator[tuple[Attribute, Callable[[], Batches]]], findings: Findings) -> Batches:
        """Begins to fetch a few attributes ahead, and gives their rows in their order."""
        waiting: deque[tuple[Attribute, Future[Batches]]] = deque()
        try:
            for attribute, fetch in fetched:
                waiting.append((attribute, self._pool.submit(fetch)))
                if len(waiting) >= _AHEAD:
                    yield from _rows(*waiting.popleft(), findings)
            while waiting:
                yield from _rows(*waiting.popleft(), findings)
        finally:
            for _, future in waiting:
                future.cancel()


def _rows(attribute: Attribute, future: Future[Batches], findings: Findings) -> Batches:
    try:
        yield from future.result()
    except RequestError as error:
        findings.problem(error.problem(attribute.path))
    except (KeyError, TypeError, ValueError) as error:
        what = f"The server's answer was not understood: {type(error).__name__} {error}."
        findings.problem(Problem(what, attribute.path))
