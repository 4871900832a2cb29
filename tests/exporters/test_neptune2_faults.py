# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Neptune 2.x servers that are busy, break off, lie, forget our token or go away."""

from __future__ import annotations

import email.utils
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from collect2 import PROJECT, Home, serving, without_waiting
from servers.http import Fault
from truth2 import exact

from neptune_exporter.exporters.patience import Patience

SERIES = "GET /api/leaderboard/v1/attributes/series/float"
DOWNLOAD = "GET /api/leaderboard/v1/attributes/download"
CONTENT = bytes(range(256)) * 8192  # 2 MB: several chunks


def fill(server, runs: int = 2, series: int = 4, points: int = 1_500) -> None:
    """Runs with series and a file each."""
    project = server.store.project(PROJECT)
    for number in range(1, runs + 1):
        run = server.store.create(project, "run")
        for name in range(series):
            values = [(float(n), 1_700_000_000_000 + n, number * 1000 + name * 100 + n / 8) for n in range(points)]
            run.set(f"metrics/m{name}", "floatSeries", values)
        run.set("files/weights", "file", (CONTENT, "bin"))
        run.set("files/set", "fileSet", {"a": CONTENT, "b": b"b"})
        run.set("note", "string", f"run {number}")


@pytest.fixture
def server():
    with serving(page=1000) as server, without_waiting():
        fill(server)
        yield server


@pytest.fixture
def clean(tmp_path):
    """What an export without faults brings home."""
    with serving(page=1000) as server:
        fill(server)
        home = Home(tmp_path / "clean")
        assert home.export() == 0
        return comparable(home)


def comparable(home: Home) -> dict:
    """All values of all runs, those left out that differ between two servers."""
    return {
        run_id: {v for v in home.values(run_id) if v.type != "datetime"}
        for run_id in home.run_ids()
    }  # fmt: skip


@pytest.mark.parametrize(
    "endpoint",
    [
        "projects/get",
        "entries/search",
        r"GET /api/leaderboard/v1/attributes\?",
        "series/float",
        r"attributes/download\?",
        "downloadFileSetZipRequest",
        "downloadRequest",
        "GET /download/",
        "leaderboard/swagger.json",
    ],
)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 503, "times": 3},
        {"status": 500, "times": 2},
        {"action": "reset", "times": 2},
        {"action": "truncate", "times": 2},
        {"action": "short", "times": 2},
        {"status": 401},
    ],
    ids=lambda fault: str(fault.get("status", fault.get("action"))),
)
def test_losses_6_what_passes_is_ridden_out(server, clean, tmp_path, endpoint, fault):
    server.http.faults.append(Fault(endpoint, **fault))
    home = Home(tmp_path)
    assert home.export() == 0
    assert server.http.faults[0].times == 0, "the fault must have struck"
    assert comparable(home) == clean


def test_losses_6_a_file_that_stays_short_is_a_named_problem(server, tmp_path):
    server.http.faults.append(Fault(r"attributes/download\?", "short", times=None))
    server.http.faults.append(Fault("GET /download/", "short", times=None))
    home = Home(tmp_path)
    assert home.export() == 3
    problems = home.staged("DEMO-1").problems
    assert {p.attribute for p in problems} == {"files/weights", "files/set"}
    assert f"{len(CONTENT) // 2} bytes instead of {len(CONTENT)}" in str(problems)
    assert not [p for p in (tmp_path / "files").rglob("*") if p.is_file()], "no part of a file is left"
    server.http.faults.clear()
    assert home.export() == 0
    assert {"files/weights", "files/set"} <= {v.path for v in home.values("DEMO-1")}


def test_losses_1_one_dead_attribute_costs_one_attribute(server, tmp_path, capsys):
    server.http.faults.append(Fault("series/float.*metrics/m2", status=500, times=None))
    home = Home(tmp_path)
    assert home.export() == 3
    for run_id in ("DEMO-1", "DEMO-2"):
        assert [(p.attribute, p.kind) for p in home.staged(run_id).problems] == [("metrics/m2", "retry")]
        points = [v for v in home.values(run_id) if v.type == "float_series"]
        assert len(points) == 3 * 1_500
    assert "metrics/m2" in capsys.readouterr().out
    server.http.faults.clear()
    server.http.log.clear()
    assert home.export() == 0
    assert server.http.counts[SERIES] <= 2 * 2
    assert server.http.counts[DOWNLOAD] == 0, "only what was missing is fetched"
    assert sum(v.type == "float_series" for v in home.values("DEMO-1")) == 4 * 1_500


def test_a_series_that_ends_early_keeps_what_came(tmp_path):
    with serving(csv=False, page=1000) as server, without_waiting():
        fill(server, runs=1, series=1, points=3500)
        server.http.faults.append(Fault("series/float.*offset=2000", status=500, times=None))
        home = Home(tmp_path)
        assert home.export() == 3
        assert sum(v.type == "float_series" for v in home.values("DEMO-1")) == 2000
        assert "1500 of 3500 points are missing" in home.staged("DEMO-1").problems[0].message
        server.http.faults.clear()
        assert home.export() == 0
        assert sum(v.type == "float_series" for v in home.values("DEMO-1")) == 3500


@pytest.mark.parametrize("how", [{"action": "truncate"}, {"action": "reset"}, {"status": 500, "times": None}])
def test_a_csv_that_breaks_off_is_finished_in_pages(tmp_path, how):
    with serving(page=100000) as server, without_waiting():
        fill(server, runs=1, series=1, points=5000)
        server.http.faults.append(Fault("floatSeries/csv", **how))
        home = Home(tmp_path)
        assert home.export() == 0
        assert len({v for v in home.values("DEMO-1") if v.type == "float_series"}) == 5000


def test_a_csv_that_is_not_as_expected_is_not_believed(tmp_path):
    with serving(page=100000) as server, without_waiting():
        fill(server, runs=1, series=2, points=3000)
        lines = "".join(f"{n}.0,{n},1.0\n" for n in range(3000))
        server.http.faults.append(Fault("floatSeries/csv", status=200, body=lines.encode(), times=None))
        home = Home(tmp_path)
        assert home.export() == 0
        values = {(v.path, int(v.step)): v.value for v in home.values("DEMO-1") if v.type == "float_series"}
    assert values == {(f"metrics/m{m}", n): exact(1000 + m * 100 + n / 8) for m in range(2) for n in range(3000)}


def test_losses_3_a_token_revoked_half_way_ends_the_export(server, tmp_path, capsys):
    server.http.faults.append(Fault("series/float.*metrics/m3", status=401, times=None))
    home = Home(tmp_path)
    assert home.export("--workers", "1") == 1
    shown = capsys.readouterr().err
    assert shown.count("Error:") == 1
    assert "does not accept the API token" in shown
    assert "Hint:" in shown
    assert home.run_ids() == set(), "no run looks complete"
    assert len(server.http.log) < 60
    server.http.faults.clear()
    assert home.export() == 0


def test_losses_3_revoked_for_good(server, tmp_path, capsys):
    server.revoke()
    assert Home(tmp_path).export() == 1
    assert "does not accept the API token" in capsys.readouterr().err


def test_access_tokens_that_are_lost_or_expire_are_replaced_once(tmp_path):
    with serving(page=1000) as server, without_waiting():
        fill(server, runs=4, series=8)
        server.http.faults.append(Fault("series/float.*DEMO", times=0))
        home = Home(tmp_path)
        lose = threading.Thread(target=lambda: [server.expire_tokens() for _ in range(1)])
        lose.start()
        lose.join()
        assert home.export() == 0
        assert server.http.counts["POST /realm/protocol/openid-connect/token"] <= 3
        assert len(home.run_ids()) == 4


def test_tokens_that_live_shortly_are_refreshed_in_time(tmp_path):
    with serving(page=1000, token_seconds=31) as server:
        fill(server, runs=1)
        assert Home(tmp_path).export() == 0
        assert server.http.counts["GET /api/backend/v1/authorization/oauth-token"] == 1


def test_a_server_that_goes_away_ends_the_export(tmp_path, capsys):
    with serving() as server:
        fill(server)
        home = Home(tmp_path)
        assert home.export("-r", "DEMO-1") == 0
        server.http.faults += [
            Fault("series/float", "reset", times=None),
            Fault("clients/config", "reset", times=None),
        ]
        capsys.readouterr()
        assert home.export("--workers", "1", "--retry-timeout", "1", "-c", "metrics") == 1
    shown = capsys.readouterr().err
    assert "has not answered for" in shown
    assert "Hint: What was finished is kept" in shown
    assert home.run_ids() == {"DEMO-1"}


def test_a_run_whose_attributes_cannot_be_had_costs_only_itself(server, tmp_path):
    dead = server.store.container(f"{PROJECT}/DEMO-1").id
    server.http.faults.append(Fault(rf"v1/attributes\?experimentId={dead}", status=500, times=None))
    home = Home(tmp_path)
    assert home.export() == 3
    assert home.run_ids() == {"DEMO-2"}


def test_losses_10_a_project_that_fails_does_not_end_the_others(server, tmp_path, capsys):
    for name in ("gone", "last"):
        server.store.create(server.store.add_project(f"team/{name}", name.upper()), "run")
    gone = server.store.project("team/gone").id
    server.http.faults.append(Fault(f"entries/search.*{gone}", status=500, times=None))
    home = Home(tmp_path)
    assert home.export("-c", "parameters", project=None) == 3
    assert home.run_ids() == {"DEMO-1", "DEMO-2"}
    assert home.run_ids(project="team/last") == {"LAST-1"}
    assert "team/gone cannot be listed" in capsys.readouterr().err


def test_s3_content_that_is_gone_or_changed_is_named(server, tmp_path):
    run = server.store.container(f"{PROJECT}/DEMO-1")
    path = tmp_path / "data.bin"
    path.write_bytes(b"changed")
    metadata = [{"key": "file_path", "value": f"file://{path}"}]
    gone = [{"key": "file_path", "value": f"file://{tmp_path}/gone"}]
    server.store.artifacts["h" * 64] = [
        {"filePath": "data.bin", "fileHash": "0" * 40, "type": "Local", "size": 7, "metadata": metadata},
        {"filePath": "gone", "fileHash": "0" * 40, "type": "Local", "size": 7, "metadata": gone},
    ]
    run.set("data", "artifact", "h" * 64)
    home = Home(tmp_path)
    assert home.export("-r", "DEMO-1") == 3
    messages = sorted(p.message for p in home.staged("DEMO-1").problems)
    assert "data.bin: " in messages[0]
    assert "has changed since it was tracked" in messages[0]
    assert "is not on this machine" in messages[1]
    (row,) = [r for r in home.records("DEMO-1") if r["attribute_path"] == "data"]
    assert row["string_value"] is None, "the list is there"


def test_the_wait_that_a_server_asks_for_is_honoured(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(Patience, "_sleep", lambda _self, seconds: waited.append(seconds))
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    with serving() as server:
        fill(server, runs=1)
        for header in ("7", date):
            server.http.faults.append(Fault("series/float", status=429, headers={"Retry-After": header}))
        assert Home(tmp_path).export() == 0
    assert 7.0 in waited
    assert any(15 < seconds <= 20 for seconds in waited)


# --- interruptions


PROGRAM = "import sys; from neptune_exporter.cli.main import run; run()"


def start(server, home: Home) -> subprocess.Popen:
    arguments = ["export", "--exporter", "neptune2", "-p", PROJECT, "--no-progress", "--workers", "2"]
    places = ["--data-path", str(home.root / "data"), "--files-path", str(home.root / "files")]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, *places],
        env={**os.environ, "NEPTUNE_API_TOKEN": server.api_token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 130)])
@pytest.mark.parametrize("requests", [12, 30])
def test_losses_2_interrupted_at_any_time_it_goes_on(clean, tmp_path, how, code, requests):
    with serving(page=1000) as server:
        fill(server)
        reached, seen = threading.Event(), []

        def count(request, answer=server.http._handle):
            seen.append(request.path)
            if len(seen) == requests:
                reached.set()
            if len(seen) >= requests:
                released.wait(60)
            return answer(request)

        released = threading.Event()
        server.http._handle = count
        home = Home(tmp_path)
        process = start(server, home)
        assert reached.wait(120)
        process.send_signal(getattr(signal, how))
        released.set()
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        if code == 130:
            assert "Hint: Run the same command again" in err
        for run in home.staging.folder(PROJECT).runs():
            assert {v for v in home.values(run.ref.run_id) if v.type != "datetime"} == clean[run.ref.run_id]
        assert home.export() == 0
        assert comparable(home) == clean


def test_problems_are_listed_as_json(server, tmp_path, capsys):
    server.http.faults.append(Fault("series/float.*metrics/m2", status=404, times=None))
    assert Home(tmp_path).export("--json", "-r", "DEMO-1") == 3
    report = json.loads(capsys.readouterr().out)
    assert report["runs"][0]["problems"][0]["attribute"] == "metrics/m2"
    assert report["runs"][0]["problems"][0]["kind"] == "permanent"
