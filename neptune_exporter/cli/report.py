# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter summary` and `neptune-exporter verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neptune_exporter import plugins
from neptune_exporter.cli import console
from neptune_exporter.cli.options import (
    Command,
    CommonOptions,
    ModelPlaceOptions,
    PlaceOptions,
    listed,
    logging_to,
    make_selection,
    run_selection,
    with_options,
    with_plugins,
)
from neptune_exporter.secrets import without_credentials
from neptune_exporter.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neptune_exporter.summary import ProjectSummary
    from neptune_exporter.verify.finding import Checked, Finding

BIGGEST = 5
_KIND_NAMES = {"run": "run", "model": "model", "model_version": "model version"}


def with_html(command: Command) -> Command:
    """A decorator: the option that asks for a page, as `html`."""
    how = "Also write a report to look at: one HTML file that needs no network."
    return click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help=how)(command)


def _check_html(html: Path | None, place: PlaceOptions) -> None:
    """Before anything else is done; see `page.check_target`."""
    if html is not None:
        from neptune_exporter.report.page import check_target

        folders = (place.data_path, place.files_path)
        check_target(html, [Path(folder) for folder in folders if "://" not in folder])


@click.command()
@click.option(
    "-p", "--project", "--project-ids", "projects", multiple=True, metavar="ORG/PROJECT", help="Project; repeatable."
)
@with_html
@with_options(PlaceOptions, "place")
@with_options(CommonOptions, "common")
def summary(projects: tuple[str, ...], html: Path | None, place: PlaceOptions, common: CommonOptions) -> int:
    """Show what a staging area holds.

    Reads manifests; of runs that another tool has exported it counts the rows. With --json or --html it also reads the
    footers of all parts, to say what their bytes are.
    """
    from neptune_exporter.summary import summary as summarize

    _check_html(html, place)
    with logging_to(common):
        selection = Selection(projects=listed(projects))
        found = summarize(place.staging, selection, footers=html is not None or common.json, progress=common.progress())
    if html is not None:
        from neptune_exporter.report.found import of_summary

        _write_page(html, "Staging area", of_summary(found, without_credentials(place.data_path)))
    if common.json:
        console.print_json(found.to_json())
    else:
        console.say("\n".join(_project_text(project) for project in found.projects).rstrip())
        _print_errors(found.damaged)
    return found.exit_code


def _write_page(path: Path, title: str, value: dict[str, Any]) -> None:
    from neptune_exporter.report.page import write_page

    write_page(path, title, value)
    console.say(f"The report is in {path}.", err=True)


def _project_text(project: ProjectSummary) -> str:
    total = sum(project.runs.values())
    statuses = ", ".join(f"{console.number(count)} {status}" for status, count in project.runs.items())
    things = _KIND_NAMES[project.kind] + ("" if total == 1 else "s")
    lines = [f"{project.project}: {console.number(total)} {things} ({statuses or 'none'})"]
    types = [(kind, project.attributes[kind], project.points[kind]) for kind in project.attributes]
    if types:
        types.append(("all", sum(project.attributes.values()), sum(project.points.values())))
        lines += _indented(console.table(types, ("type", "attributes", "points")))
    lines += _indented(console.table(_facts(project)))
    biggest = [
        (size.run, size.points, console.size(size.bytes), size.files, console.size(size.file_bytes))
        for size in project.biggest[:BIGGEST]
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


def _print_errors(errors: Iterable[Any]) -> None:
    for error in errors:
        console.show(error)


@click.command()
@run_selection
@click.option(
    "-r", "--run", "--runs", "run_ids", multiple=True, metavar="ID", help="Run with exactly this id; repeatable."
)
@click.option("--read-data", is_flag=True, help="Read every row and every file, not only footers and sizes.")
@click.option("--write-manifests", is_flag=True, help="Give runs that another tool has exported a manifest.")
@click.option(
    "--exporter",
    metavar="NAME",
    help=f"Also compare with the source: {', '.join(plugins.available(plugins.EXPORTERS))}.",
)
@with_plugins(plugins.EXPORTERS, "exporter", "exporter_options")
@click.option(
    "--loader", metavar="NAME", help=f"Also compare with the target: {', '.join(plugins.available(plugins.LOADERS))}."
)
@with_plugins(plugins.LOADERS, "loader", "loader_options")
@click.option("--models", is_flag=True, help="Models and model versions, and the target's model registry, not runs.")
@click.option("--name-prefix", default="", metavar="TEXT", help="As given to load.")
@with_html
@with_options(PlaceOptions, "place")
@with_options(CommonOptions, "common")
def verify(
    selected: dict[str, Any],
    run_ids: tuple[str, ...],
    read_data: bool,
    write_manifests: bool,
    exporter: str | None,
    exporter_options: Any,
    loader: str | None,
    loader_options: Any,
    models: bool,
    name_prefix: str,
    html: Path | None,
    place: PlaceOptions,
    common: CommonOptions,
) -> int:
    """Prove that nothing was lost.

    Checks the staging area against its manifests; with --exporter also against the source, with --loader also
    against the target, which is read back. Ends with 4 if anything differs, 3 if something could not be checked.
    """
    selection = make_selection(selected, run_ids=run_ids)
    if html is not None and common.dry_run:
        raise click.UsageError("--html shows what was found, and --dry-run finds nothing: leave out one of them.")
    place = _place_of_models(place) if models else place
    _check_html(html, place)
    from neptune_exporter.loaders.loader import LoadOptions
    from neptune_exporter.verify.check import Depth, Source, Target, verify
    from neptune_exporter.verify.finding import exit_code

    source = Source(exporter, exporter_options) if exporter is not None else None
    target = Target(loader, loader_options, LoadOptions(name_prefix, models=models)) if loader is not None else None
    depth = Depth(selection, read_data, write_manifests, source, target, models=models)
    checked: list[Checked] = []
    with logging_to(common):
        for one in verify(
            place.staging,
            depth,
            workers=common.worker_count,
            executor=common.executor or "threads",
            dry_run=common.dry_run,
            progress=common.progress(),
        ):
            checked.append(one)
            if not common.json:
                _print_findings(one.findings)
    findings = [finding for one in checked for finding in one.findings]
    if html is not None:
        from neptune_exporter.report.found import of_verify

        where = without_credentials(place.data_path)
        _write_page(html, "Verification", of_verify(checked, depth, where, exit_code(findings)))
    if common.json:
        console.print_json(_verify_json(checked, exit_code(findings)))
    else:
        console.say(_closing_lines(checked, findings, depth))
    return exit_code(findings)


def _place_of_models(place: PlaceOptions) -> PlaceOptions:
    """What is not named on the command line is where export-models puts it."""
    context = click.get_current_context()
    given = {
        name: getattr(place, name)
        for name in ("data_path", "files_path", "store_endpoint")
        if context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT
    }
    return ModelPlaceOptions(**given)


_SHOWN_AS = {"difference": "DIFFERS", "unchecked": "UNCHECKED", "note": "note"}


def _print_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        about = "/".join(part for part in (finding.project, finding.run) if part)
        about = f"{about}  {finding.attribute}" if finding.attribute is not None else about
        console.say(f"{_SHOWN_AS[finding.level]}  {about}{': ' if about else ''}{finding.message}")


def _verify_json(checked: list[Checked], code: int) -> dict[str, Any]:
    checked = sorted(checked, key=lambda one: console.order(one.ref))  # two verifications can be compared
    return {
        "exit_code": code,
        "runs": [
            {
                "project": one.ref.project_id,
                "run": one.ref.run_id,
                "kind": one.ref.kind,
                "status": one.status,
                "points": one.points,
                "compared": sorted(one.compared),
            }
            for one in checked
            if one.ref is not None
        ],
        "findings": [finding.to_json() for one in checked for finding in one.findings],
    }


def _closing_lines(checked: list[Checked], findings: list[Finding], depth: Any) -> str:
    runs = [one for one in checked if one.ref is not None]
    points = console.number(sum(one.points for one in runs))
    if any(one.status == "planned" for one in runs):
        return f"Verify would check {console.number(len(runs))} runs with {points} points."
    how = "every row and file was read" if depth.read_data else "manifests, footers and sizes; --read-data reads all"
    lines = [f"Verify: {console.number(len(runs))} runs, {points} points ({how})."]
    for where, name in (
        ("source", depth.source.name if depth.source else ""),
        ("target", depth.target.name if depth.target else ""),
    ):
        if name:
            count = sum(where in one.compared for one in runs)
            lines.append(f"Compared with {name}: {console.number(count)} of {console.number(len(runs))} runs.")
    differing = sum(finding.level == "difference" for finding in findings)
    unchecked = sum(finding.level == "unchecked" for finding in findings)
    unproven = sum(one.status == "unproven" for one in runs)
    lines.append(f"{console.number(differing) if differing else 'No'} difference{'' if differing == 1 else 's'}.")
    if unchecked:
        lines.append(f"{console.number(unchecked)} things could not be checked.")
    if unproven:
        lines.append(f"{console.number(unproven)} runs have no manifest; verify --write-manifests gives them one.")
    return "\n".join(lines)
