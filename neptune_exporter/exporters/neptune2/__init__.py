# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Neptune 2.x servers as a source: the options, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

from neptune_exporter.plugins import Plugin, option


@dataclass(frozen=True)
class Neptune2Options:
    """How to reach a Neptune 2.x server, and which of its runs and models are wanted.

    Attributes:
        api_token: the API token; it holds the server's address.
        workspace: only projects of these workspaces.
        project_pattern: only projects whose name matches one of these regular expressions.
        project_exclude_pattern: no projects whose name matches one of these.
        runs_query: only runs that match this NQL query.
        models_query: only models that match this NQL query, and their versions.
        tag: only what has all of these tags.
        since: only what was created at this time or later, ISO 8601.
        until: only what was created before this time, ISO 8601.
        max_runs: at most so many of each kind and project, the oldest ones; 0 for all.
        include_archived_runs: also runs in the trash.
        include_archived_models: also models and versions in the trash.
        file_pattern: only files whose attribute path matches this regular expression.
        file_size_limit: no files of more than so many megabytes (MB); 0 for no limit.
        retry_timeout: seconds that a server which does not answer is tried again.
        connections: requests at a time.
        s3_endpoint_url: where the S3 storage of tracked artifacts is, if not at Amazon.
    """

    api_token: str = option("", "API token.", env="NEPTUNE_API_TOKEN", secret=True, metavar="TOKEN")
    workspace: tuple[str, ...] = option((), "Only projects of this workspace; repeatable.", metavar="NAME")
    project_pattern: tuple[str, ...] = option(
        (), "Only projects whose name matches; repeatable.", metavar="REGEX", flag="--project-pattern"
    )
    project_exclude_pattern: tuple[str, ...] = option(
        (), "No projects whose name matches; repeatable.", metavar="REGEX", flag="--project-exclude-pattern"
    )
    runs_query: str = option("", "Only runs that match this NQL query.", metavar="NQL", flag="-q/--runs-query")
    models_query: str = option("", "Only models that match this NQL query, and their versions.", metavar="NQL")
    tag: tuple[str, ...] = option((), "Only what has this tag; repeatable: all of them.", metavar="TAG")
    since: str = option("", "Only what was created at this time or later (ISO 8601, UTC by default).", metavar="TIME")
    until: str = option("", "Only what was created before this time.", metavar="TIME")
    max_runs: int = option(0, "At most so many of a project, the oldest ones.", metavar="N")
    include_archived_runs: bool = option(False, "Also runs in the trash.")
    include_archived_models: bool = option(False, "Also models and versions in the trash.")
    file_pattern: str = option("", "Only files whose attribute path matches.", metavar="REGEX")
    file_size_limit: int = option(0, "No files of more than so many megabytes.", metavar="MB")
    retry_timeout: int = option(
        120, "Seconds that a server which does not answer is tried again.", metavar="SECONDS", flag="--retry-timeout"
    )
    connections: int = option(16, "Requests at a time.", metavar="N")
    s3_endpoint_url: str = option(
        "", "Where the S3 storage of tracked artifacts is, if not at Amazon.", env="S3_ENDPOINT_URL", metavar="URL"
    )


plugin = Plugin(
    name="neptune2",
    title="A Neptune server 2.x: runs, models and model versions",
    options=Neptune2Options,
    factory="neptune_exporter.exporters.neptune2.exporter:Neptune2Exporter",
    extra="neptune2",
    package="neptune",
    kinds=("run", "model", "model_version"),
)
