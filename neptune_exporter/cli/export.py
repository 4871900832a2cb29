# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter export`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from neptune_exporter import plugins
from neptune_exporter.cli import console
from neptune_exporter.cli.options import (
    CommonOptions,
    ModelPlaceOptions,
    PlaceOptions,
    logging_to,
    make_selection,
    run_selection,
    with_options,
    with_plugins,
)
from neptune_exporter.plugins import option
from neptune_exporter.selection import Selection


@dataclass(frozen=True)
class ExportOptions:
    """What an export does with what was exported before, and whom it tells what went wrong."""

    overwrite: bool = option(False, "Export again what was exported before; each is replaced at once.")
    retry_failed: bool = option(False, "Also try again what failed for good.")
    error_report_file: str = option("", "Write every problem to this file, a JSON object a line.", metavar="FILE")


def _by_pattern(what: str) -> Callable[[Any], Any]:
    """The option that selects by ids."""
    return click.option(
        "-r",
        "--run",
        "--runs",
        "run_patterns",
        multiple=True,
        metavar="REGEX",
        help=f"{what} whose id matches, searched anywhere in it; repeatable.",
    )


@click.command()
@run_selection
@_by_pattern("Runs")
@click.option(
    "--exporter",
    default="neptune3",
    show_default=True,
    metavar="NAME",
    help="Where from: neptune3 (servers 3.x: scripts import neptune_scale), neptune2 (servers 2.x: scripts import "
    "neptune) or offline (.neptune folders of either).",
)
@with_plugins(plugins.EXPORTERS, "exporter", "exporter_options")
@with_options(PlaceOptions, "place")
@with_options(ExportOptions, "how")
@with_options(CommonOptions, "common")
def export(
    selected: dict[str, Any],
    run_patterns: tuple[str, ...],
    exporter: str,
    exporter_options: Any,
    place: PlaceOptions,
    how: ExportOptions,
    common: CommonOptions,
) -> int:
    """Bring Neptune data into a staging area on disk.

    Run it again at any time: runs that are there and unchanged are skipped, everything else is done.
    """
    looks_for_projects = getattr(exporter_options, "workspace", ()) or getattr(exporter_options, "project_pattern", ())
    if not selected["projects"] and exporter != "offline" and not looks_for_projects:
        selected["projects"] = tuple(filter(None, [os.environ.get("NEPTUNE_PROJECT")]))
    selection = make_selection(selected, run_patterns=run_patterns)
    return _export_and_report(exporter, exporter_options, place, selection, how, common)


@click.command("export-models")
@run_selection
@_by_pattern("Models and versions")
@click.option(
    "--exporter",
    default="neptune2",
    show_default=True,
    metavar="NAME",
    help="Where from: neptune2 (servers 2.x) or offline (.neptune folders); servers 3.x have no models.",
)
@with_plugins(plugins.EXPORTERS, "exporter", "exporter_options", kind="model")
@with_options(ModelPlaceOptions, "place")
@with_options(ExportOptions, "how")
@with_options(CommonOptions, "common")
def export_models(
    selected: dict[str, Any],
    run_patterns: tuple[str, ...],
    exporter: str,
    exporter_options: Any,
    place: ModelPlaceOptions,
    how: ExportOptions,
    common: CommonOptions,
) -> int:
    """Bring the models and model versions of a Neptune 2.x registry into a staging area on disk.

    Works like `export`, and can be run again at any time like it.
    """
    if not selected["projects"] and os.environ.get("NEPTUNE_PROJECT"):
        selected["projects"] = (os.environ["NEPTUNE_PROJECT"],)
    selection = make_selection(selected, run_patterns=run_patterns, kinds=("model", "model_version"))
    return _export_and_report(exporter, exporter_options, place, selection, how, common)


def _export_and_report(
    exporter: str,
    exporter_options: Any,
    place: PlaceOptions,
    selection: Selection,
    how: ExportOptions,
    common: CommonOptions,
) -> int:
    """Exports what is selected and prints what came of it. Returns the exit code."""
    from neptune_exporter.export import export as run_export

    with logging_to(common):
        report = run_export(
            exporter,
            exporter_options,
            place.staging,
            selection,
            workers=common.worker_count,
            executor=common.executor or "threads",
            overwrite=how.overwrite,
            retry_failed=how.retry_failed,
            dry_run=common.dry_run,
            progress=common.progress(),
        )
    if how.error_report_file:
        console.write_problems(how.error_report_file, report)
    if common.json:
        console.print_json(console.report_json(report))
    else:
        done = report.count("done") + report.count("partial")
        console.print_report(report, "Export", f"Next: neptune-exporter summary {place.shown}" if done else "")
    return report.exit_code
