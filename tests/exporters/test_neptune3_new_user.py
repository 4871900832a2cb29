# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What one gets wrong on the first day: one clear line, one hint, the right exit code."""

from __future__ import annotations

import base64
import json
import os
import pickle

import pytest
from collect3 import PROJECT, Home, put, serving
from contracts.rows import curve, single

from neptune_exporter.errors import AccessError
from neptune_exporter.exporters.neptune3 import Neptune3Options, plugin
from neptune_exporter.exporters.patience import ServerGoneError


@pytest.fixture
def server():
    with serving() as server:
        put(server, server.store.add_run(PROJECT, "run-1"), [single("lr", 0.1), *curve("loss", 3)])
        yield server


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "area")


def token(**content: str) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


TOKENS = {
    "": "There is no Neptune API token.",
    "abc": "The Neptune API token is malformed",
    "not base64 !": "The Neptune API token is malformed",
    base64.b64encode(b"[1, 2]").decode(): "The Neptune API token is malformed",
    token(api_key="x"): "The Neptune API token holds no server address.",
    token(api_address="neptune.example", api_key="x"): "The Neptune API token holds no server address but",
    token(api_url="http://", api_key="x"): "The Neptune API token holds no server address but",
}


@pytest.mark.parametrize("given", TOKENS)
def test_tokens_that_cannot_be_used(server, home, capsys, monkeypatch, given):
    monkeypatch.setenv("NEPTUNE_API_TOKEN", given)
    assert home.export() == 1
    error, hint = capsys.readouterr().err.strip().splitlines()
    assert error.startswith(f"Error: {TOKENS[given]}")
    assert hint.startswith("Hint: ")
    assert not server.http.log
    assert not home.root.exists()


@pytest.mark.parametrize("name", ["api_address", "api_url"])
def test_a_token_needs_only_one_address(server, home, monkeypatch, name):
    """One without `api_url` makes the client itself ask a server called None for half an hour."""
    given = token(**{name: server.url, "api_key": "key-of-the-tests"})
    monkeypatch.setattr(type(server), "api_token", given)
    assert home.export("--api-token", given) == 0
    assert home.runs() == ["run-1"]


def test_a_token_that_is_refused(server, home, capsys):
    server.revoke()
    assert home.export() == 1
    assert "refuses the API token" in capsys.readouterr().err
    assert len(server.http.log) <= 4


def test_a_server_that_is_not_there(home, capsys):
    given = token(api_address="http://127.0.0.1:9", api_key="x")
    assert home.export("--api-token", given, "--retry-timeout", "0") == 1
    assert "http://127.0.0.1:9 has not answered" in capsys.readouterr().err


def test_a_server_that_is_something_else(server, home, capsys):
    server._routes.clear()
    assert home.export() == 1
    err = capsys.readouterr().err
    assert "Error: " in err
    assert "404" in err or "no Neptune 3.x server" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "team/nothing"], "There is no project team/nothing"),
        (["-p", "nothing"], "'nothing' is not the name of a project."),
    ],
)
def test_wrong_projects(server, home, capsys, arguments, words):
    assert home.export(*arguments, project=None) in (1, 2)
    err = capsys.readouterr().err
    assert words in err
    assert "Hint: " in err


def test_a_forbidden_project(server, home, capsys):
    server.store.forbidden.add(PROJECT)
    assert home.export() == 1
    assert f"The project {PROJECT} may not be read with this API token." in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-r", "("],
        ["-a", "["],
        ["--experiment", "*"],
        ["--project-pattern", "("],
        ["--project-exclude-pattern", "("],
        ["--file-pattern", "("],
        ["--since", "yesterday"],
        ["--until", "2025-13-01"],
        ["-q", "not a query ("],
        ["-c", "everything"],
    ],
)
def test_what_cannot_be_understood_is_wrong_usage(server, home, capsys, arguments):
    assert home.export(*arguments) == 2
    assert "Error: " in capsys.readouterr().err
    assert not home.root.exists()


def test_a_regular_expression_that_matches_nothing(server, home, capsys):
    assert home.export("-r", "nobody") == 0
    out = capsys.readouterr().out
    assert "no runs found" in out
    assert f"{PROJECT}: none of its 1 runs is selected." in out


def test_an_attribute_that_no_run_has(server, home):
    assert home.export("-a", "nothing") == 0
    assert home.rows("run-1") == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(server, home, capsys):
    home.root.mkdir()
    home.root.chmod(0o500)
    assert home.export() == 1 or "Permission denied" in capsys.readouterr().out


def test_a_folder_that_is_a_file(server, home, capsys):
    home.root.mkdir()
    (home.root / "data").write_text("in the way")
    assert home.export() != 0
    captured = capsys.readouterr()
    assert str(home.root / "data") in captured.out + captured.err
    assert "Traceback" not in captured.err


def test_problems_go_to_a_file(server, home, tmp_path):
    server.dead = {"lr"}
    path = tmp_path / "problems.jsonl"
    assert home.export("--error-report-file", str(path), "--retry-timeout", "0") == 3
    (line,) = path.read_text().splitlines()
    problem = json.loads(line)
    assert (problem["project"], problem["run"], problem["attribute"], problem["kind"]) == (
        PROJECT,
        "run-1",
        "lr",
        "retry",
    )


def test_the_token_is_shown_nowhere(server, home, capsys):
    assert home.export("-v") == 0
    options = Neptune3Options(api_token=server.api_token)
    assert server.api_token not in repr(options)
    captured = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    for text in (captured.out, captured.err, written.decode("latin-1")):
        assert server.api_token not in text
    assert home.staged("run-1").sources[0].source == server.url


def test_the_exporter_is_quiet_about_itself():
    """What is cheap to import stays cheap, and errors travel between processes."""
    assert plugin.package == "neptune_query"
    for error in (AccessError("a", "b"), ServerGoneError("c", "d")):
        assert pickle.loads(pickle.dumps(error)).args == error.args
        assert error.fatal
