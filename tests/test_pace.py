# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Back-pressure: how many requests a server gets in a second and at a time, as the server itself sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from areas import PROJECT as AREA
from areas import floats, stage
from servers import pluto
from servers.http import HttpError, Reply
from servers.neptune2 import Neptune2Server
from servers.neptune3 import Neptune3Server

from neptune_exporter.assignment import Assignment, assigned
from neptune_exporter.cli.main import main
from neptune_exporter.errors import UsageError
from neptune_exporter.exporters.patience import Patience, TryAgainError
from neptune_exporter.model import RunRef
from neptune_exporter.pace import Pace

PROJECT = "team/pace"


class Watched:
    """Stands before a server: when its requests came, how many were under way, and 429 for those that are too many.

    Args:
        http: of the server.
        most: how many at a time it stands; None for any number.
    """

    def __init__(self, http, most: int | None = None) -> None:
        self._handle, self._most = http._handle, most
        self._lock = threading.Lock()
        self._under_way = 0
        self.times: list[float] = []
        self.refused = 0
        self.peaks: list[int] = []
        http._handle = self._watched

    def _watched(self, request) -> Reply:
        with self._lock:
            self.times.append(time.monotonic())
            self._under_way += 1
            self.peaks.append(self._under_way)
            too_many = self._most is not None and self._under_way > self._most
            self.refused += too_many
        try:
            if too_many:
                raise HttpError(Reply.json({"message": "too many"}, 429))
            return self._handle(request)
        finally:
            with self._lock:
                self._under_way -= 1

    def most_within(self, seconds: float, skip: int = 0) -> int:
        """The most requests in any window of so many seconds, the first few left out."""
        times = np.sort(np.array(self.times))[skip:]
        return int(max(np.searchsorted(times, times + seconds, "right") - np.arange(len(times))))


@pytest.fixture
def neptune3(monkeypatch):
    with Neptune3Server() as server:
        for number in range(8):
            run = server.store.add_run(PROJECT, f"run-{number}")
            for metric in range(4):
                run.series(f"metric-{metric}", "floatSeries").extend(np.arange(50), np.arange(50), np.arange(50.0))
        monkeypatch.setenv("NEPTUNE_API_TOKEN", server.api_token)
        yield server
        assert server.errors == []


def export(tmp_path, *arguments: str) -> int:
    places = ["-d", str(tmp_path / "data"), "-f", str(tmp_path / "files"), "--no-progress"]
    return main(["export", "-p", PROJECT, *places, *arguments])


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_no_second_has_more_requests_than_allowed(neptune3, tmp_path, executor):
    """Of all workers together, whether they are threads or processes; signing in counts as well."""
    watched = Watched(neptune3.http)
    rate = 10
    assert export(tmp_path, "--max-requests-per-second", str(rate), "--workers", "2", "--executor", executor) == 0
    assert len(watched.times) > 2 * rate
    processes = 3 if executor == "processes" else 1  # each may be one early; the listing is this process's
    assert watched.most_within(1.0) <= rate + processes
    assert len(list((tmp_path / "data").rglob("*.parquet"))) == 16


def test_neptune_2_keeps_to_it_too(tmp_path):
    with Neptune2Server() as server, server.environment():
        project = server.store.add_project(PROJECT, "PACE")
        for _ in range(25):
            server.store.create(project, "run")
        watched = Watched(server.http)
        assert export(tmp_path, "--exporter", "neptune2", "--max-requests-per-second", "10") == 0
    assert watched.most_within(1.0, skip=10) <= 10 + 1  # before there is a session, the client itself asks
    assert len(watched.times) > 20


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_load_keeps_to_it_too(tmp_path, executor):
    for number in range(4):
        name = f"run-{number}"
        stage(tmp_path, name, floats(RunRef(AREA, name), "loss", [1.0, 2.0]), files={"f": b"content"})
    with pluto.PlutoServer() as server:
        watched = Watched(server.http)
        target = ["--loader", "pluto", "--pluto-host", server.url, "--pluto-api-key", pluto.KEY]
        places = ["-d", str(tmp_path / "data"), "-f", str(tmp_path / "files"), "--no-progress"]
        rate = ["--max-requests-per-second", "20", "--workers", "2", "--executor", executor]
        assert main(["load", *target, *places, *rate]) == 0
        assert main(["verify", *target, *places]) == 0
    assert len(watched.times) > 40
    sent = [time for time in watched.times if time < watched.times[0] + 2]
    assert len(sent) <= 2 * 20 + (3 if executor == "processes" else 1)


def test_wandb_cannot_be_held_to_it(tmp_path, capsys):
    stage(tmp_path, "run", floats(RunRef(AREA, "run"), "loss", [1.0, 2.0]))
    places = ["-d", str(tmp_path / "data"), "-f", str(tmp_path / "files"), "--no-progress"]
    rate = ["--max-requests-per-second", "20"]
    load = ["load", "--loader", "wandb", "--wandb-api-key", "k" * 40, *places, *rate]
    assert main(load) != 0
    assert "cannot hold for W&B" in capsys.readouterr().err
    assert main([*load, "--wandb-mode", "offline", "--wandb-dir", str(tmp_path)]) == 0


def test_a_server_with_too_much_to_do_gets_less(neptune3, tmp_path, monkeypatch):
    """It stands two requests at a time and answers 429 to more: nothing is lost, and soon it has its peace."""
    monkeypatch.setattr(Patience, "_sleep", lambda self, seconds: self._check())
    neptune3.http.latency = 0.0
    watched = Watched(neptune3.http, most=2)
    slow = watched._handle
    watched._handle = lambda request: (time.sleep(0.01), slow(request))[1]
    assert export(tmp_path, "--workers", "8") == 0
    assert len(list((tmp_path / "data").rglob("*.parquet"))) == 16
    assert watched.refused
    late = watched.peaks[len(watched.peaks) // 2 :]
    assert np.mean(late) <= 3


# --- the pace itself


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def at_once(pace: Pace, count: int, inside: Callable[[], None] = lambda: None) -> int:
    """How many of so many threads get a turn before one ends."""
    began, release, threads = [], threading.Event(), []

    def work():
        with pace.turn() as start:
            began.append(start)
            inside()
            release.wait(20)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 0.3
    while len(began) < count and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    found = len(began)
    release.set()
    for thread in threads:
        thread.join()
    return found


def test_concurrency_is_halved_once_for_all_that_were_under_way():
    pace = Pace()
    assert at_once(pace, 8) == 8
    with pace.turn() as first, pace.turn() as second, pace.turn(), pace.turn():
        pace.complained(first)
        assert pace.limit == 2
        pace.complained(second)
        assert pace.limit == 2
    assert at_once(pace, 8) == 2


def test_it_grows_by_one_a_round_and_never_falls_below_one():
    pace = Pace()
    for _ in range(5):
        with pace.turn() as began:
            pace.complained(began)
    assert pace.limit == 1
    for _ in range(1 + 2 + 3):
        pace.answered()
    assert 3.5 < pace.limit < 4.5


def test_who_waits_is_let_go_at_the_end():
    pace = Pace(0.001)
    pace.take()
    waiting = threading.Thread(target=pace.take)
    waiting.start()
    pace.end()
    waiting.join(20)
    assert not waiting.is_alive()


def test_processes_share_the_rate(monkeypatch):
    clock = Clock()
    with assigned(Assignment("c", "t", processes=4)):
        pace = Pace(10, clock)
    waited = []
    monkeypatch.setattr(pace._closed, "wait", waited.append)
    for _ in range(3):
        pace.take()
    assert waited == pytest.approx([0, 0.4, 0.8])


def test_a_complaint_is_learned_from_and_passed_on():
    patience = Patience(1, "here")
    with pytest.raises(TryAgainError), patience.in_line():
        raise TryAgainError("429", busy=True)
    assert patience.pace.limit == 1
    with pytest.raises(TryAgainError), patience.in_line():
        raise TryAgainError("reset")
    assert patience.pace.limit == 1


@pytest.mark.parametrize("rate", ["-1", "nan", "inf", "-inf", "1e999"])
def test_what_is_no_rate_is_refused(rate, tmp_path, capsys):
    """Also where no server is asked, and before anything is."""
    stage(tmp_path, "run", floats(RunRef(AREA, "run"), "loss", [1.0, 2.0]))
    with pytest.raises(UsageError, match="must be a positive number"):
        Pace(float(rate))
    places = ["-d", str(tmp_path / "data"), "-f", str(tmp_path / "files"), "--max-requests-per-second", rate]
    for command in (
        ["load", "--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"],
        ["load", "--loader", "wandb", "--wandb-mode", "offline", "--wandb-dir", str(tmp_path)],
        ["load", "--loader", "pluto"],
        ["load-models"],
        ["export", "-p", PROJECT],
        ["export", "-p", PROJECT, "--exporter", "neptune2"],
        ["export-models", "-p", PROJECT],
        ["verify", "--exporter", "neptune3"],
    ):
        assert main([*command, *places]) == 2, command
        assert "--max-requests-per-second must be a positive number" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
