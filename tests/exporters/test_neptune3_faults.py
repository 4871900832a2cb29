# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The exporter for Neptune 3.x against servers and storages that fail: nothing is lost in silence."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import numpy as np
import pytest
from collect3 import PROJECT, Home, put, report, serving, system_rows, without_waiting
from contracts.rows import assert_same, curve, everything, point, single
from servers.http import Fault
from servers.neptune3 import ENDPOINTS
from truth import HistogramValue

from neptune_exporter.errors import InterruptedRunError
from neptune_exporter.exporters.neptune3 import series
from neptune_exporter.exporters.patience import (
    Patience,
    RequestError,
    ServerGoneError,
    TryAgainError,
    retry_after,
)

PAST = "Wed, 21 Oct 2015 07:28:00 GMT"
HISTOGRAM = HistogramValue("COUNTING", (0.0, 1.0, 2.0), (3.0, 4.0))


@pytest.fixture
def server():
    with serving() as server, without_waiting():
        yield server


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def fill(server, runs: int = 2, rows=None) -> dict[str, list]:
    """Runs with rows of every type; what is to be found by run id."""
    expected = {}
    for number in range(runs):
        run = server.store.add_run(PROJECT, f"run-{number}")
        own = [row for row in everything() if not row.path.startswith("sys/")] if rows is None else rows
        put(server, run, own)
        expected[f"run-{number}"] = own + system_rows(run)
    return expected


def check(expected, home) -> None:
    for run_id, rows in expected.items():
        assert_same(rows, home.rows(run_id))
        assert home.staged(run_id).status == "complete"


# --- trouble that passes

TROUBLE = {
    "429": Fault("", status=429, headers={"Retry-After": "0"}, times=2),
    "429 without a time": Fault("", status=429, times=2),
    "503 burst": Fault("", status=503, times=3),
    "500": Fault("", status=500, times=2),
    "408": Fault("", status=408, times=1),
    "522 of a proxy": Fault("", status=522, times=2),
    "reset": Fault("", "reset", times=2),
    "truncated": Fault("", "truncate", times=2),
    "short": Fault("", "short", times=1),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_that_passes_is_ridden_out_everywhere(server, home, endpoint, trouble):
    expected = fill(server)
    how = vars(TROUBLE[trouble])
    server.http.faults.append(Fault(**{**how, "match": "^" + re.escape(ENDPOINTS[endpoint])}))
    assert home.export("-r", "", "--workers", "1", project=None if endpoint == "projects" else PROJECT) == 0
    assert server.http.faults[0].times == 0
    check(expected, home)


def test_trouble_everywhere_at_once(server, home):
    expected = fill(server, 6)
    for number, (action, status) in enumerate((("reset", 0), ("status", 503), ("truncate", 0), ("status", 429))):
        server.http.faults.append(Fault("", action, status=status, times=3, after=5 + 8 * number))
    assert home.export("--workers", "4") == 0
    check(expected, home)


def test_a_session_that_ends_too_early_is_renewed(server, home):
    expected = fill(server, 3)
    real = server._definitions

    def definitions(request):
        server.forget_sessions()
        return real(request)

    server._routes[ENDPOINTS["definitions"]] = definitions
    assert home.export("--workers", "1") == 0
    check(expected, home)


def test_sessions_that_are_short_are_refreshed(server, home):
    server.token_seconds = 20  # the client takes a token that has less than 30 seconds for expired
    expected = fill(server, 2)
    assert home.export("--workers", "1") == 0
    check(expected, home)


# --- how long a server is waited for


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        monkeypatch.setattr("neptune_exporter.exporters.patience.time.monotonic", lambda: self.now)
        monkeypatch.setattr(Patience, "_sleep", lambda _, seconds: self.sleep(seconds))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failing(*errors: TryAgainError, then: bytes = b"ok"):
    left = list(errors)

    def ask() -> bytes:
        if left:
            raise left.pop(0)
        return then

    return ask


def forever(error: TryAgainError):
    def ask() -> bytes:
        raise error

    return ask


def test_waits_as_long_as_the_server_asks(monkeypatch):
    clock = Clock(monkeypatch)
    ask = failing(TryAgainError("busy", after=7.0, busy=True), TryAgainError("busy", after=90.0, busy=True))
    assert Patience(120, "here").attempt(ask, attempts=1, probe=lambda: False) == b"ok"
    assert clock.slept == [7.0, 90.0]


def test_a_server_that_is_gone_ends_the_wait_after_the_budget(monkeypatch):
    clock = Clock(monkeypatch)
    patience = Patience(120, "here")
    patience.attempt(failing(), attempts=5, probe=lambda: False)
    with pytest.raises(ServerGoneError, match=r"here has not answered for 1[23]\d seconds"):
        patience.attempt(forever(TryAgainError("reset")), attempts=5, probe=lambda: False)
    assert 120 <= clock.now - 1000 < 140


def test_a_server_that_never_answered_is_not_waited_for_so_long(monkeypatch):
    clock = Clock(monkeypatch)
    with pytest.raises(ServerGoneError):
        Patience(3600, "here").attempt(forever(TryAgainError("no such host")), attempts=5, probe=lambda: False)
    assert clock.now - 1000 < 60


def test_a_server_that_is_only_busy_for_ever_is_given_up_in_the_end(monkeypatch):
    clock = Clock(monkeypatch)
    with pytest.raises(ServerGoneError):
        Patience(20, "here").attempt(
            forever(TryAgainError("busy", after=5.0, busy=True)), attempts=1, probe=lambda: False
        )
    assert 180 < clock.now - 1000 < 260


def test_a_request_that_fails_alone_is_given_up_soon(monkeypatch):
    clock = Clock(monkeypatch)
    with pytest.raises(RequestError):
        Patience(3600, "here").attempt(forever(TryAgainError("500")), attempts=5, probe=lambda: True)
    assert len(clock.slept) == 4
    assert clock.now - 1000 < 10


def test_whoever_waits_can_be_interrupted():
    patience = Patience(3600, "here")

    def ask() -> bytes:
        patience.end()
        raise TryAgainError("busy", after=3600.0)

    with pytest.raises(InterruptedRunError):
        patience.attempt(ask, attempts=1, probe=lambda: False)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("", None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), (PAST, 0.0)],
)
def test_retry_after(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 95 < retry_after(date) <= 100


def test_a_date_in_retry_after_is_ridden_out(server, home):
    expected = fill(server)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    server.http.faults.append(Fault("series/float", status=429, headers={"Retry-After": date}))
    assert home.export() == 0
    check(expected, home)


# --- the numbers of the list of losses


def test_loss_01_one_dead_attribute_costs_itself_and_heals(server, home, capsys):
    """20 series in each of 20 runs, one of them dead."""
    rows = [row for number in range(20) for row in curve(f"m/{number:02}", 30)]
    expected = fill(server, 20, rows)
    server.dead = {"m/07"}
    assert home.export("--json") == 3
    outcome = report(capsys)
    assert outcome["counts"] == {"partial": 20}
    assert [[p["attribute"] for p in run["problems"]] for run in outcome["runs"]] == [["m/07"]] * 20
    for run_id, own in expected.items():
        assert_same([row for row in own if row.path != "m/07"], home.rows(run_id))
        assert home.staged(run_id).status == "partial"

    server.dead = set()
    server.http.log.clear()
    assert home.export("--json") == 0
    assert server.counts()["floats"] == 20, "one request a run, about the one series"
    assert server.counts()["values"] == 0
    check(expected, home)
    server.http.log.clear()
    assert home.export("--json") == 0
    assert set(server.counts()) == {"token", "entries"}


@pytest.mark.parametrize("path", ["config/rate", "loss", "log", "weights", "images"])
def test_loss_01_a_dead_attribute_of_every_kind(server, home, path):
    expected = fill(server)
    server.dead = {path}
    assert home.export("--workers", "1") == 3
    for run_id, rows in expected.items():
        assert_same([row for row in rows if row.path != path], home.rows(run_id))
        assert home.problems(run_id) == {path: "retry"}
    server.dead = set()
    assert home.export() == 0
    check(expected, home)


def test_loss_01_series_that_die_on_a_later_page(server, home, monkeypatch):
    monkeypatch.setattr(series, "PAGE_POINTS", 40)
    expected = fill(server, 1, [row for number in range(4) for row in curve(f"m/{number}", 50)])
    real, asked = server._float_series, []

    def dies_later(request):
        for item in request.json()["requests"]:
            if item["series"]["attribute"] == "m/2" and item.get("afterStep") is not None:
                asked.append(item)
                server.dead = {"m/2"}
        try:
            return real(request)
        finally:
            server.dead = set()

    server._routes[ENDPOINTS["floats"]] = dies_later
    assert home.export("--workers", "1") == 3
    assert home.problems("run-0") == {"m/2": "retry"}
    assert_same(
        [row for row in expected["run-0"] if row.path != "m/2"],
        [row for row in home.rows("run-0") if row.path != "m/2"],
    )
    server._routes[ENDPOINTS["floats"]] = real
    assert home.export() == 0
    check(expected, home)


def test_loss_03_a_token_revoked_half_way_leaves_nothing_that_looks_complete(server, home, capsys):
    expected = fill(server, 6)
    real, answered = server._float_series, []

    def revoked_later(request):
        answered.append(1)
        if len(answered) == 3:
            server.revoke()
            return server._handle(request)
        return real(request)

    server._routes[ENDPOINTS["floats"]] = revoked_later
    assert home.export("--workers", "1") == 1
    assert "refuses the API token" in capsys.readouterr().err
    assert home.runs() == ["run-0", "run-1"]
    check({run_id: expected[run_id] for run_id in home.runs()}, home)
    assert sum(server.counts().values()) < 60
    server._revoked = False
    server._routes[ENDPOINTS["floats"]] = real
    assert home.export() == 0
    check(expected, home)


def test_loss_04_one_bad_value_costs_itself(server, home):
    """A step of 1e12, one finer than 1e-6, and a file name of 300 characters."""
    good = [single("int", 2**53 + 1), *curve("loss", 5), single("f/" + "n" * 300, b"file"), single("ü" * 400, b"2")]
    expected = fill(server, 2, good)
    run = server.store.projects[PROJECT]["run-0"]
    run.series("loss", "floatSeries").extend([1e12, 2e12], [5, 6], [math.nan, 0.5])
    run.series("fine", "floatSeries").extend([0.5, 1.00000005], [5, 6], [1.0, 2.0])
    run.series("text", "stringSeries").append((1e12, 7, "late"))
    assert home.export() == 3
    fine = point("fine", "0.5", 1.0)
    found = home.rows("run-0")
    assert_same(expected["run-0"], [row for row in found if row.path != "fine"])
    assert [(row.step, row.value) for row in found if row.path == "fine"] == [(fine.step, 1.0)]
    assert home.problems("run-0") == {"loss": "permanent", "fine": "permanent", "text": "permanent"}
    extra = home.staged("run-0").extra().decode()
    for kept in ("1000000000000.0", "2000000000000.0", "1.00000005", "late", "nan"):
        assert kept in extra
    check({"run-1": expected["run-1"]}, home)


def test_loss_05_an_int_stays_an_int_beside_runs_that_lack_it(server, home):
    rows = {0: [single("big", 2**53 + 1), single("largest", 2**63 - 1)], 1: [single("other", True)], 2: []}
    for number, own in rows.items():
        put(server, server.store.add_run(PROJECT, f"run-{number}"), own)
    assert home.export() == 0
    for number, own in rows.items():
        assert_same(own, [row for row in home.rows(f"run-{number}") if not row.path.startswith("sys/")])


CONTENT = bytes(range(256)) * 20_000  # 5 MB: several chunks


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
@pytest.mark.parametrize("action", ["reset", "truncate", "short"])
@pytest.mark.parametrize("ranges", [True, False])
def test_loss_06_downloads_that_break_are_gone_on_with(server, home, provider, action, ranges):
    expected = fill(server, 1, [single(f"files/{n}", CONTENT[n:]) for n in range(10)])
    server.blobs.provider, server.blobs.ranges = provider, ranges
    server.http.faults.append(Fault("GET /storage/", action, times=7))
    assert home.export() == 0
    check(expected, home)
    assert not list((home.root / "files").rglob("*.tmp"))


def test_loss_06_a_file_that_is_always_short_is_no_file(server, home):
    expected = fill(server, 1, [single("files/a", CONTENT), single("files/b", b"b")])
    (path,) = (path for (_, path), content in server.store.blobs.items() if content == CONTENT)
    server.http.faults.append(Fault(path, "short", times=None))
    assert home.export() == 3
    assert_same([row for row in expected["run-0"] if row.path != "files/a"], home.rows("run-0"))
    assert home.problems("run-0") == {"files/a": "retry"}
    assert [path.name for path in (home.root / "files").rglob("*") if path.is_file()] == ["b.bin"]
    server.http.faults.clear()
    server.http.log.clear()
    assert home.export() == 0
    assert server.counts()["download"] == 1, "just the one that failed"
    check(expected, home)


def test_loss_06_a_file_larger_or_smaller_than_it_should_be(server, home):
    fill(server, 1, [single("smaller", b"123"), single("larger", b"12345"), single("empty", b"")])
    for (project, path), content in list(server.store.blobs.items()):
        if content == b"123":
            server.store.blobs[project, path] = b"12"
        if content == b"12345":
            server.store.blobs[project, path] = b"123456"
    assert home.export() == 3
    assert home.problems("run-0") == {"smaller": "retry", "larger": "retry"}
    assert home.paths("run-0") == {"empty"}


def test_loss_06_a_file_that_changes_meanwhile_is_begun_again(server, home):
    fill(server, 1, [single("file", b"a" * 3_000_000)])
    real = server.blobs._download

    def changes(request, key):
        reply = real(request, key)
        server.store.blobs[key] = b"b" * 3_000_000
        return reply

    server.blobs._download = changes
    server.http.faults.append(Fault("GET /storage/", "truncate"))
    assert home.export() == 0
    assert [row.value for row in home.rows("run-0") if row.path == "file"] == [b"b" * 3_000_000]


def test_loss_06_a_file_that_is_not_there_is_a_problem_with_its_name(server, home):
    expected = fill(server, 1, [single("files/a", b"a"), single("files/b", b"b")])
    server.blobs.gone = {path for (_, path), content in server.store.blobs.items() if content == b"a"}
    assert home.export() == 3
    assert home.problems("run-0") == {"files/a": "permanent"}
    server.http.log.clear()
    assert home.export() == 3
    assert not server.counts()["download"], "not tried again unless asked to"
    server.blobs.gone = set()
    assert home.export("--retry-failed") == 0
    check(expected, home)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_expired_urls_are_signed_again(server, home, status):
    expected = fill(server, 1, [single(f"files/{n}", b"x" * n) for n in range(20)])
    server.blobs.expired_status = status
    real, signed = server.blobs.sign, []

    def expires(request):
        reply = real(request)
        if not signed:
            server.blobs.expire()
        signed.append(1)
        return reply

    server._routes[ENDPOINTS["sign"]] = expires
    assert home.export() == 0
    assert len(signed) == 21
    check(expected, home)


def test_urls_that_are_never_accepted_are_given_up(server, home):
    fill(server, 1, [single("file", b"x")])
    server.http.faults.append(Fault("GET /storage/", status=403, times=None))
    assert home.export() == 3
    assert home.problems("run-0") == {"file": "retry"}


def test_loss_07_names_that_look_alike_do_not_share_a_file(server, tmp_path):
    home = Home(tmp_path / "deep" / "down")
    rows = {}
    for run_id in ("run.1", "run_1", "..", "a/b", "RUN.1"):
        own = [
            single(path, f"{run_id} {path}".encode())
            for path in (
                "a.b",
                "a_b",
                "a/b",
                "A.B",
                "../../etc/passwd",
                "/abs",
                "c:\\x",
                "nul",
                "b" * 300,
                "b" * 300 + "c",
            )
        ]
        own += [point("s/x", step, f"{run_id} {step}".encode()) for step in ("1", "1.5")]
        run = server.store.add_run(PROJECT, run_id)
        put(server, run, own)
        rows[run_id] = own + system_rows(run)
    assert home.export() == 0
    check(rows, home)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and home.root not in path.parents]
    assert not outside


def test_loss_08_one_name_with_different_types_in_different_runs(server, home):
    rows = {
        "run-0": [point("x", 1, "text"), point("x", 2, "more")],
        "run-1": [point("x", 1, HISTOGRAM)],
        "run-2": [point("x", 1, 0.5)],
        "run-3": [single("x", 3)],
        "run-4": [point("x", 1, b"file")],
        "run-5": [single("x", "text")],
    }
    for run_id, own in rows.items():
        put(server, server.store.add_run(PROJECT, run_id), own)
    assert home.export() == 0
    for run_id, own in rows.items():
        assert_same(own, [row for row in home.rows(run_id) if not row.path.startswith("sys/")])


def test_loss_09_nan_and_empty_series_leave_their_traces(server, home):
    rows = [single("nan", math.nan), *(point("loss", step, value) for step, value in enumerate((math.nan, 0.5, -0.0)))]
    expected = fill(server, 1, rows)
    run = server.store.projects[PROJECT]["run-0"]
    for path, kind in (("none", "floatSeries"), ("silent", "stringSeries"), ("flat", "histogramSeries")):
        run.series(path, kind)
    assert home.export() == 0
    assert_same(expected["run-0"], home.rows("run-0"))
    index = {a.path: (a.type, a.rows, a.nan_count) for a in home.staged("run-0").attributes()}
    assert index["loss"] == ("float_series", 3, 1)
    assert index["nan"] == ("float", 1, 1)
    assert index["none"] == ("float_series", 0, 0)
    assert index["silent"] == ("string_series", 0, 0)
    assert index["flat"] == ("histogram_series", 0, 0)


def test_loss_10_one_project_that_fails_does_not_end_the_others(server, home, capsys):
    fill(server, 1)
    server.store.projects["team/secret"] = {}
    server.store.forbidden.add("team/secret")
    assert home.export("-p", "team/secret", "-p", "team/none") == 3
    err = capsys.readouterr().err
    assert "The project team/secret may not be read with this API token." in err
    assert "There is no project team/none" in err
    assert home.runs() == ["run-0"]


def test_loss_11_steps_that_no_two_metrics_share(server, home):
    rows = [
        point(f"m/{metric}", Decimal(step) + Decimal(metric) / 1000, metric + 0.5)
        for metric in range(40)
        for step in range(25)
    ]
    expected = fill(server, 1, rows)
    assert home.export() == 0
    check(expected, home)


# --- servers that do not keep their word


def test_a_server_gone_in_mid_export_keeps_what_is_done(server, home, capsys):
    expected = fill(server, 5)
    server.http.faults.append(Fault("", "reset", times=None, after=14))
    assert home.export("--workers", "1", "--retry-timeout", "0") == 1
    err = capsys.readouterr().err
    assert "has not answered for" in err
    assert "Run the same command again" in err
    done = home.runs()
    assert 0 < len(done) < 5
    check({run_id: expected[run_id] for run_id in done}, home)
    server.http.faults.clear()
    assert home.export() == 0
    check(expected, home)


def test_a_run_that_cannot_be_listed_fails_alone(server, home, capsys):
    expected = fill(server, 3)
    real = server._definitions

    def fails_for_one(request):
        if request.json()["experimentIdsFilter"][0].endswith("-2"):
            server.dead = {"all"}
            server._fail_if_dead(["all"])
        return real(request)

    server._routes[ENDPOINTS["definitions"]] = fails_for_one
    assert home.export("--json") == 3
    outcome = report(capsys)
    assert {run["run"]: run["status"] for run in outcome["runs"]} == {
        "run-0": "done", "run-1": "failed", "run-2": "done",
    }  # fmt: skip
    assert home.runs() == ["run-0", "run-2"]
    server._routes[ENDPOINTS["definitions"]] = real
    assert home.export() == 0
    check(expected, home)


def test_access_that_is_taken_away_fails_the_run(server, home):
    fill(server, 2)
    real = server._values

    def forbids(request):
        server.store.forbidden.add(PROJECT)
        try:
            return real(request)
        finally:
            server.store.forbidden.clear()

    server._routes[ENDPOINTS["values"]] = forbids
    assert home.export() == 3
    assert home.runs() == []


def test_a_value_that_is_listed_and_not_given_is_a_problem(server, home):
    fill(server, 1, [single("a", 1), single("b", 2)])
    real = server._values

    def forgets(request):
        attribute = server.store.projects[PROJECT]["run-0"].attributes.pop("b")
        try:
            return real(request)
        finally:
            server.store.projects[PROJECT]["run-0"].attributes["b"] = attribute

    server._routes[ENDPOINTS["values"]] = forgets
    assert home.export() == 3
    assert home.problems("run-0") == {"b": "retry"}


def test_a_server_that_gives_the_same_page_for_ever_is_seen_through(server, home, monkeypatch):
    monkeypatch.setattr(series, "PAGE_POINTS", 10)
    fill(server, 1, [*curve("loss", 50), *curve("other", 3)])
    real = server._float_series

    def stuck(request):
        import json
        from dataclasses import replace

        body = request.json()
        for item in body["requests"]:
            item.pop("afterStep", None)
        return real(replace(request, body=json.dumps(body).encode()))

    server._routes[ENDPOINTS["floats"]] = stuck
    assert home.export() == 3
    assert home.problems("run-0") == {"loss": "retry"}
    assert [row.value for row in home.rows("run-0") if row.path == "other"] == [r.value for r in curve("other", 3)]


def test_a_series_that_never_ends_is_a_problem(server, home):
    fill(server, 1, [point("log", step, "x") for step in range(10)])
    server.series_page = 4
    real = server._other_series

    def stops(request):
        items = request.json()["requests"]
        if (items[0].get("searchAfter") or {}).get("token") == "4":
            server.series_page = 0
        try:
            return real(request)
        finally:
            server.series_page = 4

    server._routes[ENDPOINTS["series"]] = stops
    assert home.export() == 3
    assert home.problems("run-0") == {"log": "retry"}


def test_answers_that_are_something_else_entirely(server, home, capsys):
    """A proxy that answers everything with a page of its own, and status 200."""
    fill(server, 1)
    html = Fault("/api/leaderboard", status=200, times=None, body=b"<html>Sign in</html>")
    server.http.faults.append(html)
    assert home.export("--retry-timeout", "0") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_points_that_are_not_floats_keep_nan(server, home):
    values = np.array([math.nan, math.inf, -math.inf, -0.0, 5e-324])
    run = server.store.add_run(PROJECT, "run-0")
    run.series("x", "floatSeries").extend(np.arange(5), np.arange(5), values)
    assert home.export("-c", "metrics") == 0
    found = np.array([row.value for row in sorted(home.rows("run-0"), key=lambda row: row.step)])
    assert np.array_equal(np.isnan(found), np.isnan(values))
    assert np.array_equal(found[1:].view("u8"), values[1:].view("u8"))
