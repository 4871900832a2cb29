# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What was logged, as the Pluto server received it, value by value."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from logged_run import REF, LoggedRun, read_back
from pluto_target import (
    attached_rows,
    batches_by_step,
    load,
    loader_of,
    manifest_of,
    metric_rows,
    names_of,
    native_counts,
    uploaded,
)
from servers.pluto import PlutoServer

from neptune_exporter.errors import Problem, TargetError
from neptune_exporter.model import RunRef

START = 1_700_000_000_000
DAY = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
LARGEST = 1.7976931348623157e308


@pytest.fixture
def server():
    with PlutoServer() as running:
        yield running


@pytest.fixture
def loader(server):
    return loader_of(server)


@pytest.fixture
def logged(tmp_path) -> LoggedRun:
    return LoggedRun(tmp_path / "files")


def test_loss_23_every_step_is_there_with_histograms_strings_and_their_times(server, loader, logged):
    """Not every 50th, not without histograms, not strings without step and time; and nothing fails in silence."""
    logged.series("loss", "float_series", [(n, START + n, n / 7) for n in range(5000)])
    logged.series("state", "string_series", [(n, START + 10 * n, f"state {n % 3}") for n in range(500)])
    counts = [{"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [float(n), 2.0]} for n in range(200)]
    logged.series("weights", "histogram_series", [(n, START + n, value) for n, value in enumerate(counts)])
    run = server.store.run(load(loader, logged))
    assert run.points("loss") == [(n, START + n, n / 7) for n in range(5000)]
    texts = [row for row in run.data if row["dataType"] == "string-series"]
    assert [(row["logName"], row["step"], row["time"], row["data"]) for row in texts] == [
        ("state", n, START + 10 * n, f"state {n % 3}") for n in range(500)
    ]
    shown = [row for row in run.data if row["dataType"] == "HISTOGRAM"]
    assert [(row["step"], row["time"]) for row in shown] == [(n, START + n) for n in range(200)]
    assert json.loads(shown[7]["data"]) == {
        "freq": [7, 2], "maxFreq": 7, "bins": {"min": 0.0, "max": 2.0, "num": 2},
        "shape": "uniform", "type": "Histogram", "v": 1,
    }  # fmt: skip
    assert run.log_names == {"loss": "METRIC", "state": "DATA", "weights": "HISTOGRAM", "neptune": "ARTIFACT"}
    assert native_counts(run) == {
        "metric": 5000,
        "log": 0,
        "file": 0,
        "config": 0,
        "string-series": 500,
        "HISTOGRAM": 200,
    }
    assert run.status == "COMPLETED"
    assert read_back(loader) == logged.attributes()


def test_parameters_are_config_entries_of_their_own_types(server, loader, logged):
    values = {
        ("int", "int"): (12, 12),
        ("largest", "int"): (2**53 - 1, 2**53 - 1),
        ("beyond", "int"): (2**63 - 1, "9223372036854775807"),
        ("lowest", "int"): (-(2**63), "-9223372036854775808"),
        ("whole", "float"): (12.0, 12),
        ("tiny", "float"): (5e-324, 5e-324),
        ("huge", "float"): (LARGEST, LARGEST),
        ("nan", "float"): (math.nan, "nan"),
        ("inf", "float"): (-math.inf, "-inf"),
        ("zero", "float"): (-0.0, "-0.0"),
        ("flag", "bool"): (True, True),
        ("when", "datetime"): (DAY, "2023-11-14T22:13:20.000Z"),
        ("text", "string"): ("line\nline 💡 \\", "line\nline 💡 \\"),
        ("empty", "string"): ("", ""),
        ("set", "string_set"): (["b", "a,c"], ["a,c", "b"]),
        ("none", "string_set"): ([], []),
        ("git", "git_ref"): ('{"commit": 1}', '{"commit": 1}'),
        ("größe/日本", "int"): (7, 7),
        ("a.b", "int"): (1, 1),
        ("a/b", "int"): (2, 2),
        ("a_b", "int"): (3, 3),
    }
    for (path, kind), (value, _) in values.items():
        logged.single(path, kind, value)
    run = server.store.run(load(loader, logged))
    shown = {key: value for key, value in run.config.items() if not key.startswith("neptune.")}
    assert shown == {path: entry for (path, _), (_, entry) in values.items()}
    assert [type(shown[name]) for name in ("int", "flag", "tiny")] == [int, bool, float]
    assert not attached_rows(server, run)
    assert read_back(loader) == logged.attributes()


def test_what_a_config_cannot_hold_is_attached(server, loader, logged):
    logged.single("long", "string", "é" * 10_001).single("longest", "string", "x" * 10_000)
    logged.single("nul", "string", "a\0b").single("set", "string_set", ["a\0", "b"])
    logged.single("many", "string_set", [f"{n:05}" for n in range(2000)]).single("tab\there", "int", 1)
    logged.single("neptune.load", "string", "complete:mine").single("a//b", "int", 2)
    run = server.store.run(load(loader, logged))
    assert run.config["long"].startswith("neptune/data.parquet: 10001 characters, blake2b ")
    assert {row.path for row in attached_rows(server, run)} == {"long", "nul", "set", "many"}
    assert run.config["neptune.load"] == f"complete:{logged.digest}"
    assert read_back(loader) == logged.attributes()


def test_tags_are_tags_and_those_that_mean_something_to_pluto_do_not(server, loader, logged):
    logged.single("sys/tags", "string_set", ["b", "group:x", "group:y", "linear:ABC-1", "ü"])
    logged.single("sys/group_tags", "string_set", ["g"])
    run = server.store.run(load(loader, logged))
    assert run.tags == ["import:neptune", "b", "g", "neptune:group:x", "neptune:group:y", "neptune:linear:ABC-1", "ü"]
    assert run.config["sys/tags"] == ["b", "group:x", "group:y", "linear:ABC-1", "ü"]
    assert read_back(loader) == logged.attributes()


def test_points_that_pluto_cannot_hold_are_attached_exactly(server, loader, logged):
    logged.series(
        "inf", "float_series", [(0, START, math.nan), (1, START, math.inf), (2, START, -math.inf), (3, START, 1.0)]
    )
    logged.series("zero", "float_series", [(0, START, -0.0), (1, START, 0.0)])
    logged.series("times", "float_series", [(0, None, 1.0), (1, -1, 2.0), (2, 0, 3.0), (3, 10**14, 4.0)])
    logged.series(
        "steps", "float_series", [(None, START, 1.0), (-1, START, 2.0), (0, START, 3.0), (10**11, START, 4.0)]
    )
    logged.series("twice", "float_series", [(1, START, 1.0), (1, START + 1, 2.0), (1, START + 1, 3.0), (2, START, 4.0)])
    run = server.store.run(load(loader, logged, 1_000_000))
    million = 1_000_000
    assert {name: run.points(name) for name in run.metrics} == {
        "inf": [(3 * million, START, 1.0)],
        "zero": [(0, START, 0.0), (million, START, 0.0)],
        "times": [(0, 0, 1.0), (2 * million, 0, 3.0)],
        "steps": [(0, START, 3.0)],
        "twice": [(million, START + 1, 3.0), (2 * million, START, 4.0)],
    }
    attached = [(row.path, row.step, row.value) for row in attached_rows(server, run)]
    expected = [("inf", 0), ("inf", 1), ("inf", 2), ("zero", 0), ("times", 0), ("times", 1), ("times", 3)]
    expected += [("steps", None), ("steps", -1), ("steps", 10**11), ("twice", 1), ("twice", 1), ("twice", 1)]
    assert sorted((path, step) for path, step, _ in attached if step is not None) == sorted(
        (path, Decimal(step)) for path, step in expected if step is not None
    )
    assert ("steps", None, 1.0) in attached
    assert read_back(loader) == logged.attributes()


def test_steps_are_whole_by_the_projects_multiplier(server, loader, logged):
    steps = ["0", "0.1", "0.29", "0.57", "1", "99.99"]
    logged.series("loss", "float_series", [(step, START + n, float(n)) for n, step in enumerate(steps)])
    logged.series("log", "string_series", [("0.000001", START, "a"), ("0.29", START, "b"), ("-2", START, "c")])
    run = server.store.run(load(loader, logged, 100))
    assert [step for step, _, _ in run.points("loss")] == [0, 10, 29, 57, 100, 9999]
    assert sorted((row["step"], row["data"]) for row in run.data) == [(0, "a"), (0, "c"), (29, "b")]
    assert run.config["neptune.step_multiplier"] == 100
    assert loader.states(REF.project_id).step_multiplier == 100
    assert read_back(loader) == logged.attributes()


def test_metrics_of_one_step_and_time_share_a_line(server, loader, logged):
    for name in range(10):
        logged.series(f"m{name}", "float_series", [(n, START + n, name + n / 3) for n in range(9000)])
    run = server.store.run(load(loader, logged, batch_rows=1024))
    assert run.points("m3") == [(n, START + n, 3 + n / 3) for n in range(9000)]
    assert native_counts(run)["metric"] == 90_000
    assert len([body for body in run.bodies if body[0] == "metrics"]) == 3
    assert max(size for _, size in run.bodies) <= 2 << 20


def test_a_line_larger_than_a_request_goes_alone(server, loader, logged):
    logged.series("log", "string_series", [(n, START, "x" * 3_000_000) for n in range(2)])
    logged.series("runtime/stdout", "string_series", [(n, START, "y" * 3_000_000) for n in range(3)])
    run = server.store.run(load(loader, logged))
    assert [body[0] for body in run.bodies].count("logs") == 3
    assert len(run.data[0]["data"]) == 200
    assert read_back(loader) == logged.attributes()


def test_console_logs_become_console_logs(server, loader, logged):
    logged.series("runtime/stdout", "string_series", [(f"0.00000{n}", START + n, f"line {n}\t✓") for n in range(1, 6)])
    logged.series("runtime/stderr", "string_series", [("0.000001", START, "oops")])
    run = server.store.run(load(loader, logged, batch_rows=2))
    lines = [(line["logType"], line["lineNumber"], line["time"], line["message"]) for line in run.logs]
    assert [line for line in lines if line[0] == "INFO"] == [
        ("INFO", n, START + n, f"line {n}\t✓") for n in range(1, 6)
    ]
    assert [line for line in lines if line[0] == "ERROR"] == [("ERROR", 1, START, "oops")]
    assert not run.data
    assert read_back(loader) == logged.attributes()


def test_names_become_ascii_and_stay_apart(server, loader, logged):
    names = [
        "näme",
        "nöme",
        "n_me",
        "é/x",
        "-/x",
        "a/b",
        "a_b",
        "a b",
        "A b",
        "neptune",
        "a//b",
        "日本",
        " lead",
        "x" * 400,
    ]
    for number, name in enumerate(names):
        logged.series(name, "float_series", [(0, START, float(number))])
    logged.series("two", "float_series", [(0, START, 1.0)]).series("two", "string_series", [(0, START, "x")])
    logged.single("neptune", "file", logged.file("p/n", b"n"))
    run = server.store.run(load(loader, logged))
    assert all(name.isascii() and len(name) <= 250 for name in run.log_names)
    shown = names_of(server, run)
    assert {shown["logged", name]: points[0][0][1] for name, points in run.metrics.items()} == {
        **{name: float(number) for number, name in enumerate(names)}, "two": 1.0,
    }  # fmt: skip
    assert {"n_me", "-/x", "a/b", "a_b", "A b"} <= set(run.metrics)
    assert len({name.casefold() for name in run.log_names}) == len(run.log_names)
    assert read_back(loader) == logged.attributes()


def test_projects_with_other_characters_are_escaped_too(server, loader, tmp_path):
    runs = [LoggedRun(tmp_path, RunRef(f"téam/{name}", "run-1")).single("a", "int", 1) for name in ("ä", "ö")]
    for run in runs:
        run.series("m", "float_series", [(0, START, 1.0)])
        load(loader, run)
        assert read_back(loader, run.ref) == run.attributes()
    projects = {run.project for run in server.store.runs.values()}
    assert len(projects) == 2
    assert all(name.isascii() for name in projects)


def test_files_travel_whole_with_their_steps(server, loader, logged):
    logged.single("model", "file", logged.file("p/model.bin", bytes(range(256)) * 500))
    logged.single("empty", "file", logged.file("p/empty.txt", b""))
    logged.single("ü/100%#?.txt", "file", logged.file("p/odd.txt", b"odd"))
    images = [(0, START, logged.file("p/i/0.png", b"P0")), ("0.5", START + 1, logged.file("p/i/1.png", b"P1"))]
    logged.series("images", "file_series", images)
    logged.values["set", "file_set"] = [(None, None, logged.file(f"p/set/{n}.csv", b"%d" % n)) for n in range(25)]
    run = server.store.run(load(loader, logged, 10))
    assert {path: content for path, content in uploaded(server, run).items() if "set" not in path} == {
        "p/model.bin": bytes(range(256)) * 500, "p/empty.txt": b"", "p/odd.txt": b"odd",
        "p/i/0.png": b"P0", "p/i/1.png": b"P1",
    }  # fmt: skip
    shown = [(f["fileName"], f["fileType"], f["step"], f["time"]) for f in run.files if f["logName"] == "images"]
    assert shown == [("step_0.png", "png", 0, START), ("step_0.5.png", "png", 5, START + 1)]
    assert run.log_names["images"] == "IMAGE"
    assert native_counts(run)["file"] == 30
    assert read_back(loader) == logged.attributes()


def test_more_files_than_pluto_lists_under_a_name(server, loader, logged, monkeypatch):
    monkeypatch.setattr("neptune_exporter.loaders.pluto.files.FILES_PER_NAME", 10)
    monkeypatch.setattr("servers.pluto.MOST_FILES", 10)
    logged.series("images", "file_series", [(n, START, logged.file(f"p/{n}.png", b"%d" % n)) for n in range(25)])
    run = server.store.run(load(loader, logged))
    assert len({file["logName"] for file in run.files} - {"neptune"}) == 3
    assert read_back(loader) == logged.attributes()


def test_identity_times_and_status(server, loader, logged):
    logged.info = {
        "name": "Grün & co",
        "sys_id": "RUN-1",
        "experiment": "My experiment",
        "created": DAY,
        "owner": "ada",
    }
    logged.info["failed"] = True
    logged.series("loss", "float_series", [(0, START + 5000, 1.0), (1, START + 60_000, 2.0)])
    logged.problems = (Problem("It broke.", "b", "retry"),)
    run = server.store.run(load(loader, logged))
    assert (run.name, run.project) == ("Grün & co", "team/project")
    assert run.external_id == "neptune::team/project/run-1"
    assert (run.created_ms, run.status, run.status_ms) == (START, "FAILED", START + 60_000)
    marks = {key.removeprefix("neptune."): value for key, value in run.config.items() if key.startswith("neptune.")}
    assert marks["project_id"], marks["run_id"] == ("team/project", "run-1")
    assert (marks["sys_id"], marks["experiment"], marks["owner"]) == ("RUN-1", "My experiment", "ada")
    assert (marks["export"], marks["problems"], marks["load"]) == ("partial", 1, f"complete:{logged.digest}")
    manifest = manifest_of(server, run)
    assert manifest["run"]["problems"] == [{"message": "It broke.", "attribute": "b", "kind": "retry", "count": 1}]
    assert manifest["run"]["info"]["experiment"] == "My experiment"


def test_one_project_can_take_all_runs_and_names_can_be_ids(server, tmp_path):
    loader = loader_of(server, project="all", run_name="id", name_prefix="old-")
    runs = [LoggedRun(tmp_path, RunRef(f"team/{n}", "RUN-1"), {"name": "n"}).single("a", "int", n) for n in range(2)]
    for run in runs:
        load(loader, run)
    assert {(run.project, run.name) for run in server.store.runs.values()} == {("old-all", "RUN-1")}
    for run in runs:
        assert set(loader.states(run.ref.project_id).runs) == {run.ref}
        assert read_back(loader, run.ref) == run.attributes()


@pytest.mark.parametrize("parent_first", [True, False])
def test_a_fork_points_to_its_parent(server, loader, tmp_path, parent_first):
    parent = LoggedRun(tmp_path, RunRef("team/project", "parent")).single("a", "int", 1)
    child = LoggedRun(tmp_path, RunRef("team/project", "child"), {"parent": parent.ref, "fork_step": Decimal("3.50")})
    child.series("loss", "float_series", [("3.6", START, 1.0)])
    ids = {run.ref.run_id: load(loader, run, 10) for run in ([parent, child] if parent_first else [child, parent])}
    run = server.store.run(ids["child"])
    assert run.fork == ((ids["parent"], 35) if parent_first else None)
    assert (run.config["neptune.fork.parent"], run.config["neptune.fork.step"]) == ("parent", "3.5")
    assert read_back(loader, child.ref) == child.attributes()


def test_a_server_that_refuses_forks_still_gets_the_run(server, loader, tmp_path, monkeypatch):
    parent = LoggedRun(tmp_path, RunRef("team/project", "parent")).single("a", "int", 1)
    load(loader, parent)
    child = LoggedRun(tmp_path, RunRef("team/project", "child"), {"parent": parent.ref, "fork_step": Decimal(1)})
    server.fault("POST /api/runs/create", status=400, body=b'{"error": "forks are in preview"}')
    run = server.store.run(load(loader, child))
    assert run.fork is None
    assert run.config["neptune.fork.parent"] == "parent"


def test_attach_all_attaches_every_row(server, logged):
    logged.single("a", "int", 1).series("loss", "float_series", [(n, START, float(n)) for n in range(100)])
    loader = loader_of(server, attach_all=True)
    run = server.store.run(load(loader, logged, batch_rows=7))
    assert len(attached_rows(server, run)) == 101
    assert read_back(loader) == logged.attributes()


def test_long_series_come_back_by_windows_of_steps(server, loader, logged):
    logged.series("loss", "float_series", [(n * n, START + n, math.sin(n)) for n in range(30_000)])
    logged.series("burst", "float_series", [(10**8 * (n > 5) + n, START, float(n)) for n in range(12_000)])
    run = server.store.run(load(loader, logged, batch_rows=5000))
    assert len(metric_rows(server, run)) == 42_000
    assert read_back(loader) == logged.attributes()


def test_a_server_that_keeps_every_row_of_a_step_gives_the_same(tmp_path):
    run = LoggedRun(tmp_path).series("loss", "float_series", [(n // 2, START + n % 2, float(n)) for n in range(50)])
    with PlutoServer(keeps_all=True) as server:
        loader = loader_of(server)
        target = server.store.run(load(loader, run))
        target.metrics["loss"][3] *= 2  # as a request does that was sent twice
        assert read_back(loader) == run.attributes()


def test_a_server_that_lists_no_configs_gives_the_same(tmp_path):
    with PlutoServer(lists_configs=False) as server:
        loader = loader_of(server)
        run = LoggedRun(tmp_path).single("a", "int", 1)
        load(loader, run)
        assert loader.states(REF.project_id).runs[REF].complete


def test_states_find_all_runs_over_many_pages(server, loader, tmp_path, monkeypatch):
    monkeypatch.setattr("neptune_exporter.loaders.pluto.api.PAGE_RUNS", 2)
    refs = {RunRef(REF.project_id, f"run-{n}") for n in range(5)}
    for ref in refs:
        load(loader, LoggedRun(tmp_path, ref).single("a", "int", 1))
    assert set(loader.states(REF.project_id).runs) == refs


@pytest.mark.parametrize("run_id", ["run_part_0", "RUN-1", "12345", "é" * 300, "a/../b", 'it\'s "quoted"'])
def test_any_run_id_is_loaded_and_found_again(server, loader, tmp_path, run_id):
    run = LoggedRun(tmp_path, RunRef("team/project", run_id)).single("a", "int", 1)
    load(loader, run)
    assert loader.states("team/project").runs[run.ref].complete
    assert read_back(loader, run.ref) == run.attributes()


def test_an_empty_run_is_a_run(server, loader, logged):
    load(loader, logged.series("nothing", "float_series", []))
    assert read_back(loader) == logged.attributes()
    assert not server.store.run(1).log_names.get("nothing")


def test_a_step_that_does_not_fit_stops_the_run(server, loader, logged):
    logged.series("loss", "float_series", [("0.29", START, 1.0)])
    sink = loader.start(logged.to_load(), 10)
    with pytest.raises(TargetError, match=r"Step 0.29 times 10 is not a whole number"):
        sink.write(batches_by_step(logged)[0])
    sink.abort()
    assert server.store.run(1).status == "TERMINATED"
    assert not loader.states(REF.project_id).runs


def test_rows_that_were_not_announced_are_refused(loader, tmp_path):
    run, other = LoggedRun(tmp_path).single("a", "int", 1), LoggedRun(tmp_path).single("b", "int", 2)
    sink = loader.start(run.to_load(), 1)
    with pytest.raises(ValueError, match="was not announced"):
        sink.write(batches_by_step(other)[0])
    sink.abort()


def test_the_console_stays_quiet(loader, logged, capfd):
    logged.series("loss", "float_series", [(n, START, float(n)) for n in range(10)])
    load(loader, logged)
    read_back(loader)
    assert capfd.readouterr() == ("", "")
