# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Neptune 2.x server for tests, and what our program brings home from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from home import PROJECT, StagingHome, without_waiting
from servers.neptune2 import Neptune2Server
from truth import Content
from truth2 import Value, values_in

from neptune_exporter.cli.main import main
from neptune_exporter.model import Kind

__all__ = ["PROJECT", "Home", "serving", "set_zone", "without_waiting"]


@contextmanager
def serving(**how: Any) -> Iterator[Neptune2Server]:
    """A server with one project, and the environment in which clients find it."""
    with Neptune2Server(**how) as server, server.environment():
        server.store.add_project(PROJECT, "DEMO")
        yield server


class Home(StagingHome):
    """Where exports from a 2.x server and of offline data go."""

    def run(self, *arguments: str, project: str | None = PROJECT) -> int:
        """Runs our program; returns its exit code."""
        return main([*arguments, *(["-p", project] if project else []), *self.places, "--no-progress"])

    def export(self, *arguments: str, project: str | None = PROJECT) -> int:
        return self.run("export", "--exporter", "neptune2", *arguments, project=project)

    def records(self, run_id: str, kind: Kind = "run", project: str = PROJECT) -> list[dict[str, Any]]:
        return [record for batch in self.staged(run_id, kind, project).read() for record in batch.to_pylist()]

    def values(self, run_id: str, kind: Kind = "run", project: str = PROJECT) -> set[Value]:
        """All rows of a run, contents of files included."""
        content = Content(self.staging.folder(project, kind).files)
        return values_in(self.records(run_id, kind, project), content)

    def text(self, run_id: str, path: str, kind: Kind = "run") -> Any:
        """The one value of a JSON string attribute."""
        (record,) = [r for r in self.records(run_id, kind) if r["attribute_path"] == path]
        return json.loads(record["string_value"])

    def run_ids(self, kind: Kind = "run", project: str = PROJECT) -> set[str]:
        return {run.ref.run_id for run in self.staging.folder(project, kind).runs()}


def set_zone(name: str | None) -> None:
    """The time zone of this process."""
    import time

    if name is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = name
    time.tzset()
