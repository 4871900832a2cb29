# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures come by their names
"""Logs in a folder: `wandb sync` sends them, and the next load knows."""

from __future__ import annotations

import pytest
from wandb_loads import ID, WAYS, clean, client_of_its_own, content, is_marked, root, run_load, stage_one, wandb_sync  # noqa: F401
from wandb_seen import seen_in_log
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401


@pytest.mark.parametrize("way", WAYS)
def test_offline_logs_are_sent_by_wandb_sync_and_then_only_marked(
    server,
    target,
    root,
    clean,
    tmp_path,
    way,
):
    report = run_load(target, root, wandb_way=way, wandb_mode="offline")
    assert report.exit_code == 0
    assert f"wandb sync {target.folder}/wandb/offline-run-*" in report.after
    (folder,) = (target.folder / "wandb").glob("offline-run-*")
    assert server.http.log == []
    wandb_sync(server, tmp_path, folder)
    assert not is_marked(server)
    assert len(server.run(ID).history) == 200
    assert run_load(target, root, wandb_way=way, wandb_mode="offline").count("skipped") == 1
    assert run_load(target, root, wandb_way=way).count("done") == 1
    assert content(server) == clean


def test_an_offline_folder_is_replaced_by_the_next_generation_unless_it_was_sent(
    server,
    target,
    root,
    tmp_path,
):
    folders = target.folder / "wandb"
    for name in ("adam", "lion"):
        stage_one(root, name=name)
        assert run_load(target, root, wandb_mode="offline").count("done") == 1
    (second,) = folders.glob("offline-run-*")
    assert seen_in_log(next(second.glob("*.wandb"))).config["params/name"] == "lion"
    wandb_sync(server, tmp_path, second)
    stage_one(root, name="sgd")
    assert run_load(target, root, wandb_mode="offline").count("done") == 1
    assert len(list(folders.glob("offline-run-*"))) == 2
    assert run_load(target, root, wandb_mode="offline").count("skipped") == 1
