# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from neptune_exporter.cli import console
from neptune_exporter.cli.options import (
    CommonOptions,
    PlaceOptions,
    listed,
    logging_to,
    with_options,
)
from neptune_exporter.selection import Selection

if TYPE_CHECKING:
    from neptune_exporter.errors import ExporterError
    from neptune_exporter.summary import ProjectSummary

_KIND_NAMES = {"run": "runs", "model": "models", "model_version": "model versions"}


@click.command()
@click.option(
    "-p", "--project", "--project-ids", "projects", multiple=True, metavar="ORG/PROJECT", help="Project; repeatable."
)
@with_options(PlaceOptions, "place")
@with_options(CommonOptions, "common")
def summary(projects: tuple[str, ...], place: PlaceOptions, common: CommonOptions) -> int:
    """Show what a staging area holds.

    Reads manifests; of runs that another tool has exported it counts the rows.
    """
    from neptune_exporter.summary import summary as summarize

    with logging_to(common):
        found = summarize(place.staging, Selection(projects=listed(projects)), progress=common.progress())
    if common.json:
        console.print_json(found.to_json())
    else:
        click.echo("\n\n".join(_project_text(project) for project in found.projects))
        _print_errors(found.damaged)
    return found.exit_code


def _project_text(project: ProjectSummary) -> str:
    total = sum(project.runs.values())
    statuses = ", ".join(f"{console.number(count)} {status}" for status, count in project.runs.items())
    lines = [f"{project.project}: {console.number(total)} {_KIND_NAMES[project.kind]} ({statuses or 'none'})"]
    types = [(kind, project.attributes[kind], project.points[kind]) for kind in project.attributes]
    if types:
        types.append(("all", sum(project.attributes.values()), sum(project.points.values())))
        lines += _indented(console.table(types, ("type", "attributes", "points")))
    lines += _indented(console.table(_facts(project)))
    biggest = [
        (size.run, size.points, console.size(size.bytes), size.files, console.size(size.file_bytes))
        for size in project.biggest
    ]
    if len(biggest) > 1:
        lines += _indented(console.table(biggest, ("biggest runs", "points", "parts", "files", "size of files")))
    return "\n".join(lines)


def _facts(project: ProjectSummary) -> list[tuple[str, str]]:
    facts = []
    if project.first_step is not None:
        facts.append(("steps", f"{project.first_step} to {project.last_step}"))
    if project.first_time is not None:
        facts.append(("times", f"{project.first_time} to {project.last_time}"))
    facts.append(("parts", f"{console.number(project.parts)}, {console.size(project.part_bytes)} on disk"))
    facts.append(("files", f"{console.number(project.files)}, {console.size(project.file_bytes)}"))
    if project.forks:
        facts.append(("forks", console.number(project.forks)))
    facts.append(("from", ", ".join(f"{name} ({console.number(n)})" for name, n in project.sources.items())))
    if project.problems:
        facts.append(("problems", f"{console.number(project.problems)}; neptune-exporter verify names them"))
    return facts


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()] + [""]


def _print_errors(errors: list[Any]) -> None:
    from neptune_exporter.cli.main import show

    error: ExporterError
    for error in errors:
        show(error)
