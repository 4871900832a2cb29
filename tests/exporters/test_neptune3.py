# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The exporter for Neptune 3.x servers: every value, page by page, and which runs are listed."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from collect3 import PROJECT, Home, put, report, serving, system_rows
from contracts.exporter import ExporterContract
from contracts.rows import START, assert_same, curve, everything, point, single
from hypothesis import given
from hypothesis import strategies as st
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.series_values_pb2 import (
    ProtoFloatSeriesValuesResponseDTO,
)
from servers.neptune3_wire import float_points

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.neptune3 import Neptune3Options, attributes, plugin, series
from neptune_exporter.exporters.neptune3.points import MalformedPageError, decode_page, micros_of
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


class TestContract(ExporterContract):
    """What every exporter must do."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls):
        with serving() as server:
            for number, rows in enumerate((everything(), [single("config/epochs", 12), *curve("loss", 40)])):
                put(server, server.store.add_run(PROJECT, f"run-{number}"), rows)
            yield server

    @pytest.fixture
    def exporter(self, server):
        return plugin.make(Neptune3Options(api_token=server.api_token))

    @pytest.fixture
    def expected(self, server):
        rows = [everything(), [single("config/epochs", 12), *curve("loss", 40)]]
        result = {}
        for number, own in enumerate(rows):
            named = {row.path for row in own}
            system = system_rows(server.store.projects[PROJECT][f"run-{number}"])
            result[RunRef(PROJECT, f"run-{number}")] = own + [row for row in system if row.path not in named]
        return result

    def test_lists_only_what_is_selected(self, exporter, expected):
        """A project that does not exist is an error that names it, not silence."""
        ref = min(expected)
        selection = Selection(projects=(ref.project_id,), run_patterns=(f"^{ref.run_id}$",))
        assert [run.info.ref for run in self.all_runs(exporter, selection)] == [ref]
        with pytest.raises(SourceError, match="There is no project nobody/nothing"):
            self.all_runs(exporter, Selection(projects=("nobody/nothing",)))


# --- pages

FLOATS = st.floats(width=64) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 0.1])
TIMES = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 127, 128, 1_700_000_000_000, 2**56 - 1, 2**56])
# The bytes 0x12 and 0x19 are tags of records and values: numbers made of them look like records.
TRAPS = st.sampled_from([np.frombuffer(bytes([0x12, n] * 4), "<f8")[0] for n in (0, 2, 9, 11, 18, 0x12, 0x19)])
POINTS = st.lists(st.tuples(TIMES, FLOATS | TRAPS, FLOATS | TRAPS, st.booleans(), st.sampled_from([0.0, 0.5])))


@given(st.lists(st.tuples(POINTS, st.none() | st.integers(1, 2**40)), max_size=6))
def test_a_page_is_decoded_as_protobuf_does_it(pages):
    message = ProtoFloatSeriesValuesResponseDTO()
    for number, (points, total) in enumerate(pages):
        one = message.series.add(requestId=f"{number}")
        one.series.total_item_count = total or 0
        for millis, step, value, preview, ratio in points:
            one.series.values.add(
                timestamp_millis=millis, step=step, value=value, is_preview=preview, completion_ratio=ratio
            )
    page = decode_page(message.SerializeToString())
    flat = [point for points, _ in pages for point in points]
    assert page.ids == [str(number) for number in range(len(pages))]
    assert page.counts.tolist() == [len(points) for points, _ in pages]
    assert page.times.tolist() == [point[0] for point in flat]
    for found, place in ((page.steps, 1), (page.values, 2)):
        expected = np.array([point[place] for point in flat], float)
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        assert np.array_equal(found[~np.isnan(found)].view("u8"), expected[~np.isnan(expected)].view("u8"))
    assert page.previews.tolist() == [point[3] for point in flat]


@given(POINTS.filter(len), st.data())
def test_a_page_that_is_cut_short_is_refused(points, data):
    message = ProtoFloatSeriesValuesResponseDTO()
    one = message.series.add(requestId="0")
    for millis, step, value, preview, ratio in points:
        one.series.values.add(
            timestamp_millis=millis, step=step, value=value, is_preview=preview, completion_ratio=ratio
        )
    body = message.SerializeToString()
    with pytest.raises(MalformedPageError):
        decode_page(body[: data.draw(st.integers(1, len(body) - 1))])


@given(POINTS)
def test_the_servers_fast_points_are_what_protobuf_writes(points):
    message = ProtoFloatSeriesValuesResponseDTO()
    one = message.series.add(requestId="0")
    for millis, step, value, preview, ratio in points:
        one.series.values.add(
            timestamp_millis=millis, step=step, value=value, is_preview=preview, completion_ratio=ratio
        )
    columns = [[point[place] for point in points] for place in range(5)]
    body, offsets = float_points(*columns)
    assert body == one.series.SerializeToString()
    assert offsets[-1] == len(body)


def test_a_page_with_unknown_fields_is_refused_and_not_misread():
    message = ProtoFloatSeriesValuesResponseDTO()
    message.series.add(requestId="0").series.values.add(step=1.0, value=2.0)
    body = bytearray(message.SerializeToString())
    body[-9] = 0x31  # the value as field 6
    with pytest.raises(MalformedPageError):
        decode_page(bytes(body))


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**6 - 1))
def test_every_step_that_can_be_logged_is_exact(whole, micro):
    step = whole + micro / 1_000_000
    micros, fits = micros_of(np.array([step]))
    if step >= 10**12:  # 999999999999.999999 is this as a double
        assert not fits[0]
        return
    assert fits[0]
    assert float(Decimal(int(micros[0])) / 10**6) == step
    if whole < 2**31:  # a double is fine enough there to tell one micro-unit from the next
        assert int(micros[0]) == whole * 10**6 + micro


@pytest.mark.parametrize("step", [1e12, -1e12, 1e300, math.nan, math.inf, 0.1234567, 1e-7])
def test_steps_that_do_not_fit_are_told_apart(step):
    assert not micros_of(np.array([step]))[1][0]


@pytest.mark.parametrize("step", [-0.5, -1.25, -999999999999.0, 0.0, -0.0, 1e-6])
def test_odd_steps_that_fit(step):
    micros, fits = micros_of(np.array([step]))
    assert fits[0]
    assert micros[0] == round(Decimal(step) * 10**6)


def test_series_of_many_pages(server, home, monkeypatch):
    """Pages of a few points: what does not end with a page goes on with the next one."""
    monkeypatch.setattr(series, "PAGE_POINTS", 50)
    monkeypatch.setattr(series, "SERIES_AT_ONCE", 7)
    monkeypatch.setattr(attributes, "PAGE_ENTRIES", 6)
    server.values_page, server.series_page = 3, 4
    rows = [
        *(row for n in range(20) for row in curve(f"m/{n}", 7 * n)),
        *(row for row in everything() if not row.path.startswith("sys/")),
    ]
    run = server.store.add_run(PROJECT, "run")
    put(server, run, rows)
    assert home.export() == 0
    assert_same(rows + system_rows(run), home.rows("run"))


def test_a_page_that_ends_with_the_series(server, home, monkeypatch):
    monkeypatch.setattr(series, "PAGE_POINTS", 9)
    rows = curve("loss", 20)  # two full pages of ten
    run = server.store.add_run(PROJECT, "run")
    put(server, run, rows)
    assert home.export() == 0
    assert_same(rows + system_rows(run), home.rows("run"))
    assert server.counts()["floats"] == 3


def test_requests_of_a_run(server, home):
    for number in range(3):
        put(server, server.store.add_run(PROJECT, f"run-{number}"), everything())
    assert home.export() == 0
    counts = server.counts()
    assert counts == {
        "token": 1, "entries": 1, "definitions": 3, "values": 3, "floats": 3, "series": 3, "sign": 3, "download": 15,
    }  # fmt: skip


def test_names_are_sent_in_requests_that_the_server_takes(server, home, monkeypatch):
    monkeypatch.setattr(attributes, "NAMES_BYTES", 500)
    rows = [row for n in range(30) for row in (single(f"{'ü' * 60}/{n}", n), point(f"{'x' * 90}/{n}", 1, 0.5))]
    run = server.store.add_run(PROJECT, "run")
    put(server, run, rows)
    assert home.export() == 0
    assert_same(rows + system_rows(run), home.rows("run"))
    assert server.counts()["values"] > 5


# --- forks


def forked(server) -> dict[str, list]:
    """A grandparent, a parent and a child: 10 points each."""
    rows = {}
    for number, (name, parent) in enumerate((("grand", None), ("parent", "grand"), ("child", "parent"))):
        fork_step = None if parent is None else 10.0 * number - 5.5
        run = server.store.add_run(PROJECT, name, parent=parent, fork_step=fork_step)
        rows[name] = curve("loss", 10, first=10 * number)
        put(server, run, rows[name])
    return rows


def test_a_run_has_its_own_points_and_knows_its_parent(server, home):
    rows = forked(server)
    assert home.export("-c", "metrics") == 0
    for name, own in rows.items():
        assert_same(own, home.rows(name))
    info = home.staged("child").info
    assert (info.parent, info.fork_step) == (RunRef(PROJECT, "parent"), Decimal("14.5"))


def test_ancestors_come_along_and_the_console_says_so(server, home, capsys):
    forked(server)
    assert home.export("-r", "^child$") == 0
    assert home.runs() == ["child", "grand", "parent"]
    assert "2 ancestors of forked runs are exported too" in capsys.readouterr().out


def test_ancestors_can_be_left_out(server, home):
    forked(server)
    assert home.export("-r", "^child$", "--no-include-ancestors") == 0
    assert home.runs() == ["child"]
    assert home.staged("child").info.parent == RunRef(PROJECT, "parent")


def test_ancestors_outside_of_a_query_are_found(server, home):
    forked(server)
    assert home.export("-q", '`sys/custom_run_id`:string == "child"') == 0
    assert home.runs() == ["child", "grand", "parent"]


def test_a_parent_named_by_the_servers_id_is_found(server, home):
    forked(server)
    server.store.projects[PROJECT]["child"].set("sys/forking/parent", "string", "DEMO-2")
    assert home.export("-q", '`sys/custom_run_id`:string == "child"') == 0
    assert home.staged("child").info.parent == RunRef(PROJECT, "parent")


def test_a_parent_that_is_gone_stays_named(server, home):
    run = server.store.add_run(PROJECT, "child")
    run.set("sys/forking/parent", "string", 'a "lost" one')
    assert home.export() == 0
    assert home.staged("child").info.parent == RunRef(PROJECT, 'a "lost" one')


def test_a_series_of_the_parent_only_is_recorded_as_empty(server, home):
    forked(server)
    put(server, server.store.projects[PROJECT]["grand"], [point("old", 1, 0.5)])
    assert home.export() == 0
    (empty,) = (a for a in home.staged("child").attributes() if a.path == "old")
    assert (empty.type, empty.rows) == ("float_series", 0)


# --- previews


def test_previews_only_when_asked(server, home):
    run = server.store.add_run(PROJECT, "run")
    put(server, run, [point("loss", 1, 0.5)])
    for path in ("loss", "only"):
        run.attributes.setdefault(path, type(run.attributes["sys/id"])("floatSeries", run.series(path, "floatSeries")))
        run.series(path, "floatSeries").preview(2.0, 5, 0.25, 0.5)
    assert home.export("-c", "metrics") == 0
    assert [(row.path, row.step) for row in home.rows("run")] == [("loss", 1)]
    assert [a.path for a in home.staged("run").attributes() if not a.rows] == ["only"]
    assert home.export("-c", "metrics", "--include-metric-previews") == 0
    assert sorted((row.path, row.step) for row in home.rows("run")) == [("loss", 1), ("loss", 2), ("only", 2)]
    assert home.export("-c", "metrics") == 0, "asked for less: nothing goes"
    assert len(home.rows("run")) == 3


# --- what is listed


@pytest.fixture
def seven(server):
    """Seven runs: tags, experiments, times, one archived, one in the trash."""
    for number in range(7):
        created = 1_700_000_000_000 + number * 86_400_000
        run = server.store.add_run(PROJECT, f"run-{number}", name=f"exp (a{number // 3})", created=created)
        run.set("sys/tags", "stringSet", ["all", f"tag{number % 2}"])
        run.set("score", "int", number)
    server.store.projects[PROJECT]["run-5"].set("sys/archived", "bool", True)
    server.store.projects[PROJECT]["run-6"].set("sys/trashed", "bool", True)
    return server


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ("", "01234"),
        ("--include-archived-runs", "0123456"),
        ("-r|run-[12]|-r|4$", "124"),
        ("--experiment|exp (a1)", "34"),
        ("--experiment|a[01].$|--experiment|nothing", "01234"),
        ("--tag|all|--tag|tag1", "13"),
        ("--since|2023-11-16", "234"),
        ("--until|2023-11-16T22:13:20", "01"),
        ("--since|2023-11-15T00:00:00+00:00|--until|2023-11-17", "12"),
        ("--max-runs|2", "01"),
        ("-q|`score`:int >= 3", "34"),
        ("-q|`score`:int >= 3|--tag|tag0", "4"),
    ],
)  # fmt: skip
def test_runs_are_chosen(seven, home, arguments, numbers):
    assert home.export(*filter(None, arguments.split("|"))) == 0
    assert home.runs() == [f"run-{n}" for n in numbers]


def test_archived_runs_are_mentioned(seven, home, capsys):
    home.export()
    assert "2 archived runs are left out; --include-archived-runs adds them" in capsys.readouterr().out


def test_nothing_selected_is_said_and_no_error(seven, home, capsys):
    assert home.export("-r", "nobody") == 0
    assert f"{PROJECT}: none of its 7 runs is selected." in capsys.readouterr().out


def test_projects_are_found_by_workspace_and_pattern(server, home, monkeypatch):
    for project in ("team/other", "club/demo", "club/last"):
        server.store.add_run(project, "run")
    monkeypatch.setenv("NEPTUNE_PROJECT", "team/other")

    def found(*arguments: str) -> set[str]:
        place = Home(home.root / str(len(list(home.root.iterdir())) if home.root.exists() else 0))
        assert place.export(*arguments, project=None) == 0
        return {folder.project_id for folder in place.staging.projects()} if (place.root / "data").exists() else set()

    assert found() == {"team/other"}, "what NEPTUNE_PROJECT says"
    assert found("--workspace", "club") == {"club/demo", "club/last"}
    assert found("--project-pattern", "^demo$|other") == {"team/other", "club/demo"}
    assert found("--workspace", "club", "--project-exclude-pattern", "last") == {"club/demo"}


def test_listing_goes_on_over_pages_and_ties(server, home, monkeypatch):
    from neptune_exporter.exporters.neptune3 import listing

    monkeypatch.setattr(listing, "PAGE_RUNS", 10)
    for number in range(30):
        server.store.add_run(PROJECT, f"run-{number:02}", created=1_700_000_000_000)
    assert home.export() == 0
    assert len(home.runs()) == 30


def test_a_run_that_slips_through_the_pages_is_found_or_missed_aloud(server, home, monkeypatch, capsys):
    """A server that counts more runs than it lists."""
    from neptune_exporter.exporters.neptune3 import listing

    server.store.add_run(PROJECT, "run")
    real = listing.EntriesPage
    monkeypatch.setattr(listing, "EntriesPage", type("Page", (), {"FromString": lambda c: _one_more(real, c)}))
    assert home.export() == 3
    assert home.runs() == ["run"]
    assert "lists only 1 of the 2 runs" in capsys.readouterr().err


def _one_more(real, content):
    page = real.FromString(content)
    page.matching_item_count += 1
    return page


# --- what is changed


def test_only_what_is_new_or_changed_is_exported_again(server, home, capsys):
    runs = [server.store.add_run(PROJECT, f"run-{n}") for n in range(3)]
    for run in runs:
        put(server, run, curve("loss", 5))
    assert home.export("-c", "metrics") == 0
    put(server, runs[1], curve("loss", 3, first=5))
    server.http.log.clear()
    capsys.readouterr()
    assert home.export("-c", "metrics", "--json") == 0
    assert {r["run"]: r["status"] for r in report(capsys)["runs"]} == {
        "run-0": "skipped", "run-1": "done", "run-2": "skipped",
    }  # fmt: skip
    assert server.counts()["floats"] == 1
    assert len(home.rows("run-1")) == 8
    server.http.log.clear()
    assert home.export("-c", "metrics", "-c", "parameters") == 0
    assert (server.counts()["floats"], server.counts()["values"]) == (0, 3), "only what is asked for on top"


def test_a_run_that_was_deleted_and_made_anew_is_joined(server, home):
    put(server, server.store.add_run(PROJECT, "run"), [point("loss", 1, 0.5)])
    assert home.export("-c", "metrics") == 0
    del server.store.projects[PROJECT]["run"]
    server.store.add_run(PROJECT, "other")
    put(server, server.store.add_run(PROJECT, "run"), [point("loss", 2, 0.25)])
    assert home.export("-c", "metrics") == 0
    assert [row.step for row in home.rows("run")] == [1, 2]


def test_files_left_out_by_options_come_later(server, home):
    run = server.store.add_run(PROJECT, "run")
    put(server, run, [single("small/file", b"1"), single("big/file", b"2" * 2_000_001), single("other", b"3")])
    assert home.export("-c", "files", "--file-size-limit", "2", "--file-pattern", "file$") == 0
    assert home.paths("run") == {"small/file"}
    assert home.export("-c", "files", "--file-size-limit", "2") == 0
    assert home.paths("run") == {"small/file", "other"}
    assert home.export("-c", "files") == 0
    assert home.paths("run") == {"small/file", "other", "big/file"}
    server.http.log.clear()
    assert home.export("-c", "files", "--file-size-limit", "1") == 0
    assert home.paths("run") == {"small/file", "other", "big/file"}
    assert not server.counts()["sign"]


def test_attributes_are_chosen(server, home):
    run = server.store.add_run(PROJECT, "run")
    put(server, run, [single("a/x", 1), single("a/y", 2), *curve("a/z", 2), single("a.x", 3)])

    def paths(name: str, *arguments: str) -> set[str]:
        place = Home(home.root / name)
        assert place.export(*arguments) == 0
        return place.paths("run")

    assert paths("regex", "-a", "^a.x$") == {"a/x", "a.x"}
    assert paths("exact", "-a", "a/x", "-a", "a/z") == {"a/x", "a/z"}
    assert paths("class", "-c", "metrics") == {"a/z"}
    assert paths("both", "-a", "a/", "--exclude", "metrics") == {"a/x", "a/y"}


def test_dry_run_asks_for_no_points(server, home, capsys):
    put(server, server.store.add_run(PROJECT, "run"), curve("loss", 5))
    assert home.export("--dry-run", "--json") == 0
    assert report(capsys)["counts"] == {"planned": 1}
    assert set(server.counts()) == {"token", "entries"}


def test_verify_compares_with_the_server(server, home, capsys):
    from neptune_exporter.cli.main import main

    run = server.store.add_run(PROJECT, "run")
    put(server, run, everything())
    assert home.export() == 0
    assert main(["verify", *home.places, "--exporter", "neptune3"]) == 0
    steps, millis, values = run.series("loss", "floatSeries").columns()
    run.attributes.pop("loss")
    run.series("loss", "floatSeries").extend(steps, millis, np.where(steps == 7, 0.125, values))
    assert main(["verify", *home.places, "--exporter", "neptune3"]) == 4
    assert "loss" in capsys.readouterr().out


def test_times_of_the_rows(server, home):
    """Milliseconds before 1970 and at 0 are times like others."""
    rows = [replace(point("loss", 1, 0.5), time=START.replace(year=1950)), replace(point("loss", 2, 0.0), time=START)]
    put(server, server.store.add_run(PROJECT, "run"), rows)
    assert home.export("-c", "metrics") == 0
    assert_same(rows, home.rows("run"))
