# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter export`."""

from __future__ import annotations

import os
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
from neptune_exporter.selection import Selection


@click.command()
@run_selection
@click.option(
    "-r",
    "--run",
    "--runs",
    "run_patterns",
    multiple=True,
    metavar="REGEX",
    help="Runs whose id matches, searched anywhere in it; repeatable.",
)
@click.option(
    "--exporter",
    default="neptune3",
    show_default=True,
    metavar="NAME",
    help="Where from: neptune3 (servers 3.x), neptune2 (servers 2.x) or offline (.neptune folders).",
)
@with_plugins(plugins.EXPORTERS, "exporter", "exporter_options")
@with_options(PlaceOptions, "place")
@click.option("--overwrite", is_flag=True, help="Export again what was exported before; each run is replaced at once.")
@click.option("--retry-failed", is_flag=True, help="Also try again what failed for good.")
@click.option("--error-report-file", metavar="FILE", help="Write every problem to this file, a JSON object a line.")
@with_options(CommonOptions, "common")
def export(
    selected: dict[str, Any],
    run_patterns: tuple[str, ...],
    exporter: str,
    exporter_options: Any,
    place: PlaceOptions,
    overwrite: bool,
    retry_failed: bool,
    error_report_file: str | None,
    common: CommonOptions,
) -> int:
    """Bring Neptune data into a staging area on disk.

    Run it again at any time: runs that are there and unchanged are skipped, everything else is done.
    """
    looks_for_projects = getattr(exporter_options, "workspace", ()) or getattr(exporter_options, "project_pattern", ())
    if not selected["projects"] and exporter != "offline" and not looks_for_projects:
        selected["projects"] = tuple(filter(None, [os.environ.get("NEPTUNE_PROJECT")]))
    selection = make_selection(selected, run_patterns=run_patterns)
    return export_and_report(
        exporter,
        exporter_options,
        place,
        selection,
        common,
        overwrite=overwrite,
        retry_failed=retry_failed,
        error_report_file=error_report_file,
    )


@click.command("export-models")
@run_selection
@click.option(
    "-r",
    "--run",
    "--runs",
    "run_patterns",
    multiple=True,
    metavar="REGEX",
    help="Models and versions whose id matches, searched anywhere in it; repeatable.",
)
@click.option("--exporter", default="neptune2", show_default=True, metavar="NAME", help="Where from.")
@with_plugins(plugins.EXPORTERS, "exporter", "exporter_options", kind="model")
@with_options(ModelPlaceOptions, "place")
@click.option("--overwrite", is_flag=True, help="Export again what was exported before; each is replaced at once.")
@click.option("--retry-failed", is_flag=True, help="Also try again what failed for good.")
@click.option("--error-report-file", metavar="FILE", help="Write every problem to this file, a JSON object a line.")
@with_options(CommonOptions, "common")
def export_models(
    selected: dict[str, Any],
    run_patterns: tuple[str, ...],
    exporter: str,
    exporter_options: Any,
    place: ModelPlaceOptions,
    overwrite: bool,
    retry_failed: bool,
    error_report_file: str | None,
    common: CommonOptions,
) -> int:
    """Bring the models and model versions of a Neptune 2.x registry into a staging area on disk.

    Works like `export`, and can be run again at any time like it.
    """
    if not selected["projects"] and os.environ.get("NEPTUNE_PROJECT"):
        selected["projects"] = (os.environ["NEPTUNE_PROJECT"],)
    selection = make_selection(selected, run_patterns=run_patterns, kinds=("model", "model_version"))
    return export_and_report(
        exporter,
        exporter_options,
        place,
        selection,
        common,
        overwrite=overwrite,
        retry_failed=retry_failed,
        error_report_file=error_report_file,
    )


def export_and_report(
    exporter: str,
    exporter_options: Any,
    place: PlaceOptions,
    selection: Selection,
    common: CommonOptions,
    *,
    overwrite: bool,
    retry_failed: bool,
    error_report_file: str | None = None,
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
            overwrite=overwrite,
            retry_failed=retry_failed,
            dry_run=common.dry_run,
            progress=common.progress(),
        )
    if error_report_file:
        console.write_problems(error_report_file, report)
    if common.json:
        console.print_json(console.report_json(report))
    else:
        done = report.count("done") + report.count("partial")
        console.print_report(
            report, "Export", f"Next: neptune-exporter summary --data-path {place.data_path}" if done else ""
        )
    return report.exit_code
