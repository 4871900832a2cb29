# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments, and a database that goes away: in both ways of writing, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from logged_run import LoggedRun, attempted, load, read_back
from mlflow import MlflowClient
from mlflow.entities import ViewType
from servers.cut import line_to
from sqlalchemy import make_url

from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.model import RunRef

START = 1_700_000_000_000
WAYS = ["sqlite sql", "sqlite rest", "postgres sql", "postgres rest", "server rest", "postgres_server rest"]
# Every time the first three of these; as a soak test all of them, twenty times.
FEW, MANY = 3, 20

# Imports everything once; for each number that it reads, a copy of it loads the run and is killed at that call of the
# loader's code. 0 kills none, and says how many calls there are.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_mlflow_crash import killed_run
from logged_run import load
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.mlflow.loader import MLflowLoader

uri, mode, project, root = sys.argv[2:]
run = killed_run(project, Path(root), mode)
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        if int(line) or status:
            print(status, flush=True)
        continue
    calls, last = 0, int(line)
    def trace(frame, event, argument):
        global calls
        calls += event in ("call", "c_call") and "loaders/mlflow" in frame.f_code.co_filename
        if last and calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(trace)
    load(MLflowLoader(MLflowOptions(uri, mlflow_mode=mode)), run)
    sys.setprofile(None)
    if not last:
        print(calls, flush=True)
    os._exit(0)
"""


def killed_run(project: str, root: Path, mode: str) -> LoggedRun:
    run = LoggedRun(root, RunRef(project, "run-1")).single("a", "int", 1)
    run.single("f", "file", run.file("p/f", b"f" * 1000))
    points = 30_000 if mode == "sql" else 2_500
    return run.series("loss", "float_series", [(n, START + n, n / 7) for n in range(points)])


class Loads:
    """A process whose copies load the run, and are killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def kill_at(self, call: int) -> int:
        """Loads the run and gives the exit status; at call 0 it is not killed, and the number of calls is given."""
        self._process.stdin.write(f"{call}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def loads_of(run: LoggedRun, uri: str, mode: str, folder: Path) -> Iterator[Loads]:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), uri, mode, run.ref.project_id, str(run.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)}, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield Loads(process)
        process.stdin.close()


def active_runs(uri: str, project: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(project)
    return client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY) if experiment else []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("way", "rounds"),
    [(way, FEW) for way in WAYS[:3]] + [pytest.param(way, MANY, marks=pytest.mark.soak) for way in WAYS],
)
def test_kill_9_at_random_moments(way, rounds, request, tmp_path, temporary_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place, mode = way.split()
    uri = request.getfixturevalue(f"{place}_uri")
    run = killed_run(f"team/{request.node.name}", tmp_path / "files", mode)
    project = run.ref.project_id
    chance, killed = random.Random(rounds), 0
    with loads_of(run, uri, mode, temporary_folder) as loads:
        calls = loads.kill_at(0)
        for number in range(rounds):
            loader = MLflowLoader(MLflowOptions(uri, mlflow_mode=mode))
            MlflowClient(uri).delete_run(loader.states(project).runs[run.ref].target_id)
            status = loads.kill_at(chance.randint(calls // 10, calls - 1))
            assert status in (0, signal.SIGKILL)
            killed += status != 0
            state = loader.states(project).runs.get(run.ref)
            assert len(active_runs(uri, project)) == (state is not None)  # nothing that is not known to be half there
            if mode == "sql":  # either nothing of it is there, or all of it
                assert state is None or state.complete
            if state is not None and state.complete:
                assert read_back(loader, run.ref) == run.attributes()
            again = killed_run(project, run.root, mode).single("a", "int", number % 3)  # changed meanwhile, or not
            load(MLflowLoader(MLflowOptions(uri, mlflow_mode=mode)), again)
            (one,) = active_runs(uri, project)
            assert one.info.status == "FINISHED"
            assert read_back(loader, run.ref) == again.attributes()
    assert killed >= rounds // 2


@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", ["sql", "rest"])
def test_a_database_that_goes_away_at_random_moments(mode, rounds, postgres_uri, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = killed_run(f"team/{request.node.name}", tmp_path / "files", mode)
    project = run.ref.project_id
    whole = MLflowLoader(MLflowOptions(postgres_uri, mlflow_mode=mode))
    load(whole, run)
    chance, failed = random.Random(rounds), 0
    url = make_url(postgres_uri)
    with line_to(url.port) as line:
        through = url.set(port=line.port).render_as_string(hide_password=False)
        load(MLflowLoader(MLflowOptions(through, mlflow_mode=mode)), run.single("a", "int", -1))
        usual = line.passed
        for number in range(rounds):
            before = run.attributes()
            run.single("a", "int", number)
            line.left, line.refusals = chance.randint(usual // 20, usual), chance.choice([0, 0, 2])
            done = attempted(lambda: MLflowLoader(MLflowOptions(through, mlflow_mode=mode)), run)
            failed += not done
            line.left, line.refusals = None, 0
            state = whole.states(project).runs[run.ref]
            if done or (state.complete and state.digest == run.digest):
                assert state.complete  # what was there already, or the run whose answer was lost
            assert read_back(whole, run.ref) in ([run.attributes()] if done else [before, run.attributes()])
            load(whole, run)
            (one,) = active_runs(postgres_uri, project)
            assert one.info.status == "FINISHED"
            assert read_back(whole, run.ref) == run.attributes()
    assert failed
