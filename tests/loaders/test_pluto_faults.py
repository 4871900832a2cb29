# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong on the way to Pluto: nothing is lost, nothing is there twice, nothing half looks complete."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import stamina
from logged_run import REF, LoggedRun, read_back
from pluto_target import batches_by_step, load, loader_of
from servers.http import Fault
from servers.pluto import KEY, PlutoServer
from servers.pluto_store import Run

from neptune_exporter.errors import ExporterError, StartAgainError, TargetAccessError, TargetError
from neptune_exporter.loaders.pluto import PlutoOptions, lines
from neptune_exporter.loaders.pluto.api import addresses
from neptune_exporter.loaders.pluto.client import Client
from neptune_exporter.loaders.pluto.loader import PlutoLoader

START = 1_700_000_000_000
ENDPOINTS = [
    "POST /api/slug",
    "GET /api/runs/list",
    "POST /api/runs/create",
    "POST /api/runs/logName/add",
    "POST /ingest/metrics",
    "POST /ingest/data",
    "POST /ingest/logs",
    "POST /files",
    "PUT /s3/",
    "POST /api/runs/config/update",
    "POST /api/runs/tags/update",
    "POST /api/runs/status/update",
    "GET /api/runs/details",
]


@pytest.fixture(autouse=True)
def no_waiting():
    """Patience without the time it takes."""
    with stamina.set_testing(True, attempts=12, cap=True):
        yield


@pytest.fixture(scope="module", autouse=True)
def small_requests():
    """So that a small run needs several of each kind."""
    before, lines.LINES = lines.LINES, 150
    yield
    lines.LINES = before


@pytest.fixture
def server():
    with PlutoServer() as running:
        yield running


@pytest.fixture
def loader(server):
    return loader_of(server)


def rich(folder: Path) -> LoggedRun:
    """A run that sends something to every endpoint, more than once where that is possible."""
    run = LoggedRun(folder).single("a", "int", 1).single("sys/tags", "string_set", ["t"])
    for name in range(6):
        run.series(f"m{name}", "float_series", [(n, START + name, n / 7) for n in range(400)])
    run.series("odd", "float_series", [(1, START, 1.0), (1, START + 1, 2.0), (2, None, 3.0)])
    run.series("log", "string_series", [(n, START + n, f"{n} " * 10) for n in range(500)])
    run.series("runtime/stdout", "string_series", [(n, START + n, f"line {n}") for n in range(450)])
    counts = {"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [1.0, 2.0]}
    run.series("h", "histogram_series", [(n, START, counts) for n in range(50)])
    run.series("images", "file_series", [(n, START, run.file(f"p/{n}.png", b"%d" % n)) for n in range(25)])
    return run


@pytest.fixture
def logged(tmp_path) -> LoggedRun:
    return rich(tmp_path / "files")


def content(server: PlutoServer, run: Run) -> dict:
    """All that people see of a run, whatever its number and however often it took to get there."""
    private = {"neptune.loaded", "neptune.generation"}
    return {
        "points": {name: run.points(name) for name in run.metrics},
        "data": sorted(map(repr, run.data)),
        "logs": sorted(map(repr, run.logs)),
        "files": sorted(map(repr, (file for file in run.files if file["logName"] != "neptune"))),
        "beside": sorted(file["fileName"] for file in run.files if file["logName"] == "neptune"),
        "objects": {
            key.split("/", 3)[3]: value
            for key, value in server.store.objects.items()
            if key.startswith(f"team/project/{run.id}/") and "/neptune/" not in key
        },
        "config": {key: value for key, value in run.config.items() if key not in private},
        "rest": (run.tags, run.log_names, run.status, run.status_ms, run.created_ms, run.name),
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    with PlutoServer() as server:
        load(loader_of(server), rich(tmp_path_factory.mktemp("clean")))
        return content(server, server.store.run(1))


def assert_like_clean(server: PlutoServer, clean: dict) -> Run:
    (run,) = server.complete_runs("team/project")
    found = content(server, run)
    assert {key: found[key] == clean[key] for key in clean} == dict.fromkeys(clean, True)
    others = [other for other in server.store.runs.values() if other is not run]
    assert {other.config["neptune.load"] for other in others} <= {"abandoned", "superseded"}
    return run


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_busy_server_is_asked_again(server, loader, logged, clean, endpoint):
    server.http.faults += [
        Fault(endpoint, status=429, headers={"Retry-After": "0"}, times=2),
        Fault(endpoint, status=503, times=2),
    ]
    load(loader, logged)
    assert_like_clean(server, clean)
    assert len(server.store.runs) == 1
    assert read_back(loader) == logged.attributes()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_third_request_fails(server, loader, logged, clean, endpoint):
    server.http.faults += [Fault(endpoint, status=500, after=3 * n) for n in range(40)]
    load(loader, logged)
    assert_like_clean(server, clean)
    assert len(server.store.runs) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("after", [0, 1])
def test_an_answer_that_is_lost_doubles_nothing(server, loader, logged, clean, endpoint, after):
    """The server has done what it was asked, and then the connection breaks."""
    server.fault(endpoint, "reset", after=after)
    load(loader, logged)
    assert_like_clean(server, clean)
    assert read_back(loader) == logged.attributes()
    begins_anew = endpoint in ("POST /ingest/data", "POST /ingest/logs", "POST /files")
    assert len(server.store.runs) == 1 + begins_anew


def test_a_gateway_that_timed_out_may_have_passed_it_on(server, loader, logged, clean):
    server.fault("POST /ingest/data", status=504)
    load(loader, logged)
    assert_like_clean(server, clean)
    assert [run.status for run in server.store.runs.values()] == ["TERMINATED", "COMPLETED"]


def test_a_slow_server_is_waited_for(server, loader, tmp_path):
    server.http.latency = 0.01
    run = LoggedRun(tmp_path).single("a", "int", 1).series("m", "float_series", [(0, START, 1.0)])
    load(loader, run)
    assert read_back(loader) == run.attributes()


def test_a_server_that_takes_less_than_it_was_sent_is_not_believed(server, loader, logged, monkeypatch):
    monkeypatch.setattr(server.store, "take", lambda kind, run_id, body: 7)
    with pytest.raises(TargetError, match=r"Pluto took 7 of \d+"):
        load(loader, logged)
    assert not server.complete_runs("team/project")


def test_a_run_that_the_server_gave_up_in_between_is_ended_again(server, loader, logged, clean):
    server.store.stale = 2
    load(loader, logged)
    assert_like_clean(server, clean)


def test_a_status_that_does_not_stick_is_a_failure(server, loader, tmp_path):
    server.store.stale = 100
    run = LoggedRun(tmp_path).single("a", "int", 1)
    sink = loader.start(run.to_load(), 1)
    with pytest.raises(TargetError, match="Pluto says that the run is FAILED, not COMPLETED"):
        sink.commit()
    sink.abort()
    assert not loader.states(REF.project_id).runs


def test_a_load_that_fails_at_any_request_never_looks_complete_and_can_be_repeated(
    server, loader, tmp_path, monkeypatch
):
    run = LoggedRun(tmp_path).single("a", "int", 1).series("m", "float_series", [(0, START, 1.0)])
    run.series("log", "string_series", [(0, START, "x")]).single("f", "file", run.file("p/f", b"f"))
    old, before = load(loader, run), run.digest
    run.single("a", "int", 2)
    real, number = Client._patiently, 0
    while True:
        number += 1
        calls = [0]

        def failing(self, *args, calls=calls, last=number, **kwargs):
            calls[0] += 1
            if calls[0] == last:
                raise TargetError("injected")
            return real(self, *args, **kwargs)

        monkeypatch.setattr(Client, "_patiently", failing)
        sink = None
        try:
            sink = loader.start(run.to_load(), 1)
            for batch in batches_by_step(run):
                sink.write(batch)
            sink.commit()
            failed = False
        except TargetError:
            failed = True
        monkeypatch.setattr(Client, "_patiently", real)
        if not failed:
            break
        if sink is not None:
            sink.abort()
        found = {r.config["neptune.load"] for r in server.complete_runs("team/project")}
        assert found
        assert found <= {f"complete:{before}", f"complete:{run.digest}"}
        if sink is None or not sink._complete:
            assert loader_of(server).states(REF.project_id).runs[REF].target_id == str(old)
    assert number > 12
    load(loader, run)
    assert len(server.complete_runs("team/project")) == 1
    assert read_back(loader) == run.attributes()


def test_two_complete_runs_of_one_name_are_tidied_up(server, loader, tmp_path):
    """What a load leaves that is killed between its marker and the marks of the old run."""
    run = LoggedRun(tmp_path).single("a", "int", 1)
    first = load(loader, run)
    load(loader, run.single("a", "int", 2))
    server.store.run(first).config["neptune.load"] = "complete:before"
    assert read_back(loader) == run.attributes()  # the newer one
    assert not loader.states(REF.project_id).runs[REF].complete
    load(loader, run)
    assert len(server.complete_runs("team/project")) == 1
    assert loader.states(REF.project_id).runs[REF].complete


def test_a_changed_run_is_the_next_generation_and_the_old_one_is_superseded(server, loader, tmp_path):
    run = LoggedRun(tmp_path).single("a", "int", 1).single("sys/tags", "string_set", ["t"])
    old = load(loader, run)
    before = run.attributes()
    run.single("a", "int", 2)
    sink = loader.start(run.to_load(), 1)
    for batch in batches_by_step(run):
        sink.write(batch)
    assert loader.states(REF.project_id).runs[REF].target_id == str(old)
    assert read_back(loader) == before
    sink.commit()
    new = server.store.run(int(loader.states(REF.project_id).runs[REF].target_id))
    assert (new.external_id, new.config["neptune.generation"]) == ("neptune:2:team/project/run-1", 2)
    superseded = server.store.run(old)
    assert superseded.config["neptune.load"] == "superseded"
    assert superseded.tags == ["import:neptune", "t", "neptune:superseded"]
    assert superseded.config["a"] == 1
    assert read_back(loader) == run.attributes()


def test_a_half_loaded_run_is_given_up_and_replaced(server, loader, logged, clean):
    half = loader.start(logged.to_load(), 1)
    half.write(batches_by_step(logged)[0])
    other = loader_of(server)
    assert not other.states(REF.project_id).runs[REF].complete
    load(other, logged)
    assert_like_clean(server, clean)
    assert server.store.run(1).status == "TERMINATED"


def test_an_external_id_that_somebody_else_uses_is_left_alone(server, loader, tmp_path):
    taken = {"runName": "mine", "projectName": "team/project", "externalId": "neptune::team/project/run-1"}
    mine, _ = server.store.create({**taken, "config": '{"mine": 1}'})
    run = LoggedRun(tmp_path).single("a", "int", 1)
    assert load(loader, run) != mine.id
    assert read_back(loader) == run.attributes()


KILLED = """
import os, signal, sys
from pathlib import Path
for path in sys.argv[1:3]:
    sys.path.insert(0, path)
from neptune_exporter.loaders.pluto import PlutoOptions, lines
from neptune_exporter.loaders.pluto.client import Client
from neptune_exporter.loaders.pluto.loader import PlutoLoader
from pluto_target import load
from test_pluto_faults import rich
from servers.pluto import KEY

lines.LINES = 150
calls, last, real = 0, int(sys.argv[5]), Client._patiently
def counted(self, *args, **kwargs):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args, **kwargs)
Client._patiently = counted
load(PlutoLoader(PlutoOptions(sys.argv[3], pluto_api_key=KEY)), rich(Path(sys.argv[4])))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("last", [7, 12, 30, 66])
def test_kill_9_in_the_middle_then_a_reload_gives_one_complete_run(
    server, loader, logged, clean, temporary_folder, last
):
    here = Path(__file__).parent
    arguments = [str(here), str(here.parent), server.url, str(logged.root), str(last)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], check=False, env={**os.environ, "TMPDIR": str(temporary_folder)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert not server.complete_runs("team/project")
    load(loader, logged)
    assert_like_clean(server, clean)
    assert read_back(loader) == logged.attributes()


# --- who cannot be loaded into


def refused(options: PlutoOptions) -> ExporterError:
    with pytest.raises(ExporterError) as caught:
        PlutoLoader(options).states(REF.project_id)
    return caught.value


@pytest.mark.parametrize("key", ["", "plt_wrong", "schlüssel"])
def test_a_wrong_key_ends_the_command(server, key):
    error = refused(PlutoOptions(server.url, pluto_api_key=key))
    assert isinstance(error, TargetAccessError)
    assert error.fatal
    assert "PLUTO_API_KEY" in error.hint
    assert "wrong" not in error.message + error.hint


def test_a_key_that_is_revoked_in_the_middle_ends_the_command(server, loader, logged):
    sink = loader.start(logged.to_load(), 1)
    server.fault("POST", status=401, times=None)
    with pytest.raises(TargetAccessError, match="refuses the API key"):
        sink.write(batches_by_step(logged)[0])
    sink.abort()
    assert not server.complete_runs("team/project")


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "127.0.0.1:9"])
def test_no_server_is_named(host):
    error = refused(PlutoOptions(host, pluto_api_key=KEY))
    assert "No Pluto server answers at http://127.0.0.1:9" in error.message
    assert "--pluto-host" in error.hint
    assert KEY not in error.message + error.hint


def test_an_address_of_something_else_is_named(server):
    server.fault("POST /api/slug", status=200, body=b"<html>hello</html>")
    assert "does not answer as Pluto does" in refused(PlutoOptions(server.url, pluto_api_key=KEY)).message


def test_a_project_that_is_not_there_holds_nothing(loader):
    assert not loader.states("team/none").runs
    with pytest.raises(TargetError, match="is not in Pluto at"):
        loader.read(REF)


def test_a_server_that_is_too_old_to_list_more_says_so(server, loader, tmp_path, monkeypatch):
    monkeypatch.setattr("neptune_exporter.loaders.pluto.api.PAGE_RUNS", 1)
    for name in "ab":
        server.store.create({"runName": name, "projectName": REF.project_id})
    listed = server._gets["/api/runs/list"]
    server._gets["/api/runs/list"] = lambda request: {"runs": listed(request)["runs"] or [{"id": 1, "config": {}}]}
    monkeypatch.setattr(server.store, "of_project", lambda project: [server.store.run(1)])
    with pytest.raises(TargetError, match="lists no more than 1 runs"):
        loader.states(REF.project_id)


def test_hosts_are_understood_as_pluto_does():
    assert addresses(PlutoOptions("10.0.0.1")) == (
        "http://10.0.0.1:3000",
        "http://10.0.0.1:3001",
        "http://10.0.0.1:3003",
    )
    assert addresses(PlutoOptions("box:8080/"))[1] == "http://box:8080"
    assert addresses(PlutoOptions("https://pluto.acme.com/"))[2] == "https://pluto.acme.com"
    own = PlutoOptions(pluto_url_app="a", pluto_url_api="b/", pluto_url_ingest="c")
    assert addresses(own) == ("a", "b", "c")


def test_starting_again_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(StartAgainError("a", "b")))
    assert (error.message, error.hint) == ("a", "b")
