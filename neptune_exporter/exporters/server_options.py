# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What both kinds of Neptune servers are asked with: the options that their exporters share, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.pace import check_rate
from neptune_exporter.plugins import option


@dataclass(frozen=True)
class ServerOptions:
    """How to reach a Neptune server, and which of its runs are wanted.

    Attributes:
        api_token: the API token; it holds the server's address.
        workspace: only projects of these workspaces.
        project_pattern: only projects whose name matches one of these regular expressions.
        project_exclude_pattern: no projects whose name matches one of these.
        runs_query: only runs that match this NQL query; the server decides.
        tag: only what has all of these tags.
        since: only what was created at this time or later, ISO 8601.
        until: only what was created before this time, ISO 8601.
        max_runs: at most so many of each kind and project, the oldest ones; 0 for all.
        include_archived_runs: also archived runs and those in the trash.
        file_pattern: only files whose attribute path matches this regular expression.
        file_size_limit: no files of more than so many megabytes (MB); 0 for no limit.
        retry_timeout: seconds that a server which does not answer is tried again.
        max_requests_per_second: of all workers of the command together; 0 for no limit.

    Raises:
        UsageError: that is no rate.
    """

    api_token: str = option(
        "", "API token; better in NEPTUNE_API_TOKEN.", env="NEPTUNE_API_TOKEN", secret=True, metavar="TOKEN"
    )
    workspace: tuple[str, ...] = option((), "Only projects of this workspace; repeatable.", metavar="NAME")
    project_pattern: tuple[str, ...] = option(
        (), "Only projects whose name matches; repeatable.", metavar="REGEX", flag="--project-pattern"
    )
    project_exclude_pattern: tuple[str, ...] = option(
        (), "No projects whose name matches; repeatable.", metavar="REGEX", flag="--project-exclude-pattern"
    )
    runs_query: str = option("", "Only runs that match this NQL query.", metavar="NQL", flag="-q/--runs-query")
    tag: tuple[str, ...] = option((), "Only what has this tag; repeatable: all of them.", metavar="TAG")
    since: str = option("", "Only what was created at this time or later (ISO 8601, UTC by default).", metavar="TIME")
    until: str = option("", "Only what was created before this time.", metavar="TIME")
    max_runs: int = option(0, "At most so many of a project, the oldest ones.", metavar="N")
    include_archived_runs: bool = option(False, "Also runs in the trash.")
    file_pattern: str = option("", "Only files whose attribute path matches.", metavar="REGEX")
    file_size_limit: int = option(0, "No files of more than so many megabytes.", metavar="MB")
    retry_timeout: int = option(
        120, "Seconds that a server which does not answer is tried again.", metavar="SECONDS", flag="--retry-timeout"
    )
    max_requests_per_second: float = option(
        0.0,
        "Requests a second at most, of all workers together; 0 for no limit.",
        metavar="N",
        flag="--max-requests-per-second",
    )

    def __post_init__(self) -> None:
        check_rate(self.max_requests_per_second)
