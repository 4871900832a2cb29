# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A rich area, logged with the real Neptune client, loaded into the Pluto server by the commands, and proven."""

from __future__ import annotations

import copy
import json
import shutil
from decimal import Decimal

import pytest
from pluto_target import attached_rows, loader_of, metric_rows, names_of, native_counts
from servers.pluto import KEY, PlutoServer
from truth import PROJECT, Row, Truth, exact, log_everything

from neptune_exporter.cli.main import main
from neptune_exporter.loaders.pluto.points import LAST_MS

CONSOLE = ("runtime/stdout", "runtime/stderr")


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def places(root):
    return "--data-path", root / "data", "--files-path", root / "files"


def to(server):
    return "--loader", "pluto", "--pluto-host", server.url, "--pluto-api-key", KEY


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Truth:
    return log_everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def staged(truth, tmp_path_factory):
    root = tmp_path_factory.mktemp("area")
    code = run("export", "--exporter", "offline", "--offline-path", truth.directory, *places(root))
    assert code == 0
    return root


@pytest.fixture(scope="module")
def loaded(staged):
    with PlutoServer() as server:
        assert run("load", *to(server), *places(staged)) == 0
        yield server


@pytest.fixture
def server(loaded):
    """The loaded server; what a test changes there is put back."""
    kept = copy.deepcopy((loaded.store.runs, loaded.store.objects))
    yield loaded
    loaded.store.runs, loaded.store.objects = kept


def target_of(server, run_id):
    (found,) = [r for r in server.complete_runs(PROJECT) if r.config["neptune.run_id"] == run_id]
    return found


def keyed(row: Row) -> tuple:
    return row.path, row.type, row.step, "any" if row.time is ... else row.time, exact(row.value)


def test_every_run_is_there_once_and_ended(truth, loaded):
    assert sorted(r.config["neptune.run_id"] for r in loaded.complete_runs(PROJECT)) == sorted(truth.runs)
    assert {r.status for r in loaded.store.runs.values()} == {"COMPLETED"}
    assert len(loaded.store.runs) == len(truth.runs)


def test_every_metric_point_is_what_was_logged_or_is_in_the_artifact(truth, loaded):
    for run_id, logged in truth.runs.items():
        target = target_of(loaded, run_id)
        rows = [row for row in logged.rows if row.type == "float_series"]
        native = {keyed(row) for row in metric_rows(loaded, target)}
        attached = {keyed(row) for row in attached_rows(loaded, target) if row.type == "float_series"}
        expected = {keyed(row) for row in rows}
        assert expected <= native | attached, run_id
        assert attached <= expected, run_id
        # What Pluto shows and was not logged so: only the images of attached points.
        at = {key[:3] for key in attached}
        assert {key[:3] for key in native - expected} <= at, run_id


def test_native_rows_are_as_many_as_the_truth_has(truth, loaded):
    for run_id, logged in truth.runs.items():
        target, rows = target_of(loaded, run_id), logged.rows
        counts = native_counts(target)
        multiplier = target.config["neptune.step_multiplier"]
        held = {
            (row.path, row.step)
            for row in rows
            if row.type == "float_series"
            and exact(row.value) != "nan"
            and abs(row.value) != float("inf")
            and row.step * multiplier < 2**53
            and row.time.timestamp() * 1000 <= LAST_MS
        }
        assert counts["metric"] == len(held)
        texts = [row for row in rows if row.type == "string_series"]
        assert counts.get("string-series", 0) == sum(row.path not in CONSOLE for row in texts)
        assert counts["log"] == sum(row.path in CONSOLE for row in texts)
        assert counts.get("HISTOGRAM", 0) == sum(row.type == "histogram_series" for row in rows)
        assert counts["file"] == sum(row.type in ("file", "file_series") for row in rows)
        singles = {(row.path, row.type) for row in logged.all_rows if row.step is None and row.type != "file"}
        assert counts["config"] == len(singles)


def entry_of(row: Row):
    """How JSON in JavaScript holds a value, written down once more."""
    if row.type == "string_set":
        return sorted(row.value)
    if row.type == "datetime":
        return row.value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    odd = row.type == "float" and exact(row.value) in {exact(float(word)) for word in ("nan", "inf", "-inf", "-0.0")}
    return str(row.value) if odd or (row.type == "int" and abs(row.value) >= 2**53) else row.value


def test_everything_but_metrics_is_native_or_attached_exactly(truth, loaded):
    for run_id, logged in truth.runs.items():
        target = target_of(loaded, run_id)
        attached = {keyed(row) for row in attached_rows(loaded, target)}
        unknown_time = {row.path for row in logged.rows if row.time is ...}
        names = {path: key for (place, key), path in names_of(loaded, target).items() if place == "config"}
        for row in logged.all_rows:
            if row.type == "float_series":
                continue
            if row.step is None and row.type != "file" and keyed(row) not in attached:
                assert target.config[names[row.path]] == entry_of(row), row.path
            elif row.path in unknown_time:
                assert (row.path, row.type, row.step, exact(row.value)) in {key[:3] + key[4:] for key in attached}
            elif row.step is not None or row.type == "file":
                assert keyed(row) in attached, row.path


def test_histograms_and_texts_stand_at_their_steps_and_times(truth, loaded):
    logged, target = truth.runs["everything"], target_of(loaded, "everything")
    names = {key: path for (place, key), path in names_of(loaded, target).items() if place == "logged"}
    multiplier = target.config["neptune.step_multiplier"]
    shown = {(names[row["logName"]], row["step"], row["time"]) for row in target.data}
    expected = {
        (row.path, min(int(row.step * multiplier), 2**53), round(row.time.timestamp() * 1000))
        for row in logged.rows
        if row.type in ("histogram_series", "string_series")
        and row.path not in CONSOLE
        and row.step * multiplier < 2**53
    }
    assert expected <= shown
    widest = next(row for row in target.data if row["logName"] == "hist/widest")
    assert json.loads(widest["data"])["freq"] == list(range(512))
    assert json.loads(widest["data"])["bins"] == {"min": 0.0, "max": 512.0, "num": 512}


def test_forks_point_to_the_run_that_was_loaded(loaded):
    fork, parent = target_of(loaded, "fork"), target_of(loaded, "everything")
    multiplier = fork.config["neptune.step_multiplier"]
    assert fork.fork == (parent.id, int(Decimal("0.57") * multiplier))


def test_loading_again_does_nothing(server, staged, capsys):
    before = len(server.http.log)
    assert run("load", *to(server), *places(staged), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert {outcome["status"] for outcome in report["runs"]} == {"skipped"}
    assert {entry.split("?")[0] for entry in server.http.log[before:]} == {"POST /api/slug", "GET /api/runs/list"}


def test_verify_proves_it(server, staged, capsys):
    assert run("verify", *to(server), *places(staged), "--json") == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def found_by_verify(server, staged, capsys) -> set[tuple[str, str]]:
    capsys.readouterr()
    code = run("verify", *to(server), *places(staged), "--json")
    found = json.loads(capsys.readouterr().out)["findings"]
    assert code in (3, 4)
    return {(f["run"], f["attribute"]) for f in found}


def remove_point(target):
    del target.metrics["series/loss"][1_000_000]


def change_value(target):
    ((time, value),) = target.metrics["series/a/b"][1_000_000]
    target.metrics["series/a/b"][1_000_000] = [(time, value + 1e-9)]


def change_time(target):
    ((time, value),) = target.metrics["series/a/b"][1_000_000]
    target.metrics["series/a/b"][1_000_000] = [(time + 1, value)]


def add_point(target):
    target.metrics["series/a_b"][77] = [(5, 1.0)]


def remove_image(target):
    """Of the point at step 1 that stands for three."""
    del target.metrics["series/back"][1_000_000]


def add_metric(target):
    target.metrics["mine"] = {1: [(5, 1.0)]}
    target.log_names["mine"] = "METRIC"


def change_parameter(target):
    target.config["a/b"] = 2


def remove_parameter(target):
    del target.config["int/odd"]


def add_parameter(target):
    target.config["mine"] = "x"


def remove_tag(target):
    target.tags.remove("five")


def remove_line(target):
    target.logs.pop(1)


def change_line(target):
    line = next(line for line in target.logs if line["logType"] == "INFO")
    line["message"] = "another"


@pytest.mark.parametrize(
    ("change", "attributes"),
    [
        (remove_point, {"series/loss"}),
        (change_value, {"series/a/b"}),
        (change_time, {"series/a/b"}),
        (add_point, {"series/a_b"}),
        (remove_image, {"series/back"}),
        (add_metric, {"mine"}),
        (change_parameter, {"a/b"}),
        (remove_parameter, {"int/odd"}),
        (add_parameter, {"mine"}),
        (remove_tag, {"sys/tags"}),
        (remove_line, {"runtime/stdout"}),
        (change_line, {"runtime/stdout", "logs/INFO"}),
    ],
)
def test_verify_finds_what_was_changed_on_the_server(server, staged, capsys, change, attributes):
    change(target_of(server, "everything"))
    assert found_by_verify(server, staged, capsys) == {("everything", name) for name in attributes}


def test_verify_finds_a_changed_and_a_missing_file(server, staged, capsys):
    target = target_of(server, "everything")
    keys = [key for key in server.store.objects if key.startswith(f"{PROJECT}/{target.id}/files/")]
    server.store.objects[next(key for key in keys if "/files/bytes/" in key)] = b"other"
    del server.store.objects[next(key for key in keys if "/files/text/" in key)]
    assert found_by_verify(server, staged, capsys) == {("everything", "files/bytes"), ("everything", "files/text")}


def test_verify_finds_a_changed_attachment(server, staged, capsys):
    target = target_of(server, "everything")
    key = f"{PROJECT}/{target.id}/neptune/data.parquet"
    server.store.objects[key] = server.store.objects[key][:-1] + b"?"
    assert found_by_verify(server, staged, capsys) == {("everything", None)}


def test_a_run_that_was_exported_anew_is_the_next_generation(server, staged, tmp_path, truth, capsys):
    shutil.copytree(staged, tmp_path, dirs_exist_ok=True)
    here = "--executor", "threads"
    assert run("load", *to(server), *places(tmp_path), *here, "-c", "parameters", "--name-prefix", "some-") == 0
    assert {r.project for r in server.store.runs.values()} == {PROJECT, f"some-{PROJECT}"}
    before = {r.config["neptune.run_id"]: r.id for r in server.complete_runs(PROJECT)}
    assert run("load", *to(server), *places(tmp_path), *here, "-c", "parameters", "-r", "fork") == 0
    after = {r.config["neptune.run_id"]: r.id for r in server.complete_runs(PROJECT)}
    assert {name for name in after if after[name] != before[name]} == {"fork"}
    assert server.store.run(before["fork"]).config["neptune.load"] == "superseded"


def test_a_wrong_key_and_no_server_are_one_error_each(loaded, staged, capsys):
    capsys.readouterr()
    assert run("load", *to(loaded)[:-1], "plt_wrong", *places(staged)) == 1
    told = capsys.readouterr().err
    assert "refuses the API key" in told
    assert "Hint: Check PLUTO_API_KEY" in told
    assert "plt_wrong" not in told


def test_the_settings_of_pluto_and_of_mlop_are_honoured(loaded, staged, monkeypatch, capsys):
    for prefix in ("PLUTO", "MLOP"):
        with monkeypatch.context() as patch:
            for name in ("URL_APP", "URL_API", "URL_INGEST", "URL_PY"):
                patch.setenv(f"{prefix}_{name}", loaded.url)
            patch.setenv(f"{prefix}_API_KEY", KEY)
            assert run("load", "--loader", "pluto", *places(staged), "--dry-run", "--json") == 0
            report = json.loads(capsys.readouterr().out)
            assert {outcome["status"] for outcome in report["runs"]} == {"skipped"}
            patch.setenv(f"{prefix}_PROJECT", "somewhere/else")
            assert run("load", "--loader", "pluto", *places(staged), "--dry-run", "--json") == 0
            report = json.loads(capsys.readouterr().out)
            assert {outcome["status"] for outcome in report["runs"]} == {"planned"}


def test_verify_reads_a_run_without_a_loader_of_the_same_process(loaded):
    loader = loader_of(loaded)
    assert loader.states(PROJECT).step_multiplier == 1_000_000
