# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""An archive as the official exporter leaves it, into every kind of MLflow by both ways of writing.

The rows are Python objects; the archive is made of them with plain pyarrow, and what MLflow gives back is compared
with them one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from contracts.official import write_official
from contracts.rows import assert_same, curve, point, single
from mlflow import MlflowClient
from mlflow.entities import ViewType
from truth import HistogramValue, Row, rows_in

from neptune_exporter.cli.main import main
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import RunRef
from neptune_exporter.selection import EVERYTHING, Selection
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import Staging
from neptune_exporter.verify.check import Depth, Target, verify

CREATED = datetime(2024, 5, 17, 9, 30, 0, 125000, tzinfo=UTC)
BINS = 1500


def hard_rows(name: str | None) -> list[Row]:
    """What other tools lose, and two of each name that they confuse."""
    long = "long/" + "n" * 300
    edges = tuple(math.sqrt(n) - 7 for n in range(BINS + 1))
    wide = HistogramValue("COUNTING", edges, tuple(n / 3 for n in range(BINS)))
    return [
        *([single("sys/name", name)] if name else []),
        single("sys/id", "VIS-1"),
        single("sys/owner", "ada"),
        single("sys/creation_time", CREATED),
        single("sys/failed", True),
        single("sys/tags", frozenset({"it's", 'a "tag"', "a,b"})),
        *curve("a:b", 120),
        *curve("a_b", 120),
        *curve("a b", 50),
        *curve("a%b", 50),
        *curve("A_B", 50),
        *curve(long + "1", 20),
        *curve(long + "2", 20),
        *curve("损失", 30),
        *curve("準確", 30),
        *curve("train//loss", 3),
        *curve("train/tab\there", 3),
        *(point("steps", Decimal(n) / 100, n / 7, n) for n in range(400)),
        *(point("odd", n, value, n) for n, value in enumerate((math.nan, math.inf, -math.inf, 5e-324, -0.0))),
        single("n", 2**53 + 1),
        single("whole", 12.0),
        single("twelve", 12),
        single("text/6000", "x" * 6000),
        single("text/6001", "x" * 6001),
        single("text/6001 too", "x" * 6001 + "y"),
        *(point("wide", step, wide, step) for step in range(3)),
        *(point("log", step, f"line {step}\n\twith \\ and 😀", step) for step in range(10_000)),
        single("model", b"\0\1\2" * 5000),
        single("model:final", b"other"),
        *(point("images", step, bytes([step]) * 10, step) for step in range(3)),
    ]


@pytest.fixture(scope="module")
def runs() -> dict[RunRef, list[Row]]:
    """A run id in two projects, one without a name, a fork of a run that is here and one of a run that is not."""
    vision, other = "acme/it's vision", "acme/other"
    parent = single("sys/forking/parent", "RUN-1")
    return {
        RunRef(vision, "RUN-1"): hard_rows("Untitled"),
        RunRef(vision, "a'b\"c_part_0"): [single("sys/name", 'a "name"\'s'), parent, *curve("a:b", 30)],
        RunRef(vision, "orphan"): [
            single("sys/forking/parent", "gone"),
            single("sys/forking/step", 3.5),
            *curve("x", 9),
        ],
        RunRef(other, "RUN-1"): [*curve("loss", 70, seed=1)],
    }


@pytest.fixture(scope="module")
def archive(runs, tmp_path_factory) -> Staging:
    root = tmp_path_factory.mktemp("official")
    for ref, rows in runs.items():
        write_official(root / "data", root / "files", ref, rows, part_rows=997)
    assert len(list(root.rglob("RUN-1*_part_*.parquet"))) > 10
    return Staging(root / "data", root / "files")


def rows_of(loader: MLflowLoader, ref: RunRef) -> list[Row]:
    """What MLflow holds; the SHA-256 of files in place of their content."""
    back = loader.read(ref)

    class Digests(dict):
        def __missing__(self, path):
            return back.file_sha256(path)

    return [row for batch in back.batches for row in rows_in(batch, Digests())]


def expected_of(rows: list[Row]) -> list[Row]:
    hashed = [replace(r, value=hashlib.sha256(r.value).hexdigest()) if isinstance(r.value, bytes) else r for r in rows]
    return [row for row in hashed if row.value is not None]


def all_of_it(archive: Staging, options: MLflowOptions, common: LoadOptions, **how) -> Counter:
    report = load("mlflow", options, common, archive, EVERYTHING, **how)
    assert not report.errors
    assert all(outcome.status in ("done", "skipped") for outcome in report.outcomes), report.outcomes
    return Counter(outcome.status for outcome in report.outcomes)


def test_the_same_archive_gives_the_same_rows_everywhere(archive, runs, any_target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = LoadOptions(name_prefix=f"{tmp_path.name}-")
    assert all_of_it(archive, any_target, common, executor="threads", workers=2) == {"done": 4}
    loader = MLflowLoader(any_target, common)
    for ref, rows in runs.items():
        assert_same(expected_of(rows), rows_of(loader, ref))
    depth = Depth(EVERYTHING, target=Target("mlflow", any_target, common))
    found = [finding for checked in verify(archive, depth) for finding in checked.findings]
    assert {finding.kind for finding in found} == {"unproven"}
    assert all_of_it(archive, any_target, common, executor="threads", workers=2) == {"skipped": 4}
    in_mlflow(any_target.mlflow_tracking_uri, common.name_prefix)


def in_mlflow(uri: str, prefix: str) -> None:
    """What people see, by MLflow's own client."""
    client = MlflowClient(uri)
    vision = client.get_experiment_by_name(f"{prefix}acme/it's vision")
    found = {run.data.tags["neptune.run_id"]: run for run in client.search_runs([vision.experiment_id])}
    assert set(found) == {"RUN-1", "a'b\"c_part_0", "orphan"}
    run = found["RUN-1"]
    assert (run.info.run_name, run.info.status, run.info.user_id) == ("RUN-1", "FAILED", "ada")
    assert run.info.start_time == round(CREATED.timestamp() * 1000)
    assert run.data.params["n"] == str(2**53 + 1)
    assert (run.data.params["whole"], run.data.params["twelve"]) == ("12.0", "12")
    assert run.data.tags["neptune.step_multiplier"] == "100"
    assert {"损失", "準確", "a:b", "A_B", "a b"} <= run.data.metrics.keys()
    assert any(key.startswith("a_b--") for key in run.data.metrics)  # to some databases the same as A_B
    assert len(run.data.metrics) == 13
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "steps")]
    assert sorted(steps) == list(range(400))
    fork = found["a'b\"c_part_0"]
    assert fork.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert fork.info.run_name == 'a "name"\'s'
    orphan = found["orphan"].data.tags
    assert (orphan["neptune.fork.parent"], orphan["neptune.fork.step"]) == ("gone", "3.5")
    assert "mlflow.parentRunId" not in orphan
    other = client.get_experiment_by_name(f"{prefix}acme/other")
    assert [r.info.run_name for r in client.search_runs([other.experiment_id])] == ["RUN-1"]


def test_worker_processes_load_an_archive_into_a_server(archive, runs, server_uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = LoadOptions(name_prefix=f"{tmp_path.name}-")
    options = MLflowOptions(server_uri)
    assert all_of_it(archive, options, common, executor="processes", workers=2) == {"done": 4}
    for ref, rows in runs.items():
        assert_same(expected_of(rows), rows_of(MLflowLoader(options, common), ref))


def test_loss_16_texts_and_histograms_over_several_parts_are_whole(archive, sqlite_uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    all_of_it(archive, MLflowOptions(sqlite_uri), LoadOptions(), workers=1)
    (log,) = (tmp_path / "mlruns").rglob("series/log.txt")
    lines = log.read_text().splitlines()
    assert len(lines) == 10_001
    assert lines[10_000].split("\t")[2] == "line 9999\\n\\twith \\\\ and 😀"
    (histograms,) = (tmp_path / "mlruns").rglob("histograms/wide.jsonl")
    values = [json.loads(line) for line in histograms.read_text().splitlines()]
    assert [len(value["edges"]) for value in values] == [BINS + 1] * 3
    assert values[0]["edges"] == [math.sqrt(n) - 7 for n in range(BINS + 1)]


def test_loss_17_numbers_and_sets_keep_their_form(archive, sqlite_uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    all_of_it(archive, MLflowOptions(sqlite_uri), LoadOptions(), workers=1)
    client = MlflowClient(sqlite_uri)
    run = client.search_runs([client.get_experiment_by_name("acme/it's vision").experiment_id], "params.n != ''")[0]
    assert (run.data.params["whole"], run.data.params["twelve"]) == ("12.0", "12")
    assert json.loads(run.data.tags["neptune.tags"]) == ['a "tag"', "a,b", "it's"]


@pytest.mark.parametrize("adopted", [False, True])
def test_the_origin_of_what_another_tool_has_exported_is_said_in_words(own_archive, target, tmp_path, adopted):
    places = ["--data-path", str(own_archive.data_path), "--files-path", str(own_archive.files_path)]
    if adopted:
        assert main(["verify", "--write-manifests", *places]) == 0
    load("mlflow", target, LoadOptions(), own_archive, EVERYTHING, workers=1)
    manifests = [json.loads(path.read_bytes()) for path in (tmp_path / "mlruns").rglob("neptune/manifest.json")]
    assert [manifest["run"]["source"] for manifest in manifests] == ["exported by another tool"] * 3


# --- damage


@pytest.fixture
def own_archive(tmp_path) -> Staging:
    for number in range(3):
        ref = RunRef("acme/own", f"RUN-{number}")
        rows = [*curve("loss", 300, seed=number), single("file", b"content"), single("other", b"more")]
        write_official(tmp_path / "data", tmp_path / "files", ref, rows, part_rows=100)
    return Staging(tmp_path / "data", tmp_path / "files")


@pytest.fixture
def target(sqlite_uri, tmp_path, monkeypatch, mode) -> MLflowOptions:
    monkeypatch.chdir(tmp_path)
    return MLflowOptions(sqlite_uri, mlflow_mode=mode)


def complete_runs(uri: str) -> list[str]:
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, run_view_type=ViewType.ALL)
    return sorted(
        r.data.tags["neptune.run_id"] for r in runs if r.data.tags.get("neptune.load", "").startswith("complete:")
    )


def test_a_part_that_was_cut_short_is_an_error_and_costs_only_its_run(own_archive, target):
    (part,) = own_archive.data_path.rglob("RUN-1-*_part_1.parquet")
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    report = load("mlflow", target, LoadOptions(), own_archive, EVERYTHING, workers=1)
    failed = [outcome for outcome in report.outcomes if outcome.status == "failed"]
    assert [outcome.ref.run_id for outcome in failed] == ["RUN-1"]
    assert part.name in failed[0].reason
    assert report.exit_code == 3
    assert complete_runs(target.mlflow_tracking_uri) == ["RUN-0", "RUN-2"]
    part.write_bytes(whole)
    assert all_of_it(own_archive, target, LoadOptions(), workers=1) == {"done": 1, "skipped": 2}
    assert complete_runs(target.mlflow_tracking_uri) == ["RUN-0", "RUN-1", "RUN-2"]


def test_rows_that_are_damaged_inside_a_part_leave_nothing_that_looks_complete(own_archive, target):
    """The footer is whole, a page is not: that shows only when the rows are read."""
    (part,) = own_archive.data_path.rglob("RUN-1-*_part_2.parquet")
    data = bytearray(part.read_bytes())
    data[60:400] = os.urandom(340)
    part.write_bytes(bytes(data))
    report = load("mlflow", target, LoadOptions(), own_archive, EVERYTHING, workers=1)
    assert {o.ref.run_id: o.status for o in report.outcomes} == {"RUN-0": "done", "RUN-1": "failed", "RUN-2": "done"}
    assert complete_runs(target.mlflow_tracking_uri) == ["RUN-0", "RUN-2"]


def test_a_part_that_is_missing_is_an_error(own_archive, target):
    (part,) = own_archive.data_path.rglob("RUN-1-*_part_1.parquet")
    part.unlink()
    report = load("mlflow", target, LoadOptions(), own_archive, EVERYTHING, workers=1)
    assert {o.ref.run_id: o.status for o in report.outcomes} == {"RUN-0": "done", "RUN-1": "failed", "RUN-2": "done"}


def test_a_missing_file_is_named_and_the_rest_is_loaded(own_archive, target):
    (file,) = (path for path in own_archive.files_path.rglob("RUN-1/file*") if path.is_file())
    file.unlink()
    report = load("mlflow", target, LoadOptions(), own_archive, EVERYTHING, workers=1)
    partial = {outcome.ref.run_id: outcome for outcome in report.outcomes if outcome.status == "partial"}
    assert [problem.attribute for problem in partial["RUN-1"].problems] == ["file"]
    assert report.exit_code == 3
    client = MlflowClient(target.mlflow_tracking_uri)
    experiment = client.get_experiment_by_name("acme/own").experiment_id
    (run,) = client.search_runs([experiment], "tags.`neptune.run_id` = 'RUN-1'")
    assert (run.data.tags["neptune.export"], run.data.tags["neptune.problems"]) == ("partial", "1")
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 300


def test_a_run_without_a_manifest_is_read_once_before_it_is_loaded(own_archive, target, monkeypatch):
    read = Counter()
    part_batches = StagedRun._part_batches

    def counted(self, **how):
        read[self.ref.run_id] += 1
        return part_batches(self, **how)

    monkeypatch.setattr(StagedRun, "_part_batches", counted)
    all_of_it(own_archive, target, LoadOptions(), workers=2, executor="threads")
    assert read == {"RUN-0": 2, "RUN-1": 2, "RUN-2": 2}
    read.clear()
    assert all_of_it(own_archive, target, LoadOptions(), workers=2, executor="threads") == {"skipped": 3}
    assert read == {"RUN-0": 1, "RUN-1": 1, "RUN-2": 1}


def test_what_was_read_for_the_load_is_not_left_behind(own_archive, target, temporary_folder):
    all_of_it(own_archive, target, LoadOptions(), workers=1)
    assert not list(Path(temporary_folder).iterdir())


def test_all_runs_count_for_the_step_multiplier(tmp_path, target):
    for number, step in enumerate(("0.5", "0.29")):
        rows = [point("loss", step, 1.0), *curve("loss", 3, first=1)]
        write_official(tmp_path / "data", tmp_path / "files", RunRef("acme/steps", f"RUN-{number}"), rows)
    archive = Staging(tmp_path / "data", tmp_path / "files")
    load("mlflow", target, LoadOptions(), archive, Selection(run_ids=("RUN-0",)), workers=1)
    client = MlflowClient(target.mlflow_tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("acme/steps").experiment_id])
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [50, 100, 200, 300]


# --- experiments


def test_one_experiment_for_each_name_as_the_official_tool_makes_them(tmp_path, target):
    names = {"RUN-0": "first", "RUN-1": "first", "RUN-2": 'it\'s "second"', "RUN-3": None}
    for run_id, name in names.items():
        rows = [*([single("sys/name", name)] if name else []), *curve("loss", 5)]
        for project in ("acme/one", "acme/two"):
            write_official(tmp_path / "data", tmp_path / "files", RunRef(project, run_id), rows)
    archive = Staging(tmp_path / "data", tmp_path / "files")
    by_name = replace(target, mlflow_experiment_by="experiment")
    assert all_of_it(archive, by_name, LoadOptions(), workers=1) == {"done": 8}
    assert all_of_it(archive, by_name, LoadOptions(), workers=1) == {"skipped": 8}
    client = MlflowClient(target.mlflow_tracking_uri)
    found = {
        e.name: {r.data.tags["neptune.run_id"] for r in client.search_runs([e.experiment_id])}
        for e in client.search_experiments()
        if e.name != "Default"
    }
    assert found == {
        f"acme/{project}/{name}": ids
        for project in ("one", "two")
        for name, ids in {"first": {"RUN-0", "RUN-1"}, 'it\'s "second"': {"RUN-2"}, "unnamed": {"RUN-3"}}.items()
    }
    loader = MLflowLoader(by_name)
    assert loader.states("acme/one").step_multiplier == 1
    assert not MLflowLoader(by_name, LoadOptions(name_prefix="other-")).states("acme/one").runs
    assert len(rows_of(loader, RunRef("acme/one", "RUN-0"))) == 6


def test_a_run_that_was_renamed_moves_to_the_experiment_of_its_new_name(tmp_path, target):
    by_name = replace(target, mlflow_experiment_by="experiment")
    archive = Staging(tmp_path / "data", tmp_path / "files")
    for name in ("old", "new"):
        rows = [single("sys/name", name), *curve("loss", 5)]
        write_official(tmp_path / "data", tmp_path / "files", RunRef("acme/one", "RUN-0"), rows)
        assert all_of_it(archive, by_name, LoadOptions(), workers=1) == {"done": 1}
    client = MlflowClient(target.mlflow_tracking_uri)
    found = {e.name: len(client.search_runs([e.experiment_id])) for e in client.search_experiments()}
    assert found == {"Default": 0, "acme/one/old": 0, "acme/one/new": 1}
