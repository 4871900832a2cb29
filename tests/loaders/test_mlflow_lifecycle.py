# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing that is unfinished looks finished, and a new load replaces what an old one left: by MLflow's client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from logged_run import REF, LoggedRun, load, read_back
from mlflow import MlflowClient
from mlflow.entities import ViewType

from neptune_exporter.errors import DamagedDataError, TargetError
from neptune_exporter.loaders.mlflow import tracking
from neptune_exporter.loaders.mlflow.tracking import Tracking
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import pump

START = 1_700_000_000_000


@pytest.fixture
def mode() -> str:
    return "rest"


@pytest.fixture
def logged(tmp_path) -> LoggedRun:
    run = LoggedRun(tmp_path / "files").single("a", "int", 1)
    run.series("loss", "float_series", [(n, START + n, n / 7) for n in range(2500)])
    return run


def active_runs(uri: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(REF.project_id)
    return client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)


def complete_runs(uri: str) -> list:
    return [run for run in active_runs(uri) if run.data.tags["neptune.load"].startswith("complete:")]


def test_states_of_a_database_that_does_not_exist_yet_makes_none(make_loader, tmp_path):
    assert not make_loader(f"sqlite:///{tmp_path}/new.db").states("team/project").runs
    assert not (tmp_path / "new.db").exists()


def test_states_say_what_is_there(loader, logged):
    assert loader.states(REF.project_id).step_multiplier is None
    run_id = load(loader, logged, 10)
    state = loader.states(REF.project_id)
    assert state.step_multiplier == 10
    assert (state.runs[REF].target_id, state.runs[REF].complete, state.runs[REF].digest) == (
        run_id,
        True,
        logged.digest,
    )
    assert not loader.states("team/other").runs


def test_states_find_all_runs_over_many_pages(loader, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "PAGE_RUNS", 2)
    refs = {RunRef(REF.project_id, f"run-{n}") for n in range(5)}
    for ref in refs:
        load(loader, LoggedRun(tmp_path, ref).single("a", "int", 1))
    assert set(loader.states(REF.project_id).runs) == refs


def test_loss_12_a_half_loaded_run_is_replaced(loader, logged, sqlite_uri):
    loader.prepare(REF.project_id, 1)
    half = loader.start(logged.to_load(), 1)
    half.write(logged.batches()[0])
    state = loader.states(REF.project_id).runs[REF]
    assert not state.complete
    assert active_runs(sqlite_uri)[0].info.status == "RUNNING"
    load(loader, logged)
    (run,) = active_runs(sqlite_uri)
    assert run.info.run_id != state.target_id
    assert loader.states(REF.project_id).runs[REF].complete
    assert read_back(loader) == logged.attributes()


def test_a_changed_run_replaces_the_old_one_only_when_it_is_complete(loader, logged, sqlite_uri):
    old = load(loader, logged)
    before = logged.attributes()
    logged.single("a", "int", 2)
    sink = loader.start(logged.to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
        assert loader.states(REF.project_id).runs[REF].target_id == old
        assert read_back(loader) == before
    sink.commit()
    (run,) = active_runs(sqlite_uri)
    assert run.info.run_id != old
    assert run.data.params["a"] == "2"


def test_abort_leaves_nothing(loader, logged, sqlite_uri, temporary_folder):
    loader.prepare(REF.project_id, 1)
    sink = loader.start(logged.to_load(), 1)
    sink.write(logged.batches()[0])
    sink.abort()
    assert active_runs(sqlite_uri) == []
    assert not list(temporary_folder.iterdir())
    sink.abort()


def test_abort_beside_a_complete_run_keeps_that(loader, logged):
    old = load(loader, logged)
    loader.start(logged.single("a", "int", 2).to_load(), 1).abort()
    assert loader.states(REF.project_id).runs[REF].target_id == old


CALLS = ["log", "upload", "set_tag", "end_run", "delete_run"]


@pytest.mark.parametrize("call", CALLS)
def test_a_load_that_fails_at_any_call_never_looks_complete_and_can_be_repeated(loader, logged, sqlite_uri, call):
    old = load(loader, logged)
    logged.single("a", "int", 2).single("f", "file", logged.file("p/f", b"f"))
    number = 0
    while True:
        number += 1
        sink = loader.start(logged.to_load(), 1)
        calls = fail_at(loader._tracking, call, number)
        try:
            for batch in logged.batches():
                sink.write(batch)
            sink.commit()
        except TargetError:
            sink.abort()
            undo(loader._tracking, call)
            assert calls[0] == number
            # The old one is still there, and it alone is complete.
            assert [run.info.run_id for run in complete_runs(sqlite_uri)] == [old]
            continue
        undo(loader._tracking, call)
        break
    load(loader, logged)
    assert len(active_runs(sqlite_uri)) == 1
    assert read_back(loader) == logged.attributes()


def fail_at(tracking: Tracking, call: str, number: int) -> list[int]:
    """Lets the n-th call of a kind fail before it reaches MLflow."""
    real, calls = getattr(tracking, call), [0]

    def failing(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number:
            raise TargetError("injected")
        return real(*args, **kwargs)

    setattr(tracking, call, failing)
    return calls


def undo(tracking: Tracking, call: str) -> None:
    delattr(tracking, call)


def test_a_marker_whose_answer_is_lost_does_not_survive_the_abort(loader, logged, sqlite_uri):
    loader.prepare(REF.project_id, 1)
    sink = loader.start(logged.to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
    real = loader._tracking.set_tag

    def lost(*args):
        real(*args)
        raise TargetError("The connection broke.")

    loader._tracking.set_tag = lost
    with pytest.raises(TargetError):
        sink.commit()
    sink.abort()
    assert active_runs(sqlite_uri) == []


def test_two_complete_runs_of_one_name_are_tidied_up(loader, logged, sqlite_uri):
    """What a load leaves that is killed between its marker and the removal of the old run."""
    load(loader, logged)
    sink = loader.start(logged.single("a", "int", 2).to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
    loader._tracking.delete_run = lambda run_id: None
    sink.commit()
    undo(loader._tracking, "delete_run")
    assert len(complete_runs(sqlite_uri)) == 2
    assert read_back(loader) == logged.attributes()  # the newer one
    assert not loader.states(REF.project_id).runs[REF].complete
    load(loader, logged)
    assert len(active_runs(sqlite_uri)) == 1
    assert loader.states(REF.project_id).runs[REF].complete


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from logged_run import REF, LoggedRun, load
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.loaders.loader import TargetState
from neptune_exporter.loaders.mlflow import tracking
from neptune_exporter.loaders.mlflow.tracking import Tracking
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import pump

calls, last = 0, int(sys.argv[4])
def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("create_run", "log", "upload", "set_tag", "end_run"):
    setattr(Tracking, name, counted(getattr(Tracking, name)))
run = LoggedRun(Path(sys.argv[3])).single("a", "int", 1)
run.series("loss", "float_series", [(n, 1_700_000_000_000 + n, n / 7) for n in range(2500)])
load(MLflowLoader(MLflowOptions(sys.argv[2], mlflow_mode="rest")), run)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("last", [3, 6])
def test_kill_9_in_the_middle_then_a_reload_gives_one_complete_run(loader, logged, sqlite_uri, temporary_folder, last):
    arguments = [str(Path(__file__).parent), sqlite_uri, str(logged.root), str(last)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], check=False, env={**os.environ, "TMPDIR": str(temporary_folder)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert not loader.states(REF.project_id).runs[REF].complete
    load(loader, logged)
    assert len(active_runs(sqlite_uri)) == 1
    assert read_back(loader) == logged.attributes()


def test_a_file_that_is_missing_is_named(loader, logged):
    logged.single("f", "file", logged.file("p/f", b"f"))
    to_load = logged.to_load()
    batches = logged.batches()
    (logged.root / "p/f").unlink()
    loader.prepare(REF.project_id, 1)
    sink = loader.start(to_load, 1)
    with pytest.raises(DamagedDataError, match="p/f"):
        pump(batches, sink)
    sink.abort()
    assert REF not in loader.states(REF.project_id).runs


def test_loss_14_a_step_that_does_not_fit_stops_the_run(loader, logged):
    logged.series("loss", "float_series", [("0.29", START, 1.0)])
    loader.prepare(REF.project_id, 10)
    sink = loader.start(logged.to_load(), 10)
    with pytest.raises(TargetError, match=r"Step 0.29 times 10 is not a whole number"):
        pump(logged.batches(), sink)
    sink.abort()


def test_rows_of_an_attribute_that_do_not_come_together_are_refused(loader, tmp_path):
    run = LoggedRun(tmp_path).single("a", "int", 1).single("b", "int", 2)
    loader.prepare(REF.project_id, 1)
    sink = loader.start(run.to_load(), 1)
    (batch,) = run.batches()
    sink.write(batch)
    with pytest.raises(ValueError, match="do not come together"):
        sink.write(batch)
    sink.abort()


def test_artifacts_go_where_they_are_asked_to(sqlite_uri, logged, tmp_path, monkeypatch):
    from neptune_exporter.loaders.mlflow import MLflowOptions
    from neptune_exporter.loaders.mlflow.loader import MLflowLoader

    loader = MLflowLoader(MLflowOptions(sqlite_uri, (tmp_path / "else where").as_uri()))
    load(loader, logged)
    assert list((tmp_path / "else where").rglob("neptune/manifest.json"))
    assert read_back(loader) == logged.attributes()
