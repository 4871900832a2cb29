# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures come by their names
"""kill -9 in the middle of a load: the next one goes on where it stopped, and no row comes twice."""

from __future__ import annotations

import os
import subprocess
import time
from itertools import pairwise

import numpy as np
import pytest
from areas import PROJECT, floats, stage
from servers.wandb import WandbServer
from wandb_loads import (  # noqa: F401
    ID,
    LARGE,
    REF,
    WAYS,
    clean,
    client_of_its_own,
    command,
    content,
    is_marked,
    kill_when,
    needs_kill,
    root,
    run_load,
)
from wandb_seen import seen_in_log
from wandb_target import client_environment, no_settings_of_the_user, server, target  # noqa: F401


@needs_kill
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("requests", [3, 6, 11])
def test_kill_9_after_any_request_then_a_load_equals_the_clean_one(
    server,
    target,
    root,
    clean,
    tmp_path,
    way,
    requests,
):
    server.http.latency = 0.05
    assert kill_when(server, root, way, tmp_path / "killed", lambda: len(server.http.log) >= requests)
    server.http.latency = 0.0
    assert run_load(target, root, wandb_way=way).exit_code == 0
    assert content(server) == clean


def posted(running: WandbServer) -> int:
    return sum(len(run.history) for run in running.runs.all())


@needs_kill
@pytest.mark.parametrize("way", ["log", pytest.param("client", marks=pytest.mark.soak)])
def test_kill_9_in_the_middle_of_the_rows_goes_on_where_it_stopped(server, target, tmp_path, way):
    values = np.arange(LARGE) / 7
    stage(tmp_path / "area", "RUN-1", floats(REF, "loss", values))
    server.http.latency = 0.1
    # Logs are always what is killed: `run.log` hands over its rows in one piece, too late for a kill in between.
    assert kill_when(server, tmp_path / "area", "log", tmp_path / "killed", lambda: posted(server) > 1000)
    run = server.run(ID)
    server.http.latency = 0.0
    before = list(run.history)
    assert 0 < len(before) < LARGE
    assert not is_marked(server)
    assert run_load(target, tmp_path / "area", wandb_way=way).exit_code == 0
    assert run.history[: len(before)] == before
    assert len(run.history) == LARGE
    rows = run.rows
    assert [row["_step"] for row in rows] == list(range(LARGE))
    assert [row["loss"] for row in rows] == values.tolist()
    assert all(a["_timestamp"] < b["_timestamp"] for a, b in pairwise(rows))
    assert run.torn == 0


@needs_kill
@pytest.mark.parametrize("way", WAYS)
def test_kill_9_offline_leaves_nothing_that_wandb_sync_would_send(server, target, tmp_path, way):
    root = tmp_path / "area"
    count = LARGE if way == "log" else LARGE // 20
    stage(root, "RUN-1", floats(REF, "loss", np.arange(count) / 7))
    logs = target.folder / "wandb"
    environment = {**os.environ, **client_environment(tmp_path), "TMPDIR": str(tmp_path)}
    more = ["--wandb-mode", "offline", "--wandb-dir", str(target.folder)]
    process = subprocess.Popen([*command(server, root, way), *more], env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(
        logs.glob("offline-run-*/writing" if way == "log" else "offline-run-*/client")
    ):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not list(logs.glob("*/*.wandb"))
    assert not target.loader(wandb_mode="offline").states(PROJECT).runs
    assert run_load(target, root, wandb_way=way, wandb_mode="offline").count("done") == 1
    (log,) = logs.glob("*/*.wandb")
    assert [int(row["_step"]) for row in seen_in_log(log).history] == list(range(count))
    assert server.http.log == []
