# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Finding stores of every age, telling what has changed, partly synced ones, and what is asked for wrongly."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from collect import EVERYTHING, collect_all, offline
from truth import PROJECT, START, Logger, RunTruth, differences

from neptune_exporter.errors import SourceError, UsageError
from neptune_exporter.export import export
from neptune_exporter.exporters.offline import OfflineOptions
from neptune_exporter.plugins import EXPORTERS, available, find
from neptune_exporter.selection import Selection
from neptune_exporter.storage.staging import Staging


def log_small(folder: Path, run_id: str = "run", **options) -> tuple[Path, RunTruth]:
    """A closed store with one of most things, and its truth."""
    log = Logger(folder, run_id, experiment_name="x", **options)
    log.configs({"lr": 0.1})
    log.tags("a")
    for step in range(5):
        log.metrics({"loss": 1 / (step + 1)}, str(step))
    return log.store / "run_operations.sqlite3", log.close()


def execute(database: Path, *statements: str) -> None:
    with sqlite3.connect(database) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def make_older(database: Path, version: str) -> Path:
    """Turns a v5 store into what that version of the client wrote."""
    newer = {"v1": ["file_upload_requests", "run_operation_submission", "operation_errors"]}
    newer["v2"] = newer["v3"] = newer["v1"][1:]
    newer["v4"] = newer["v1"][2:]
    execute(
        database, f"UPDATE metadata SET version = '{version}'", *(f"DROP TABLE {table}" for table in newer[version])
    )
    if version != "v1":
        return database
    bare = database.parent.with_suffix(".sqlite3")  # v1 had no folder of its own
    database.rename(bare)
    database.parent.rmdir()
    return bare


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_older_store_versions(tmp_path, version):
    database, truth = log_small(tmp_path / "neptune")
    older = make_older(database, version)
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["run"]
    assert differences(truth.all_rows, found.rows) == ([], [])
    assert found.problems == []
    name = older.name if version == "v1" else older.parent.name
    assert [store["name"] for store in found.source.state["stores"]] == [name]


def test_several_stores_of_one_run_are_merged_in_the_order_of_their_times(tmp_path):
    """Their folders may be found in any order: the names here sort the other way round."""
    log = Logger(tmp_path / "z", "run", creation_time=START)
    log.configs({"value": 1, "first": True})
    log.tags("old", "both")
    truth = log.close()
    log = Logger(tmp_path / "a", "run", truth=truth, creation_time=START + timedelta(days=1))
    log.configs({"value": 2})
    log.tags("old", remove=True)
    truth = log.close()
    found = collect_all(offline(tmp_path / "a", tmp_path / "z"), tmp_path / "files")["run"]
    assert differences(truth.all_rows, found.rows) == ([], [])
    assert found.values("value") == [2]
    assert found.values("sys/tags") == [frozenset({"both"})]
    assert found.source.info.created == truth.created


def states(folder: Path) -> dict:
    (run,) = offline(folder).runs(PROJECT, EVERYTHING)
    assert json.loads(json.dumps(run.state)) == run.state
    return run.state


def test_what_has_changed_since(tmp_path):
    folder = tmp_path / "neptune"
    log = Logger(folder, "run")
    log.metrics({"loss": 1.0}, "0")
    compare = offline(folder).compare
    first = states(folder)
    assert compare(first, states(folder)) == "same"
    log.metrics({"loss": 1.0}, "1")
    grown = states(folder)
    assert compare(first, grown) == "newer"
    assert compare(grown, first) == "apart"
    log.close()
    log_small(folder)
    resumed = states(folder)
    assert compare(grown, resumed) == "newer"
    database = log.store / "run_operations.sqlite3"
    execute(database, "DELETE FROM run_operations WHERE sequence_id <= 1")
    synced = states(folder)
    assert synced["partly_synced"]
    assert compare(resumed, synced) == "apart"
    shutil.rmtree(log.store)
    assert compare(resumed, states(folder)) == "apart"
    assert compare(states(folder), resumed) == "newer"
    assert compare(states(folder), {**states(folder), "format": "another"}) == "apart"


@pytest.mark.parametrize(
    ("now", "relation"),
    [
        ({}, "same"),
        ({"last": 12, "operations": 8}, "newer"),
        ({"first": 4, "operations": 7}, "newer"),
        ({"first": 6, "last": 20, "operations": 15}, "apart"),
        ({"first": 1, "last": 9, "operations": 9}, "apart"),
        ({"operations": 5}, "apart"),
        ({"files": 3}, "newer"),
        ({"files": 1}, "apart"),
        ({"first": None, "last": None, "operations": 0}, "apart"),
        ({"name": "other"}, "apart"),
    ],
)
def test_how_two_states_relate(tmp_path, now, relation):
    store = {"name": "s", "first": 5, "last": 10, "operations": 6, "files": 2}
    recorded, current = ({"format": "neptune-scale", "stores": [s]} for s in (store, store | now))
    assert offline(tmp_path).compare(recorded, current) == relation


def test_moving_the_folder_changes_nothing(tmp_path):
    log_small(tmp_path / "neptune")
    before = states(tmp_path / "neptune")
    (tmp_path / "neptune").rename(tmp_path / "moved")
    assert offline(tmp_path / "moved").compare(before, states(tmp_path / "moved")) == "same"


def test_as_of_is_the_time_of_the_last_write(tmp_path):
    before = datetime.now(UTC) - timedelta(seconds=1)
    database, _ = log_small(tmp_path)
    os.utime(database, (0, 0))
    (run,) = offline(tmp_path).runs(PROJECT, EVERYTHING)
    assert before < run.as_of < datetime.now(UTC) + timedelta(seconds=1)
    assert run.estimated_rows >= 8


def test_a_partly_synced_run_gives_its_tail(tmp_path, caplog):
    from neptune_scale.sync.operations_repository import OperationsRepository

    database, truth = log_small(tmp_path / "neptune")
    repository = OperationsRepository(database)
    repository.delete_operations(5)  # CREATE, the parameter, the tag, two points
    repository.close(cleanup_files=False)
    with caplog.at_level("WARNING"):
        found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["run"]
    tail = [row for row in truth.rows if row.path == "loss" and row.step >= 2]
    custom_id = [row for row in truth.system_rows if row.path == "sys/custom_run_id"]
    assert differences(tail + custom_id, found.rows) == ([], [])
    assert found.problems == []
    assert found.source.info.created is None
    assert found.source.state["partly_synced"] is True
    assert "partly synced" in caplog.text


def test_tags_changed_behind_a_synced_head_are_a_problem(tmp_path):
    log = Logger(tmp_path / "neptune", "run")
    log.tags("synced")
    log.tags("later")
    log.close()
    execute(log.store / "run_operations.sqlite3", "DELETE FROM run_operations WHERE sequence_id <= 2")
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["run"]
    assert found.values("sys/tags") == [frozenset({"later"})]
    assert [problem.attribute for problem in found.problems] == ["sys/tags"]


def test_what_the_server_refused_is_a_problem_only_if_it_is_gone(tmp_path):
    database, _ = log_small(tmp_path / "neptune")
    insert = "INSERT INTO operation_errors (timestamp, error_type, error_details, error_body, sequence_id) VALUES "
    execute(
        database,
        insert + "(1, 'NeptuneAttributePathInvalid', 'bad path', '8004', 3)",
        insert + "(1, 'NeptuneConnectionLostError', 'no network', '8004', 1)",
        insert + "(1, 'NeptuneSynchronizationStopped', 'stopped', '8004', NULL)",
    )
    assert collect_all(offline(database), tmp_path / "before")["run"].problems == []
    execute(database, "DELETE FROM run_operations WHERE sequence_id <= 3")
    (problem,) = collect_all(offline(database), tmp_path / "after")["run"].problems
    assert "operation 3: NeptuneAttributePathInvalid: bad path" in problem.message
    assert problem.kind == "permanent"


def test_no_such_folder(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match=r"There is no folder .*missing") as caught:
        list(offline(tmp_path / "missing").projects(EVERYTHING))
    assert "--offline-path" in caught.value.hint
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"There is no folder \.neptune"):
        list(offline().projects(EVERYTHING))


def test_an_empty_folder(tmp_path):
    with pytest.raises(SourceError, match="No offline Neptune data found under") as caught:
        list(offline(tmp_path).projects(EVERYTHING))
    assert "--offline-path" in caught.value.hint


def test_databases_of_others_are_left_alone(tmp_path):
    log_small(tmp_path)
    execute(tmp_path / "notes.sqlite3", "CREATE TABLE notes (text)")
    exporter = offline(tmp_path)
    assert list(exporter.projects(EVERYTHING)) == [PROJECT]
    assert exporter.unreadable == ()


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    log_small(tmp_path / "elsewhere", "far")
    log_small(tmp_path / "neptune", "near")
    (tmp_path / "neptune" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "neptune")
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")
    assert sorted(found) == ["far", "near"]
    assert [len(run.source.state["stores"]) for run in found.values()] == [1, 1]


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    log_small(tmp_path)
    (tmp_path / "gone.sqlite3").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.sqlite3").symlink_to(tmp_path / "loop.sqlite3")
    exporter = offline(tmp_path)
    assert list(exporter.projects(EVERYTHING)) == [PROJECT]
    assert sorted(Path(p.message.split(" cannot be read")[0]).name for p in exporter.unreadable) == [
        "gone.sqlite3",
        "loop.sqlite3",
    ]


def test_the_default_folder_and_several_roots(tmp_path, monkeypatch):
    log_small(tmp_path / ".neptune", "one")
    log_small(tmp_path / "two", "two")
    log_small(tmp_path / "two", "three", project="team/other")
    monkeypatch.chdir(tmp_path)
    assert set(collect_all(offline(), tmp_path / "a")) == {"one"}
    exporter = offline(tmp_path / ".neptune", tmp_path / "two", tmp_path / "two")
    assert list(exporter.projects(EVERYTHING)) == ["team/other", PROJECT]
    assert list(exporter.projects(Selection(projects=("team/other",)))) == ["team/other"]
    assert [run.info.ref.run_id for run in exporter.runs(PROJECT, EVERYTHING)] == ["one", "two"]
    assert [run.info.ref.run_id for run in exporter.runs(PROJECT, Selection(run_patterns=("w",)))] == ["two"]


def test_a_path_map_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="OLD=NEW"):
        offline(tmp_path, path_map=("/data",))


def test_the_plugin_needs_neither_arrow_nor_a_client():
    assert "offline" in available(EXPORTERS)
    assert find(EXPORTERS, "offline").extra == ""
    code = (
        "import sys; import neptune_exporter.exporters.offline; "
        "assert not {'pyarrow', 'numpy', 'google.protobuf', 'neptune_scale'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_works_beside_the_real_client_and_without_it(tmp_path):
    """Both describe `neptune.ingest.v1`; one pool would refuse the second. Ours must not need the client's."""
    log_small(tmp_path / "neptune")
    code = (
        "import sys; sys.modules['neptune_scale'] = sys.modules['neptune_api'] = None; "
        "from neptune_exporter.exporters.offline import OfflineOptions, plugin; "
        "from neptune_exporter.selection import Selection; "
        f"exporter = plugin.make(OfflineOptions(({str(tmp_path / 'neptune')!r},))); "
        f"(run,) = exporter.runs({PROJECT!r}, Selection()); "
        "assert sum(b.num_rows for b in exporter.batches(run, Selection(), None, None)) == 11"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import neptune_api.proto.neptune_pb.ingest.v1.common_pb2

    assert neptune_api.proto.neptune_pb.ingest.v1.common_pb2.Run is not None
    assert len(collect_all(offline(tmp_path / "neptune"), tmp_path / "files")) == 1


def test_a_fork_of_a_run_that_is_elsewhere(tmp_path):
    _, truth = log_small(tmp_path / "neptune", fork_run_id="parent", fork_step=12.000001)
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files")["run"]
    assert found.source.info.fork_step == Decimal("12.000001")
    assert found.values("sys/forking/parent") == ["parent"]
    assert found.values("sys/forking/step") == [12.000001]
    assert differences(truth.all_rows, found.rows) == ([], [])


def test_overwrite_keeps_runs_whose_stores_are_gone(tmp_path):
    """A store is deleted once it is synced: what was exported of it before is all there is."""
    first, _ = log_small(tmp_path / "neptune", "first")
    log_small(tmp_path / "neptune", "second")
    staging = Staging(tmp_path / "data", tmp_path / "files")
    options = OfflineOptions(offline_path=(str(tmp_path / "neptune"),))
    export("offline", options, staging, Selection(), workers=1)
    shutil.rmtree(first.parent)
    report = export("offline", options, staging, Selection(), workers=1, overwrite=True)
    assert (report.exit_code, [outcome.ref.run_id for outcome in report.outcomes]) == (0, ["second"])
    assert [run.ref.run_id for run in staging.runs(Selection())] == ["first", "second"]
