# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Neptune 2.x: what the real client logged to a server comes home value by value and byte by byte."""

from __future__ import annotations

import json
from decimal import Decimal

import boto3
import pytest
from collect2 import PROJECT, Home, serving, set_zone
from truth2 import QUIET, Truth, log_all_series, log_atoms, log_files, millis, single, without_lists

SYSTEM = ("sys/", "source_code/")


def own(values):
    """Values without those that the server and the client add by themselves."""
    return {v for v in values if not v.path.startswith(SYSTEM)}


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("S3_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="models")
        yield client
    server.stop()


@pytest.fixture(scope="module")
def logged(tmp_path_factory, bucket):
    """A server that the real client has written to, and what it was given."""
    import neptune.management

    folder = tmp_path_factory.mktemp("logged")
    truths: dict[str, Truth] = {}
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = neptune.init_run(project=PROJECT, name="all of it ☃", tags=["a", "größe"], custom_run_id="mine", **QUIET)
        truth = truths["DEMO-1"] = Truth()
        log_atoms(run, truth)
        log_all_series(run, truth)
        log_files(run, truth, folder)
        for key in ("data/a.bin", "data/sub/b.bin"):
            bucket.put_object(Bucket="models", Key=key, Body=key.encode() * 100)
        run["data/s3"].track_files("s3://models/data")
        truth.values |= {
            single("data/s3", "artifact", (key.removeprefix("data/"), key.encode() * 100))
            for key in ("data/a.bin", "data/sub/b.bin")
        }
        run.stop()
        notebook = {"notebookId": "the-notebook", "checkpointId": "c", "notebookDeleted": False}
        server.store.container(f"{PROJECT}/DEMO-1").set("source_code/notebook", "notebookRef", notebook)
        for name in ("second", "third"):
            run = neptune.init_run(project=PROJECT, name=name, git_ref=False, source_files=[], **QUIET)
            run["params/name"] = name
            run.stop()
        neptune.management.trash_objects(PROJECT, "DEMO-3")
        yield server, truths


@pytest.fixture(scope="module")
def home(logged, tmp_path_factory) -> Home:
    home = Home(tmp_path_factory.mktemp("exported"))
    assert home.export() == 0
    return home


def test_every_value_step_and_time_is_what_was_logged(logged, home):
    expected = logged[1]["DEMO-1"].values
    found = without_lists(own(home.values("DEMO-1")))
    assert not expected - found, sorted(expected - found, key=str)[:5]
    assert not found - expected, sorted(found - expected, key=str)[:5]


def test_the_truth_holds_every_type_that_a_client_can_write(logged):
    assert {value.type for value in logged[1]["DEMO-1"].values} == {
        "float", "int", "string", "bool", "datetime", "string_set",
        "float_series", "string_series", "file", "file_series", "file_set", "artifact",
    }  # fmt: skip


def test_a_run_is_complete_and_knows_who_it_is(home):
    run = home.staged("DEMO-1")
    assert run.status == "complete"
    assert (run.info.name, run.info.sys_id, run.info.owner) == ("all of it ☃", "DEMO-1", "somebody")
    assert run.info.created is not None
    assert run.info.state == "idle"


def test_refs_and_state_are_json(home):
    assert home.text("DEMO-1", "sys/state") == "idle"
    assert home.text("DEMO-1", "source_code/notebook")["notebookId"] == "the-notebook"


def test_losses_10_a_notebook_ref_costs_no_parameters(logged, home):
    """The client's own `fetch()` fails on such a run."""
    import neptune

    with neptune.init_run(with_id="DEMO-1", project=PROJECT, mode="read-only") as run, pytest.raises(AttributeError):
        run.fetch()
    assert single("params/epochs", "int", 12) in home.values("DEMO-1")


def test_losses_10_git_refs_are_kept(tmp_path):
    commit = {"commitId": "abc", "message": "fix ☃", "authorName": "x", "authorEmail": "y", "commitDate": None}
    git = {"commit": commit, "repositoryDirty": True, "currentBranch": "main", "remotes": ["r"]}
    with serving() as server:
        run = server.store.create(server.store.project(PROJECT), "run")
        run.set("source_code/git", "gitRef", git)
        home = Home(tmp_path)
        assert home.export() == 0
        assert home.text("DEMO-1", "source_code/git") == git


def test_losses_10_file_names_keep_their_extensions(home):
    paths = {r["attribute_path"]: r["file_value"]["path"] for r in home.records("DEMO-1") if r["file_value"]}
    assert paths["files/model"].endswith("files/model.pt")
    assert paths["images/epoch"].endswith(".png")


def test_losses_10_file_sets_are_unpacked(home):
    members = {
        r["string_value"]: r["file_value"]["path"]
        for r in home.records("DEMO-1")
        if r["attribute_path"] == "sets/files"
    }
    assert set(members) == {"tree/one.txt", "tree/sub/two.txt", "tree/sub/deeper/three.bin"}
    assert all(path.endswith(f"sets/files/{name}") for name, path in members.items())


def test_the_list_of_an_artifact_says_what_the_server_knows(logged, home):
    (record,) = [r for r in home.records("DEMO-1") if r["attribute_path"] == "data/s3" and r["string_value"] is None]
    listed = json.loads((home.staging.folder(PROJECT).files / record["file_value"]["path"]).read_text())
    assert listed["hash"] == logged[0].store.container(f"{PROJECT}/DEMO-1").attributes["data/s3"].value
    assert [file["filePath"] for file in listed["files"]] == ["a.bin", "sub/b.bin"]
    assert {item["key"] for item in listed["files"][0]["metadata"]} == {"location", "last_modified"}


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_losses_10_times_do_not_depend_on_the_time_zone(logged, tmp_path, zone):
    set_zone(zone)
    try:
        home = Home(tmp_path)
        assert home.export("-r", "DEMO-1") == 0
        found = without_lists(own(home.values("DEMO-1")))
        created = home.staged("DEMO-1").info.created
    finally:
        set_zone(None)
    assert found == logged[1]["DEMO-1"].values
    assert millis(created) == logged[0].store.container(f"{PROJECT}/DEMO-1").attributes["sys/creation_time"].value


def test_runs_in_the_trash_come_when_asked_for(logged, tmp_path, home):
    assert home.run_ids() == {"DEMO-1", "DEMO-2"}
    with_trash = Home(tmp_path)
    assert with_trash.export("--include-archived-runs", "-c", "parameters") == 0
    assert with_trash.run_ids() == {"DEMO-1", "DEMO-2", "DEMO-3"}


def test_without_csv_and_with_small_pages_the_result_is_the_same(logged, tmp_path):
    """A server that is older, or stricter, than the one of 2023."""
    server, truths = logged
    with serving(csv=False, page=1000, rows=100, projects=1) as other:
        other.store.projects = server.store.projects
        other.store.containers.update(server.store.containers)
        other.store.by_short_id.update(server.store.by_short_id)
        other.store.artifacts.update(server.store.artifacts)
        home = Home(tmp_path)
        assert home.export("-r", "DEMO-1", "-c", "metrics", "-c", "series") == 0
        wanted = {v for v in truths["DEMO-1"].values if v.type.endswith("_series") and v.type != "file_series"}
        assert own(home.values("DEMO-1")) == wanted
        assert other.http.counts["GET /api/leaderboard/v1/attributes/floatSeries/csv"] == 0


def test_a_long_series_takes_three_requests(logged, tmp_path):
    """The first page, what the server can do, and the rest as CSV."""
    server, truths = logged
    home = Home(tmp_path)
    server.http.log.clear()
    assert home.export("-r", "DEMO-1", "-a", "^metrics/long$") == 0
    assert home.values("DEMO-1") == {v for v in truths["DEMO-1"].values if v.path == "metrics/long"}
    assert server.http.counts["GET /api/leaderboard/v1/attributes/series/float"] == 1
    assert server.http.counts["GET /api/leaderboard/v1/attributes/floatSeries/csv"] == 1


def test_a_run_takes_one_request_beside_its_series_and_files(logged, tmp_path):
    server, _ = logged
    home = Home(tmp_path)
    server.http.log.clear()
    assert home.export("-c", "parameters") == 0
    assert server.http.counts["GET /api/leaderboard/v1/attributes"] == 2
    assert server.http.counts["GET /api/leaderboard/v1/experiments"] == 0
    assert sum(count for line, count in server.http.counts.items() if "leaderboard" in line) == 3


def test_exporting_again_skips_what_is_unchanged_and_does_what_changed(logged, tmp_path, capsys):
    import neptune

    home = Home(tmp_path)
    with serving() as server:
        for name in ("one", "two"):
            run = neptune.init_run(project=PROJECT, name=name, git_ref=False, source_files=[], **QUIET)
            run["metrics/x"].extend([1.0, 2.0])
            run.stop()
        assert home.export() == 0
        server.http.log.clear()
        assert home.export() == 0
        assert server.http.counts["GET /api/leaderboard/v1/attributes"] == 0
        run = neptune.init_run(with_id="DEMO-2", project=PROJECT, mode="sync", git_ref=False, source_files=[], **QUIET)
        run["metrics/x"].append(3.0)
        run.stop()
        server.http.log.clear()
        capsys.readouterr()
        assert home.export() == 0
        assert server.http.counts["GET /api/leaderboard/v1/attributes/series/float"] == 1
        assert "1 done, 1 skipped" in capsys.readouterr().out
    assert sum(v.path == "metrics/x" for v in home.values("DEMO-2")) == 3


def test_summary_and_verify_know_what_was_exported(home, capsys):
    assert home.run("summary") == 0
    assert f"{PROJECT}: 2 runs" in capsys.readouterr().out
    assert home.run("verify", "--read-data") == 0
    assert home.run("verify", "--exporter", "neptune2") == 0


def test_nothing_of_the_client_reaches_the_screen(logged, tmp_path, capsys):
    capsys.readouterr()
    assert Home(tmp_path).export("-r", "DEMO-2") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[0] == "Export: 1 done."


# --- what a client cannot be made to write


def made(server, **attributes):
    run = server.store.create(server.store.project(PROJECT), "run")
    for path, (kind, value) in attributes.items():
        run.set(path.replace("__", "/"), kind, value)
    return run


def test_losses_10_a_name_that_is_an_attribute_and_a_namespace(tmp_path):
    with serving() as server:
        made(server, a=("int", 1), a__b=("int", 2), f=("file", (b"1", "")), f__g=("file", (b"2", "")))
        home = Home(tmp_path)
        assert home.export() == 0
    assert {
        single("a", "int", 1), single("a/b", "int", 2), single("f", "file", b"1"), single("f/g", "file", b"2"),
    } <= home.values("DEMO-1")  # fmt: skip


def test_losses_10_empty_series_leave_a_trace(tmp_path):
    with serving() as server:
        made(server, x=("floatSeries", []), y=("stringSeries", []), z=("imageSeries", []), s=("fileSet", {}))
        home = Home(tmp_path)
        assert home.export() == 0
    empty = {(a.path, a.type) for a in home.staged("DEMO-1").attributes() if a.rows == 0}
    assert empty == {("x", "float_series"), ("y", "string_series"), ("z", "file_series"), ("s", "file_set")}


def test_losses_10_steps_are_never_rounded(tmp_path):
    """Finer than the schema holds: kept beside the run and said, the rest of the series is there."""
    steps = [1e-7, 2e-7, 0.29, 1e12, 3e15]
    with serving() as server:
        made(server, x=("floatSeries", [(step, 1000 + n, float(n)) for n, step in enumerate(steps)]))
        home = Home(tmp_path)
        assert home.export() == 3
    run = home.staged("DEMO-1")
    assert [v.step for v in home.values("DEMO-1") if v.path == "x"] == [Decimal("0.29")]
    beside = [json.loads(line) for line in run.extra().splitlines()]
    assert [Decimal(line["step"]) for line in beside] == [Decimal(repr(s)) for s in (1e-7, 2e-7, 1e12, 3e15)]
    assert [line["value"] for line in beside] == ["0.0", "1.0", "3.0", "4.0"]
    assert [(p.attribute, p.count, p.kind) for p in run.problems] == [("x", 4, "permanent")]


def test_losses_10_values_that_no_number_are_kept(tmp_path):
    """Java writes NaN and the infinities as text."""
    points = [(0.0, 1, float("nan")), (1.0, 2, float("inf")), (2.0, 3, float("-inf")), (3.0, 4, -0.0)]
    with serving() as server:
        made(server, x=("floatSeries", points), p=("float", float("nan")), q=("float", float("-inf")))
        home = Home(tmp_path)
        assert home.export() == 0
    values = {(v.path, v.step): v.value for v in home.values("DEMO-1")}
    from truth2 import exact

    assert [values["x", Decimal(n)] for n in range(4)] == [exact(p[2]) for p in points]
    assert (values["p", None], values["q", None]) == ("nan", exact(float("-inf")))


def test_losses_10_steps_of_images_that_the_server_does_not_tell_are_said(tmp_path):
    from servers.neptune2_store import Image

    with serving() as server:
        images = [(step, 1, Image(bytes([int(step)]))) for step in (0.0, 5.0, 9.5)]
        made(server, x=("imageSeries", images), y=("imageSeries", [(float(n), 1, Image(b"y%d" % n)) for n in range(3)]))
        home = Home(tmp_path)
        assert home.export() == 3
    found = {(v.path, v.step): v.value[1] for v in home.values("DEMO-1") if v.path in "xy"}
    assert found["x", Decimal(0)] == b"\0"
    assert found["x", Decimal(1)] == b"\x05"
    assert found["x", Decimal("9.5")] == b"\x09"
    assert [found["y", Decimal(n)] for n in range(3)] == [b"y0", b"y1", b"y2"]
    assert [(p.attribute, p.count) for p in home.staged("DEMO-1").problems] == [("x", 2)]


def test_text_with_lone_surrogates_is_kept_beside_the_run(tmp_path):
    with serving() as server:
        made(
            server,
            good=("string", "fine"),
            bad=("string", "x\ud800y"),
            log=("stringSeries", [(0.0, 1, "fine"), (1.0, 2, "x\udfff")]),
        )
        home = Home(tmp_path)
        assert home.export() == 3
    run = home.staged("DEMO-1")
    assert {v.path for v in home.values("DEMO-1")} >= {"good", "log"}
    assert [json.loads(line)["value"] for line in run.extra().splitlines()] == [{"value": "x\ud800y"}, "x\udfff"]


def test_a_type_that_nobody_knows_is_kept_beside_the_run(tmp_path):
    with serving() as server:
        made(server, new=("hologram", {"depth": 3}))
        home = Home(tmp_path)
        assert home.export() == 3
    (line,) = home.staged("DEMO-1").extra().splitlines()
    assert json.loads(line)["value"] == {"depth": 3}


def test_long_texts_are_not_cut_by_servers_that_would(tmp_path):
    text = "x" * 5000
    with serving(value_length=1000) as server:
        made(server, log=("stringSeries", [(0.0, 1, text)]))
        home = Home(tmp_path)
        assert home.export() == 0
    assert [v.value for v in home.values("DEMO-1") if v.path == "log"] == [("str", text)]


def test_hostile_names_stay_inside(tmp_path):
    with serving() as server:
        run = made(server)
        run.set("../../up", "file", (b"1", "../../sh"))
        run.set("con", "file", (b"2", "txt"))
        run.set("set", "fileSet", {"../../x": b"3", "/abs": b"4", "A": b"5", "a": b"6"})
        home = Home(tmp_path)
        assert home.export() == 0
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {
        p for p in [*(tmp_path / "data").rglob("*"), *(tmp_path / "files").rglob("*")] if p.is_file()
    }
    assert {v.value[1] for v in home.values("DEMO-1") if v.path == "set"} == {
        ("../../x", b"3"), ("/abs", b"4"), ("A", b"5"), ("a", b"6"),
    }  # fmt: skip
