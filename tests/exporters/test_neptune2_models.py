# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The model registry: models and versions go the way of runs."""

from __future__ import annotations

import pytest
from collect2 import PROJECT, Home, serving
from truth2 import Truth, log_all_series, log_atoms, log_files, single, without_lists

from neptune_exporter.model import RunRef


def own(values):
    return {v for v in without_lists(values) if not v.path.startswith("sys/")}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A registry of two models; of the second, model and version are in the trash, and one version of the first."""
    import neptune

    folder = tmp_path_factory.mktemp("logged")
    truth = Truth()
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = neptune.init_model(project=PROJECT, key="FIRST", name="the model")
        model["params/size"] = 7
        for stage in ("staging", "production", "archived"):
            version = neptune.init_model_version(project=PROJECT, model="DEMO-FIRST", name=f"version {stage}")
            if stage == "staging":
                log_atoms(version, truth)
                log_all_series(version, truth, points=1_500)
                log_files(version, truth, folder)
            version.change_stage(stage)
            version.stop()
        model.stop()
        other = neptune.init_model(project=PROJECT, key="OTHER")
        version = neptune.init_model_version(project=PROJECT, model="DEMO-OTHER")
        version.stop()
        other.stop()
        run = neptune.init_run(project=PROJECT, git_ref=False, source_files=[])
        run.stop()
        for trashed in ("DEMO-FIRST-3", "DEMO-OTHER", "DEMO-OTHER-1"):
            server.store.trash(server.store.container(f"{PROJECT}/{trashed}"))
        yield server, truth


def export_models(home: Home, *arguments: str) -> int:
    return home.run("export-models", *arguments)


@pytest.fixture(scope="module")
def home(logged, tmp_path_factory) -> Home:
    home = Home(tmp_path_factory.mktemp("exported"))
    assert export_models(home) == 0
    return home


def test_models_and_versions_are_apart_from_runs(home):
    assert home.run_ids("model") == {"DEMO-FIRST"}
    assert home.run_ids("model_version") == {"DEMO-FIRST-1", "DEMO-FIRST-2"}
    assert home.run_ids("run") == set()
    names = {path.relative_to(home.root / "data").parts[1] for path in (home.root / "data").rglob("*.parquet")}
    assert names == {"models", "model_versions"}


def test_every_value_of_a_version_is_what_was_logged(logged, home):
    assert own(home.values("DEMO-FIRST-1", "model_version")) == logged[1].values


def test_stages_and_models_of_versions(home):
    for number, stage in ((1, "staging"), (2, "production")):
        values = home.values(f"DEMO-FIRST-{number}", "model_version")
        assert single("sys/stage", "string", stage) in values
        assert single("sys/model_id", "string", "DEMO-FIRST") in values
    assert single("params/size", "int", 7) in home.values("DEMO-FIRST", "model")
    assert home.staged("DEMO-FIRST", "model").info.name == "the model"


def test_losses_10_versions_in_the_trash_can_be_had(logged, tmp_path):
    """The client itself cannot list them."""
    home = Home(tmp_path)
    assert export_models(home, "--include-archived-models", "-c", "parameters") == 0
    assert home.run_ids("model") == {"DEMO-FIRST", "DEMO-OTHER"}
    assert home.run_ids("model_version") == {"DEMO-FIRST-1", "DEMO-FIRST-2", "DEMO-FIRST-3", "DEMO-OTHER-1"}


def test_a_query_for_models_takes_their_versions_along(logged, tmp_path):
    home = Home(tmp_path)
    query = '(`sys/id`:string = "DEMO-FIRST")'
    assert export_models(home, "--models-query", query, "--include-archived-models", "-c", "parameters") == 0
    assert home.run_ids("model") == {"DEMO-FIRST"}
    assert home.run_ids("model_version") == {"DEMO-FIRST-1", "DEMO-FIRST-2", "DEMO-FIRST-3"}


def test_a_pattern_selects_models_and_versions(logged, tmp_path):
    home = Home(tmp_path)
    assert export_models(home, "-r", "FIRST-2$", "-c", "parameters") == 0
    assert home.run_ids("model") == set()
    assert home.run_ids("model_version") == {"DEMO-FIRST-2"}


def test_summary_and_verify_work_on_model_data(home, capsys):
    assert home.run("summary") == 0
    shown = capsys.readouterr().out
    assert "1 model" in shown
    assert "2 model versions" in shown
    assert home.run("verify", "--read-data") == 0
    assert home.run("verify", "--exporter", "neptune2") == 0


def test_runs_and_models_share_an_area(logged, tmp_path):
    home = Home(tmp_path)
    assert export_models(home, "-c", "parameters") == 0
    assert home.export("-c", "parameters") == 0
    assert export_models(home, "-c", "parameters", "--overwrite", "--include-archived-runs") == 0
    assert (home.run_ids("run"), home.run_ids("model")) == ({"DEMO-1"}, {"DEMO-FIRST"})
    assert home.staging.run(RunRef(PROJECT, "DEMO-1")) is not None


def test_exported_again_models_are_skipped(home, logged, capsys):
    logged[0].http.log.clear()
    assert export_models(home) == 0
    assert "3 skipped" in capsys.readouterr().out
    assert logged[0].http.counts["GET /api/leaderboard/v1/attributes"] == 0
