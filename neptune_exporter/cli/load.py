# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter load` and `load-models`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from neptune_exporter import plugins
from neptune_exporter.cli import console
from neptune_exporter.cli.options import (
    Command,
    CommonOptions,
    ModelPlaceOptions,
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


def how_to_load(what: str, names: str) -> Callable[[Command], Command]:
    """A decorator: the options that both commands have.

    Args:
        what: what is loaded, for the help texts.
        names: the loaders, likewise.
    """

    def decorate(command: Command) -> Command:
        decorated = command
        for add in reversed(
            [
                run_selection,
                click.option(
                    *("-r", "--run", "--runs", "run_ids"),
                    multiple=True,
                    metavar="ID",
                    help=f"{what} with exactly this id; repeatable.",
                ),
                click.option(
                    "--loader", default="mlflow", show_default=True, metavar="NAME", help=f"Where to: {names}."
                ),
                with_plugins(plugins.LOADERS, "loader", "loader_options"),
                click.option(
                    "--step-multiplier",
                    type=Multiplier(),
                    default="auto",
                    help="What Neptune's decimal steps are multiplied with; "
                    "auto: the smallest power of ten that keeps them exact.",
                ),
                click.option(
                    "--name-prefix", default="", metavar="TEXT", help="Put before the name of experiments or projects."
                ),
                click.option(
                    "--run-name",
                    type=click.Choice(["name", "id"]),
                    default="name",
                    show_default=True,
                    help="What runs are called.",
                ),
                click.option(
                    "--attach-all",
                    is_flag=True,
                    help="Attach every row as Parquet, not only what the target cannot hold.",
                ),
                click.option(
                    "--max-requests-per-second",
                    type=float,
                    default=0.0,
                    metavar="N",
                    help="Requests a second at most, of all workers together, to MLflow's or Pluto's server; "
                    "0: no limit.",
                ),
            ]
        ):
            decorated = add(decorated)
        return decorated

    return decorate


@click.command()
@how_to_load("Run", "mlflow, wandb or pluto")
@with_options(PlaceOptions, "place")
@with_options(CommonOptions, "common")
def load(**given: Any) -> int:
    """Bring a staging area into MLflow or another tracker.

    Run it again at any time: complete runs are skipped, half-loaded and changed ones are loaded anew.
    """
    from neptune_exporter.load import load as run_load

    return load_and_report(run_load, "Load", **given)


@click.command("load-models")
@how_to_load("Model or model version", "mlflow or wandb, with their model registries; or another loader")
@with_options(ModelPlaceOptions, "place")
@with_options(CommonOptions, "common")
def load_models(**given: Any) -> int:
    """Bring the models of a staging area into a model registry, MLflow's or that of Weights & Biases.

    Models and versions become runs in the experiment or project PROJECT/models, and are registered in the order of
    their creation. Run it again at any time, like load.
    """
    from neptune_exporter.load_models import load_models as run_load

    return load_and_report(run_load, "Load of models", **given)


def load_and_report(
    run_load: Callable[..., Any],
    title: str,
    *,
    selected: dict[str, Any],
    run_ids: tuple[str, ...],
    loader: str,
    loader_options: Any,
    step_multiplier: int | None,
    name_prefix: str,
    run_name: Any,
    attach_all: bool,
    max_requests_per_second: float,
    place: PlaceOptions,
    common: CommonOptions,
) -> int:
    """Loads what is selected and prints what came of it. Returns the exit code."""
    selection = make_selection(selected, run_ids=run_ids)
    from neptune_exporter.loaders.loader import LoadOptions

    with logging_to(common):
        report = run_load(
            loader,
            loader_options,
            LoadOptions(name_prefix, run_name, attach_all, max_requests_per_second=max_requests_per_second),
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
        console.print_report(report, title, report.after)
    return int(report.exit_code)
