# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Against real servers, with accounts that the environment names. They make runs there, tagged `real-backend-test`.

DUAL_E2E_NEPTUNE_API_TOKEN, DUAL_E2E_NEPTUNE_PROJECT    Neptune 3.x
DUAL_E2E_MLFLOW_TRACKING_URI                            MLflow
DUAL_E2E_MLOP_API_KEY, DUAL_E2E_MLOP_PROJECT            Pluto; DUAL_E2E_MLOP_URL_APP, _API, _INGEST likewise
DUAL_E2E_WANDB_API_KEY, DUAL_E2E_WANDB_PROJECT          Weights & Biases; DUAL_E2E_WANDB_ENTITY, _BASE_URL likewise
"""

from __future__ import annotations

import os
import uuid

import pytest
from mirrored import MLflowRuns

PREFIX = "DUAL_E2E_"
GIVEN = {name.removeprefix(PREFIX): value for name, value in os.environ.items() if name.startswith(PREFIX) and value}
NEEDED = {
    "neptune": ("NEPTUNE_API_TOKEN", "NEPTUNE_PROJECT"),
    "mlflow": ("MLFLOW_TRACKING_URI",),
    "pluto": ("MLOP_API_KEY", "MLOP_PROJECT"),
    "wandb": ("WANDB_API_KEY", "WANDB_PROJECT"),
}
SCRIPT = """
import neptune_exporter.dual_logging
from neptune_scale import Run
from neptune_scale.types import Histogram

if __name__ == "__main__":
    with Run(run_id=RUN_ID, experiment_name="real-backend-test", source_tracking_config=None) as run:
        run.add_tags(["real-backend-test"])
        run.log_configs({"lr": 0.5, "layers": 3})
        for step in range(20):
            run.log_metrics({"loss": 1 / (step + 1)}, step=step)
        run.log_string_series({"text": "one line"}, step=1)
        run.log_histograms({"h": Histogram(bin_edges=[0, 1, 2], counts=[3, 4])}, step=1)
        run.assign_files({"file": b"content"})
        print(run.wait_for_processing(timeout=60, verbose=False))
"""
LOGGED = [(float(step), 1 / (step + 1)) for step in range(20)]


def needs(*names):
    missing = [f"{PREFIX}{variable}" for name in names for variable in NEEDED[name] if variable not in GIVEN]
    return pytest.mark.skipif(bool(missing), reason=f"not set: {', '.join(missing)}")


@pytest.fixture
def train(script, monkeypatch):
    """Runs the script with some of the accounts; returns the run's id and what the script has printed."""

    def run(*accounts, **environment):
        for name in ("NEPTUNE_MODE", "NEPTUNE_PROJECT", "MLFLOW_TRACKING_URI"):
            script.environment.pop(name, None)
        families = tuple({"pluto": "MLOP_"}.get(account, f"{account.upper()}_") for account in accounts)
        for name, value in GIVEN.items():
            if name.startswith(families):
                script.environment[name] = value
                monkeypatch.setenv(name, value)  # for whoever looks at the servers afterwards
        run_id = f"real-{uuid.uuid4().hex[:12]}"
        return run_id, script.run(SCRIPT.replace("RUN_ID", repr(run_id)), **environment)

    return run


def of_neptune(run_id) -> list[tuple[float, float]]:
    """What Neptune's own reader gives back."""
    import neptune_query.runs as query

    frame = query.fetch_metrics(project=GIVEN["NEPTUNE_PROJECT"], runs=[run_id], attributes="loss")
    return [(float(step), float(value)) for (_, step), value in frame["loss"].items()]


def of_mlflow(script, run_id) -> list[tuple[int, float]]:
    runs = MLflowRuns(GIVEN["MLFLOW_TRACKING_URI"])
    (run,) = (run for run in runs.runs if run_id in run.data.tags.values())
    return runs.points("loss", run)


def arrived(script, target) -> str:
    """The run's id in a target that has everything."""
    script.replay(target)
    (progress,) = script.progress(target)
    assert (progress.state, progress.error) == ("done", "")
    return progress.target_id


@needs("neptune")
def test_neptune_alone_is_as_ever(train, script):
    run_id, done = train("neptune")
    assert done.stdout.strip() == "True"
    assert of_neptune(run_id) == LOGGED
    assert not script.spool.exists()


@needs("neptune", "mlflow")
def test_neptune_and_mlflow_hold_equal_data(train, script):
    run_id, done = train("neptune", "mlflow", NEPTUNE_EXPORTER_TARGET="mlflow")
    arrived(script, "mlflow")
    assert done.stdout.strip() == "True"
    assert of_neptune(run_id) == of_mlflow(script, run_id) == LOGGED


@needs("neptune", "pluto")
def test_neptune_and_pluto_by_the_variables_that_scripts_already_set(train, script):
    run_id, done = train("neptune", "pluto")
    of_pluto(arrived(script, "pluto"))
    assert done.stdout.strip() == "True"
    assert of_neptune(run_id) == LOGGED


@needs("neptune", "pluto")
def test_a_wrong_key_leaves_neptune_complete(train, script):
    run_id, done = train("neptune", "pluto", MLOP_API_KEY="not-a-key")
    assert done.stdout.strip() == "True"
    assert of_neptune(run_id) == LOGGED
    of_pluto(arrived(script, "pluto"))  # with the right one


@needs("mlflow")
def test_mlflow_without_neptune(train, script):
    run_id, _ = train("mlflow", NEPTUNE_EXPORTER_TARGET="mlflow", DISABLE_NEPTUNE_LOGGING="true")
    arrived(script, "mlflow")
    assert of_mlflow(script, run_id) == LOGGED


@needs("pluto")
def test_pluto_without_neptune(train, script):
    train("pluto", DISABLE_NEPTUNE_LOGGING="true")
    of_pluto(arrived(script, "pluto"))


def of_pluto(target_id) -> None:
    from neptune_exporter.loaders.pluto import PlutoOptions
    from neptune_exporter.loaders.pluto.api import Pluto
    from neptune_exporter.mirror.feed import options_from

    config = Pluto(options_from(PlutoOptions, os.environ)).details(int(target_id))["config"]
    assert (config["lr"], config["layers"]) == (0.5, 3)


@needs("wandb")
def test_wandb_without_neptune(train, script):
    pytest.importorskip("wandb")
    train("wandb", NEPTUNE_EXPORTER_TARGET="wandb", DISABLE_NEPTUNE_LOGGING="true")
    target_id = arrived(script, "wandb")
    import wandb

    entity = GIVEN.get("WANDB_ENTITY") or wandb.Api().default_entity
    run = wandb.Api().run(f"{entity}/{GIVEN['WANDB_PROJECT']}/{target_id}")
    assert [row["loss"] for row in run.scan_history(keys=["loss"])] == [value for _, value in LOGGED]
