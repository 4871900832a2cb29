# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`demo`: the whole job, proven, with every step shown as a command that works when it is typed."""

from __future__ import annotations

import importlib.util
import math
import shlex
import shutil

import pytest

from neptune_exporter import demo_runs


def without(monkeypatch, package):
    """As if a package were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )


def commands(out):
    return [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("$ neptune-exporter ")]


def test_everything_is_proven(demo):
    folder, result = demo
    assert result.code == 0, result.out + result.err
    assert [line[1] for line in commands(result.out)] == ["export", "summary", "verify", "load", "verify"]
    assert result.out.count("No differences.") == 2
    assert f"$ mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db" in result.out.splitlines()
    assert "Traceback" not in result.err


def test_mlflow_holds_what_was_logged(demo):
    """Read with MLflow's own client and compared with what the sample says it logs."""
    from mlflow import MlflowClient

    folder, _ = demo
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == demo_runs.PROJECT]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"digits-0", "digits-1", "digits-2", "digits-1-warm"}
    losses = client.get_metric_history(runs["digits-0"].info.run_id, "train/loss")
    assert len(losses) == demo_runs.STEPS
    assert sum(math.isnan(point.value) for point in losses) == 19
    steps = [point.step for point in client.get_metric_history(runs["digits-0"].info.run_id, "valid/loss")]
    assert steps == [100 * step + 25 for step in range(0, demo_runs.STEPS, 10)]
    assert runs["digits-1-warm"].data.tags["mlflow.parentRunId"] == runs["digits-1"].info.run_id
    assert runs["digits-2"].data.params["model/width"] == str(2**53 + 1)


def test_each_command_works_when_it_is_typed(demo, call):
    for arguments in commands(demo[1].out):
        result = call(*arguments[1:])
        assert result.code == 0, arguments
        assert result.err == ""


def test_it_can_be_run_again(demo, call):
    result = call("demo", "--path", demo[0])
    assert result.code == 0
    assert "logged before" in result.out
    assert "4 skipped" in result.out


def test_without_mlflow_it_says_what_to_install_and_does_the_rest(sample, call, monkeypatch):
    without(monkeypatch, "mlflow")
    result = call("demo", "--path", sample)
    assert result.code == 3
    assert "pip install 'neptune-exporter[mlflow]'" in result.out
    assert "No differences." in result.out


def test_without_the_neptune_client_it_says_what_to_install(tmp_path, call, monkeypatch):
    without(monkeypatch, "neptune_scale")
    result = call("demo", "--path", tmp_path / "new")
    assert result.code == 1
    assert "pip install neptune-scale" in result.err


def test_a_lost_value_is_no_success(sample, call):
    """The staging area lacks a run's file: the demo must not end with 0."""
    shutil.rmtree(sample / "files")
    result = call("demo", "--path", sample)
    assert result.code != 0
    assert "Every value is proven" not in result.out


def test_a_folder_that_cannot_be_used(tmp_path, call):
    (tmp_path / "file").write_text("")
    result = call("demo", "--path", tmp_path / "file" / "below")
    assert result.code == 1
    assert result.err.startswith("Error: Cannot write in")


@pytest.mark.parametrize("name", [".neptune", "data"])
def test_what_was_logged_is_kept(demo, name):
    assert any((demo[0] / name).rglob("*"))
