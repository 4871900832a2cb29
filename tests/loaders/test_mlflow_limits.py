# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What is longer, earlier or stranger than MLflow takes, on every kind of target: nothing is cut silently."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from logged_run import LoggedRun, load, read_back
from mlflow import MlflowClient

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import RunRef

START = 1_700_000_000_000
ODD_FILES = ("a#b.txt", "a?b.txt", "a%b.txt", "a%20b.txt", "a b.txt", "a&b.txt", "ä/ö 💡.txt", "//x", "x/../y")


@pytest.fixture
def odd(tmp_path, request) -> LoggedRun:
    """A run of which nothing fits."""
    project = f'team/{request.node.name}\'s "odd" one {"p" * 300}'
    info = {
        "name": 'it\'s "quoted" \0 ' + "n" * 300,
        "owner": "o" * 300,
        "experiment": "e" * 9000,
        "sys_id": "ODD-1",
        "created": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    }
    run = LoggedRun(tmp_path / "files", RunRef(project, "r" * 300 + "'\"; --"), info)
    for path in (
        "k" * 249 + "1",
        "k" * 250,
        "k" * 251,
        "k" * 251 + "2",
        "key",
        "KEY",
        "Key ",
        "a\0b",
        "a//b",
        "./a",
        "..",
    ):
        run.single(path, "int", len(path)).series(f"m{path}", "float_series", [(n, START + n, n / 3) for n in range(3)])
    run.single("text/6000", "string", "x" * 6000).single("text/6001", "string", "x" * 6001)
    run.single("text/6000 wide", "string", "💡" * 6000).single("text/nul", "string", "\0")
    run.single("sys/description", "string", "d" * 9000)
    labels = [f"label {n} " + "l" * 300 for n in range(40)]  # as JSON more than a tag takes
    run.single("sys/tags", "string_set", ["it's", 'a "tag"', "mlflow.runName", "neptune.load", "a\0b", *labels])
    run.series("steps", "float_series", [(-(10**11), START, 1.0), (0, START, 2.0), (10**11, START, 3.0)])
    run.series("times", "float_series", [(0, None, 1.0), (1, -1, 2.0), (2, -(2**40), 3.0), (3, 0, 4.0)])
    values = [math.inf, -math.inf, -0.0, 0.0, math.nan, 1.7976931348623157e308, 5e-324]
    run.series("values", "float_series", [(n, START + n, value) for n, value in enumerate(values)])
    run.single("int", "int", -(2**63))
    for number, name in enumerate(ODD_FILES):
        run.single(f"files/{name}", "file", run.file(f"p/{number}", b"%d" % number))
    return run


def test_what_does_not_fit_is_mapped_and_comes_back(any_target, odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader = MLflowLoader(any_target)
    client = MlflowClient(any_target.mlflow_tracking_uri)
    run_id = load(loader, odd, 1_000_000)  # so the steps are near the end of int64
    run = client.get_run(run_id)

    assert len(run.info.run_name) == 250
    assert run.info.run_name.startswith('it\'s "quoted" \\0 nnn')
    assert len(run.info.user_id) == 256
    assert len(client.get_experiment(run.info.experiment_id).name) == 256
    assert max(map(len, [*run.data.params, *run.data.metrics, *run.data.tags])) == 250
    assert max(map(len, run.data.params.values())) == 6000
    assert max(map(len, run.data.tags.values())) == 8000
    assert run.data.params["text/6000 wide"] == "💡" * 6000
    assert len({key.casefold() for key in run.data.params}) == len(odd.values) - _not_parameters(odd)
    assert run.data.tags["neptune.tag.mlflow.runName"] == run.data.tags["neptune.tag.neptune.load"] == "true"
    assert sum(key.startswith("it_s--") for key in run.data.tags) == 1
    steps = sorted((m.step, m.value) for m in client.get_metric_history(run_id, "steps"))
    assert steps == [(-(10**17), 1.0), (0, 2.0), (10**17, 3.0)]
    times = sorted((m.step, m.timestamp) for m in client.get_metric_history(run_id, "times"))
    assert run.info.start_time == START
    assert [time for _, time in times] == [START, 0, 0, 0]

    manifest = json.loads(Path(client.download_artifacts(run_id, "neptune/manifest.json", str(tmp_path))).read_bytes())
    originals = json.dumps(manifest["run"], ensure_ascii=False)
    for original in (odd.ref.project_id, odd.ref.run_id, odd.info["name"], odd.info["owner"], odd.info["experiment"]):
        assert json.dumps(original, ensure_ascii=False) in originals
    assert read_back(loader, odd.ref) == odd.attributes()
    again = MLflowLoader(any_target).states(odd.ref.project_id).runs
    assert [(ref, state.complete) for ref, state in again.items()] == [(odd.ref, True)]
    load(loader, odd, 1_000_000)
    assert len(client.search_runs([run.info.experiment_id])) == 1


def _not_parameters(run: LoggedRun) -> int:
    return sum(kind in ("float_series", "file") or path == "sys/tags" for path, kind in run.values)


@pytest.mark.parametrize("mode", ["sql", "rest"])
@pytest.mark.parametrize("by", ["project", "experiment"])
def test_artifacts_at_an_address_that_postgresql_does_not_take_are_refused_at_once(
    postgres_uri, tmp_path, mode, by, request
):
    run = LoggedRun(tmp_path / "files", RunRef(f"team/{request.node.name}", "run-1")).single("a", "int", 1)
    folder = tmp_path.resolve() / "a"
    room = 200 - len("/" + "0" * 32 + "/artifacts") - len(folder.as_uri())
    for length, fits in ((room, True), (room + 1, False)):
        location = folder.as_uri() + "x" * length
        options = MLflowOptions(
            postgres_uri, mlflow_mode=mode, mlflow_experiment_by=by, mlflow_artifact_location=location
        )
        loader = MLflowLoader(options, LoadOptions(name_prefix=f"{length}-"))
        if fits:
            load(loader, run)
            assert read_back(loader, run.ref) == run.attributes()
            continue
        with pytest.raises(TargetError, match="longer than the 200 characters") as caught:
            load(loader, run)
        assert "--mlflow-artifact-location" in caught.value.hint
        assert not [e for e in MlflowClient(postgres_uri).search_experiments() if e.name.startswith(f"{length}-")]
