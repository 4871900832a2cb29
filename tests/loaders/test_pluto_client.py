# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Pluto's real client and ours say the same things to the same server, and the real one reads what ours wrote.

The client lives in an environment of its own: its wheel installs a start-up hook that patches wandb.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from logged_run import LoggedRun
from pluto_target import load, loader_of
from servers.pluto import KEY, PlutoServer

from neptune_exporter.model import RunRef

START = 1_700_000_000_000
CLIENT = "pluto-ml==0.0.29"
SCRIPT = Path(__file__).parent / "pluto_client_script.py"
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the real Pluto client is asked once, on Python 3.11"
)


@pytest.fixture(scope="module")
def real_client(tmp_path_factory) -> Path:
    """A Python that has the real client."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not there to make an environment for the real Pluto client")
    folder = tmp_path_factory.mktemp("client")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder / "env"], check=True, capture_output=True)
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    fetched = subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, CLIENT], check=False, capture_output=True, text=True
    )
    if fetched.returncode:
        pytest.skip(f"{CLIENT} cannot be fetched: {fetched.stderr.strip()[-200:]}")
    return python


def ours(folder: Path) -> LoggedRun:
    """The run that the script logs."""
    run = LoggedRun(folder, RunRef("team/ours", "a run")).single("lr", "float", 0.1).single("n", "int", 3)
    run.single("later", "bool", True).single("sys/tags", "string_set", ["t", "u"])
    for name, value in (("loss", lambda n: n / 7), ("m/acc", lambda n: n + 0.5)):
        run.series(name, "float_series", [(n, START + 1000 * n, value(n)) for n in range(20)])
    run.series(
        "h",
        "histogram_series",
        [(1, START + 1000, {"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [1.0, 2.0]})],
    )
    run.series("state", "string_series", [(2, START + 2000, "warm")])
    run.series("runtime/stdout", "string_series", [(3, START + 3000, "hello")])
    run.series("file", "file_series", [(3, START + 4000, run.file("p/f.json", b"content"))])
    return run


def members(server: PlutoServer, run_project: str) -> dict[str, set[str]]:
    """The members of what was sent to each endpoint, and the headers that say where it belongs."""
    found: dict[str, set[str]] = {}
    for request in server.requests:
        if request.method != "POST" or not request.body:
            continue
        lines = request.body.splitlines() if request.path.startswith("/ingest/") else [request.body]
        values = [json.loads(line) for line in lines]
        if request.path == "/files":
            values = values[0]["files"]
        names = found.setdefault(request.path, set())
        for value in values:
            names |= set(value)
        if request.path.startswith(("/ingest/", "/files")):
            assert request.headers["x-project-name"] == run_project
            names |= {f"{name}: {request.headers[name]}" for name in ("content-type",)}
            names |= {name for name in request.headers if name.startswith("x-")}
    server.requests.clear()
    return found


def test_both_clients_speak_the_same_wire(real_client, tmp_path, temporary_folder):
    with PlutoServer(signs_types=False, records=True) as server:
        loaded = server.store.run(load(loader_of(server), ours(tmp_path / "ours")))
        we_say = members(server, "team/ours")
        home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PLUTO_DISABLE_TELEMETRY": "1", "CI": "1"}
        command = [real_client, SCRIPT, server.url, KEY, str(tmp_path), "team/ours"]
        done = subprocess.run(command, env=home, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        they_say = members(server, "team/theirs")
        (theirs,) = server.store.of_project("team/theirs")

    # The same endpoints, the same members; theirs also sends heartbeats, and its own settings.
    assert we_say.keys() == they_say.keys() - {"/api/runs/trigger"}
    for path, said in we_say.items():
        assert said <= they_say[path] | {"caption"}, path
        if path.startswith("/ingest/"):
            assert said == they_say[path], path

    # The same run, as the server has it.
    assert loaded.metrics == theirs.metrics
    assert sorted(map(repr, (sorted(r.items()) for r in loaded.data))) == sorted(
        map(repr, (sorted(r.items()) for r in theirs.data))
    )
    assert loaded.logs == theirs.logs
    own = {file["logName"]: file for file in loaded.files if file["logName"] != "neptune"}
    (file,) = theirs.files
    named = ("fileName", "sampleIndex")
    assert {k: v for k, v in own["file"].items() if k not in named} == {k: v for k, v in file.items() if k not in named}
    assert (loaded.status, loaded.status_ms) == (theirs.status, theirs.status_ms)
    assert {k: v for k, v in loaded.log_names.items() if k != "neptune"} == theirs.log_names

    # The real client reads ours.
    read = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("READ "))[5:])
    assert read["status"] == "COMPLETED"
    assert [(step, value) for step, value, _ in read["loss"]] == [(n, n / 7) for n in range(20)]
    assert {key: read["config"][key] for key in ("lr", "n", "later")} == {"lr": 0.1, "n": 3, "later": True}
    assert read["tags"] == ["import:neptune", "t", "u"]
    assert read["logs"] == ["hello"]
    assert read["file"] == "content"
