# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Every command against S3, as it is typed: what comes of it is what was logged, value by value and byte by byte."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from pathlib import Path

import areas
import pytest
from collect3 import PROJECT as COLLECTED
from collect3 import put, serving, system_rows
from contracts.rows import assert_same, curve, everything, rows_on_disk, single, write_run
from servers.neptune2 import Neptune2Server
from truth import PROJECT, Truth, log_everything

from neptune_exporter import demo_runs
from neptune_exporter.errors import DamagedDataError
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection
from neptune_exporter.storage.objects import path as object_path
from neptune_exporter.storage.objects.filesystem import FilesystemStore
from neptune_exporter.storage.objects.path import forget_lists
from neptune_exporter.storage.place import parse_place
from neptune_exporter.storage.staging import Staging

MODELS = "team/models"


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Truth:
    return log_everything(tmp_path_factory.mktemp("everything"))


def download(bucket, folder: Path) -> Staging:
    """What `aws s3 sync` makes of the area."""
    for key, data in bucket.content("exports/").items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return Staging(folder / "exports/data", folder / "exports/files")


def upload(bucket, folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            bucket.s3.put_object(Bucket=bucket.name, Key=file.relative_to(folder).as_posix(), Body=file.read_bytes())


def offline(truth: Truth) -> tuple[str, ...]:
    return ("--exporter", "offline", "--offline-path", str(truth.directory))


def check_rows(truth: Truth, copy: Staging) -> None:
    """Read by plain pyarrow with the official schema, from every part that there is."""
    for run_id, run in truth.runs.items():
        assert_same(run.all_rows, rows_on_disk(copy, RunRef(PROJECT, run_id)))


def test_offline_data_goes_to_s3_and_is_proven_there(truth, bucket, call, tmp_path):
    result = call("export", *offline(truth), *bucket.places)
    assert result.code == 0, result
    assert f"{len(truth.runs)} done" in result.out
    copy = download(bucket, tmp_path)
    check_rows(truth, copy)

    assert bucket.unfinished_uploads() == []
    assert not [key for key in bucket.content() if key.endswith(".claim")]

    result = call("summary", *bucket.places, "--json")
    (project,) = json.loads(result.out)["projects"]
    assert (project["project"], project["runs"]) == (PROJECT, {"complete": len(truth.runs)})
    assert sum(project["points"].values()) == sum(len(run.all_rows) for run in truth.runs.values())
    stored = bucket.content("exports/data/")
    parts = {key: data for key, data in stored.items() if key.endswith(".parquet") and "/_manifest/" not in key}
    assert (project["parts"], project["part_bytes"]) == (len(parts), sum(map(len, parts.values())))

    for how in ([], ["--read-data"], [*offline(truth)]):
        result = call("verify", *how, *bucket.places)
        assert result.code == 0, result
        assert "No differences." in result.out
    result = call("export", *offline(truth), *bucket.places)
    assert f"{len(truth.runs)} skipped" in result.out

    # A copy of it on disk is an area as any other, and goes on as one.
    local = ("--data-path", copy.data_path, "--files-path", copy.files_path, "--no-progress")
    assert call("verify", "--read-data", *offline(truth), *local).code == 0
    assert f"{len(truth.runs)} skipped" in call("export", *offline(truth), *local).out
    assert call("export", "--overwrite", *offline(truth), *local).code == 0
    check_rows(truth, copy)
    names = {path.name for path in (copy.data_path).rglob("*") if path.is_file()}
    assert not [name for name in names if ".g1" in name]
    assert call("verify", "--read-data", *local).code == 0


def test_an_area_that_was_copied_to_s3_goes_on_there(truth, bucket, call, tmp_path):
    local = ("--data-path", tmp_path / "exports/data", "--files-path", tmp_path / "exports/files", "--no-progress")
    assert call("export", *offline(truth), "--exclude", "files", *local).code == 0
    upload(bucket, tmp_path)
    assert call("verify", "--read-data", *bucket.places).code == 0
    result = call("export", *offline(truth), *bucket.places)
    assert result.code == 0
    assert "skipped" not in result.out or f"{len(truth.runs)} skipped" not in result.out
    check_rows(truth, download(bucket, tmp_path / "back"))
    assert call("verify", "--read-data", *offline(truth), *bucket.places).code == 0


def test_the_demo_on_s3(bucket, call, tmp_path):
    """Export, summary, verify, load into MLflow and verify that, with the files that MLflow got."""
    from mlflow import MlflowClient

    result = call("demo", "--path", f"s3://{bucket.name}/demo")
    assert result.code == 0, result
    assert result.out.count("No differences.") == 2
    uri = next(line for line in result.out.splitlines() if line.startswith("$ mlflow ui")).split()[-1]
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == demo_runs.PROJECT]
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    losses = client.get_metric_history(runs["digits-0"], "train/loss")
    assert (len(losses), sum(math.isnan(point.value) for point in losses)) == (demo_runs.STEPS, 19)
    folder = Path(client.download_artifacts(runs["digits-1"], "files", str(tmp_path)))
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert b"A perceptron; rate 0.01.\n" in found.values(), sorted(found)
    assert len(found) == 2


def test_a_server_to_s3(bucket, call, tmp_path):
    """Neptune 3.x over the wire, every type of value; what the server gains later is added."""
    rows = [everything(), [*curve("loss", 300), single("model", b"weights" * 1000)]]
    with serving() as server:
        for number, own in enumerate(rows):
            run = server.store.add_run(COLLECTED, f"run-{number}")
            put(server, run, own)
        source = ("--exporter", "neptune3", "-p", COLLECTED)
        assert call("export", *source, "--exclude", "files", *bucket.places).code == 0
        result = call("export", *source, *bucket.places)
        assert "2 done" in result.out, result
        copy = download(bucket, tmp_path)
        for number, own in enumerate(rows):
            run = server.store.projects[COLLECTED][f"run-{number}"]
            expected = own + [row for row in system_rows(run) if row.path not in {row.path for row in own}]
            assert_same(expected, rows_on_disk(copy, RunRef(COLLECTED, f"run-{number}")))
        assert call("verify", "--read-data", *source, *bucket.places).code == 0
        assert "2 skipped" in call("export", *source, *bucket.places).out
    assert not [key for key, data in bucket.content().items() if ".g1" in key]


@pytest.mark.soak  # the clients take their time
def test_models_to_s3_and_out_of_it(bucket, call, tmp_path):
    """A model version with files: exported, loaded into MLflow's registry, verified, and opened where it lies."""
    from neptune_exporter.registry import open_model_version

    with Neptune2Server() as server, server.environment(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEPTUNE_DATA_DIRECTORY", str(tmp_path / ".neptune"))
        log_model(server, tmp_path)
        assert call("export-models", "-p", MODELS, *bucket.places).code == 0
    assert call("verify", "--models", "--read-data", *bucket.places).code == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    target = ("--loader", "mlflow", "--mlflow-tracking-uri", uri)
    assert call("load-models", *target, *bucket.places).code == 0
    result = call("verify", "--models", *target, *bucket.places)
    assert result.code == 0, result
    assert "No differences." in result.out
    for backend in ("staging", "mlflow"):
        opened = open_model_version(
            with_id="DEMO-MOD-1",
            project=MODELS,
            backend=backend,
            mode="read-only",
            data_path=bucket.data,
            files_path=bucket.files,
            tracking_uri=uri,
        )
        with opened:
            target_file = tmp_path / f"{backend}.bin"
            opened.download_file_from_model_version("model/weights", target_file)
            assert target_file.read_bytes() == WEIGHTS


WEIGHTS = bytes(range(256)) * 300


def log_model(server: Neptune2Server, folder: Path) -> None:
    import neptune

    server.store.add_project(MODELS, "DEMO")
    with neptune.init_model(project=MODELS, key="MOD", name="a model") as model:
        model["size"] = 3
    (folder / "weights.bin").write_bytes(WEIGHTS)
    with neptune.init_model_version(model="DEMO-MOD", project=MODELS, name="first") as version:
        version["model/weights"].upload(str(folder / "weights.bin"), wait=True)
        version["metrics/accuracy"].extend([0.25, 0.5])
        version.change_stage("production")


def requests(bucket, since: int) -> Counter[str]:
    """What was asked of the server, told apart by what it was about."""
    kinds = {"claim": ".claim", "manifest": ".json", "index": "/_manifest/", "part": "_part_", "file": "/files/"}
    found: Counter[str] = Counter()
    for method, path in bucket.server.log[since:]:
        about = next((name for name, text in kinds.items() if text in path.partition("?")[0]), "list")
        found[f"{method} {about}"] += 1
    return found


def test_few_requests(bucket, call, tmp_path):
    """No object is asked for by itself; all runs of a project are listed at once."""
    refs = [RunRef("team/few", f"run-{number}") for number in range(5)]
    write_run(bucket.staging, refs[0], [single("n", 0)])
    for ref in refs[1:]:
        begin = len(bucket.server.log)
        write_run(bucket.staging, ref, [*curve("loss", 10), single("model", b"weights")])
        assert requests(bucket, begin) == {
            "PUT claim": 1,
            "PUT file": 1,
            "PUT part": 1,
            "PUT index": 1,
            "PUT manifest": 1,
            "GET list": 1,
            "POST list": 1,  # the run's manifests after the claim; the claim's end
            "GET manifest": 1,  # what write_run gives back
        } | ({"GET manifest": 2} if ref == refs[1] else {})  # area.json, once
    forget_lists()
    begin = len(bucket.server.log)
    assert call("summary", *bucket.places).code == 0
    assert requests(bucket, begin) == {"GET list": 1, "GET manifest": len(refs) + 1}
    begin = len(bucket.server.log)
    assert call("verify", *bucket.places).code == 0
    asked = requests(bucket, begin)
    assert asked["GET list"] == 1 + len(refs) - 1  # the files of a run at once
    assert (asked["GET part"], asked["GET index"], asked["GET file"]) == (len(refs), len(refs), 0)
    begin = len(bucket.server.log)
    assert call("verify", "--read-data", *bucket.places).code == 0
    assert requests(bucket, begin)["GET file"] == len(refs) - 1
    assert not [method for method, _ in bucket.server.log if method == "HEAD"]


def test_who_may_only_read_reads(bucket, call, tmp_path):
    """Also what a command has left that died right after its commit; to tidy that up is for those who may."""
    ref = RunRef("team/read", "run-1")
    write_run(bucket.staging, ref, [*curve("loss", 10), single("model", b"old")])
    old = bucket.content()
    write_run(bucket.staging, ref, [*curve("loss", 11), single("model", b"new")])
    for key, data in old.items():
        bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=data)
    bucket.server.fault = lambda _n, request: (403, "AccessDenied", "no") if request[0] in ("PUT", "POST") else None
    assert call("summary", *bucket.places).code == 0
    assert call("verify", "--read-data", *bucket.places).code == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert call("load", "--mlflow-tracking-uri", uri, *bucket.places, "--dry-run").code == 0
    bucket.server.fault = lambda _n, _request: None
    assert set(old) - {key for key in old if key.endswith("area.json")} < set(bucket.content())
    assert call("verify", "--read-data", *bucket.places).code == 0
    assert_same([*curve("loss", 11), single("model", b"new")], rows_on_disk(download(bucket, tmp_path), ref))
    assert not [key for key in bucket.content() if ".g1" in key]


def test_through_fsspec(monkeypatch, tmp_path):
    """As gs:// and abfs:// are reached; fsspec's memory in place of the services."""
    import fsspec

    memory = fsspec.filesystem("memory")
    store = FilesystemStore(memory, "memory", "through-fsspec")
    monkeypatch.setattr(object_path, "connect", lambda *_: store)
    forget_lists()
    area = Staging(parse_place("gs://bucket/data"), parse_place("gs://bucket/files"))
    ref = RunRef("team/fsspec", "run-1")
    write_run(area, ref, [*curve("loss", 10), single("model", b"old")])
    rows = [*curve("loss", 5000), *everything()]
    write_run(area, ref, rows)
    for path in memory.find("/through-fsspec"):
        file = tmp_path / path.removeprefix("/through-fsspec/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(memory.cat_file(path))
    assert_same(rows, rows_on_disk(Staging(tmp_path / "data", tmp_path / "files"), ref))
    run = area.run(ref)
    assert sum(batch.num_rows for batch in run.read()) == len(rows)
    for path, entry in run.file_entries().items():
        assert run.files.hash_content(path) == entry.sha256
    forget_lists()


def test_damage_is_named(bucket, call):
    """A part that is cut, one that is gone, a file that was changed: found by verify, and never read as it is."""
    refs = {name: RunRef("team/damage", name) for name in ("cut", "gone", "changed", "whole")}
    for ref in refs.values():
        write_run(bucket.staging, ref, [*curve("loss", 50), single("model", b"weights")])
    keys = {name: next(k for k in bucket.content() if f"/{name}-" in k and "_part_0" in k) for name in refs}
    part = bucket.content()[keys["cut"]]
    bucket.s3.put_object(Bucket=bucket.name, Key=keys["cut"], Body=part[: len(part) // 2])
    bucket.s3.delete_object(Bucket=bucket.name, Key=keys["gone"])
    file = next(key for key in bucket.content("exports/files/") if "/changed-" in key)
    bucket.s3.put_object(Bucket=bucket.name, Key=file, Body=b"Weights")

    result = call("verify", "--read-data", "--json", *bucket.places)
    assert result.code == 4
    found = {(f["run"], f["kind"]) for f in json.loads(result.out)["findings"]}
    assert {("cut", "part"), ("gone", "part"), ("changed", "file")} <= found
    assert "whole" not in {run for run, _ in found}
    result = call("summary", *bucket.places)
    assert result.code == 3
    assert f"{keys['gone']} is missing" in result.out + result.err
    staged = {name: bucket.staging.run(ref) for name, ref in refs.items()}
    assert sum(batch.num_rows for batch in staged["whole"].read()) == 51
    with pytest.raises(DamagedDataError, match="bytes instead of"):
        list(staged["cut"].read())
    with pytest.raises(DamagedDataError, match="is missing"):
        list(staged["gone"].read())
    with pytest.raises(DamagedDataError, match="is not what the manifest says"):
        staged["changed"].files.local(staged["changed"].file_paths()[0])


def test_the_server_may_be_named(bucket, call, monkeypatch, tmp_path):
    """For the staging area alone: what else speaks S3 has its own."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    forget_lists()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ref = RunRef("team/server", "run-1")
    places = [parse_place(place, bucket.server.address) for place in (bucket.data, bucket.files)]
    write_run(Staging(*places), ref, curve("loss", 3))
    assert call("summary", "--store-endpoint", bucket.server.address, *bucket.places).code == 0
    monkeypatch.setenv("NEPTUNE_EXPORTER_STORE_ENDPOINT", bucket.server.address)
    assert call("verify", "--read-data", *bucket.places).code == 0
    result = call("summary", "--store-endpoint", "http://127.0.0.1:9", *bucket.places)
    assert result.code == 1
    assert result.err.startswith(f"Error: Cannot list {bucket.data}/: Could not connect")
    assert "Is the endpoint right" in result.err


@pytest.mark.soak  # a script with the real client
def test_a_training_script_to_s3(bucket, tmp_path):
    """Dual logging with a staging area as its target."""
    from mirrored import Script

    script = Script(tmp_path)
    environment = {
        **bucket.server.variables(),
        "NEPTUNE_EXPORTER_DATA_PATH": bucket.data,
        "NEPTUNE_EXPORTER_FILES_PATH": bucket.files,
    }
    script.run(
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "with Run(source_tracking_config=None, enable_console_log_capture=False) as run:\n"
        "    for step in range(20): run.log_metrics({'x': step / 4}, step=step)\n",
        NEPTUNE_EXPORTER_TARGET="staging",
        NEPTUNE_EXPORTER_CLOSE_SECONDS="5",
        **environment,
    )
    script.replay("staging", **environment)
    (run,) = bucket.staging.runs(Selection())
    rows = [row for batch in run.read() for row in batch.to_pylist() if row["attribute_path"] == "x"]
    assert [(int(row["step"]), row["float_value"]) for row in rows] == [(step, step / 4) for step in range(20)]


def test_an_archive_of_the_official_exporter_in_a_bucket(bucket, call, tmp_path):
    """Read where it is, given manifests, and exported into; its files are fetched when they are wanted."""
    run_id = "RUN-1"
    areas.official(
        tmp_path / "exports",
        run_id,
        [areas.row("loss", "float_series", step=n, timestamp=areas.TIME, float_value=n / 4) for n in range(5)],
        [
            areas.row("model", "file", file_value={"path": f"{run_id}/model.bin"}),
            areas.row("lost", "file", file_value={"path": f"{run_id}/lost.bin"}),
        ],
    )
    files = tmp_path / "exports/files" / areas.stem(areas.PROJECT) / run_id
    files.mkdir(parents=True)
    (files / "model.bin").write_bytes(b"weights")
    upload(bucket, tmp_path)
    begin = len(bucket.server.log)
    result = call("summary", *bucket.places, "--json")
    assert result.code == 0, result
    (project,) = json.loads(result.out)["projects"]
    assert (project["runs"], project["files"]) == ({"unproven": 1}, 1)
    assert requests(bucket, begin)["GET file"] == 0
    assert call("verify", *bucket.places).code in (0, 3, 4)
    result = call("verify", "--write-manifests", *bucket.places)
    assert "lost.bin is missing" in result.out
    run = bucket.staging.run(RunRef(areas.PROJECT, run_id))
    assert (run.status, run.generation) == ("partial", 1)
    assert run.files.open(f"{run_id}/model.bin").read() == b"weights"
    steps = [row["float_value"] for batch in run.read() for row in batch.to_pylist() if row["attribute_path"] == "loss"]
    assert steps == [n / 4 for n in range(5)]
    assert call("summary", *bucket.places).code == 0

    areas.official(tmp_path / "more/exports", "RUN-2", [areas.row("loss", "float", float_value=1.0)])
    upload(bucket, tmp_path / "more")
    key = next(key for key in bucket.content() if "/RUN-2-" in key)
    bucket.s3.put_object(Bucket=bucket.name, Key=key.replace("_part_0", "_part_1"), Body=b"PAR1 no Parquet PAR1")
    forget_lists()
    stray = bucket.staging.folder(areas.PROJECT).stray(areas.stem("RUN-2"))
    with pytest.raises(DamagedDataError, match=r"s3://.*RUN-2-\w+_part_1\.parquet cannot be read"):
        list(stray.read())


def test_many_files_come_a_few_at_a_time(bucket):
    """Each once, whole, whatever the order in which they are wanted; and none stays on this machine."""
    ref = RunRef("team/files", "run-1")
    content = {f"files/{number:03d}.bin": b"%d" % number * number for number in range(40)}
    write_run(bucket.staging, ref, [single(path, data) for path, data in content.items()])
    run = pickle.loads(pickle.dumps(bucket.staging.run(ref)))
    rows = {row["attribute_path"]: row["file_value"]["path"] for batch in run.read() for row in batch.to_pylist()}
    begin = len(bucket.server.log)
    places = {path: run.files.local(rows[path]) for path in [*list(content)[::-3], *content]}
    assert {path: place.read_bytes() for path, place in places.items()} == content
    assert requests(bucket, begin) == {"GET file": 40}
    folder = places["files/000.bin"].parent
    run.files.close()
    assert not folder.exists()

    lost = next(key for key in bucket.content("exports/files/") if "/005" in key)
    bucket.s3.delete_object(Bucket=bucket.name, Key=lost)
    assert run.files.local(rows["files/004.bin"]).read_bytes() == content["files/004.bin"]  # the next ones fail unseen
    for _ in range(2):
        with pytest.raises(DamagedDataError, match="is missing"):
            run.files.local(rows["files/005.bin"])
    run.files.close()
