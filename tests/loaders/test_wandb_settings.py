# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures come by their names
"""Keys, addresses, projects, versions and processes."""

from __future__ import annotations

import areas
import pytest
from areas import PROJECT, floats, stage
from servers.wandb import API_KEY
from wandb_loads import REF, WAYS, clean, client_of_its_own, content, is_marked, root, run_load  # noqa: F401
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.errors import TargetAccessError, UsageError
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb import sending
from neptune_exporter.loaders.wandb import server as client_of_ours
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection


def test_a_wrong_key_ends_the_command(server, target, root):
    with pytest.raises(TargetAccessError, match="refuses our API key"):
        run_load(target, root, wandb_api_key="x" * 40)


def test_no_key_at_all(server, target, root):
    with pytest.raises(TargetAccessError, match="no API key"):
        run_load(target, root, wandb_api_key="")


def test_the_key_that_wandb_login_has_stored(server, target, root, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n login user\n password {API_KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert run_load(target, root, wandb_api_key="", wandb_entity="").exit_code == 0
    assert is_marked(server)


def test_a_server_that_is_not_there(target, root, monkeypatch):
    monkeypatch.setattr(client_of_ours, "ATTEMPTS", 2)
    report = run_load(target, root, wandb_base_url="http://127.0.0.1:9")
    assert report.exit_code == 1
    assert "No W&B server answers at http://127.0.0.1:9" in report.errors[0].message


def test_another_version_of_wandb_is_used_by_run_log(server, target, root, clean, monkeypatch):
    monkeypatch.setattr(sending, "installed_version", lambda: "0.99.0")
    monkeypatch.setattr(sending, "sync", None)
    assert run_load(target, root).exit_code == 0
    assert content(server) == clean
    with pytest.raises(UsageError, match=r"not with 0\.99\.0"):
        target.loader(wandb_way="log")


def test_projects_by_experiment(server, target, root):
    assert run_load(target, root, wandb_project_by="experiment").count("done") == 1
    assert server.run().project == "acme-vision-RUN-1"
    assert run_load(target, root, wandb_project_by="experiment").count("skipped") == 1
    assert target.loader(wandb_project_by="experiment").states(PROJECT).runs[REF].complete


def test_one_project_for_all_and_a_prefix(server, target, root):
    options = target.options(wandb_project="mine/all")
    report = load("wandb", options, LoadOptions("old-"), areas.staging(root), Selection(), workers=1)
    assert report.count("done") == 1
    assert server.run().project == "old-mine-all"


def test_nothing_stays_in_temporary_folders(server, target, root, temporary_folder):
    for way in WAYS:
        run_load(target, root, wandb_way=way, wandb_project=way)
    loader = target.loader(wandb_project="third")
    from neptune_exporter.load import to_load

    staged = areas.staging(root).run(REF)
    sink = loader.start(to_load(staged, Selection()), 1)
    batches = staged.read("step")
    sink.write(next(batches))
    batches.close()
    sink.abort()
    assert [path for path in temporary_folder.iterdir() if path.name.startswith("neptune-exporter")] == []


def test_several_processes_load_at_once(server, target, root):
    refs = [RunRef(PROJECT, f"RUN-{n}") for n in range(2, 8)]
    for ref in refs:
        stage(root, ref.run_id, floats(ref, "loss", [1.0, 2.0]))
    report = load("wandb", target.options(), LoadOptions(), areas.staging(root), Selection(), workers=2)
    assert report.count("done") == 7
    assert all(is_marked(server, run_id(ref, 1)) for ref in refs)
