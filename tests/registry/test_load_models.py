# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A registry logged with the real client, exported, loaded into MLflow's and read back with MLflow's own client."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from logged_registry import Area, is_list
from mlflow import MlflowClient
from registry_state import PROJECT, tree
from servers import mlflow_server

from neptune_exporter.cli.main import main


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_mlflow, tmp_path) -> str:
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server_uri(empty_mlflow, tmp_path_factory):
    """A real `mlflow server`."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_mlflow, folder / "mlflow.db")
    with mlflow_server.serving(folder, f"sqlite:///{folder / 'mlflow.db'}") as uri:
        yield uri


def registered(uri: str, name: str) -> list:
    found = MlflowClient(uri).search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def check(area: Area, uri: str, tmp_path: Path) -> None:
    """Everything that was logged, by MLflow's own client."""
    client = MlflowClient(uri)
    assert {model.name for model in client.search_registered_models()} == set(area.versions)
    for name, versions in area.versions.items():
        model = client.get_registered_model(name)
        assert (model.description, model.tags["neptune.project_id"]) == (f"about {name[5:]}", PROJECT)
        assert (model.tags["neptune.name"], model.tags["nlp"]) == (f"model {name[5:]}", "true")
        found = registered(uri, name)
        assert [version.tags["neptune.run_id"] for version in found] == [logged.id for logged in versions]
        numbers = {logged.id: int(version.version) for logged, version in zip(versions, found, strict=True)}
        newest = {logged.stage: numbers[logged.id] for logged in versions if logged.stage != "none"}
        assert {alias: int(number) for alias, number in model.aliases.items()} == newest
        for logged, version in zip(versions, found, strict=True):
            assert (version.status, version.description) == ("READY", logged.description)
            assert version.tags["neptune.stage"] == logged.stage
            assert set(json.loads(version.tags["neptune.tags"])) == logged.labels
            assert {tag for tag, value in version.tags.items() if value == "true"} == logged.labels
            assert version.tags["neptune.owner"] == "somebody"
            assert version.tags["neptune.created"].endswith("+00:00")
            run = client.get_run(version.run_id)
            assert client.get_experiment(run.info.experiment_id).name == f"{PROJECT}/models"
            history = client.get_metric_history(version.run_id, "metrics/accuracy")
            assert [point.value for point in sorted(history, key=lambda p: p.step)] == logged.accuracy
            assert version.source == f"{run.info.artifact_uri}/files"
            check_files(client, uri, name, version, logged, tmp_path)


def check_files(client, uri, name, version, logged, tmp_path):
    import mlflow

    mlflow.set_tracking_uri(uri)
    folder = tmp_path / "down" / logged.id
    folder.mkdir(parents=True)
    mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}", dst_path=str(folder))
    content = sorted(data for path, data in tree(folder).items() if not is_list(data))
    assert content == sorted([*logged.files.values(), json.dumps(logged.config, indent=4).encode()])
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["uri", "server_uri"])
def test_a_registry_is_loaded_and_read_back(area, kind, request, tmp_path, capsys):
    uri = request.getfixturevalue(kind)
    assert area.load(uri) == 0
    check(area, uri, tmp_path)
    assert "18 done" in capsys.readouterr().out
    assert area.verify(uri) == 0
    before = snapshot(uri)
    assert area.load(uri) == 0
    assert "18 skipped" in capsys.readouterr().out
    assert snapshot(uri) == before


def snapshot(uri: str) -> list:
    """Everything in the registry."""
    client = MlflowClient(uri)
    models = [(m.name, m.description, m.tags, m.aliases) for m in client.search_registered_models()]
    versions = [(v.name, v.version, v.source, v.run_id, v.description, v.tags) for v in client.search_model_versions()]
    return [sorted(models, key=str), sorted(versions, key=str)]


KILLED = """
import os, signal, sys
from neptune_exporter.loaders.mlflow.registry_client import RegistryClient
from neptune_exporter.cli.main import main
left = int(sys.argv[1])
def counted(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("create_model", "set_model_tag", "set_alias", "create_version", "delete_version"):
    setattr(RegistryClient, name, counted(getattr(RegistryClient, name)))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("calls", [0, 9, *(pytest.param(calls, marks=pytest.mark.soak) for calls in (3, 7, 20))])
def test_killed_while_registering_and_run_again(area, uri, tmp_path, calls):
    command = ["load-models", "--mlflow-tracking-uri", uri, *area.places]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(calls), *command], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert area.verify(uri) == 4
    assert area.load(uri) == 0
    check(area, uri, tmp_path)
    assert area.verify(uri) == 0


def test_killed_while_loading_and_run_again(area, uri, tmp_path):
    code = KILLED.replace("loaders.mlflow.registry_client", "loaders.mlflow.direct").replace(
        "RegistryClient", "DirectRun"
    )
    code = code.replace(
        '("create_model", "set_model_tag", "set_alias", "create_version", "delete_version")', '("complete",)'
    )
    command = ["load-models", "--mlflow-tracking-uri", uri, "--workers", "1", *area.places]
    killed = subprocess.run([sys.executable, "-c", code, "8", *command], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert area.load(uri) == 0
    check(area, uri, tmp_path)
    assert area.verify(uri) == 0


# --- what changes


def test_a_selection_first_and_the_rest_later_keeps_the_order(area, uri, tmp_path):
    """What was registered out of order is registered anew, once."""
    assert area.load(uri, "-r", "DEMO-ONE", "-r", "DEMO-ONE-2", "-r", "DEMO-ONE-4") == 0
    assert [v.tags["neptune.run_id"] for v in registered(uri, "DEMO-ONE")] == ["DEMO-ONE-2", "DEMO-ONE-4"]
    assert {m.name for m in MlflowClient(uri).search_registered_models()} == {"DEMO-ONE"}
    assert area.load(uri) == 0
    check(area, uri, tmp_path)


def test_a_version_that_was_removed_or_changed_by_hand_is_found_and_mended(area, uri, tmp_path, capsys):
    assert area.load(uri) == 0
    client = MlflowClient(uri)
    client.delete_model_version("DEMO-TWO", "2")
    client.set_model_version_tag("DEMO-ONE", "3", "neptune.stage", "production")
    client.update_registered_model("DEMO-THREE", "something else")
    capsys.readouterr()
    assert area.verify(uri) == 4
    said = capsys.readouterr().out
    assert "DEMO-TWO-2: The version is not in the registry" in said
    assert "DEMO-ONE-3: The tag neptune.stage in the registry is 'production', not 'none'." in said
    assert "DEMO-THREE: The description in the registry is 'something else'." in said
    assert area.load(uri) == 0
    check(area, uri, tmp_path)
    assert area.verify(uri) == 0


def test_an_alias_that_somebody_has_moved_stays_where_it_is(area, uri):
    assert area.load(uri) == 0
    client = MlflowClient(uri)
    client.set_registered_model_alias("DEMO-ONE", "production", "5")
    assert area.load(uri) == 0
    assert client.get_registered_model("DEMO-ONE").aliases["production"] in ("5", 5)
    assert area.verify(uri) == 0


def test_names_that_are_taken_and_models_that_were_renamed(area, uri, tmp_path):
    client = MlflowClient(uri)
    client.create_registered_model("DEMO-ONE", {"mine": "yes"})
    assert area.load(uri) == 0
    names = {model.name for model in client.search_registered_models()}
    assert names == {"DEMO-ONE", "DEMO-ONE (team.demo)", "DEMO-TWO", "DEMO-THREE"}
    assert client.get_registered_model("DEMO-ONE").tags == {"mine": "yes"}
    client.rename_registered_model("DEMO-TWO", "my favourite")
    assert area.load(uri) == 0
    assert {model.name for model in client.search_registered_models()} == names - {"DEMO-TWO"} | {"my favourite"}
    assert area.verify(uri) == 0


def test_a_prefix_makes_another_registry_beside_the_first(area, uri):
    assert area.load(uri) == 0
    assert area.load(uri, "--name-prefix", "old/") == 0
    client = MlflowClient(uri)
    names = {model.name for model in client.search_registered_models()}
    assert names == {*area.versions, *(f"old.{name}" for name in area.versions)}
    assert client.get_experiment_by_name(f"old/{PROJECT}/models") is not None
    assert area.verify(uri) == 0
    assert area.verify(uri, "--name-prefix", "old/") == 0


def test_a_version_that_cannot_be_loaded_holds_back_those_after_it(area, uri, tmp_path, capsys):
    project = next((area.root / "files").iterdir())
    (broken,) = project.rglob("DEMO-ONE-2*/**/weights*")
    content = broken.read_bytes()
    broken.unlink()
    assert area.load(uri) == 3
    said = capsys.readouterr().out
    assert "It is registered after DEMO-ONE-2, which is not loaded." in said
    assert [v.tags["neptune.run_id"] for v in registered(uri, "DEMO-ONE")] == ["DEMO-ONE-1"]
    assert len(registered(uri, "DEMO-TWO")) == 5
    broken.write_bytes(content)
    assert area.load(uri) == 0
    check(area, uri, tmp_path)


def test_a_dry_run_does_nothing(area, uri, tmp_path, capsys):
    assert area.load(uri, "--dry-run") == 0
    assert "18" in capsys.readouterr().out
    assert not MlflowClient(uri).search_registered_models()


def test_an_area_without_models_says_so(tmp_path, uri, capsys):
    (tmp_path / "data").mkdir()
    assert main(["load-models", "--mlflow-tracking-uri", uri, "--data-path", str(tmp_path / "data")]) == 1
    assert "does not hold any project with models" in capsys.readouterr().err


# --- targets without a registry


def test_in_pluto_models_and_versions_are_runs_of_a_project_of_their_own(area, capsys):
    from servers.pluto import KEY, PlutoServer

    with PlutoServer() as server:
        to = ["--loader", "pluto", "--pluto-host", server.url, "--pluto-api-key", KEY]
        assert main(["load-models", *to, *area.places]) == 0
        said = capsys.readouterr()
        assert "18 done" in said.out
        assert "has no model registry" in said.out + said.err
        assert main(["verify", "--models", *to, *area.places]) == 0
        assert main(["load-models", *to, *area.places]) == 0
        assert "18 skipped" in capsys.readouterr().out


def test_an_area_without_manifests_as_the_official_exporter_leaves_it(area, uri, tmp_path, capsys):
    for folder in list((area.root / "data").rglob("_manifest")):
        shutil.rmtree(folder)
    assert area.load(uri) == 0
    check(area, uri, tmp_path)
    assert area.verify(uri) == 0
    capsys.readouterr()
    assert area.load(uri) == 0
    assert "18 skipped" in capsys.readouterr().out
