# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The real client, asynchronous, against a Neptune server at wire level: both sides hold equal data."""

from __future__ import annotations

import json
import socket

import pytest
from mirrored import NOWHERE
from seed_scripts import BASIC, CONTEXT, HISTOGRAMS, IMAGES, OURS
from servers.neptune3 import Neptune3Server

pytestmark = pytest.mark.usefixtures("with_mlflow")

SCRIPT = """
import neptune_exporter.dual_logging
from neptune_scale import Run

if __name__ == "__main__":
    with Run(run_id="live", enable_console_log_capture=False, source_tracking_config=None) as run:
        for step in range(50):
            run.log_metrics({"loss": 1 / (step + 1)}, step=step)
        assert run.wait_for_processing(timeout=60, verbose=False)
"""


@pytest.fixture
def server(script):
    script.environment.pop("NEPTUNE_MODE")
    with Neptune3Server() as server:
        server.store.projects.setdefault("team/project", {})
        script.environment["NEPTUNE_API_TOKEN"] = server.api_token
        yield server


def run_of(server):
    (run,) = server.store.projects["team/project"].values()
    return run


def of_neptune(server, path="loss") -> list[tuple[float, float]]:
    steps, _, values = run_of(server).series(path, "floatSeries").columns()
    return list(zip([float(step) for step in steps], [float(value) for value in values], strict=True))


# A script without `if __name__ == "__main__"` cannot start Neptune's own process from a file: `-c` can.


def test_basic(script, server):
    script.run(BASIC.format(switch=OURS), "-c", NEPTUNE_EXPORTER_TARGET="mlflow")
    script.replay()
    target = script.mlflow()
    for path, value in {"loss": 0.5, "acc": 0.9}.items():
        assert of_neptune(server, path) == target.points(path) == [(epoch, value) for epoch in range(100)]
    configs = {name: run_of(server).attributes[name].value for name in ("lr", "batch_size")}
    assert configs == {"lr": 0.001, "batch_size": 32}
    assert {name: target.only.data.params[name] for name in configs} == {"lr": "0.001", "batch_size": "32"}
    assert run_of(server).attributes["sys/name"].value == target.only.info.run_name == "my-training-run"
    assert target.only.info.status == "FINISHED"


def test_images(script, server):
    content = b"\x89PNG\r\n\x1a\nnot really"
    (script.folder / "sample.png").write_bytes(content)
    script.run(IMAGES.format(switch=OURS), "-c", NEPTUNE_EXPORTER_TARGET=NOWHERE)
    script.replay()
    reference = run_of(server).attributes["samples/image1"].value
    assert server.store.blobs["team/project", reference["path"]] == content
    assert script.mlflow().content("files/samples/image1.png") == content


def test_histograms(script, server):
    script.run(HISTOGRAMS.format(switch=OURS), "-c", NEPTUNE_EXPORTER_TARGET=NOWHERE)
    script.replay()
    ((step, _, of_server),) = run_of(server).attributes["layer1/activations"].value
    (line,) = script.mlflow().text("histograms/layer1/activations.jsonl").splitlines()
    of_target = json.loads(line)
    assert step == 0
    assert len(of_server["values"]) == 50
    assert (of_target["edges"], of_target["values"]) == (of_server["edges"], of_server["values"])


def test_context_manager(script, server):
    script.run(CONTEXT.format(switch=OURS), "-c", NEPTUNE_EXPORTER_TARGET=NOWHERE)
    script.replay()
    assert of_neptune(server) == script.mlflow().points("loss") == [(0, 0.3)]
    assert script.mlflow().only.info.status == "FINISHED"


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
