# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What was logged, read back with MLflow's own client, on every kind of tracking URI."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from logged_run import REF, LoggedRun, load, read_back
from mlflow import MlflowClient

from neptune_exporter.errors import Problem
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import SCHEMA, RunRef

START = 1_700_000_000_000
LARGEST = 1.7976931348623157e308
DAY = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.fixture
def logged(tmp_path) -> LoggedRun:
    return LoggedRun(tmp_path / "files")


@pytest.fixture
def ref(request) -> RunRef:
    """A project of its own: some targets are shared by several tests."""
    return RunRef(f"team/{request.node.name}", "run-1")


def history(client, run_id, key):
    return sorted(
        ((m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, key)), key=lambda p: (p[0], p[1])
    )


def artifact(client, run_id, path, folder) -> bytes:
    Path(folder).mkdir(exist_ok=True)
    return Path(client.download_artifacts(run_id, path, str(folder))).read_bytes()


def everything(run: LoggedRun) -> LoggedRun:
    """One of every type, with the values that are hard."""
    run.single("params/int", "int", 2**63 - 1).single("params/whole", "float", 12.0).single("params/twelve", "int", 12)
    run.single("params/nan", "float", math.nan).single("params/inf", "float", -math.inf)
    run.single("params/zero", "float", -0.0).single("params/flag", "bool", True)
    run.single("params/when", "datetime", DAY).single("params/empty", "string", "")
    run.single("params/text", "string", "line\nline\ttab 💡 'quote' \"quote\"")
    run.single("params/long", "string", "é" * 6001).single("params/nul", "string", "a\0b")
    run.single("params/longest", "string", "x" * 6000).single("params/set", "string_set", ["b", "a,c"])
    run.single("sys/tags", "string_set", ["baseline", "mlflow.user", "a tag!"]).single(
        "sys/group_tags", "string_set", []
    )
    run.single("sys/description", "string", "What it is.").single("git", "git_ref", '{"commit": "abc"}')
    run.single("a/b", "int", 1).single("a_b", "int", 2).single("a b", "int", 3).single("a//b", "int", 4)
    run.single("two", "int", 5)
    run.values["two", "string"] = [(None, None, "six")]
    run.series(
        "loss", "float_series", [("0.1", START, 0.1), ("0.29", START + 1, 5e-324), ("0.57", START + 2, math.nan)]
    )
    run.series("loss [train]", "float_series", [(0, START, 1e300), (1, START + 1000, -1e300)])
    run.series("inf", "float_series", [(0, START, math.inf), (1, START, -math.inf), (2, START, LARGEST)])
    run.series("zero", "float_series", [(0, START, -0.0), (1, START, 0.0)])
    run.series("times", "float_series", [(0, None, 1.0), (1, -1, 2.0), (2, 0, 3.0)])
    run.series("twice", "float_series", [(1, START, 1.0), (1, START, 1.0), (1, START + 1, 1.0), (1, START, 2.0)])
    run.series("nothing", "float_series", [])
    run.series("log", "string_series", [(0, START, "a\nb"), ("0.000001", START + 1, "\\n\0\t")])
    counts = {"type": "COUNTS", "edges": [0.0, 1.0, 5.5], "values": [3.0, 4.0]}
    run.series("weights", "histogram_series", [(0, START, counts), (1, START, {**counts, "type": "DENSITIES"})])
    run.single("data/model", "file", run.file("p/model.bin", b"\0\1\2"))
    run.single("data/100%#?.txt", "file", run.file("p/odd.txt", b"odd"))
    images = [(0, START, run.file("p/i/0.png", b"P0")), ("0.5", START, run.file("p/i/1.png", b"P1"))]
    run.series("data/images", "file_series", images)
    run.values["data/set", "file_set"] = [(None, None, run.file(f"p/set/{n}.csv", b"%d" % n)) for n in range(3)]
    run.extra = b'{"attribute": "x"}\n'
    return run


def test_every_value_is_there_and_comes_back(any_target, ref, logged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged.ref = ref
    everything(logged)
    loader = MLflowLoader(any_target)
    run_id = load(loader, logged, 100)
    client = MlflowClient(any_target.mlflow_tracking_uri)
    run = client.get_run(run_id)
    params = run.data.params
    assert {key: value for key, value in params.items() if "--" not in key and len(value) < 5000} == {
        "params/int": "9223372036854775807",
        "params/whole": "12.0",
        "params/twelve": "12",
        "params/nan": "nan",
        "params/inf": "-inf",
        "params/zero": "-0.0",
        "params/flag": "true",
        "params/when": "2023-11-14T22:13:20.000Z",
        "params/empty": "",
        "params/text": "line\nline\ttab 💡 'quote' \"quote\"",
        "params/long": params["params/long"],
        "params/nul": params["params/nul"],
        "params/set": '["a,c", "b"]',
        "sys/description": "What it is.",
        "git": '{"commit": "abc"}',
        "a/b": "1",
        "a_b": "2",
        "a b": "3",
        "two": "5",
    }
    assert params["params/longest"] == "x" * 6000
    assert params["params/long"].startswith("neptune/data.parquet: 6001 characters, blake2b ")
    assert sorted(value for key, value in params.items() if "--" in key) == ["4", "six"]

    assert history(client, run_id, "loss")[:2] == [(10, START, 0.1), (29, START + 1, 5e-324)]
    assert history(client, run_id, "loss")[2][:2] == (57, START + 2)
    assert math.isnan(history(client, run_id, "loss")[2][2])
    train = next(key for key in run.data.metrics if key.startswith("loss _train_--"))
    assert history(client, run_id, train) == [(0, START, 1e300), (100, START + 1000, -1e300)]
    assert history(client, run_id, "inf") == [(0, START, LARGEST), (100, START, -LARGEST), (200, START, LARGEST)]
    assert len(history(client, run_id, "twice")) == 3
    assert [step for step, _, _ in history(client, run_id, "times")] == [0, 100, 200]

    assert run.data.tags["neptune.tags"] == '["a tag!", "baseline", "mlflow.user"]'
    assert run.data.tags["baseline"] == run.data.tags["neptune.tag.mlflow.user"] == "true"
    assert run.data.tags["neptune.group_tags"] == "[]"
    assert run.data.tags["mlflow.note.content"] == "What it is."

    assert artifact(client, run_id, "files/data/model.bin", tmp_path / "1") == b"\0\1\2"
    assert artifact(client, run_id, "files/data/images/step_0.png", tmp_path / "2") == b"P0"
    assert artifact(client, run_id, "files/data/images/step_0.5.png", tmp_path / "3") == b"P1"
    assert artifact(client, run_id, "files/data/set/2.csv", tmp_path / "4") == b"2"
    odd = next(f.path for f in client.list_artifacts(run_id, "files/data") if f.path.startswith("files/data/100___"))
    assert artifact(client, run_id, odd, tmp_path / "5") == b"odd"
    log = artifact(client, run_id, "series/log.txt", tmp_path / "6").decode()
    assert log.splitlines()[1:] == [
        "0\t2023-11-14T22:13:20.000Z\ta\\nb",
        "0.000001\t2023-11-14T22:13:20.001Z\t\\\\n\\0\\t",
    ]
    weights = artifact(client, run_id, "histograms/weights.jsonl", tmp_path / "7").decode()
    assert [json.loads(line)["type"] for line in weights.splitlines()] == ["COUNTS", "DENSITIES"]
    assert artifact(client, run_id, "neptune/extra.jsonl", tmp_path / "8") == logged.extra

    assert read_back(loader, ref) == logged.attributes()


def test_rows_that_mlflow_does_not_hold_exactly_are_attached(loader, logged, sqlite_uri, tmp_path):
    everything(logged)
    run_id = load(loader, logged, 100)
    client = MlflowClient(sqlite_uri)
    (tmp_path / "down").mkdir()
    table = pq.read_table(client.download_artifacts(run_id, "neptune/data.parquet", str(tmp_path / "down")))
    assert table.schema.equals(SCHEMA)
    rows = {}
    for row in table.to_pylist():
        rows.setdefault((row["attribute_path"], row["attribute_type"]), []).append(row)
    assert set(rows) == {
        ("params/long", "string"),
        ("params/nul", "string"),
        ("inf", "float_series"),
        ("zero", "float_series"),
        ("times", "float_series"),
        ("twice", "float_series"),
        ("log", "string_series"),
        ("weights", "histogram_series"),
        ("data/model", "file"),
        ("data/100%#?.txt", "file"),
        ("data/images", "file_series"),
        ("data/set", "file_set"),
    }
    assert [(row["step"], row["float_value"]) for row in rows["inf", "float_series"]] == [(0, math.inf), (1, -math.inf)]
    assert [struct.pack("<d", row["float_value"]) for row in rows["zero", "float_series"]] == [struct.pack("<d", -0.0)]
    assert [row["timestamp"] is None for row in rows["times", "float_series"]] == [True, False]
    assert len(rows["twice", "float_series"]) == 2
    assert rows["log", "string_series"][1]["step"] == Decimal("0.000001")
    manifest = json.loads(artifact(client, run_id, "neptune/manifest.json", tmp_path / "m"))
    places = {
        (a["path"], a["type"]): (a["place"], a["rows"], a["native"], a["attached"]) for a in manifest["attributes"]
    }
    assert places["loss", "float_series"] == ("metric", 3, 3, 0)
    assert places["inf", "float_series"] == ("metric", 3, 3, 2)
    assert places["twice", "float_series"] == ("metric", 4, 3, 2)
    assert places["nothing", "float_series"] == ("metric", 0, 0, 0)
    assert places["params/long", "string"] == ("parameter", 1, 1, 1)
    assert places["sys/tags", "string_set"] == ("tag", 1, 1, 0)
    assert places["data/set", "file_set"] == ("artifact", 3, 3, 3)
    assert manifest["step_multiplier"] == 100
    assert manifest["run"]["info"]["ref"] == ["team/project", "run-1", "run"]


def test_attach_all_attaches_every_row(sqlite_uri, make_loader, logged, tmp_path, mode):
    everything(logged)
    loader = make_loader(sqlite_uri, mode, attach_all=True)
    run_id = load(loader, logged, 100)
    (tmp_path / "down").mkdir()
    path = MlflowClient(sqlite_uri).download_artifacts(run_id, "neptune/data.parquet", str(tmp_path / "down"))
    assert pq.read_metadata(path).num_rows == sum(len(points) for points in logged.values.values())
    assert read_back(loader) == logged.attributes()


def test_loss_16_a_series_over_many_batches_is_whole(loader, logged, sqlite_uri, tmp_path):
    logged.series("loss", "float_series", [(n, START + n, n / 7) for n in range(3500)])
    logged.series("log", "string_series", [(n, START, f"line {n}") for n in range(300)])
    logged.series(
        "h",
        "histogram_series",
        [(n, START, {"type": "COUNTS", "edges": [0.0, n], "values": [1.0]}) for n in range(300)],
    )
    run_id = load(loader, logged, batch_rows=64)
    client = MlflowClient(sqlite_uri)
    assert history(client, run_id, "loss") == [(n, START + n, n / 7) for n in range(3500)]
    assert artifact(client, run_id, "series/log.txt", tmp_path / "1").count(b"\n") == 301
    assert artifact(client, run_id, "histograms/h.jsonl", tmp_path / "2").count(b"\n") == 300
    assert read_back(loader) == logged.attributes()


def test_loss_15_identity_times_status_and_user_are_mapped(loader, logged, sqlite_uri):
    logged.info = {
        "name": "My run",
        "sys_id": "RUN-1",
        "experiment": "My experiment",
        "created": DAY,
        "owner": "ada",
        "failed": True,
    }
    logged.series("loss", "float_series", [(0, START + 5000, 1.0), (1, START + 60_000, 2.0)])
    run = MlflowClient(sqlite_uri).get_run(load(loader, logged))
    assert run.info.run_name == "My run"
    assert (run.info.start_time, run.info.end_time) == (START, START + 60_000)
    assert run.info.status == "FAILED"
    assert run.info.user_id == "ada"
    assert run.data.tags["neptune.project_id"] == REF.project_id
    assert run.data.tags["neptune.run_id"] == REF.run_id
    assert run.data.tags["neptune.sys_id"] == "RUN-1"
    assert run.data.tags["neptune.experiment"] == "My experiment"
    assert run.data.tags["neptune.kind"] == "run"
    assert run.data.tags["neptune.export"] == "complete"
    assert run.data.tags["neptune.load"] == f"complete:{logged.digest}"


def test_a_partial_export_says_so(loader, logged, sqlite_uri, tmp_path):
    logged.single("a", "int", 1).problems = (Problem("It broke.", "b", "retry"),)
    run_id = load(loader, logged)
    client = MlflowClient(sqlite_uri)
    tags = client.get_run(run_id).data.tags
    assert (tags["neptune.export"], tags["neptune.problems"]) == ("partial", "1")
    manifest = json.loads(artifact(client, run_id, "neptune/manifest.json", tmp_path / "m"))
    assert manifest["run"]["problems"] == [{"message": "It broke.", "attribute": "b", "kind": "retry", "count": 1}]


@pytest.mark.parametrize("parent_first", [True, False])
def test_loss_15_a_fork_keeps_its_parent(loader, tmp_path, sqlite_uri, parent_first):
    parent = LoggedRun(tmp_path, RunRef("team/project", "parent")).single("a", "int", 1)
    info = {"parent": parent.ref, "fork_step": Decimal("3.50")}
    child = LoggedRun(tmp_path, RunRef("team/project", "child"), info).single("a", "int", 2)
    ids = {run.ref.run_id: load(loader, run) for run in ([parent, child] if parent_first else [child, parent])}
    tags = MlflowClient(sqlite_uri).get_run(ids["child"]).data.tags
    assert tags["neptune.fork.parent"] == "parent"
    assert tags["neptune.fork.step"] == "3.5"
    assert tags["mlflow.parentRunId"] == ids["parent"]
    again = load(loader, parent.single("a", "int", 3))
    assert MlflowClient(sqlite_uri).get_run(ids["child"]).data.tags["mlflow.parentRunId"] == again


def test_a_fork_whose_parent_is_absent_keeps_the_link(loader, logged, sqlite_uri):
    logged.info = {"parent": RunRef("team/project", "gone")}
    tags = MlflowClient(sqlite_uri).get_run(load(loader, logged)).data.tags
    assert tags["neptune.fork.parent"] == "gone"
    assert "mlflow.parentRunId" not in tags


def test_loss_19_quotes_in_names_do_not_duplicate_runs(loader, tmp_path, sqlite_uri):
    run = LoggedRun(tmp_path, RunRef("team/it's", "a'b\"c`d"), {"name": 'it\'s "quoted"'}).single("a", "int", 1)
    first = load(loader, run)
    second = load(loader, run.single("a", "int", 2))
    client = MlflowClient(sqlite_uri)
    experiment = client.get_experiment_by_name("team/it's")
    assert [r.info.run_id for r in client.search_runs([experiment.experiment_id])] == [second] != [first]


def test_loss_19_one_id_in_two_projects_and_runs_without_a_name(loader, tmp_path, sqlite_uri):
    client = MlflowClient(sqlite_uri)
    for project in ("team/one", "team/two"):
        run_id = load(loader, LoggedRun(tmp_path, RunRef(project, "RUN-1"), {"name": "Untitled"}).single("a", "int", 1))
        run = client.get_run(run_id)
        assert run.info.run_name == "RUN-1"
        assert client.get_experiment(run.info.experiment_id).name == project


def test_loss_18_long_names_are_shortened_and_stay_apart(loader, tmp_path, sqlite_uri):
    client = MlflowClient(sqlite_uri)
    runs = [
        LoggedRun(tmp_path, RunRef("t/" + "p" * 300, f"{n}" * 260), {"name": "n" * 300}).single(
            "k" * 1000 + n, "int", 1
        )
        for n in "ab"
    ]
    for run in runs:
        loaded = client.get_run(load(loader, run))
        assert len(loaded.info.run_name) == 250
        assert len(client.get_experiment(loaded.info.experiment_id).name) == 256
        assert read_back(loader, run.ref) == run.attributes()
    assert set(loader.states(runs[0].ref.project_id).runs) == {run.ref for run in runs}


def test_run_names_can_be_ids_and_experiments_can_have_a_prefix(sqlite_uri, make_loader, logged, mode):
    logged.info = {"name": "name"}
    loader = make_loader(sqlite_uri, mode, run_name="id", name_prefix="old-")
    run = MlflowClient(sqlite_uri).get_run(load(loader, logged))
    assert run.info.run_name == "run-1"
    assert MlflowClient(sqlite_uri).get_experiment(run.info.experiment_id).name == "old-team/project"
    assert not make_loader(sqlite_uri).states("team/project").runs


@pytest.mark.parametrize("run_id", ["run_part_0", "RUN_part_0_part_1", "é" * 300, "a/../b"])
def test_loss_13_any_run_id_is_loaded_and_found_again(loader, tmp_path, run_id):
    run = LoggedRun(tmp_path, RunRef("team/project", run_id)).single("a", "int", 1)
    load(loader, run)
    assert loader.states("team/project").runs[run.ref].complete
    assert read_back(loader, run.ref) == run.attributes()


def test_loss_15_whole_numbers_beyond_float64_are_exact(loader, logged, sqlite_uri):
    for n, value in enumerate([2**53 + 1, 2**63 - 1, -(2**63)]):
        logged.single(f"n{n}", "int", value)
    params = MlflowClient(sqlite_uri).get_run(load(loader, logged)).data.params
    assert [int(params[f"n{n}"]) for n in range(3)] == [2**53 + 1, 2**63 - 1, -(2**63)]


def test_loss_18_missing_and_early_times_cost_nothing(loader, logged, sqlite_uri):
    points = [(0, None, 1.0), (1, -5, 2.0), (2, START, 3.0)]
    run_id = load(loader, logged.series("a//b\t", "float_series", points))
    client = MlflowClient(sqlite_uri)
    (key,) = client.get_run(run_id).data.metrics
    start = client.get_run(run_id).info.start_time
    assert history(client, run_id, key) == [(0, max(start, 0), 1.0), (1, 0, 2.0), (2, START, 3.0)]
    assert read_back(loader) == logged.attributes()


def test_loss_18_an_infinite_value_beside_the_largest_one(loader, logged):
    logged.series("a", "float_series", [(0, START, math.inf), (0, START, LARGEST), (1, START, LARGEST)])
    load(loader, logged)
    assert read_back(loader) == logged.attributes()


def test_rows_without_a_step_and_values_with_a_time(loader, logged):
    logged.series("a", "float_series", [(None, 1, 1.0), (None, 1, 1.0), (0, 1, 1.0), (0, 1, 2.0)])
    logged.values["b", "int"] = [(None, 5, 1)]
    logged.values["c", "string"] = [(None, None, "first"), (None, None, "last")]
    load(loader, logged)
    assert read_back(loader) == logged.attributes()


def test_an_empty_run_is_a_run(loader, logged):
    load(loader, logged)
    assert read_back(loader) == []


def test_the_console_stays_quiet(loader, logged, capfd):
    load(loader, everything(logged), 100)
    read_back(loader)
    assert capfd.readouterr() == ("", "")
