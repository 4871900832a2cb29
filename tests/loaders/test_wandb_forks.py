# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Forks of Neptune as forks of W&B, on request: what `fork_from` of the real client posts, and where it stops."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

import pytest
from contracts.rows import curve, point, write_run
from servers.wandb import API_KEY, ENTITY
from wandb_loads import end_client
from wandb_seen import log_records
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.storage.staging import Staging

PARENT, CHILD = RunRef("acme/vision", "RUN-1"), RunRef("acme/vision", "RUN-2")


@pytest.fixture
def staging(tmp_path):
    """A parent with two rows at every step, so that its rows are not numbered by their steps; and its fork."""
    area = Staging(tmp_path / "data", tmp_path / "files")
    write_run(area, PARENT, [*curve("loss", 10), *(point("acc", step, 1.0, step + 500) for step in range(10))])
    info = RunInfo(CHILD, parent=PARENT, fork_step=Decimal("4.5"))
    write_run(area, CHILD, [point("loss", step, float(step), step) for step in range(5, 12)], info=info)
    yield area
    end_client()


def loaded(target: Any, staging: Staging, selection: Selection = EVERYTHING, **more: Any) -> Any:  # noqa: F811
    options = target.options(wandb_fork=True, **more)
    report = load("wandb", options, LoadOptions(), staging, selection, workers=1)
    assert report.exit_code == 0, report.outcomes
    return report


def branch_point(run: Any) -> dict[str, Any]:
    return run.config["_wandb"]["value"].get("branch_point", {})


@pytest.mark.parametrize("way", ["log", "client"])
def test_a_fork_continues_its_parent_after_the_last_row_before_the_fork(server, target, staging, way):  # noqa: F811
    made = []
    upsert = server.runs.op_UpsertBucket
    server.runs.op_UpsertBucket = lambda v: made.append((v["name"], v.get("config"))) or upsert(v)
    loaded(target, staging, wandb_way=way)
    parent, child = server.run(run_id(PARENT, 1)), server.run(run_id(CHILD, 1))
    last = max(row["_step"] for row in parent.rows if row["neptune_step"] <= 4.5)
    assert last > 4
    assert branch_point(child) == {"run_id": parent.name, "step": last}
    first = next(config for name, config in made if name == child.name)
    assert "branch_point" in first  # the server learns of it when it makes the run
    assert branch_point(parent) == {}
    assert [row["neptune_step"] for row in child.rows] == list(range(5, 12))
    steps = [row["_step"] for row in child.rows]
    assert steps == sorted(set(steps))
    assert steps[0] == last + 1
    assert child.values["neptune"]["fork_step"] == "4.5"
    assert loaded(target, staging, wandb_way=way).count("skipped") == 2


def test_it_is_what_the_real_client_posts(server, target, staging, tmp_path):  # noqa: F811
    import wandb

    loaded(target, staging)
    parent, child = server.run(run_id(PARENT, 1)), server.run(run_id(CHILD, 1))
    settings = wandb.Settings(base_url=server.url, api_key=API_KEY, console="off", silent=True, x_disable_meta=True)
    moment = f"{parent.name}?_step={branch_point(child)['step']}"
    with wandb.init(
        entity=ENTITY, project=parent.project, id="real", fork_from=moment, dir=str(tmp_path), settings=settings
    ) as run:
        run.log({"loss": 1.0})
    real = server.run("real")
    assert branch_point(real) == branch_point(child)
    assert len(real.history) == 1  # its own rows count from 0


@pytest.mark.parametrize("way", ["log", "client"])
def test_offline_logs_say_so_as_well(server, target, staging, way):  # noqa: F811
    loaded(target, staging, wandb_way=way, wandb_mode="offline")
    (log,) = (target.folder / "wandb").glob(f"offline-run-*-{run_id(CHILD, 1)}/*.wandb")
    runs = [record.run for record in log_records(log) if record.HasField("run")]
    internal = next(item.value_json for item in runs[0].config.update if item.key == "_wandb")
    assert f'"run_id": "{run_id(PARENT, 1)}"' in internal or f'"run_id":"{run_id(PARENT, 1)}"' in internal
    assert server.http.log == []


def test_a_load_that_is_gone_on_with_keeps_its_fork(server, target, staging, monkeypatch):  # noqa: F811
    from neptune_exporter.loaders.wandb import online

    loaded(target, staging, Selection(run_ids=("RUN-1",)))
    with monkeypatch.context() as broken:
        broken.setattr(online.sending, "sync", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            loaded(target, staging)
    begun = branch_point(server.run(run_id(CHILD, 1)))
    loaded(target, staging)
    assert branch_point(server.run(run_id(CHILD, 1))) == begun != {}


def test_a_parent_that_is_not_there_leaves_a_plain_run(server, target, staging, caplog):  # noqa: F811
    with caplog.at_level(logging.WARNING):
        loaded(target, staging, Selection(run_ids=("RUN-2",)))
    assert "loaded without a fork" in caplog.text
    assert branch_point(server.run()) == {}
    assert server.run().values["neptune"]["parent"] == "RUN-1"


def test_without_the_option_a_fork_is_in_the_config_only(server, target, staging):  # noqa: F811
    assert load("wandb", target.options(), LoadOptions(), staging, EVERYTHING, workers=1).exit_code == 0
    child = server.run(run_id(CHILD, 1))
    assert branch_point(child) == {}
    assert child.values["neptune"]["parent_wandb_id"] == run_id(PARENT, 1)
