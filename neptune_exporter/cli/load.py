# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter load`."""

from __future__ import annotations

from typing import Any

import click

from neptune_exporter import plugins
from neptune_exporter.cli import console
from neptune_exporter.cli.options import (
    CommonOptions,
    PlaceOptions,
    logging_to,
    make_selection,
    run_selection,
    with_options,
    with_plugins,
)


class Multiplier(click.ParamType[int | None]):
    """`auto` (None) or a whole number."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """The number, or None for auto."""
        if value is None or value == "auto":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a whole number", param, ctx)


@click.command()
@run_selection
@click.option(
    "-r", "--run", "--runs", "run_ids", multiple=True, metavar="ID", help="Run with exactly this id; repeatable."
)
@click.option("--loader", default="mlflow", show_default=True, metavar="NAME", help="Where to: mlflow, wandb or pluto.")
@with_plugins(plugins.LOADERS, "loader", "loader_options")
@click.option(
    "--step-multiplier",
    type=Multiplier(),
    default="auto",
    help="What Neptune's decimal steps are multiplied with; auto: the smallest power of ten that keeps them exact.",
)
@click.option("--name-prefix", default="", metavar="TEXT", help="Put before the name of experiments or projects.")
@click.option(
    "--run-name", type=click.Choice(["name", "id"]), default="name", show_default=True, help="What runs are called."
)
@click.option("--attach-all", is_flag=True, help="Attach every row as Parquet, not only what the target cannot hold.")
@with_options(PlaceOptions, "place")
@with_options(CommonOptions, "common")
def load(
    selected: dict[str, Any],
    run_ids: tuple[str, ...],
    loader: str,
    loader_options: Any,
    step_multiplier: int | None,
    name_prefix: str,
    run_name: Any,
    attach_all: bool,
    place: PlaceOptions,
    common: CommonOptions,
) -> int:
    """Bring a staging area into MLflow or another tracker.

    Run it again at any time: complete runs are skipped, half-loaded and changed ones are loaded anew.
    """
    selection = make_selection(selected, run_ids=run_ids)
    from neptune_exporter.load import load as run_load
    from neptune_exporter.loaders.loader import LoadOptions

    with logging_to(common):
        report = run_load(
            loader,
            loader_options,
            LoadOptions(name_prefix, run_name, attach_all),
            place.staging,
            selection,
            step_multiplier=step_multiplier,
            workers=common.worker_count,
            executor=common.executor or "processes",
            dry_run=common.dry_run,
            progress=common.progress(),
        )
    if common.json:
        console.print_json(console.report_json(report))
    else:
        console.print_report(report, "Load", report.after)
    return report.exit_code
