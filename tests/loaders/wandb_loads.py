# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of loading into W&B share: one run, how it is loaded, killed and looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import areas
import pytest
from areas import PROJECT, floats, stage, tags, text
from servers.wandb import API_KEY, ENTITY, WandbServer, serving
from wandb_seen import seen_by_server
from wandb_target import Target, client_environment

from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Report
from neptune_exporter.selection import Selection

REF = RunRef(PROJECT, "RUN-1")
ID = run_id(REF, 1)
WAYS = ["log", "client"]


def run_load(target: Any, root: Path, **more: Any) -> Report:
    """The command's own work, in this process."""
    return load("wandb", target.options(**more), LoadOptions(), areas.staging(root), Selection(), workers=1)


def stage_one(root: Path, *, points: int = 200, name: str = "adam") -> None:
    stage(
        root,
        "RUN-1",
        floats(REF, "loss", [n / 7 for n in range(points)]),
        floats(REF, "acc", [n / 3 for n in range(0, points, 5)], every=5),
        text(REF, "params/name", name),
        tags(REF, ["a"]),
        files={"model": b"weights" * 1000, "notes": b"n"},
    )


@pytest.fixture
def root(tmp_path) -> Path:
    stage_one(tmp_path / "area")
    return tmp_path / "area"


def content(server: WandbServer, name: str = ID) -> Any:
    """All that must not depend on how often a load was interrupted."""
    seen = seen_by_server(server, name)
    run = server.run(name)
    for row in seen.history:
        row.pop("_runtime")
    assert (run.complete, run.state) == (True, "finished")
    assert seen.config["neptune"]["load"]["state"] == "complete"
    summary = {key: value for key, value in seen.summary.items() if key != "_runtime"}
    return seen.history, seen.config, summary, seen.artifact, seen.about


def is_marked(server: WandbServer, name: str = ID) -> bool:
    return any(run.name == name and run.values["neptune"]["load"]["state"] == "complete" for run in server.runs.all())


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, Any]:
    """What an undisturbed load gives, by either way."""
    found = {}
    for way in WAYS:
        with serving() as calm:
            folder = tmp_path_factory.mktemp("clean")
            stage_one(folder)
            run_load(of(calm, folder), folder, wandb_way=way)
            found[way] = content(calm)
            end_client()
    assert found["log"] == found["client"]
    return found["log"]


def of(running: WandbServer, folder: Path) -> Target:
    return Target(running, folder / "logs")


@pytest.fixture(autouse=True)
def client_of_its_own():
    """wandb-core keeps a run's id for a while after its end, and here all tests have the same one."""
    yield
    end_client()


def end_client() -> None:
    from wandb.sdk import wandb_setup

    wandb_setup.teardown()


def command(running: WandbServer, root: Path, way: str) -> list[str]:
    return [
        *(sys.executable, "-m", "neptune_exporter", "load", "--loader", "wandb", "--no-progress", "--workers", "1"),
        *("--data-path", str(root / "data"), "--files-path", str(root / "files"), "--wandb-way", way),
        *("--wandb-base-url", running.url, "--wandb-api-key", API_KEY, "--wandb-entity", ENTITY),
    ]


def kill_when(running: WandbServer, root: Path, way: str, folder: Path, ready: Any) -> bool:
    """Starts the command and kills it as soon as `ready()` is true; whether it was in time."""
    environment = {**os.environ, **client_environment(folder), "TMPDIR": str(folder)}
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(command(running, root, way), env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not ready():
        time.sleep(0.001)
    process.kill()
    process.wait()
    return not is_marked(running)


def wandb_sync(running: WandbServer, folder: Path, *paths: Path) -> None:
    environment = {**os.environ, **client_environment(folder), "WANDB_BASE_URL": running.url, "WANDB_API_KEY": API_KEY}
    program = Path(sys.executable).parent / "wandb"
    command = [str(program), "sync", *(str(path.absolute()) for path in paths)]
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)  # it logs where it runs


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
LARGE = 120_000  # wandb-core sends at most about 98,000 of these rows at once
