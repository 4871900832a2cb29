# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The real client, asynchronous, against a Neptune server at wire level: Neptune and the target hold equal data."""

from __future__ import annotations

import socket

import pytest
from servers.neptune3 import Neptune3Server

pytestmark = pytest.mark.usefixtures("with_mlflow")

SCRIPT = """
import neptune_exporter.dual_logging
from neptune_scale import Run

if __name__ == "__main__":
    with Run(project="team/live", run_id="live", enable_console_log_capture=False, source_tracking_config=None) as run:
        run.log_configs({"lr": 0.5})
        for step in range(50):
            run.log_metrics({"loss": 1 / (step + 1)}, step=step)
        assert run.wait_for_processing(timeout=60, verbose=False)
"""


@pytest.fixture
def server(script):
    script.environment.pop("NEPTUNE_MODE")
    with Neptune3Server() as server:
        server.store.projects.setdefault("team/live", {})
        script.environment["NEPTUNE_API_TOKEN"] = server.api_token
        yield server


def of_neptune(server) -> list[tuple[float, float]]:
    steps, _, values = server.store.projects["team/live"]["live"].series("loss", "floatSeries").columns()
    return list(zip([float(step) for step in steps], [float(value) for value in values], strict=True))


def test_both_sides_hold_equal_data(script, server):
    script.run(SCRIPT, NEPTUNE_EXPORTER_TARGET="mlflow")
    script.replay()
    logged = [(step, 1 / (step + 1)) for step in range(50)]
    assert of_neptune(server) == logged
    assert script.mlflow().points("loss") == logged
    assert script.mlflow().only.data.params["lr"] == "0.5"


def test_a_target_that_hangs_leaves_neptune_complete(script, server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        script.run(
            SCRIPT,
            NEPTUNE_EXPORTER_TARGET="mlflow",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}",
            NEPTUNE_EXPORTER_LINGER_SECONDS="0",
        )
    assert of_neptune(server) == [(step, 1 / (step + 1)) for step in range(50)]
    script.replay()
    assert script.mlflow().points("loss") == of_neptune(server)


def test_without_neptune_the_server_is_never_asked(script, server):
    text = SCRIPT.replace("        assert run.wait_for_processing(timeout=60, verbose=False)\n", "")
    script.run(text, NEPTUNE_EXPORTER_TARGET="mlflow", DISABLE_NEPTUNE_LOGGING="true")
    script.replay()
    assert not server.http.log
    assert script.mlflow().points("loss") == [(step, 1 / (step + 1)) for step in range(50)]
