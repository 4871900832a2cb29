# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`verify --loader mlflow`: what was changed in MLflow by hand is named by run, attribute, step and value."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3

import areas
import pytest
from areas import PROJECT, floats, stage, tags, text
from checking import checked, exit_code, findings, told

from neptune_exporter.cli.main import main
from neptune_exporter.errors import UsageError
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection

DAY, HERE = "2024-05-01T", "the staging area"
ONE, TWO = RunRef(PROJECT, "RUN-1"), RunRef(PROJECT, "RUN-2")
TWO_ID = "select run_uuid from params where value = 'sgd'"


def run(*arguments):
    return main([str(argument) for argument in arguments])


def places(root):
    return "--data-path", root / "data", "--files-path", root / "files"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two staged runs and the MLflow database that they were loaded into."""
    root = tmp_path_factory.mktemp("original")
    stage(
        root,
        "RUN-1",
        floats(ONE, "metrics/loss", [1.0, 0.5, math.nan, 0.125, math.inf]),
        floats(ONE, "metrics/acc", [0.1 * i for i in range(20)]),
        text(ONE, "params/name", "adam"),
        tags(ONE, ["a", "b"]),
        files={"model": b"weights"},
        empty=[("metrics/none", "float_series")],
    )
    stage(root, "RUN-2", text(TWO, "params/name", "sgd"))
    assert run("load", "--mlflow-tracking-uri", f"sqlite:///{root / 'mlflow.db'}", *places(root)) == 0
    return root


@pytest.fixture
def loaded(original, tmp_path):
    """A copy of it, with its artifacts."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    sql(tmp_path, "update runs set artifact_uri = replace(artifact_uri, ?, ?)", original.as_uri(), tmp_path.as_uri())
    return tmp_path


def sql(root, statement, *values):
    database = sqlite3.connect(root / "mlflow.db")
    with database:
        count = database.execute(statement, values).rowcount
    database.close()
    return count


def target(root, **common):
    return "mlflow", MLflowOptions(f"sqlite:///{root / 'mlflow.db'}"), LoadOptions(**common)


def compare(root, *args, **kwargs):
    return findings(root, *args, target=target(root), **kwargs)


def test_what_was_loaded_is_what_mlflow_holds(loaded):
    found = checked(loaded, target=target(loaded))
    assert [finding for one in found for finding in one.findings] == []
    assert all("target" in one.compared for one in found)


@pytest.mark.parametrize(
    ("statement", "attribute", "kind", "shown"),
    [
        (
            "update metrics set value = 0.75 where key = 'metrics/loss' and step = 1",
            "metrics/loss",
            "values",
            f"at step 1: 0.5 ({DAY}10:00:01.250+00:00) in {HERE}, 0.75 ({DAY}10:00:01.250+00:00) in mlflow",
        ),
        (
            "update metrics set timestamp = timestamp + 1 where key = 'metrics/loss' and step = 3",
            "metrics/loss",
            "values",
            f"0.125 ({DAY}10:00:03.250+00:00) in {HERE}, 0.125 ({DAY}10:00:03.251+00:00) in mlflow",
        ),
        (
            "delete from metrics where key = 'metrics/acc' and step = 7",
            "metrics/acc",
            "count",
            "at step 7: 0.7000000000000001 (2024-05-01T10:00:07.250+00:00) in the staging area, nothing in mlflow",
        ),
        ("delete from params where key = 'params/name' and value = 'adam'", "params/name", "missing", ""),
        (
            "update params set value = 'adamw' where value = 'adam'",
            "params/name",
            "values",
            "'adam' in the staging area, 'adamw' in mlflow",
        ),
    ],
    ids=["value", "time", "row gone", "parameter gone", "parameter"],
)
def test_one_changed_row_is_named_with_its_values(loaded, statement, attribute, kind, shown):
    assert sql(loaded, statement) == 1
    found = compare(loaded)
    assert told(found) == [("RUN-1", attribute, kind)]
    assert shown in found[0].message
    assert found[0].where == "target"
    assert exit_code(found) == 4


def test_a_parameter_that_somebody_added_is_named(loaded):
    assert sql(loaded, "insert into params select 'mine', 'x', run_uuid from params where value = 'adam'") == 1
    assert told(compare(loaded)) == [("RUN-1", "mine", "surplus")]


def test_a_file_that_was_changed_is_named(loaded):
    (path,) = (loaded / "mlruns").rglob("files/model*")
    path.unlink()
    path.write_bytes(b"weightz")
    assert told(compare(loaded)) == [("RUN-1", "model", "values")]


def test_a_run_that_is_gone_from_the_target(loaded):
    sql(
        loaded,
        f"update runs set lifecycle_stage = 'deleted' where run_uuid in ({TWO_ID})",
    )
    found = compare(loaded)
    assert told(found) == [("RUN-2", None, "absent")]
    assert exit_code(found) == 4


def test_a_target_that_holds_nothing(loaded):
    (loaded / "mlflow.db").unlink()
    assert told(compare(loaded)) == [("RUN-1", None, "absent"), ("RUN-2", None, "absent")]


def test_a_half_loaded_run_is_unfinished(loaded):
    assert sql(loaded, f"update tags set value = 'loading' where value like 'complete:%' and run_uuid in ({TWO_ID})")
    assert told(compare(loaded)) == [("RUN-2", None, "unfinished")]


def test_a_run_that_was_exported_anew_is_outdated(loaded):
    stage(loaded, "RUN-2", text(TWO, "params/name", "lion"))
    found = compare(loaded)
    assert told(found) == [("RUN-2", "params/name", "values"), ("RUN-2", None, "outdated")]


def test_a_target_run_that_cannot_be_read_could_not_be_checked(loaded):
    for path in (loaded / "mlruns").rglob("neptune/manifest.json"):
        if json.loads(path.read_text())["run"]["run_id"] == "RUN-1":
            path.unlink()
    found = compare(loaded)
    assert told(found) == [("RUN-1", None, "unreadable")]
    assert exit_code(found) == 3


def test_runs_that_only_the_target_has_are_mentioned(loaded):
    for path in areas.folder(loaded).rglob(f"{areas.stem('RUN-2')}*"):
        path.unlink()
    found = compare(loaded)
    assert told(found) == [("RUN-2", None, "unstaged")]
    assert exit_code(found) == 0


def test_damage_of_both_sides_is_found_in_one_go(loaded):
    sql(loaded, "delete from params where value = 'sgd'")
    areas.flipped(areas.part(loaded, "RUN-1"), 150)
    found = compare(loaded, read_data=True)
    assert ("RUN-2", "params/name", "missing") in told(found)
    assert ("RUN-1", None, "part") in told(found)


def test_a_prefix_is_a_place_of_its_own(loaded):
    found = findings(loaded, target=target(loaded, name_prefix="new-"))
    assert told(found) == [("RUN-1", None, "absent"), ("RUN-2", None, "absent")]


def test_a_selective_load_is_compared_with_what_was_selected(loaded):
    uri = f"sqlite:///{loaded / 'mlflow.db'}"
    assert run("load", "--mlflow-tracking-uri", uri, "--name-prefix", "some-", "-c", "parameters", *places(loaded)) == 0
    some = Selection(classes=frozenset({"parameters"}))
    assert findings(loaded, some, target=target(loaded, name_prefix="some-")) == []
    found = findings(loaded, target=target(loaded, name_prefix="some-"))
    assert {("RUN-1", "metrics/loss", "missing"), ("RUN-1", None, "outdated")} <= set(told(found))


def test_a_target_that_cannot_be_read_back_is_refused(loaded, monkeypatch):
    monkeypatch.delattr(MLflowLoader, "read")
    with pytest.raises(UsageError, match="cannot be read back"):
        compare(loaded)


def test_the_command_says_it_all(loaded, capsys):
    sql(loaded, "update metrics set value = 0.75 where key = 'metrics/loss' and step = 1")
    capsys.readouterr()
    arguments = ["verify", "--loader", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{loaded / 'mlflow.db'}"]
    assert run(*arguments, *places(loaded)) == 4
    out, err = capsys.readouterr()
    assert err == ""
    first, *rest = out.splitlines()
    assert first.startswith("DIFFERS  acme/vision/RUN-1  metrics/loss: ")
    assert "0.75" in first
    assert "1 difference." in rest
    assert run(*arguments, *places(loaded), "--json") == 4
    value = json.loads(capsys.readouterr().out)
    assert value["exit_code"] == 4
    assert [(f["run"], f["attribute"], f["kind"]) for f in value["findings"]] == [("RUN-1", "metrics/loss", "values")]
