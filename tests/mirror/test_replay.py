# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts and targets that die: the spool replays what is missing, and nothing is there twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mirrored import updates

from neptune_exporter.mirror import spool

pytestmark = pytest.mark.usefixtures("with_mlflow")

ENDLESS = """
import sys, time
import neptune_exporter.dual_logging
from neptune_scale import Run

run = Run(run_id="killed", source_tracking_config=None, enable_console_log_capture=False)
for step in range(100_000):
    run.log_metrics({"loss": step / 7, "acc": 1.0}, step=step)
    run.log_string_series({"text": f"line {step}"}, step=step)
    if step == 200:
        print("now", flush=True)
    time.sleep(0.001 if step < 200 else 0.05)
"""


def killed(script, *, feeding_too=False, **environment):
    """Starts the endless script and kills it half way, and before that the process that feeds its target."""
    process = script.start(ENDLESS, **environment)
    assert process.stdout.readline() == "now\n"
    if feeding_too:
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def logged_steps(script):
    from mirrored import snapshots

    return sorted(s.step.whole for s in snapshots(updates(script.spool)) if "loss" in s.append)


@pytest.mark.parametrize("without", ["", "true"])
@pytest.mark.parametrize("target_is", ["up", "down", "dying"])
def test_kill_9_in_mid_training(script, without, target_is):
    environment = {"NEPTUNE_EXPORTER_TARGET": "mlflow", "DISABLE_NEPTUNE_LOGGING": without}
    if target_is == "down":
        environment |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "NEPTUNE_EXPORTER_LINGER_SECONDS": "0"}
    killed(script, feeding_too=target_is == "dying", **environment)
    out = script.replay()
    assert "fed" in out or "complete before" in out
    steps = logged_steps(script)
    assert len(steps) > 100
    assert script.mlflow().points("loss") == [(step, step / 7) for step in steps]
    lines = script.mlflow().text("series/text.txt").splitlines()[1:]
    texts = [line.rpartition("\t")[2] for line in lines]
    assert texts == list(dict.fromkeys(texts))
    assert {f"line {step}" for step in steps[:-1]} <= set(texts)
    assert script.mlflow().only.info.status == "KILLED"
    # Neptune's own log has the same operations, but for what was in the queue at that moment.
    assert updates(script.spool) == script.own()[: len(updates(script.spool))]


def test_replaying_again_changes_nothing(script):
    killed(script, NEPTUNE_EXPORTER_TARGET="nowhere")
    assert "1 fed" in script.replay()
    before = script.mlflow().points("loss")
    assert "1 complete before" in script.replay()
    for folder in spool.run_folders(script.spool):  # the record of how far it got is lost: it is sent once more
        spool.progress_path(folder, "mlflow").unlink()
    assert "1 fed" in script.replay()
    assert script.mlflow().points("loss") == before
    assert len(script.mlflow().runs) == 1


def test_a_run_that_is_resumed_goes_on_in_the_same_run(script):
    part = (
        "import neptune_exporter.dual_logging, os\n"
        "from neptune_scale import Run\n"
        "with Run(run_id='same', source_tracking_config=None, enable_console_log_capture=False) as run:\n"
        "    for step in range({}): run.log_metrics({{'x': float(step)}}, step=step)\n"
        "    {}\n"
    )
    dies = "from neptune_exporter.mirror.mirror import current; current().recorder.flush(9); os.kill(os.getpid(), 9)"
    script.run(part.format("0, 10", dies), code=-9, NEPTUNE_EXPORTER_TARGET="mlflow")
    script.replay()
    assert script.mlflow().only.info.status == "KILLED"
    script.run(part.format("10, 20", ""), NEPTUNE_EXPORTER_TARGET="mlflow")
    script.replay()
    assert script.mlflow().points("x") == [(step, float(step)) for step in range(20)]
    assert script.mlflow().only.info.status == "FINISHED"


def test_load_leaves_a_live_run_alone_and_replaces_it_when_it_has_ended(script):
    process = script.start(ENDLESS, NEPTUNE_EXPORTER_TARGET="mlflow")
    assert process.stdout.readline() == "now\n"
    while not any(p.target_id for p in script.progress()):  # until the target has the run
        assert process.poll() is None
    script.command("export", "--exporter", "offline", "--offline-path", "spool")
    skipped = script.command("load", "--mlflow-tracking-uri", f"sqlite:///{script.database}")
    live = script.mlflow().only
    assert "1 skipped" in skipped
    assert live.data.tags["neptune.load"].startswith("live:")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    script.replay()
    assert script.mlflow().only.info.run_id == live.info.run_id
    script.command("export", "--exporter", "offline", "--offline-path", "spool")
    script.command("load", "--mlflow-tracking-uri", f"sqlite:///{script.database}")
    steps = logged_steps(script)
    assert script.mlflow().points("loss") == [(step, step / 7) for step in steps]
    assert script.mlflow().only.data.tags["neptune.load"].startswith("complete:")
    script.command("verify", "--loader", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{script.database}")


def test_the_spool_and_neptunes_own_folder_are_one_run(script):
    """Half of it was logged without the mirror: nothing is missing, nothing is there twice."""
    import pyarrow.parquet as pq

    part = (
        "from neptune_scale import Run\n"
        "with Run(run_id='same', source_tracking_config=None, enable_console_log_capture=False) as run:\n"
        "    for step in range({}): run.log_metrics({{'x': float(step)}}, step=step)\n"
        "    run.assign_files({{'file{}': b'content'}})\n"
    )
    script.run(part.format("0, 10", 1))
    script.run("import neptune_exporter.dual_logging\n" + part.format("10, 20", 2), NEPTUNE_EXPORTER_TARGET="nowhere")
    paths = ["--offline-path", "spool", "--offline-path", ".neptune"]
    script.command("export", "--exporter", "offline", *paths)
    script.command("export", "--exporter", "offline", *paths)
    parts = list((script.folder / "exports" / "data").glob("*/*_part_*.parquet"))
    rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
    points = sorted(float(row["step"]) for row in rows if row["attribute_path"] == "x")
    assert points == [float(step) for step in range(20)]
    assert sorted(r["attribute_path"] for r in rows if r["attribute_type"] == "file") == ["file1", "file2"]
