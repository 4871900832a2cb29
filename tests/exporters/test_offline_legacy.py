# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Offline data of the 1.x client: what the real client logged comes home, also from old layouts and damaged copies."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import boto3
import pytest
from collect2 import Home, set_zone
from truth2 import (
    QUIET,
    START,
    Truth,
    Value,
    exact,
    log_all_series,
    log_atoms,
    log_files,
    log_series,
    picture,
    single,
    without_lists,
)

from neptune_exporter.exporters.offline_legacy.log import Log
from neptune_exporter.model import RunRef

PROJECT = "team/old"
ADDED = ("sys/", "source_code/")


def own(values):
    return {v for v in without_lists(values) if not v.path.startswith(ADDED)}


def without_image_times(values):
    """The client does not let us choose the times of images here."""
    return {v._replace(time=None) if v.type == "file_series" else v for v in values}


def export(home: Home, folder: Path, *arguments: str, project: str | None = PROJECT) -> int:
    return home.run("export", "--exporter", "offline", "--offline-path", str(folder), *arguments, project=project)


def offline_run(**options):
    import neptune

    return neptune.init_run(mode="offline", git_ref=False, source_files=[], **{**QUIET, **options})


def only_run(home: Home, kind="run"):
    (run,) = home.staging.folder(PROJECT, kind).runs()
    return run


def found_in(home: Home, kind="run"):
    return home.values(only_run(home, kind).ref.run_id, kind, PROJECT)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A folder in which the real client has logged everything, and what it was given."""
    folder = tmp_path_factory.mktemp("logged")
    truth = Truth()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = offline_run(name="the name", tags=["a", "ß"])
        log_atoms(run, truth)
        log_all_series(run, truth)
        log_files(run, truth, folder)
        run.stop()
    return folder, truth


@pytest.fixture(scope="module")
def home(logged, tmp_path_factory) -> Home:
    home = Home(tmp_path_factory.mktemp("exported"))
    assert export(home, logged[0] / ".neptune") == 0
    return home


def store_of(folder: Path, mode: str = "offline") -> Path:
    (store,) = (folder / ".neptune" / mode).iterdir()
    return store


def test_every_value_step_and_time_is_what_was_logged(logged, home):
    found, expected = without_image_times(own(found_in(home))), logged[1].values
    assert not expected - found, sorted(expected - found, key=str)[:5]
    assert not found - expected, sorted(found - expected, key=str)[:5]


def test_the_run_is_complete_and_knows_who_it_is(logged, home):
    run = only_run(home)
    container = json.loads((store_of(logged[0]) / "metadata.json").read_text())["containerId"]
    assert run.status == "complete"
    assert run.ref == RunRef(PROJECT, f"offline-{container}")
    assert (run.info.name, run.info.failed) == ("the name", False)
    assert run.info.created is not None
    assert single("sys/tags", "string_set", frozenset({"a", "ß"})) in found_in(home)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_losses_10_times_do_not_depend_on_the_time_zone(logged, home, tmp_path, zone):
    set_zone(zone)
    try:
        other = Home(tmp_path)
        assert export(other, logged[0] / ".neptune", "-c", "metrics", "-c", "series", "-c", "parameters") == 0
        created = only_run(other).info.created
    finally:
        set_zone(None)
    assert own(found_in(other)) == {v for v in logged[1].values if v.type in KEPT}
    assert created == only_run(home).info.created


def test_images_keep_steps_times_names_and_descriptions(tmp_path, monkeypatch):
    from neptune.types import File

    monkeypatch.chdir(tmp_path)
    run = offline_run()
    for n, step in enumerate((None, 5.5, None)):
        image = File.from_content(picture(n), extension="png")
        run["images"].append(image, step=step, timestamp=START + n, name=f"n{n}", description=f"d{n}")
    run.stop()
    home = Home(tmp_path / "home")
    assert export(home, tmp_path / ".neptune") == 0
    steps = [Decimal(0), Decimal("5.5"), Decimal("6.5")]
    assert {v for v in found_in(home) if v.path == "images"} == {
        Value("images", "file_series", step, int((START + n) * 1000), exact(picture(n))) for n, step in enumerate(steps)
    }
    records = home.records(only_run(home).ref.run_id, project=PROJECT)
    assert {r["string_value"] for r in records if r["attribute_path"] == "images"} == {"n0: d0", "n1: d1", "n2: d2"}


def test_what_was_cleared_or_deleted_does_not_come_back(tmp_path, monkeypatch):
    from neptune.types import FloatSeries

    monkeypatch.chdir(tmp_path)
    truth = Truth()
    run = offline_run()
    run["a"].extend([1.0, 2.0, 3.0])
    run["a"] = FloatSeries([7.0, 8.0], timestamps=[START, START])
    truth.values |= {
        Value("a", "float_series", Decimal(n), int(START * 1000), exact(value)) for n, value in enumerate((7.0, 8.0))
    }
    run["gone/x"] = 1
    run["gone/y"].append(1.0)
    del run["gone"]
    run["changed"] = 1
    del run["changed"]
    log_series(run, truth, "changed", [None, None], ["now", "text"])
    run["words"].add(["a", "b", "c"])
    run["words"].remove(["b"])
    truth.values.add(single("words", "string_set", frozenset({"a", "c"})))
    run["number"] = 1
    run["number"] = 2
    truth.values.add(single("number", "int", 2))
    run["cleared"].append(1.0)
    run["cleared"].assign(FloatSeries([]))
    run.stop()
    home = Home(tmp_path / "home")
    assert export(home, tmp_path / ".neptune") == 0
    assert own(found_in(home)) == truth.values
    empty = {a.path for a in only_run(home).attributes() if a.rows == 0}
    assert empty - {"source_code/files"} == {"cleared"}


def test_file_sets_follow_resets_globs_and_removals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "c.bin", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    run = offline_run()
    run["globbed"].upload_files("*.txt")
    run["added"].upload_files("a.txt")
    run["added"].upload_files("sub")
    run["added"].delete_files(["a.txt"])
    run.stop()
    outside = tmp_path / "elsewhere"
    home = Home(tmp_path / "home")
    assert export(home, tmp_path / ".neptune") == 0
    assert {v.value[1] for v in found_in(home) if v.path == "globbed"} == {("a.txt", b"a.txt"), ("b.txt", b"b.txt")}
    assert {v.value[1] for v in found_in(home) if v.path == "added"} == {("sub/d.txt", b"sub/d.txt")}
    # Everything is moved: --path-map finds it again, and without it what is missing is named.
    outside.mkdir()
    for name in ("a.txt", "b.txt", "sub", ".neptune"):
        shutil.move(tmp_path / name, outside / name)
    moved = Home(tmp_path / "moved")
    assert export(moved, outside / ".neptune", "--path-map", f"{tmp_path}={outside}") == 0
    assert {v for v in found_in(moved) if v.type == "file_set"} == {v for v in found_in(home) if v.type == "file_set"}
    lost = Home(tmp_path / "lost")
    assert export(lost, outside / ".neptune") == 3
    assert {(p.attribute, p.kind) for p in only_run(lost).problems} == {("globbed", "retry"), ("added", "retry")}


def test_artifacts_in_s3(tmp_path, monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    try:
        client.create_bucket(Bucket="data")
        for key in ("set/a", "set/sub/b", "alone.bin"):
            client.put_object(Bucket="data", Key=key, Body=key.encode())
        monkeypatch.chdir(tmp_path)
        run = offline_run()
        run["set"].track_files("s3://data/set")
        run["set"].track_files("s3://data/alone.bin", destination="more")
        run.stop()
        home = Home(tmp_path / "home")
        assert export(home, tmp_path / ".neptune", "--s3-endpoint-url", f"http://{host}:{port}") == 0
    finally:
        server.stop()
    assert {v.value[1] for v in without_lists(found_in(home)) if v.path == "set"} == {
        ("a", b"set/a"), ("sub/b", b"set/sub/b"), ("more/alone.bin", b"alone.bin"),
    }  # fmt: skip


# --- async and sync folders, and older layouts


UNSYNCED = """
import os, signal, neptune
from neptune.types import File
quiet = dict(git_ref=False, source_files=[], capture_stdout=False, capture_stderr=False,
    capture_hardware_metrics=False, capture_traceback=False)
for mode in ("sync", "debug"):  # these leave nothing
    with neptune.init_run(project="team/old", mode=mode, **quiet) as run:
        run["loss"].append(1.0)
run = neptune.init_run(project="team/old", mode="async", flush_period=600, **quiet)
for n in range(1000):
    run["loss"].append(float(n), timestamp=1700000000.25)
run["memory"].upload(File.from_content(b"in memory", extension="bin"))
model = neptune.init_model(project="team/old", key="MOD", mode="async", flush_period=600)
model["params/size"] = 7
version = neptune.init_model_version(project="team/old", model="OLD-MOD", mode="async", flush_period=600)
version["acc"].append(0.5, timestamp=1700000000.25)
version["weights"].upload(File.from_content(b"weights", extension="pt"))
project = neptune.init_project(project="team/old", mode="async", flush_period=600)
project["note"] = "of all runs"
for container in (run, model, version, project):
    container._op_processor.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def unsynced(tmp_path_factory):
    """What a script leaves, in every mode but offline, that is killed before the server has taken everything."""
    from servers.neptune2 import Neptune2Server

    folder = tmp_path_factory.mktemp("unsynced")
    with Neptune2Server() as server:
        server.store.add_project("team/old", "OLD")
        process = subprocess.run(
            [sys.executable, "-c", UNSYNCED],
            env={**os.environ, "NEPTUNE_API_TOKEN": server.api_token, "OAUTHLIB_INSECURE_TRANSPORT": "1"},
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
        ids = {name: server.store.container(f"team/old/{name}").id for name in ("OLD-2", "OLD-MOD", "OLD-MOD-1")}
    return folder, [argument for name, id_ in ids.items() for argument in ("--run-id-map", f"{id_}={name}")]


def test_async_folders_hold_what_no_server_has(unsynced, tmp_path):
    folder, ids = unsynced
    home = Home(tmp_path / "home")
    code = export(home, folder / ".neptune", *ids)
    run = home.staged("OLD-2", project=PROJECT)
    losses = [p for p in run.problems if "never reached the disk" in p.message]
    assert code == (3 if run.problems else 0)
    found = home.values("OLD-2", project=PROJECT)
    points = sorted(v.step for v in found if v.path == "loss")
    assert len(points) + sum(p.count for p in losses) >= 1000, "every point is there or counted as lost"
    assert points == [Decimal(n) for n in range(len(points))]
    assert single("memory", "file", b"in memory") in found or losses
    (of_project,) = home.run_ids(project=PROJECT) - {"OLD-2"}
    assert single("note", "string", "of all runs") in home.values(of_project, project=PROJECT)


def test_async_folders_of_models_and_versions(unsynced, tmp_path):
    folder, ids = unsynced
    home = Home(tmp_path / "home")
    arguments = ["--exporter", "offline", "--offline-path", str(folder / ".neptune")]
    assert home.run("export-models", *arguments, *ids, project=PROJECT) == 0
    assert single("params/size", "int", 7) in home.values("OLD-MOD", "model", PROJECT)
    found = home.values("OLD-MOD-1", "model_version", PROJECT)
    assert Value("acc", "float_series", Decimal(0), int(START * 1000), exact(0.5)) in found
    assert single("weights", "file", b"weights") in found


def test_sync_folders_hold_nothing_but_buffers(tmp_path, monkeypatch, capsys):
    store = tmp_path / ".neptune" / "sync" / "run__01234567-89ab-cdef-0123-456789abcdef__1__abcdefgh"
    (store / "upload_path").mkdir(parents=True)
    (store / "metadata.json").write_text(json.dumps({"mode": "sync", "containerId": "x", "containerType": "run"}))
    assert export(Home(tmp_path / "home"), tmp_path / ".neptune") == 1
    assert "No offline Neptune data found" in capsys.readouterr().err
    (store / "upload_path" / "files_model-1.0-2024-01-01_00.00.00.0.pt").write_bytes(b"weights")
    home = Home(tmp_path / "home")
    assert export(home, tmp_path / ".neptune") == 3
    assert {v.value for v in found_in(home) if v.type == "file"} == {exact(b"weights")}
    assert "does not name" in only_run(home).problems[0].message


@pytest.mark.parametrize(
    "layout", ["run__{id}__1__abcdefgh", "run__{id}", "{id}", "run__{id}/exec-1-2020", "{id}/exec-1-2020-x"]
)
@pytest.mark.parametrize("with_metadata", [True, False])
def test_older_layouts(logged, home, tmp_path, layout, with_metadata):
    container = only_run(home).ref.run_id.removeprefix("offline-")
    target = logged[0] / "layouts" / tmp_path.name / ".neptune" / "async" / layout.format(id=container)
    shutil.copytree(store_of(logged[0]), target)
    if not with_metadata:
        (target / "metadata.json").unlink()
    other = Home(tmp_path)
    assert export(other, target.parents[1], "-c", "parameters", "-c", "metrics", "-c", "series") == 0
    assert only_run(other).ref == only_run(home).ref
    files = {"file", "file_series", "file_set", "artifact"}
    assert own(found_in(other)) == {v for v in logged[1].values if v.type not in files}


def records_of(store: Path) -> list[str]:
    (log,) = store.glob("data-*.log")
    return log.read_text().splitlines(keepends=True)


def test_logs_in_many_segments(logged, home, tmp_path):
    copy = tmp_path / ".neptune"
    shutil.copytree(logged[0] / ".neptune", copy)
    (store,) = (copy / "offline").iterdir()
    lines = records_of(store)
    (store / "data-1.log").unlink()
    for start in range(0, len(lines), 7):
        (store / f"data-{start + 1}.log").write_text("".join(lines[start : start + 7]))
    other = Home(tmp_path / "home")
    assert export(other, copy, "--path-map", f"{tmp_path}={logged[0]}", "--exclude", "files") == 0
    assert own(found_in(other)) == {v for v in own(found_in(home)) if v.type in KEPT}


KEPT = {"int", "float", "bool", "string", "datetime", "string_set", "float_series", "string_series"}


def test_several_executions_of_one_run_are_one(tmp_path):
    """A run that was resumed: the second folder goes on where the first ended."""
    container = "01234567-89ab-cdef-0123-456789abcdef"
    for number, (first, second) in enumerate(((1.0, 2.0), (3.0, 4.0)), 1):
        store = tmp_path / ".neptune" / "async" / f"run__{container}" / f"exec-{number}-x"
        store.mkdir(parents=True)
        write(store, [floats("x", [first, second]), assign("n", number)])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path / ".neptune") == 0
    assert {(v.step, v.value) for v in found_in(home) if v.path == "x"} == {
        (Decimal(n), exact(float(n + 1))) for n in range(4)
    }
    assert single("n", "int", 2) in found_in(home)


# --- by hand


def assign(path: str, value, kind: str = "AssignInt") -> dict:
    return {"type": kind, "path": path.split("/"), "value": value}


def floats(path: str, values, steps=None, kind: str = "LogFloats") -> dict:
    steps = steps or [None] * len(values)
    points = [{"value": v, "step": s, "ts": START} for v, s in zip(values, steps, strict=True)]
    return {"type": kind, "path": path.split("/"), "values": points}


def write(store: Path, operations: list[dict], *, first: int = 1, put: int | None = None) -> None:
    """A log as the client writes it."""
    lines = [json.dumps({"obj": o, "version": first + n, "at": START}) + "\n" for n, o in enumerate(operations)]
    (store / f"data-{first}.log").write_text("".join(lines))
    (store / "last_put_version").write_text(str(put if put is not None else first + len(operations) - 1))
    (store / "last_ack_version").write_text("")


@pytest.fixture
def store(tmp_path) -> Path:
    folder = tmp_path / ".neptune" / "offline" / "run__01234567-89ab-cdef-0123-456789abcdef__1__abcdefgh"
    folder.mkdir(parents=True)
    return folder


def problems(home: Home) -> list[tuple[str, int]]:
    return [(p.message.split(": ", 1)[1], p.count) for p in only_run(home).problems]


def test_a_torn_end_is_said_and_costs_only_itself(store, tmp_path):
    write(store, [assign("a", 1), floats("x", [1.0, 2.0]), assign("b", 2)])
    log = store / "data-1.log"
    log.write_bytes(log.read_bytes()[:-20])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    assert {v.path for v in found_in(home)} == {"a", "x"}
    assert problems(home) == [
        ("the last record is cut off.", 1),
        ("the last 1 operations were logged, but never reached the disk.", 1),
    ]


def test_operations_that_never_reached_the_disk_are_counted(store, tmp_path):
    write(store, [assign("a", 1)], put=49)
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    assert problems(home) == [("the last 48 operations were logged, but never reached the disk.", 48)]


def test_a_record_that_was_torn_and_gone_on_after(store, tmp_path):
    """The client appends to a torn line when it is started again."""
    write(store, [floats("x", [1.0]), floats("x", [2.0]), assign("a", 1)])
    lines = (store / "data-1.log").read_text().splitlines()
    (store / "data-1.log").write_text(f"{lines[0]}\n{lines[1][:30]}{lines[1]}\n\0\0\0{lines[2]}\n")
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    assert sorted(v.value for v in found_in(home) if v.path == "x") == sorted([exact(1.0), exact(2.0)])
    assert single("a", "int", 1) in found_in(home)
    assert problems(home) == [("1 records cannot be read.", 1)]


def test_a_missing_segment_is_counted(store, tmp_path):
    write(store, [assign("a", 1)])
    write(store, [assign("b", 1)], first=11)
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    assert problems(home) == [("9 operations are missing within the log.", 9)]


def test_the_front_that_a_server_has_confirmed_is_no_loss(store, tmp_path):
    write(store, [assign("b", 1)], first=11)
    (store / "last_ack_version").write_text("10")
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 0
    (store / "last_ack_version").write_text("4")
    other = Home(tmp_path / "other")
    assert export(other, tmp_path) == 3
    assert problems(other) == [("the first 6 operations are missing, and no server had confirmed them.", 6)]


def test_a_missing_buffer_of_a_file_is_named(store, tmp_path):
    upload = {"type": "UploadFile", "path": ["f"], "ext": "bin", "file_path": None, "tmp_file_name": "f-1.bin"}
    write(store, [upload, {**upload, "path": ["g"], "tmp_file_name": "../../g-1.bin"}, assign("a", 1)])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    assert {p.attribute for p in only_run(home).problems} == {"f", "g"}


def test_content_in_the_log_itself(store, tmp_path):
    content = base64.b64encode(b"old style").decode()
    operation = {"type": "UploadFileContent", "path": ["f"], "ext": "txt", "file_content": content}
    write(store, [operation])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 0
    assert single("f", "file", b"old style") in found_in(home)


def test_what_the_schema_refuses_is_kept_beside_the_run(store, tmp_path):
    write(
        store,
        [
            floats("x", [1.0, 2.0, 3.0], [1e-7, 0.5, 1e13]),
            floats("log", ["fine", "x\ud800"], kind="LogStrings"),
            assign("s", "y\udfff", "AssignString"),
            assign("big", 2**70),
        ],
    )
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    beside = [json.loads(line) for line in only_run(home).extra().splitlines()]
    assert {(b["attribute"], b["value"] if isinstance(b["value"], str) else int(b["value"])) for b in beside} == {
        ("x", "1.0"), ("x", "3.0"), ("log", "x\ud800"), ("s", "y\udfff"), ("big", 2**70),
    }  # fmt: skip
    assert {(v.path, v.step) for v in found_in(home)} == {("x", Decimal("0.5")), ("log", Decimal(0))}


def test_values_that_are_no_number(store, tmp_path):
    """Python's JSON writes NaN and Infinity bare."""
    write(store, [floats("x", [float("nan"), float("inf"), -0.0]), assign("p", float("-inf"), "AssignFloat")])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 0
    values = {(v.path, v.step): v.value for v in found_in(home)}
    assert values["x", Decimal(0)] == "nan"
    assert values["x", Decimal(1)] == exact(float("inf"))
    assert values["x", Decimal(2)] == exact(-0.0)
    assert values["p", None] == exact(float("-inf"))


def test_points_that_are_not_whole(store, tmp_path):
    """As no client writes them: without a time, without a value, with one that is none, and what is no point at all."""
    points = [{"value": 1.0, "step": 0}, {"step": 1, "ts": START}, {"value": "2", "step": "two", "ts": START}, 7]
    write(store, [{"type": "LogFloats", "path": ["x"], "values": points}, floats("y", [10**400], [1])])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    values = {(v.path, v.step, v.time): v.value for v in found_in(home) if v.path in "xy"}
    assert values == {("x", Decimal(0), None): exact(1.0), ("x", Decimal(2), int(START * 1000)): exact(2.0)}
    assert {(p.attribute, p.message) for p in only_run(home).problems} == {
        ("x", "A point without a value."),
        ("y", "A point without a value."),
    }


def test_unknown_operations_and_copies_from_elsewhere_are_named(store, tmp_path):
    copy = {"type": "CopyAttribute", "container_type": "run", "source_attr_name": "Integer"}
    write(
        store,
        [
            assign("a", 1),
            {**copy, "path": ["b"], "container_id": "01234567-89ab-cdef-0123-456789abcdef", "source_path": ["a"]},
            {**copy, "path": ["c"], "container_id": "another", "source_path": ["a"]},
            {"type": "AssignHologram", "path": ["d"], "value": 1},
        ],
    )
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 3
    assert single("b", "int", 1) in found_in(home)
    assert {p.attribute for p in only_run(home).problems} == {"c", None}


def test_one_million_points_in_blocks_of_all_sizes(store, tmp_path, monkeypatch):
    """Counted steps go on from block to block; explicit ones in between start anew."""
    from neptune_exporter.exporters.offline_legacy import log as module

    monkeypatch.setattr(module, "BLOCK_BYTES", 10_000)
    operations = [floats(f"s{n % 3}", [float(n)], [None if n % 10 else float(n)]) for n in range(3_000)]
    write(store, operations)
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 0
    expected, last = set(), {}
    for n in range(3_000):
        path = f"s{n % 3}"
        last[path] = n if n % 10 == 0 else last.get(path, -1) + 1
        expected.add(
            Value(path, "float_series", Decimal(last[path]).normalize() + 0, int(START * 1000), exact(float(n)))
        )
    assert found_in(home) == expected


# --- project, ids, states


def test_a_project_must_be_named(store, tmp_path, capsys):
    write(store, [assign("a", 1)])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path, project=None) == 1
    shown = capsys.readouterr().err
    assert "does not say to which project it belongs (1 run)" in shown
    assert "-p ORG/PROJECT" in shown
    assert export(home, tmp_path, "--offline-project", PROJECT, project=None) == 0
    assert only_run(home).ref.project_id == PROJECT


def test_a_map_that_is_none(store, tmp_path, capsys):
    write(store, [assign("a", 1)])
    assert export(Home(tmp_path / "home"), tmp_path, "--run-id-map", "nonsense") == 2
    assert "not of the form UUID=ID" in capsys.readouterr().err


def test_a_folder_that_nobody_can_name_is_an_error(tmp_path, capsys):
    store = tmp_path / "somewhere"
    store.mkdir()
    write(store, [assign("a", 1)])
    assert export(Home(tmp_path / "home"), store) == 1
    assert "nothing says of which run" in capsys.readouterr().err


def test_exported_again_it_is_skipped_and_what_was_added_is_done(store, tmp_path, capsys):
    write(store, [floats("x", [1.0])])
    home = Home(tmp_path / "home")
    assert export(home, tmp_path) == 0
    capsys.readouterr()
    assert export(home, tmp_path) == 0
    assert "1 skipped" in capsys.readouterr().out
    write(store, [floats("x", [1.0]), floats("x", [2.0])])
    assert export(home, tmp_path) == 0
    assert len(found_in(home)) == 2


def test_models_go_where_models_go(tmp_path):
    store = tmp_path / ".neptune" / "async" / "model__01234567-89ab-cdef-0123-456789abcdef__1__abcdefgh"
    store.mkdir(parents=True)
    write(store, [assign("a", 1)])
    home = Home(tmp_path / "home")
    arguments = ["--exporter", "offline", "--offline-path", str(tmp_path / ".neptune")]
    assert home.run("export-models", *arguments, project=PROJECT) == 0
    assert single("a", "int", 1) in found_in(home, "model")


def test_nothing_of_the_users_is_touched(logged, tmp_path):
    def tree():
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in (logged[0] / ".neptune").rglob("*")}

    before = tree()
    assert export(Home(tmp_path), logged[0] / ".neptune") == 0
    assert tree() == before


def test_verify_compares_with_the_folders(home, logged):
    source = ("--exporter", "offline", "--offline-path", str(logged[0] / ".neptune"))
    assert home.run("verify", "--read-data", *source, project=PROJECT) == 0


def test_a_glimpse_tells_the_name(store):
    write(store, [assign("sys/name", "first", "AssignString"), *[floats("x", [1.0])] * 20_000])
    assert [r.path for r in Log(store).glimpse() if r.type == "AssignString"] == ["sys/name"]
