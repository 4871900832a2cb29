# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which projects, runs and attributes of a Neptune 2.x server are exported; and what a new user sees."""

from __future__ import annotations

import base64
import json
import os

import pytest
from collect2 import PROJECT, Home, serving, without_waiting
from contracts.exporter import ExporterContract
from contracts.rows import START, curve, point, single
from servers.http import Fault

from neptune_exporter.errors import SourceError
from neptune_exporter.exporters.neptune2 import Neptune2Options, plugin
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection


def exporter(server, **options):
    return plugin.make(Neptune2Options(api_token=server.api_token, **options))


def listed(server, selection=None, **options):
    made = exporter(server, **options)
    try:
        return [run.info.ref.run_id for run in made.runs(PROJECT, selection or Selection())]
    finally:
        made.close()


def add_runs(server, count, *, each_millisecond=1, project=PROJECT):
    """Runs of which so many were created in each millisecond."""
    target = server.store.project(project)
    for n in range(count):
        run = server.store.create(target, "run")
        run.set("sys/creation_time", "datetime", 1_700_000_000_000 + n // each_millisecond)


@pytest.mark.parametrize("rows", [10_000, 100])
def test_losses_10_more_than_10000_runs_are_listed_each_once(rows):
    with serving(rows=rows) as server, without_waiting():
        add_runs(server, 10_050, each_millisecond=7)
        found = listed(server)
    assert len(found) == len(set(found)) == 10_050


def test_losses_10_runs_created_in_one_millisecond_around_the_edge_are_not_skipped():
    with serving() as server:
        add_runs(server, 9_990)
        add_runs(server, 1)
        for n in range(200):
            run = server.store.create(server.store.project(PROJECT), "run")
            run.set("sys/creation_time", "datetime", 1_700_000_009_990 + n // 100)
        found = listed(server)
    assert len(found) == len(set(found)) == 10_191


def test_more_runs_of_one_millisecond_than_a_server_lists_are_an_error(tmp_path, capsys, monkeypatch):
    from neptune_exporter.exporters.neptune2 import listing

    monkeypatch.setattr(listing, "WINDOW_ROWS", 50)
    with serving() as server:
        add_runs(server, 60, each_millisecond=100)
        home = Home(tmp_path)
        assert home.export("-c", "parameters") == 3
    assert "the server lists no further" in capsys.readouterr().err
    assert len(home.run_ids()) == 50, "what was listed is exported all the same"


def test_filters():
    with serving() as server:
        add_runs(server, 12)
        for n, run in enumerate(c for c in server.store.containers.values() if c.type == "run"):
            run.set("sys/creation_time", "datetime", 1_700_000_000_000 + n * 86_400_000)
            run.set("sys/tags", "stringSet", {"even", 'quo"ted'} if n % 2 == 0 else {"odd"})
            run.set("params/n", "int", n)
        everything = [f"DEMO-{n}" for n in range(1, 13)]
        assert listed(server) == everything
        assert listed(server, Selection(run_patterns=("DEMO-1$", "-1[12]"))) == ["DEMO-1", "DEMO-11", "DEMO-12"]
        assert listed(server, runs_query="(`params/n`:int > 9)") == ["DEMO-11", "DEMO-12"]
        assert listed(server, tag=("even",)) == everything[::2]
        assert listed(server, tag=("even", 'quo"ted')) == everything[::2]
        assert listed(server, tag=("even", "odd")) == []
        assert listed(server, tag=("even",), runs_query="params/n = 1 OR params/n = 2") == ["DEMO-3"]
        assert listed(server, since="2023-11-24T22:13:20Z") == ["DEMO-11", "DEMO-12"]
        assert listed(server, until="2023-11-16") == ["DEMO-1", "DEMO-2"]
        assert listed(server, max_runs=3) == everything[:3]


def test_projects_are_named_patterns_or_all_there_are():
    with serving(projects=2) as server:
        for name in ("team/a", "team/b", "other/a", "other/test-a"):
            server.store.add_project(name, name[-1].upper())

        def projects(*names, **options):
            return list(exporter(server, **options).projects(Selection(projects=names)))

        assert projects() == ["other/a", "other/test-a", "team/a", "team/b", PROJECT]
        assert projects(workspace=("other",)) == ["other/a", "other/test-a"]
        assert projects(project_pattern=("/a$",)) == ["other/a", "team/a"]
        assert projects(project_exclude_pattern=("test", "^team")) == ["other/a"]
        assert projects("team/b", "team/a") == ["team/b", "team/a"]


def test_attributes_classes_and_files_are_selected(tmp_path):
    with serving() as server:
        run = server.store.create(server.store.project(PROJECT), "run")
        run.set("big/file", "file", (b"x" * 3_000_000, "bin"))
        run.set("small/file", "file", (b"x", "bin"))
        run.set("small/other", "file", (b"y", "bin"))
        run.set("metrics/x", "floatSeries", [(0.0, 1, 1.0)])

        def paths(name, *arguments):
            home = Home(tmp_path / name)
            assert home.export(*arguments) == 0
            return {v.path for v in home.values("DEMO-1") if not v.path.startswith("sys/")}

        assert paths("all") == {"big/file", "small/file", "small/other", "metrics/x"}
        assert paths("class", "-c", "metrics") == {"metrics/x"}
        assert paths("regex", "-a", "file$") == {"big/file", "small/file"}
        assert paths("names", "-a", "small/file", "-a", "metrics/x") == {"small/file", "metrics/x"}
        assert paths("exclude", "--exclude", "files") == {"metrics/x"}
        assert paths("limit", "--file-size-limit", "2") == {"small/file", "small/other", "metrics/x"}
        assert paths("pattern", "--file-pattern", "other$") == {"small/other", "metrics/x"}
        assert paths("limit") == {"big/file", "small/file", "small/other", "metrics/x"}, "without the limit, all of it"


class TestContract(ExporterContract):
    """What every exporter must do."""

    ROWS = (
        single("config/epochs", 12),
        single("config/rate", 0.1),
        single("config/note", "text ☃"),
        single("config/on", True),
        single("config/when", START),
        single("sys/tags", frozenset({"a", "b"})),
        single("model", b"weights" * 99),
        *curve("loss", 40),
        point("loss", "40.5", -0.0, 41),
        *(point("log", step, f"line {step}", step) for step in range(20)),
    )

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls):
        with serving() as server:
            for number in (1, 2):
                run = server.store.create(server.store.project(PROJECT), "run")
                run.attributes.clear()
                run.set("sys/id", "string", f"DEMO-{number}")
                run.set("sys/creation_time", "datetime", 1000)
                run.set("sys/modification_time", "datetime", 1000)
                run.set("sys/trashed", "bool", False)
                for row in cls.ROWS if number == 1 else cls.ROWS[:9]:
                    cls.put(run, row)
            yield server

    @staticmethod
    def put(run, row):
        kinds = {"string_set": "stringSet", "float_series": "floatSeries", "string_series": "stringSeries"}
        kind = kinds.get(row.type, row.type)
        if row.step is not None:
            run.attributes.setdefault(row.path, type(run.attributes["sys/id"])(kind, [])).value.append(
                (float(row.step), round(row.time.timestamp() * 1000), row.value)
            )
        elif kind == "file":
            run.set(row.path, kind, (row.value, "bin"))
        elif kind == "datetime":
            run.set(row.path, kind, round(row.value.timestamp() * 1000))
        else:
            run.set(row.path, kind, row.value)

    def test_lists_only_what_is_selected(self, exporter, expected):
        """A project that does not exist is an error that names it, not silence."""
        ref = min(expected)
        selection = Selection(projects=(ref.project_id,), run_patterns=(f"^{ref.run_id}$",))
        assert [run.info.ref for run in self.all_runs(exporter, selection)] == [ref]
        with pytest.raises(SourceError, match="There is no project nobody/nothing"):
            self.all_runs(exporter, Selection(projects=("nobody/nothing",)))

    @pytest.fixture
    def exporter(self, server):
        made = exporter(server)
        yield made
        made.close()

    @pytest.fixture
    def expected(self):
        from datetime import UTC, datetime

        time = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        return {
            RunRef(PROJECT, f"DEMO-{number}"): [
                *(self.ROWS if number == 1 else self.ROWS[:9]),
                single("sys/id", f"DEMO-{number}"),
                single("sys/creation_time", time),
                single("sys/modification_time", time),
                single("sys/trashed", False),
            ]
            for number in (1, 2)
        }


# --- as a new user


def token(**content: str) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "There is no Neptune API token"),
        ("n0-t0ken-0f-anyb0dy", "token is malformed"),
        (token(api_key="x"), "token is malformed"),
        (token(api_address="http://127.0.0.1:9"), "Cannot reach http://127.0.0.1:9"),
        (token(api_address="http://no.such.host.invalid"), "Cannot reach http://no.such.host.invalid"),
    ],
)
def test_a_token_that_is_none(tmp_path, capsys, given, said, monkeypatch):
    monkeypatch.delenv("NEPTUNE_API_TOKEN", raising=False)
    assert Home(tmp_path).export("--api-token", given) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Hint:" in shown
    assert len(shown.strip().splitlines()) == 2


def test_a_token_that_the_server_refuses(tmp_path, capsys):
    with serving() as server:
        stranger = token(api_address=server.http.url, api_url=server.http.url, api_key="stranger")
        assert Home(tmp_path).export("--api-token", stranger) == 1
    assert "does not accept the API token" in capsys.readouterr().err


def test_an_address_that_is_no_neptune_server(tmp_path, capsys):
    with serving() as server:
        server.http.faults.append(Fault("swagger.json", status=404, times=None))
        assert Home(tmp_path).export() == 1
    assert "is not a Neptune 2.x server" in capsys.readouterr().err


def test_http_without_encryption_is_explained(tmp_path, capsys, monkeypatch):
    with serving() as server:
        server.store.create(server.store.project(PROJECT), "run")
        monkeypatch.delenv("OAUTHLIB_INSECURE_TRANSPORT")
        assert Home(tmp_path).export() == 1
        os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    assert "OAUTHLIB_INSECURE_TRANSPORT=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-p", "team/nothing"], 1, "There is no project team/nothing"),
        (["-r", "NOTHING"], 0, "no runs found"),
        (["-r", "("], 2, "not a valid regular expression"),
        (["-q", "((("], 2, "cannot read the query"),
        (["--since", "yesterday"], 2, "--since yesterday is not a time"),
        (["--file-pattern", "("], 2, "no regular expression"),
        (["--connections", "0"], 2, "--connections must be at least 1"),
        (["--offline-path", "x"], 2, "belongs to --exporter offline"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, arguments, code, said):
    with serving() as server:
        server.store.create(server.store.project(PROJECT), "run")
        project = None if "-p" in arguments else PROJECT
        assert Home(tmp_path).export(*arguments, project=project) == code
    shown = capsys.readouterr()
    assert said in shown.err + shown.out


def test_a_project_that_is_not_ours_to_read(tmp_path, capsys):
    with serving() as server:
        server.http.faults.append(Fault("projects/get", status=403, times=None))
        assert Home(tmp_path).export() == 1
    assert "is not yours to read" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done(tmp_path, capsys):
    with serving() as server:
        add_runs(server, 3)
        home = Home(tmp_path)
        assert home.export("--dry-run") == 0
    assert "3 planned" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()
