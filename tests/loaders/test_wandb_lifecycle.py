# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing that is unfinished looks finished; what was interrupted goes on; no row comes twice; no id is used again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import areas
import numpy as np
import pytest
from areas import PROJECT, floats, stage, tags, text
from servers.http import Fault
from servers.wandb import API_KEY, ENTITY, WandbServer, serving
from wandb_seen import seen_by_server, seen_in_log
from wandb_target import client_environment, no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.errors import TargetAccessError, UsageError
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb import sending
from neptune_exporter.loaders.wandb import server as client_of_ours
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Report
from neptune_exporter.selection import Selection

REF = RunRef(PROJECT, "RUN-1")
ID = run_id(REF, 1)
WAYS = ["log", "client"]


def run_load(target: Any, root: Path, **more: Any) -> Report:  # noqa: F811
    """The command's own work, in this process."""
    return load("wandb", target.options(**more), LoadOptions(), areas.staging(root), Selection(), workers=1)


def stage_one(root: Path, *, points: int = 200, name: str = "adam") -> None:
    stage(
        root,
        "RUN-1",
        floats(REF, "loss", [n / 7 for n in range(points)]),
        floats(REF, "acc", [n / 3 for n in range(0, points, 5)], every=5),
        text(REF, "params/name", name),
        tags(REF, ["a"]),
        files={"model": b"weights" * 1000, "notes": b"n"},
    )


@pytest.fixture
def root(tmp_path) -> Path:
    stage_one(tmp_path / "area")
    return tmp_path / "area"


def content(server: WandbServer, name: str = ID) -> Any:  # noqa: F811
    """All that must not depend on how often a load was interrupted."""
    seen = seen_by_server(server, name)
    run = server.run(name)
    for row in seen.history:
        row.pop("_runtime")
    assert (run.complete, run.state) == (True, "finished")
    assert seen.config["neptune"]["load"]["state"] == "complete"
    summary = {key: value for key, value in seen.summary.items() if key != "_runtime"}
    return seen.history, seen.config, summary, seen.artifact, seen.about


def is_marked(server: WandbServer, name: str = ID) -> bool:  # noqa: F811
    return any(run.name == name and run.values["neptune"]["load"]["state"] == "complete" for run in server.runs.all())


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, Any]:
    """What an undisturbed load gives, by either way."""
    found = {}
    for way in WAYS:
        with serving() as calm:
            folder = tmp_path_factory.mktemp("clean")
            stage_one(folder)
            run_load(of(calm, folder), folder, wandb_way=way)
            found[way] = content(calm)
            end_client()
    assert found["log"] == found["client"]
    return found["log"]


def of(running: WandbServer, folder: Path) -> Any:
    from wandb_target import Target

    return Target(running, folder / "logs")


@pytest.fixture(autouse=True)
def client_of_its_own():
    """wandb-core keeps a run's id for a while after its end, and here all tests have the same one."""
    yield
    end_client()


def end_client() -> None:
    from wandb.sdk import wandb_setup

    wandb_setup.teardown()


# --- faults


@pytest.fixture
def quick(monkeypatch) -> None:
    """Retries do not wait long."""
    waits = {name: 0.05 for name in sending._RETRIES if name.endswith("wait_min_seconds")}
    longest = {name: 0.2 for name in sending._RETRIES if name.endswith("wait_max_seconds")}
    monkeypatch.setattr(sending, "_RETRIES", {**sending._RETRIES, **waits, **longest})


ENDPOINTS = {"graphql": "POST /graphql", "stream": r"POST /files/.*/file_stream", "upload": "PUT /upload", "all": " /"}
FAULTS = {
    "429": Fault("", status=429, headers={"Retry-After": "0"}),
    "500": Fault("", status=500),
    "503": Fault("", status=503),
    "reset": Fault("", "reset"),
    "cut short": Fault("", "truncate"),
}


def every(call: int, of: int, fault: Fault, where: str) -> list[Fault]:
    """The fault at every n-th request."""
    return [replace(fault, match=where, after=after) for after in range(call - 1, of, call)]


def disturb(running: WandbServer, fault: str, endpoint: str) -> None:
    where = ENDPOINTS[endpoint]
    running.http.faults = [replace(FAULTS[fault], match=where)]
    running.http.faults += every(4 if endpoint in ("graphql", "all") else 2, 40, FAULTS[fault], where)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_faults_at_every_endpoint_are_survived(server, target, root, clean, quick, fault, endpoint):  # noqa: F811
    disturb(server, fault, endpoint)
    report = run_load(target, root, wandb_way="log")
    assert report.exit_code == 0, report.outcomes
    assert any(fault.times == 0 for fault in server.http.faults)
    server.http.faults = []
    assert content(server) == clean


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_while_run_log_is_at_work_cost_at_most_another_load(
    server,  # noqa: F811
    target,  # noqa: F811
    root,
    clean,
    quick,
    fault,
):
    disturb(server, fault, "all")
    for _ in range(3):
        report = run_load(target, root, wandb_way="client")
        if report.exit_code == 0:
            break
        assert not is_marked(server)
        server.http.faults = []
        end_client()
    assert report.exit_code == 0, report.outcomes
    assert content(server) == clean


def test_a_slow_server_is_waited_for(server, target, root, clean):  # noqa: F811
    server.http.latency = 0.2
    assert run_load(target, root).exit_code == 0
    assert content(server) == clean


@pytest.mark.parametrize("endpoint", ["stream", "upload"])
def test_what_did_not_arrive_is_not_complete(server, target, root, clean, quick, monkeypatch, endpoint):  # noqa: F811
    monkeypatch.setattr(
        sending, "_RETRIES", {n: 1 if n.endswith("retry_max") else v for n, v in sending._RETRIES.items()}
    )
    monkeypatch.setattr("neptune_exporter.loaders.wandb.online._WAITS", (0.1,))
    monkeypatch.setattr("neptune_exporter.loaders.wandb.online.QUIET_SECONDS", 0.1)
    server.http.faults = [Fault(ENDPOINTS[endpoint], times=None, status=500)]
    report = run_load(target, root)
    assert report.exit_code == 3
    assert report.outcomes[0].status == "failed"
    assert not is_marked(server)
    server.http.faults = []
    assert run_load(target, root).exit_code == 0
    assert content(server) == clean


# --- kill -9


def command(running: WandbServer, root: Path, way: str) -> list[str]:
    return [
        *(sys.executable, "-m", "neptune_exporter", "load", "--loader", "wandb", "--no-progress", "--workers", "1"),
        *("--data-path", str(root / "data"), "--files-path", str(root / "files"), "--wandb-way", way),
        *("--wandb-base-url", running.url, "--wandb-api-key", API_KEY, "--wandb-entity", ENTITY),
    ]


def kill_when(running: WandbServer, root: Path, way: str, folder: Path, ready: Any) -> bool:
    """Starts the command and kills it as soon as `ready()` is true; whether it was in time."""
    environment = {**os.environ, **client_environment(folder), "TMPDIR": str(folder)}
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(command(running, root, way), env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not ready():
        time.sleep(0.001)
    process.kill()
    process.wait()
    return not is_marked(running)


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


@needs_kill
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("requests", [3, 6, 11])
def test_kill_9_after_any_request_then_a_load_equals_the_clean_one(
    server,  # noqa: F811
    target,  # noqa: F811
    root,
    clean,
    tmp_path,
    way,
    requests,
):
    server.http.latency = 0.05
    assert kill_when(server, root, way, tmp_path / "killed", lambda: len(server.http.log) >= requests)
    server.http.latency = 0.0
    assert run_load(target, root, wandb_way=way).exit_code == 0
    assert content(server) == clean


LARGE = 120_000  # wandb-core sends at most about 98,000 of these rows at once


def posted(running: WandbServer) -> int:
    return sum(len(run.history) for run in running.runs.all())


@needs_kill
@pytest.mark.parametrize("way", WAYS)
def test_kill_9_in_the_middle_of_the_rows_goes_on_where_it_stopped(server, target, tmp_path, way):  # noqa: F811
    values = np.arange(LARGE) / 7
    stage(tmp_path / "area", "RUN-1", floats(REF, "loss", values))
    server.http.latency = 0.1
    # Logs are always what is killed: `run.log` hands over its rows in one piece, too late for a kill in between.
    assert kill_when(server, tmp_path / "area", "log", tmp_path / "killed", lambda: posted(server) > 1000)
    run = server.run(ID)
    server.http.latency = 0.0
    before = list(run.history)
    assert 0 < len(before) < LARGE
    assert not is_marked(server)
    assert run_load(target, tmp_path / "area", wandb_way=way).exit_code == 0
    assert run.history[: len(before)] == before
    assert len(run.history) == LARGE
    rows = run.rows
    assert [row["_step"] for row in rows] == list(range(LARGE))
    assert [row["loss"] for row in rows] == values.tolist()
    assert all(a["_timestamp"] < b["_timestamp"] for a, b in pairwise(rows))
    assert run.torn == 0


# --- generations


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_export_is_the_next_generation_and_the_old_run_is_marked(server, target, root, way):  # noqa: F811
    run_load(target, root, wandb_way=way)
    before = seen_by_server(server, ID).history
    stage_one(root, name="lion")
    assert run_load(target, root, wandb_way=way).exit_code == 0
    old, new = server.run(ID), server.run(run_id(REF, 2))
    assert new.values["params/name"] == "lion"
    assert new.values["neptune"]["generation"] == 2
    assert new.values["neptune"]["load"]["state"] == "complete"
    assert old.values["neptune"]["load"] == {
        **old.values["neptune"]["load"],
        "state": "superseded",
        "by": new.name,
    }
    assert old.tags == ["a", "superseded"]
    assert old.values["params/name"] == "adam"
    assert seen_by_server(server, ID).history == before
    assert run_load(target, root, wandb_way=way).count("skipped") == 1


def test_an_export_that_is_again_what_it_was_is_a_third_generation(server, target, root):  # noqa: F811
    for name in ("adam", "lion", "adam"):
        stage_one(root, name=name)
        assert run_load(target, root).count("done") == 1
    states = [run.values["neptune"]["load"]["state"] for run in server.runs.all()]
    assert states == ["superseded", "superseded", "complete"]


def test_the_old_generation_is_marked_by_the_next_load_where_the_first_could_not(server, target, root):  # noqa: F811
    run_load(target, root)
    marked = dict(server.run(ID).config)
    stage_one(root, name="lion")
    run_load(target, root)
    server.run(ID).config = marked
    server.run(ID).tags = ["a"]
    assert not target.loader().states(PROJECT).runs[REF].complete
    posted = server.http.counts["POST /files/tester/acme-vision/" + run_id(REF, 2) + "/file_stream"]
    assert run_load(target, root).count("done") == 1
    assert server.http.counts["POST /files/tester/acme-vision/" + run_id(REF, 2) + "/file_stream"] == posted
    assert server.run(ID).values["neptune"]["load"]["state"] == "superseded"
    assert target.loader().states(PROJECT).runs[REF].complete


def test_an_interrupted_load_of_an_older_export_is_left_behind(server, target, root):  # noqa: F811
    loader = target.loader()
    staged = areas.staging(root).run(REF)
    from neptune_exporter.load import to_load

    loader.start(to_load(staged, Selection()), 1).abort()
    stage_one(root, name="lion")
    assert run_load(target, root).count("done") == 1
    assert server.run(ID).values["neptune"]["load"]["state"] == "superseded"
    assert is_marked(server, run_id(REF, 2))


def test_an_id_that_was_deleted_is_never_used_again(server, target, root):  # noqa: F811
    server.runs.deleted = {ID, run_id(REF, 2)}
    assert run_load(target, root).count("done") == 1
    assert [run.name for run in server.runs.all()] == [run_id(REF, 3)]
    assert run_load(target, root).count("skipped") == 1


def test_a_run_of_somebody_else_under_our_id_is_left_alone(server, target, root):  # noqa: F811
    client_of_ours.Server(server.url, API_KEY).upsert(
        client_of_ours.RunName(ENTITY, "acme-vision", ID), config={"mine": {"value": 1}}
    )
    assert run_load(target, root).count("done") == 1
    assert server.run(ID).config == {"mine": {"value": 1}}
    assert is_marked(server, run_id(REF, 2))


def test_rows_of_somebody_else_in_our_run_are_noticed(server, target, root):  # noqa: F811
    from neptune_exporter.load import to_load

    staged = areas.staging(root).run(REF)
    loader = target.loader(wandb_way="log")
    sink = loader.start(to_load(staged, Selection()), 1)
    for batch in staged.read("step"):
        sink.write(batch)
    server.run(ID).history.append('{"_step": 0}')
    with pytest.raises(Exception, match="another load is at work"):
        sink.commit()
    sink.abort()
    assert len(server.run(ID).history) == 1
    server.run(ID).history *= 500
    assert "has 500 rows" in run_load(target, root, wandb_way="log").outcomes[0].reason
    assert not is_marked(server)


# --- offline


def wandb_sync(running: WandbServer, folder: Path, *paths: Path) -> None:
    environment = {**os.environ, **client_environment(folder), "WANDB_BASE_URL": running.url, "WANDB_API_KEY": API_KEY}
    program = Path(sys.executable).parent / "wandb"
    command = [str(program), "sync", *(str(path.absolute()) for path in paths)]
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)  # it logs where it runs


@pytest.mark.parametrize("way", WAYS)
def test_offline_logs_are_sent_by_wandb_sync_and_then_only_marked(
    server,  # noqa: F811
    target,  # noqa: F811
    root,
    clean,
    tmp_path,
    way,
):
    report = run_load(target, root, wandb_way=way, wandb_mode="offline")
    assert report.exit_code == 0
    assert f"wandb sync {target.folder}/wandb/offline-run-*" in report.after
    (folder,) = (target.folder / "wandb").glob("offline-run-*")
    assert server.http.log == []
    wandb_sync(server, tmp_path, folder)
    assert not is_marked(server)
    assert len(server.run(ID).history) == 200
    assert run_load(target, root, wandb_way=way, wandb_mode="offline").count("skipped") == 1
    assert run_load(target, root, wandb_way=way).count("done") == 1
    assert content(server) == clean


def test_an_offline_folder_is_replaced_by_the_next_generation_unless_it_was_sent(
    server,  # noqa: F811
    target,  # noqa: F811
    root,
    tmp_path,
):
    folders = target.folder / "wandb"
    for name in ("adam", "lion"):
        stage_one(root, name=name)
        assert run_load(target, root, wandb_mode="offline").count("done") == 1
    (second,) = folders.glob("offline-run-*")
    assert seen_in_log(next(second.glob("*.wandb"))).config["params/name"] == "lion"
    wandb_sync(server, tmp_path, second)
    stage_one(root, name="sgd")
    assert run_load(target, root, wandb_mode="offline").count("done") == 1
    assert len(list(folders.glob("offline-run-*"))) == 2
    assert run_load(target, root, wandb_mode="offline").count("skipped") == 1


@needs_kill
@pytest.mark.parametrize("way", WAYS)
def test_kill_9_offline_leaves_nothing_that_wandb_sync_would_send(server, target, tmp_path, way):  # noqa: F811
    root = tmp_path / "area"
    count = LARGE if way == "log" else LARGE // 20
    stage(root, "RUN-1", floats(REF, "loss", np.arange(count) / 7))
    logs = target.folder / "wandb"
    environment = {**os.environ, **client_environment(tmp_path), "TMPDIR": str(tmp_path)}
    more = ["--wandb-mode", "offline", "--wandb-dir", str(target.folder)]
    process = subprocess.Popen([*command(server, root, way), *more], env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(
        logs.glob("offline-run-*/writing" if way == "log" else "offline-run-*/client")
    ):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not list(logs.glob("*/*.wandb"))
    assert not target.loader(wandb_mode="offline").states(PROJECT).runs
    assert run_load(target, root, wandb_way=way, wandb_mode="offline").count("done") == 1
    (log,) = logs.glob("*/*.wandb")
    assert [int(row["_step"]) for row in seen_in_log(log).history] == list(range(count))
    assert server.http.log == []


# --- settings


def test_a_wrong_key_ends_the_command(server, target, root):  # noqa: F811
    with pytest.raises(TargetAccessError, match="refuses our API key"):
        run_load(target, root, wandb_api_key="x" * 40)


def test_no_key_at_all(server, target, root):  # noqa: F811
    with pytest.raises(TargetAccessError, match="no API key"):
        run_load(target, root, wandb_api_key="")


def test_the_key_that_wandb_login_has_stored(server, target, root, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n login user\n password {API_KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert run_load(target, root, wandb_api_key="", wandb_entity="").exit_code == 0
    assert is_marked(server)


def test_a_server_that_is_not_there(target, root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(client_of_ours, "ATTEMPTS", 2)
    report = run_load(target, root, wandb_base_url="http://127.0.0.1:9")
    assert report.exit_code == 1
    assert "No W&B server answers at http://127.0.0.1:9" in report.errors[0].message


def test_another_version_of_wandb_is_used_by_run_log(server, target, root, clean, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sending, "installed_version", lambda: "0.99.0")
    monkeypatch.setattr(sending, "sync", None)
    assert run_load(target, root).exit_code == 0
    assert content(server) == clean
    with pytest.raises(UsageError, match=r"not with 0\.99\.0"):
        target.loader(wandb_way="log")


def test_projects_by_experiment(server, target, root):  # noqa: F811
    assert run_load(target, root, wandb_project_by="experiment").count("done") == 1
    assert server.run().project == "acme-vision-RUN-1"
    assert run_load(target, root, wandb_project_by="experiment").count("skipped") == 1
    assert target.loader(wandb_project_by="experiment").states(PROJECT).runs[REF].complete


def test_one_project_for_all_and_a_prefix(server, target, root):  # noqa: F811
    options = target.options(wandb_project="mine/all")
    report = load("wandb", options, LoadOptions("old-"), areas.staging(root), Selection(), workers=1)
    assert report.count("done") == 1
    assert server.run().project == "old-mine-all"


def test_nothing_stays_in_temporary_folders(server, target, root, temporary_folder):  # noqa: F811
    for way in WAYS:
        run_load(target, root, wandb_way=way, wandb_project=way)
    loader = target.loader(wandb_project="third")
    from neptune_exporter.load import to_load

    staged = areas.staging(root).run(REF)
    sink = loader.start(to_load(staged, Selection()), 1)
    batches = staged.read("step")
    sink.write(next(batches))
    batches.close()
    sink.abort()
    assert [path for path in temporary_folder.iterdir() if path.name.startswith("neptune-exporter")] == []


def test_several_processes_load_at_once(server, target, root):  # noqa: F811
    refs = [RunRef(PROJECT, f"RUN-{n}") for n in range(2, 8)]
    for ref in refs:
        stage(root, ref.run_id, floats(ref, "loss", [1.0, 2.0]))
    report = load("wandb", target.options(), LoadOptions(), areas.staging(root), Selection(), workers=2)
    assert report.count("done") == 7
    assert all(is_marked(server, run_id(ref, 1)) for ref in refs)
