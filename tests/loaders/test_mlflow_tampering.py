# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is changed in MLflow by hand after a load makes the rebuilt rows differ, or is refused with a reason."""

from __future__ import annotations

import gc
import math
import shutil
import sqlite3

import pytest
from logged_run import REF, LoggedRun, load, read_back

from neptune_exporter.errors import TargetError
from neptune_exporter.model import RunRef

START = 1_700_000_000_000


@pytest.fixture(scope="module")
def original(empty_database, tmp_path_factory):
    """A loaded run with a bit of everything; every test works on a copy of its database."""
    from neptune_exporter.loaders.mlflow import MLflowOptions
    from neptune_exporter.loaders.mlflow.loader import MLflowLoader

    folder = tmp_path_factory.mktemp("original")
    shutil.copyfile(empty_database, folder / "mlflow.db")
    run = LoggedRun(folder / "files")
    run.single("lr", "float", 0.1).single("n", "int", 1).single("text", "string", "x" * 6001)
    run.single("sys/tags", "string_set", ["a"])
    run.series("loss", "float_series", [(n, START + n, n / 7) for n in range(5)])
    run.series("inf", "float_series", [(0, START, 1.0), (1, START, math.inf), (2, None, 2.0), (3, START, 5.0)])
    run.series("log", "string_series", [(0, START, "hello")])
    run.single("file", "file", run.file("p/file.bin", b"content"))
    run.series("nothing", "float_series", [])
    loader = MLflowLoader(MLflowOptions(f"sqlite:///{folder / 'mlflow.db'}"))
    load(loader, run)
    return folder, run


@pytest.fixture
def copy(original, tmp_path, make_loader, mode):
    folder, run = original
    shutil.copyfile(folder / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copytree(folder / "mlruns", tmp_path / "mlruns")
    database = sqlite3.connect(tmp_path / "mlflow.db")
    with database:
        moved = (folder.as_uri(), tmp_path.as_uri())
        database.execute("update runs set artifact_uri = replace(artifact_uri, ?, ?)", moved)
    loader = make_loader(f"sqlite:///{tmp_path / 'mlflow.db'}", mode)
    yield loader, database, tmp_path / "mlruns", run
    database.close()


def differing(loader, run) -> set[str]:
    before = {(a.path, a.type): a for a in run.attributes()}
    after = {(a.path, a.type): a for a in read_back(loader)}
    return {path for path, kind in before.keys() | after.keys() if before.get((path, kind)) != after.get((path, kind))}


def test_an_untouched_run_is_equal(copy):
    loader, _, _, run = copy
    assert read_back(loader) == run.attributes()


@pytest.mark.parametrize(
    ("sql", "attribute"),
    [
        ("update metrics set value = 0.5 where key = 'loss' and step = 2", "loss"),
        ("update metrics set step = 9 where key = 'loss' and step = 2", "loss"),
        ("update metrics set timestamp = 5 where key = 'loss' and step = 2", "loss"),
        ("update metrics set is_nan = 1 where key = 'loss' and step = 2", "loss"),
        ("delete from metrics where key = 'loss' and step = 2", "loss"),
        ("delete from metrics where key = 'loss'", "loss"),
        ("update latest_metrics set value = 77 where key = 'loss'", "loss"),
        ("delete from latest_metrics where key = 'loss'", "loss"),
        ("insert into metrics select key, 3.5, timestamp, run_uuid, 7, is_nan from metrics where key = 'loss'", "loss"),
        ("update metrics set value = 4 where key = 'inf' and step = 1", "inf"),
        ("update metrics set timestamp = 4 where key = 'inf' and step = 2", "inf"),
        ("delete from metrics where key = 'inf' and step = 1", "inf"),
        ("delete from metrics where key = 'inf' and step = 0", "inf"),
        ("update params set value = '0.2' where key = 'lr'", "lr"),
        ("update params set value = '0.10' where key = 'lr'", "lr"),
        ("update params set value = 'soon' where key = 'n'", "n"),
        ("update params set value = '1.0' where key = 'n'", "n"),
        ("delete from params where key = 'n'", "n"),
        ("update params set value = value || '0' where key = 'text'", "text"),
        ("insert into params select 'foreign', 'x', run_uuid from params where key = 'n'", "foreign"),
        ("update tags set value = '[\"b\"]' where key = 'neptune.tags'", "sys/tags"),
        ("delete from tags where key = 'neptune.tags'", "sys/tags"),
    ],
)
def test_a_change_in_the_database_is_found(copy, sql, attribute):
    loader, database, _, run = copy
    with database:
        assert database.execute(sql).rowcount > 0
    assert differing(loader, run) == {attribute}


def test_a_foreign_metric_is_found(copy):
    loader, database, _, run = copy
    from mlflow import MlflowClient

    run_id = database.execute("select run_uuid from runs").fetchone()[0]
    path = database.execute("pragma database_list").fetchone()[2]
    for key in ("foreign", "nothing"):
        MlflowClient(f"sqlite:///{path}").log_metric(run_id, key, 1.0)
    assert differing(loader, run) == {"foreign", "nothing"}


@pytest.mark.parametrize(("name", "attribute"), [("file.bin", "file"), ("log.txt", "log")])
def test_an_artifact_that_is_changed_or_missing_is_found(copy, name, attribute):
    loader, _, artifacts, run = copy
    (artifact,) = artifacts.rglob(name)
    artifact.write_bytes(artifact.read_bytes() + b"!")
    assert differing(loader, run) == {attribute}
    artifact.unlink()
    assert differing(loader, run) == {attribute}


@pytest.mark.parametrize("name", ["manifest.json", "data.parquet", "files.jsonl"])
def test_what_travels_beside_the_run_cannot_be_changed_or_removed_unnoticed(copy, name):
    loader, _, artifacts, _ = copy
    (artifact,) = artifacts.rglob(f"neptune/{name}")
    artifact.write_bytes(artifact.read_bytes() + b" ")
    with pytest.raises(TargetError, match=f"neptune/{name} of the MLflow run of team/project/run-1 was changed"):
        read_back(loader)
    artifact.unlink()
    with pytest.raises(TargetError, match=f"has no neptune/{name}"):
        read_back(loader)


def test_a_run_that_is_not_there_cannot_be_read(copy):
    loader = copy[0]
    with pytest.raises(TargetError, match="is not in MLflow"):
        loader.read(RunRef(REF.project_id, "other"))
    with pytest.raises(TargetError, match="other/project/run-1 is not in MLflow"):
        loader.read(RunRef("other/project", "run-1"))


def test_nothing_is_left_in_the_temporary_folder(copy, temporary_folder):
    loader, _, _, run = copy
    assert read_back(loader) == run.attributes()
    gc.collect()
    assert not list(temporary_folder.iterdir())
