# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The exporter for Neptune 3.x servers: one run at a time, its own attributes, its own points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.exporter import Files, Findings, SourceRun
from neptune_exporter.exporters.neptune3 import Neptune3Options
from neptune_exporter.exporters.neptune3.attributes import PARAMETERS, FileRef, Run, SingleValues, list_attributes
from neptune_exporter.exporters.neptune3.client import Client
from neptune_exporter.exporters.neptune3.downloads import Downloads
from neptune_exporter.exporters.neptune3.listing import Listing
from neptune_exporter.exporters.neptune3.series import SeriesReader
from neptune_exporter.selection import Selection


class Neptune3Exporter:
    """Runs of a Neptune 3.x server; see `exporters.exporter.Exporter`.

    Args:
        options: how to reach it, and what is wanted.

    Raises:
        AccessError: there is no API token, or it is malformed.
        UsageError: an option cannot be understood.
    """

    name = "neptune3"

    def __init__(self, options: Neptune3Options) -> None:
        self._options = options
        self._client = Client(options.api_token, options.retry_timeout, options.max_requests_per_second)
        self._listing = Listing(self._client, options)
        self._downloads = Downloads(self._client)
        self.source = self._client.url
        self.lists_all = not self._listing.filters.narrows_runs

    @property
    def notes(self) -> list[str]:
        """What the user should know of which runs were chosen."""
        return self._listing.notes

    @property
    def unreadable(self) -> list[SourceError]:
        """What could not be listed, though the rest could."""
        return self._listing.unreadable

    def close(self) -> None:
        """Ends all waiting and closes the connections."""
        self._client.close()
        self._downloads.close()

    def interrupt(self) -> None:
        """Ends all waiting: what is being done fails as interrupted."""
        self._client.patience.end()

    def projects(self, selection: Selection) -> Iterator[str]:
        """The selected projects."""
        return self._listing.projects(selection)

    def runs(self, project_id: str, selection: Selection) -> Iterator[SourceRun]:
        """The selected runs of a project, and the runs that they were forked from."""
        if "run" not in selection.kinds:
            return
        for run, parent in self._listing.runs(project_id, selection):
            info = run.info(parent)
            state = {
                "sys_id": run.sys_id,
                "modified": run.values.get("sys/modification_time"),
                "state": info.state,
                "previews": self._options.include_metric_previews,
                "file_pattern": self._options.file_pattern,
                "file_size_limit": self._options.file_size_limit,
            }
            yield SourceRun(info, state, info.modified)

    def batches(
        self, run: SourceRun, selection: Selection, files: Files, findings: Findings
    ) -> Iterator[pa.RecordBatch]:
        """The selected attributes of a run."""
        info = run.info
        assert info.sys_id is not None
        there = Run(info.ref, info.sys_id)
        listed = list_attributes(self._client, there, selection)
        single = SingleValues(self._client, there, findings)
        yield from single.batches([a for a in listed if a.type in (*PARAMETERS, "file")])
        series = SeriesReader(self._client, there, findings, previews=self._options.include_metric_previews)
        yield from series.floats([a for a in listed if a.type == "float_series"])
        refs: list[FileRef] = single.files
        others = ("string_series", "histogram_series", "file_series")
        yield from series.others([a for a in listed if a.type in others], refs)
        wanted = [ref for ref in refs if self._listing.filters.wants_file(ref.attribute, ref.bytes)]
        yield from self._downloads.batches(there, wanted, files, findings)

    def compare(self, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Literal["same", "newer", "apart"]:
        """Compares the times of the last change, and what was left out by options."""
        if recorded.get("sys_id") != current["sys_id"]:
            return "apart"  # another run that was given the same id
        before, now = recorded.get("modified"), current["modified"]
        if before is not None and now is not None and now < before:
            return "apart"
        narrower = [_narrower(recorded, current), _narrower(current, recorded)]
        if now is not None and (before, recorded.get("state")) == (now, current["state"]):
            return "apart" if all(narrower) else "newer" if narrower[1] else "same"
        return "apart" if narrower[0] else "newer"


def _narrower(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the second may leave out something of a run that the first does not."""
    if first["previews"] and not second["previews"]:
        return True
    if second["file_pattern"] and second["file_pattern"] != first["file_pattern"]:
        return True
    limit, other = first["file_size_limit"], second["file_size_limit"]
    return bool(other and (not limit or other < limit))
