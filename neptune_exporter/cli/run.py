# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter run` and `neptune-exporter replay`: dual logging from the command line."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from neptune_exporter.cli import console
from neptune_exporter.cli.options import CommonOptions, logging_to, with_options
from neptune_exporter.errors import EXIT_ERROR, EXIT_INCOMPLETE, EXIT_INTERRUPTED, UsageError
from neptune_exporter.mirror.settings import DISABLE_NEPTUNE, SPOOL, TARGET, Settings


class _Command(click.Argument):
    """The script and everything behind it, untouched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = "The script and its arguments."


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--target", default="", metavar="NAME", help=f"mlflow, wandb, pluto or staging.  [env: {TARGET}]")
@click.option("--spool", default="", metavar="DIR", help=f"Where the spool is kept.  [env: {SPOOL}]")
@click.option("--without-neptune", is_flag=True, help=f"Do not call Neptune.  [env: {DISABLE_NEPTUNE}]")
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@click.argument("command", cls=_Command, nargs=-1, required=True, type=click.UNPROCESSED)
def run(target: str, spool: str, without_neptune: bool, module: bool, command: tuple[str, ...]) -> None:
    """Run a training script with dual logging, without changing a line of it.

    What it logs with neptune-scale or the 1.x client goes to Neptune as ever, and into the target. Processes that it
    starts are switched on as well. The exit code is the script's.
    """
    from neptune_exporter.mirror import script

    given = {TARGET: target, SPOOL: spool, DISABLE_NEPTUNE: "true" if without_neptune else ""}
    os.environ.update({name: value for name, value in given.items() if value})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # signals are the script's own business
    script.alias_compatibility()
    script.switch_on_children()
    import neptune_exporter.dual_logging  # noqa: F401 - that switches it on

    name, *arguments = command
    try:
        (script.run_module if module else script.run_script)(name, arguments)
    except (SystemExit, UsageError):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the script raises
        # As Python would show it: without our own frames, by whatever hook the script has set.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("neptune_exporter"):
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        raise SystemExit(EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_ERROR) from None


@click.command()
@click.option("--target", default="", metavar="NAME", help=f"mlflow, wandb, pluto or staging.  [env: {TARGET}]")
@click.option("--spool", default="", metavar="DIR", help=f"Where the spool is.  [env: {SPOOL}]")
@with_options(CommonOptions, "common")
def replay(target: str, spool: str, common: CommonOptions) -> int:
    """Feed a target with what dual logging has left in the spool.

    Goes on where the target has got to, so nothing is there twice. Runs that are being fed right now are left alone.
    """
    from neptune_exporter.mirror.replay import replay as replay_all

    given = {name: value for name, value in {TARGET: target, SPOOL: spool}.items() if value}
    settings = Settings.from_environment({**os.environ, **given})
    if not settings.target:
        raise UsageError("No target is set.", f"Name one with --target, or set {TARGET}.")
    with logging_to(common):
        outcomes = replay_all(Path(settings.spool), settings.target, dry_run=common.dry_run)
    _print(outcomes, settings.target, as_json=common.json)
    return EXIT_INCOMPLETE if any(outcome.error for outcome in outcomes) else 0


def _print(outcomes: list[Any], target: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json([outcome.to_json() for outcome in outcomes])
        return
    for outcome in outcomes:
        if outcome.error:
            console.say(f"  {outcome.run}: {outcome.state}: {outcome.error}")
    states = [outcome.state for outcome in outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "nothing in the spool"
    console.say(f"Replay to {target}: {counts}.")
