# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases as a live target: every kind, nothing twice, whatever dies, and a load that waits its turn."""

from __future__ import annotations

import json
import signal
import socket
import struct
import zlib
from collections import Counter

import pytest
from mirrored import NOWHERE, snapshots, updates
from servers.wandb import API_KEY, ENTITY, WandbServer, serving

from neptune_exporter.mirror import spool

SCRIPT = """
import math, neptune_exporter.dual_logging
from neptune_scale import Run
from neptune_scale.types import File, Histogram

with Run(run_id="one", experiment_name="e", source_tracking_config=None, enable_console_log_capture=False) as run:
    run.log_configs({"lr": 0.5, "layers": 3, "big": 2**53 + 1, "name": "before", "sys/description": "what it is"})
    run.add_tags(["stays", "goes"])
    for step in range(20):
        run.log_metrics({"loss": 1 / (step + 1), "acc": step / 3}, step=step)
        run.log_string_series({"text": f"line {step}\\n"}, step=step)
    run.log_metrics({"odd": math.nan}, step=30)
    run.log_metrics({"odd": math.inf, "fraction": 1.0}, step=30.25)
    run.log_metrics({"late": 1.0}, step=2)
    run.log_metrics({"late": 2.0}, step=3)
    run.log_histograms({"h": Histogram(bin_edges=[0, 1, 2], counts=[3, 4])}, step=2)
    run.assign_files({"notes": File(b"not really", mime_type="text/plain")})
    run.log_files({"pictures": File(PNG, mime_type="image/png")}, step=4)
    run.remove_tags(["goes"])
    run.log_configs({"name": "after"})
"""
IHDR = b"IHDR" + struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + IHDR + struct.pack(">I", zlib.crc32(IHDR))
SCRIPT = f"PNG = {PNG!r}\n" + SCRIPT
PROJECT = "team-project"
LOGGED = Counter(
    {("loss", float(step), 1 / (step + 1)): 1 for step in range(20)}
    | {("acc", float(step), step / 3): 1 for step in range(20)}
    | {("odd", 30.0, "nan"): 1, ("odd", 30.25, "inf"): 1, ("fraction", 30.25, 1.0): 1}
    | {("late", 2.0, 1.0): 1, ("late", 3.0, 2.0): 1}
)


@pytest.fixture
def server(script):
    with serving() as running:
        script.environment |= {
            "NEPTUNE_EXPORTER_TARGET": "wandb",
            "WANDB_BASE_URL": running.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ENTITY": ENTITY,
            **{f"WANDB_{name}_DIR": str(script.folder / "w" / name) for name in ("CONFIG", "CACHE", "DATA")},
            "NETRC": str(script.folder / "netrc"),
        }
        yield running
        assert running.unknown == []


def points(run, *, plain: bool = True) -> Counter:
    """Every number in the history: key, exact step, value."""
    found: Counter = Counter()
    for row in run.rows:
        for key, value in row.items():
            if key in ("_step", "_timestamp", "_runtime", "neptune_step") or isinstance(value, dict) == plain:
                continue
            shown = value if isinstance(value, dict) or abs(value) < float("inf") else str(value)
            found[key, float(row["neptune_step"]), json.dumps(shown) if isinstance(shown, dict) else shown] += 1
    return found


def check(server: WandbServer) -> None:
    run = server.run()
    assert points(run) == LOGGED
    steps = [row["_step"] for row in run.rows]
    assert steps == sorted(set(steps))
    objects = {key: json.loads(value) for key, _, value in points(run, plain=False)}
    assert (objects["h"]["bins"], objects["h"]["values"]) == ([0, 1, 2], [3, 4])
    texts = server.run_file(run, "series/text.txt").decode().splitlines()
    assert [line.rpartition("\t")[2] for line in texts[1:]] == [f"line {step}\\n" for step in range(20)]
    (exact,) = server.run_file(run, "histograms/h.jsonl").decode().splitlines()
    assert json.loads(exact)["values"] == [3, 4]
    assert server.run_file(run, "files/notes.txt") == b"not really"
    assert server.run_file(run, "files/pictures/step_4.png") == PNG
    assert {name: run.values[name] for name in ("lr", "layers", "big", "name")} == {
        "lr": 0.5, "layers": 3, "big": str(2**53 + 1), "name": "after",
    }  # fmt: skip
    assert run.tags == ["stays"]
    assert (run.group, run.notes, run.project) == ("e", "what it is", PROJECT)
    assert run.last_values["loss"] == 1 / 20
    assert run.torn == 0


def test_everything_is_mirrored_and_the_run_ends(script, server):
    script.run(SCRIPT)
    script.replay("wandb")
    check(server)
    run = server.run()
    assert (run.complete, run.state, run.exit_code) == (True, "finished", 0)
    assert run.values["neptune"]["load"]["state"] == "live-ended"
    assert len(updates(script.spool)) == len(script.own()) > 45


def test_media_of_series_are_shown_when_asked_for(script, server):
    script.run(SCRIPT, NEPTUNE_EXPORTER_WANDB_MEDIA="true", NEPTUNE_EXPORTER_TARGET=NOWHERE)
    script.environment["NEPTUNE_EXPORTER_WANDB_MEDIA"] = "true"
    script.replay("wandb")
    check(server)
    run = server.run()
    (picture,) = [json.loads(value) for key, _, value in points(run, plain=False) if key == "pictures"]
    assert (picture["_type"], picture["width"], picture["height"]) == ("image-file", 4, 3)
    assert server.run_file(run, picture["path"]) == PNG


def test_what_is_sent_again_is_not_there_twice(script, server):
    script.run(SCRIPT, NEPTUNE_EXPORTER_TARGET=NOWHERE)
    assert "1 fed" in script.replay("wandb")
    lines = list(server.run().history)
    for folder in spool.run_folders(script.spool):  # the record of how far it got is lost
        spool.progress_path(folder, "wandb").unlink()
    assert "1 fed" in script.replay("wandb")
    assert server.run().history == lines
    check(server)


@pytest.mark.parametrize("kept", [0, 1, 13])
def test_a_feed_that_died_in_between_is_completed(script, server, kept):
    script.run(SCRIPT, NEPTUNE_EXPORTER_TARGET=NOWHERE)
    script.replay("wandb")
    for folder in spool.run_folders(script.spool):
        spool.progress_path(folder, "wandb").unlink()
    run = server.run()
    del run.history[kept:]  # as if the rest had never arrived
    assert "1 fed" in script.replay("wandb")
    check(server)


def test_a_refused_key_is_neptune_only_until_it_is_right(script, server):
    result = script.run("import logging; logging.basicConfig(level=logging.WARNING)\n" + SCRIPT, WANDB_API_KEY="x" * 40)
    assert server.runs.all() == []
    (progress,) = script.progress("wandb")
    assert progress.state in ("refused", "feeding", "failing")
    assert "x" * 40 not in result.stderr
    assert "1 fed" in script.replay("wandb")
    check(server)


@pytest.mark.parametrize("what", ["down", "hanging"])
def test_a_target_that_is_down_or_hangs_holds_nothing_up(script, server, what):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if what == "hanging":
            silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        quickly = {"NEPTUNE_EXPORTER_LINGER_SECONDS": "0", "NEPTUNE_EXPORTER_CLOSE_SECONDS": "1"}
        script.run(SCRIPT, WANDB_BASE_URL=address, **quickly)
        assert updates(script.spool) == script.own()
    assert "1 fed" in script.replay("wandb")
    check(server)


def test_faults_while_it_is_fed_are_survived(script, server):
    from servers.http import Fault

    script.run(SCRIPT, NEPTUNE_EXPORTER_TARGET=NOWHERE)
    wheres = ("POST /graphql", "file_stream", "PUT /upload")
    server.http.faults = [Fault(where, status=status) for where in wheres for status in (500, 429)]
    server.http.faults += [Fault(where, "reset", after=1) for where in wheres]
    server.http.faults += [Fault("file_stream", "truncate", after=2)]  # it was taken, but nobody was told
    assert "1 fed" in script.replay("wandb")
    assert all(fault.times == 0 for fault in server.http.faults if fault.action != "truncate")
    check(server)


ENDLESS = """
import time
import neptune_exporter.dual_logging
from neptune_scale import Run

run = Run(run_id="killed", source_tracking_config=None, enable_console_log_capture=False)
for step in range(100_000):
    run.log_metrics({"loss": step / 7, "acc": 1.0}, step=step)
    if step == 200:
        print("now", flush=True)
    time.sleep(0.001 if step < 200 else 0.05)
"""


def killed(script, **environment):
    process = script.start(ENDLESS, **environment)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("without", ["", "true"])
@pytest.mark.parametrize("linger", ["60", "0"])
def test_kill_9_in_mid_training(script, server, without, linger):
    killed(script, DISABLE_NEPTUNE_LOGGING=without, NEPTUNE_EXPORTER_LINGER_SECONDS=linger)
    script.replay("wandb")
    steps = sorted(s.step.whole for s in snapshots(updates(script.spool)) if "loss" in s.append)
    assert len(steps) > 100
    run = server.run()
    expected = {("loss", float(step), step / 7): 1 for step in steps}
    assert points(run) == Counter(expected | {("acc", float(step), 1.0): 1 for step in steps})
    assert (run.complete, run.exit_code) == (True, 255)


def test_a_run_that_is_resumed_goes_on_in_the_same_run(script, server):
    part = (
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "with Run(run_id='same', source_tracking_config=None, enable_console_log_capture=False) as run:\n"
        "    for step in range({}): run.log_metrics({{'x': float(step)}}, step=step)\n"
    )
    for steps in ("0, 10", "10, 20"):
        script.run(part.format(steps))
        script.replay("wandb")
    assert points(server.run()) == Counter({("x", float(step), float(step)): 1 for step in range(20)})
    assert server.run().state == "finished"


def axes(run) -> set[str]:
    """What is known of the metrics, whatever their order."""
    metrics = run.config["_wandb"]["value"]["m"]
    found = [{**m, "6": sorted(m["6"])} | ({"5": metrics[m["5"] - 1]["1"]} if "5" in m else {}) for m in metrics]
    return {json.dumps(metric, sort_keys=True) for metric in found}


def test_load_leaves_a_live_run_alone_and_marks_it_superseded_once_it_has_ended(script, server):
    process = script.start(ENDLESS)
    assert process.stdout.readline() == "now\n"
    while not any(progress.target_id for progress in script.progress("wandb")):
        assert process.poll() is None
    script.command("export", "--exporter", "offline", "--offline-path", "spool")
    assert "1 skipped" in script.command("load", "--loader", "wandb")
    live = server.run()
    assert live.values["neptune"]["load"]["state"].startswith("live:")
    process.kill()
    process.communicate(timeout=60)
    script.replay("wandb")
    assert [run.name for run in server.runs.all()] == [live.name]
    script.command("export", "--exporter", "offline", "--offline-path", "spool")
    assert "1 done" in script.command("load", "--loader", "wandb")
    old, new = server.runs.all()
    assert old.values["neptune"]["load"]["state"] == "superseded"
    assert "superseded" in old.tags
    assert points(new) == points(old)
    assert new.values["neptune"]["load"]["state"] == "complete"
    # What the real client has made of the axes is what a live run has.
    assert axes(old) == axes(new)
    assert "1 skipped" in script.command("load", "--loader", "wandb")


def test_without_a_server_everything_stays_in_the_spool_and_says_why(script, server):
    script.run(SCRIPT, WANDB_MODE="offline")
    said = script.command("replay", "--target", "wandb", code=3, WANDB_MODE="offline")
    assert "can only be fed to a W&B server" in said
    assert server.runs.all() == []
    assert "1 fed" in script.replay("wandb")
    check(server)
