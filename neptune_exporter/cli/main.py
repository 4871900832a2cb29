# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The entry point: lazy commands, and the one place where a failure becomes words and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from neptune_exporter import __version__
from neptune_exporter.cli import console
from neptune_exporter.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, ExporterError
from neptune_exporter.secrets import mask_tracebacks, masked

COMMANDS = {
    "export": ("neptune_exporter.cli.export:export", "Bring Neptune data into a staging area on disk."),
    "export-models": (
        "neptune_exporter.cli.export:export_models",
        "Bring the models of a Neptune 2.x registry into a staging area on disk.",
    ),
    "load": ("neptune_exporter.cli.load:load", "Bring a staging area into MLflow or another tracker."),
    "load-models": (
        "neptune_exporter.cli.load:load_models",
        "Bring the models of a staging area into a model registry.",
    ),
    "summary": ("neptune_exporter.cli.report:summary", "Show what a staging area holds."),
    "verify": ("neptune_exporter.cli.report:verify", "Prove that nothing was lost."),
    "run": ("neptune_exporter.cli.run:run", "Run a training script with dual logging."),
    "replay": ("neptune_exporter.cli.run:replay", "Feed a target with what dual logging has left over."),
    "doctor": ("neptune_exporter.cli.doctor:doctor", "Say what dual logging finds, and what it lacks."),
    "demo": ("neptune_exporter.cli.demo:demo", "Try everything on a small example."),
}

EPILOG = """Exit codes: 0 all done; 1 error; 2 wrong usage; 3 finished, but something is partial or failed;
4 verify found differences; 130 interrupted (run the same command again, it goes on where it was)."""


class LazyGroup(click.Group):
    """Imports a command when it is used, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="neptune-exporter")
def cli() -> None:
    """Leave Neptune.ai without losing a single number."""


def run() -> NoReturn:
    """Runs the command line and exits with the documented code."""
    signal.signal(signal.SIGTERM, _interrupt)
    mask_tracebacks()
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None
    sys.exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code. Only our own bugs show a traceback, or `-v`."""
    try:
        result = cli.main(arguments, prog_name="neptune-exporter", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_ERROR
    except ExporterError as error:
        if logging.getLogger("neptune_exporter").isEnabledFor(logging.INFO):
            logging.getLogger(__name__).info("traceback", exc_info=error)
        console.show(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        again = masked(shlex.join(["neptune-exporter", *(sys.argv[1:] if arguments is None else arguments)]))
        console.say("\nError: Interrupted. What was finished is kept.", err=True)
        console.say(f"Hint: Run the same command again, it goes on where it was: {again}", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    return result if isinstance(result, int) else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
