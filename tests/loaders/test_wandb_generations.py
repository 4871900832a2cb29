# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures come by their names
"""An export that has changed becomes the next generation; no id is used again, nobody's run is touched."""

from __future__ import annotations

import areas
import pytest
from areas import PROJECT
from servers.wandb import API_KEY, ENTITY
from wandb_loads import ID, REF, WAYS, clean, client_of_its_own, is_marked, root, run_load, stage_one  # noqa: F401
from wandb_seen import seen_by_server
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.loaders.wandb import server as client_of_ours
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.selection import Selection


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_export_is_the_next_generation_and_the_old_run_is_marked(server, target, root, way):
    run_load(target, root, wandb_way=way)
    before = seen_by_server(server, ID).history
    stage_one(root, name="lion")
    assert run_load(target, root, wandb_way=way).exit_code == 0
    old, new = server.run(ID), server.run(run_id(REF, 2))
    assert new.values["params/name"] == "lion"
    assert new.values["neptune"]["generation"] == 2
    assert new.values["neptune"]["load"]["state"] == "complete"
    assert old.values["neptune"]["load"] == {
        **old.values["neptune"]["load"],
        "state": "superseded",
        "by": new.name,
    }
    assert old.tags == ["a", "superseded"]
    assert old.values["params/name"] == "adam"
    assert seen_by_server(server, ID).history == before
    assert run_load(target, root, wandb_way=way).count("skipped") == 1


def test_an_export_that_is_again_what_it_was_is_a_third_generation(server, target, root):
    for name in ("adam", "lion", "adam"):
        stage_one(root, name=name)
        assert run_load(target, root).count("done") == 1
    states = [run.values["neptune"]["load"]["state"] for run in server.runs.all()]
    assert states == ["superseded", "superseded", "complete"]


def test_the_old_generation_is_marked_by_the_next_load_where_the_first_could_not(server, target, root):
    run_load(target, root)
    marked = dict(server.run(ID).config)
    stage_one(root, name="lion")
    run_load(target, root)
    server.run(ID).config = marked
    server.run(ID).tags = ["a"]
    assert not target.loader().states(PROJECT).runs[REF].complete
    posted = server.http.counts["POST /files/tester/acme-vision/" + run_id(REF, 2) + "/file_stream"]
    assert run_load(target, root).count("done") == 1
    assert server.http.counts["POST /files/tester/acme-vision/" + run_id(REF, 2) + "/file_stream"] == posted
    assert server.run(ID).values["neptune"]["load"]["state"] == "superseded"
    assert target.loader().states(PROJECT).runs[REF].complete


def test_an_interrupted_load_of_an_older_export_is_left_behind(server, target, root):
    loader = target.loader()
    staged = areas.staging(root).run(REF)
    from neptune_exporter.load import to_load

    loader.start(to_load(staged, Selection()), 1).abort()
    stage_one(root, name="lion")
    assert run_load(target, root).count("done") == 1
    assert server.run(ID).values["neptune"]["load"]["state"] == "superseded"
    assert is_marked(server, run_id(REF, 2))


def test_an_id_that_was_deleted_is_never_used_again(server, target, root):
    server.runs.deleted = {ID, run_id(REF, 2)}
    assert run_load(target, root).count("done") == 1
    assert [run.name for run in server.runs.all()] == [run_id(REF, 3)]
    assert run_load(target, root).count("skipped") == 1


def test_a_run_of_somebody_else_under_our_id_is_left_alone(server, target, root):
    client_of_ours.Server(server.url, API_KEY).upsert(
        client_of_ours.RunName(ENTITY, "acme-vision", ID), config={"mine": {"value": 1}}
    )
    assert run_load(target, root).count("done") == 1
    assert server.run(ID).config == {"mine": {"value": 1}}
    assert is_marked(server, run_id(REF, 2))


def test_rows_of_somebody_else_in_our_run_are_noticed(server, target, root):
    from neptune_exporter.load import to_load

    staged = areas.staging(root).run(REF)
    loader = target.loader(wandb_way="log")
    sink = loader.start(to_load(staged, Selection()), 1)
    for batch in staged.read("step"):
        sink.write(batch)
    server.run(ID).history.append('{"_step": 0}')
    with pytest.raises(Exception, match="another load is at work"):
        sink.commit()
    sink.abort()
    assert len(server.run(ID).history) == 1
    server.run(ID).history *= 500
    assert "has 500 rows" in run_load(target, root, wandb_way="log").outcomes[0].reason
    assert not is_marked(server)
