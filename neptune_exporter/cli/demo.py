# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter demo`: the whole job on a sample, each step by the command that a user would type."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from neptune_exporter import plugins
from neptune_exporter.cli import console
from neptune_exporter.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK, ExporterError, MissingExtraError


@click.command()
@click.option(
    "--path",
    metavar="DIR",
    help="Work in this folder and not in a temporary one; s3://BUCKET/PREFIX puts the staging area there.",
)
def demo(path: str | None) -> int:
    """Try everything on a small example, in under a minute.

    Logs a few runs with the real Neptune client, offline; exports, summarises, loads and verifies them. Ends with 0
    only if everything was proven. The folder is kept.
    """
    store = path.rstrip("/") if path is not None and "://" in path else ""
    folder = Path(path).absolute() if path and not store else Path(tempfile.mkdtemp(prefix="neptune-exporter-demo-"))
    console.say(f"Working in {folder}")
    logged = _log_runs(folder)
    area = f"{store}/{folder.name}" if store else str(folder)
    place = ["--data-path", f"{area}/data", "--files-path", f"{area}/files"]
    source = ["--exporter", "offline", "--offline-path", str(logged)]
    codes = [
        _step("Bring them into a staging area:", ["export", *source, *place]),
        _step("See what it holds:", ["summary", *place]),
        _step(
            "Prove that all of it is there and equal to what was logged:", ["verify", "--read-data", *source, *place]
        ),
    ]
    database = f"sqlite:///{folder / 'mlflow.db'}"
    target = ["--loader", "mlflow", "--mlflow-tracking-uri", database]
    missing = _missing_loader()
    if missing is not None:
        console.say(f"\nLoading into MLflow is left out: {missing.message}\n{missing.hint}")
        codes.append(EXIT_INCOMPLETE)
    else:
        codes.append(_step("Load it into MLflow:", ["load", *target, *place]))
        codes.append(_step("Prove that MLflow holds the same:", ["verify", *target, *place]))
    worst = next((code for code in codes if code != EXIT_OK), EXIT_OK)
    if worst == EXIT_OK:
        console.say("\nEvery value is proven to be in the staging area and in MLflow. Look at it:")
        console.say(f"$ {shlex.join(['mlflow', 'ui', '--backend-store-uri', database])}")
    return worst


def _step(why: str, arguments: list[str]) -> int:
    """Runs one command of ours as if it had been typed. Raises `click.Abort` if it was interrupted."""
    from neptune_exporter.cli.main import main

    console.say(f"\n{why}\n$ {shlex.join(['neptune-exporter', *arguments])}")
    code = main(arguments)
    if code == EXIT_INTERRUPTED:
        raise click.Abort
    return code


def _log_runs(folder: Path) -> Path:
    """Logs the sample below the folder, if that was not done before. Raises `ExporterError`."""
    logged, unfinished = folder / ".neptune", folder / ".neptune.unfinished"
    if logged.exists():
        console.say(f"The runs were logged before, in {logged}")
        return logged
    if importlib.util.find_spec("neptune_scale") is None:
        raise ExporterError(
            "The demo logs its runs with the real Neptune client, and neptune-scale is not installed.",
            "Install it with: pip install neptune-scale",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [sys.executable, "-m", "neptune_exporter.demo_runs", str(unfinished)]
        console.say(
            "\nLog a few runs with the Neptune client, offline:\n$ python -m neptune_exporter.demo_runs .neptune"
        )
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)  # noqa: S603
        if done.returncode:
            raise ExporterError(f"The Neptune client could not log the runs:\n{done.stderr.strip()}")
        unfinished.rename(logged)
    except OSError as error:
        raise ExporterError(f"Cannot write in {folder}: {error.strerror}.", "Choose another with --path.") from None
    return logged


def _missing_loader() -> MissingExtraError | None:
    plugin = plugins.find(plugins.LOADERS, "mlflow")
    if plugin.package and importlib.util.find_spec(plugin.package) is None:
        return MissingExtraError(plugin.extra, plugin.package)
    return None
