# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A real script logs with neptune-scale, over the wire or offline and synchronized later; every value comes home.

The other reader is neptune-query itself: its public functions work against the same server.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from collect3 import Home, serving, without_waiting
from contracts.rows import assert_same
from servers.http import Fault
from truth import PROJECT, Row, Truth, log_everything, millis

RUNS = ("everything", "fork", "..")

SYNC = """
import sys
from pathlib import Path
from neptune_scale.cli.sync import sync_all
if __name__ == "__main__":
    sync_all(Path(sys.argv[1]), sys.argv[2], timeout=120)
"""

SCRIPT = """
import sys
from datetime import UTC, datetime
from neptune_scale import Run
from neptune_scale.types import File, Histogram

if __name__ == "__main__":
    with Run(project="team/truth", api_token=sys.argv[1], run_id="live.run", experiment_name="live",
             enable_console_log_capture=False, source_tracking_config=None) as run:
        run.log_configs({"lr": 0.1, "big": 2**63 - 1, "on": True, "note": "ü"})
        run.log_configs({"when": datetime(2024, 1, 2, 3, tzinfo=UTC)})
        run.add_tags(["a", "b"])
        for step in range(50):
            time = datetime(2026, 1, 1, 0, 0, step, tzinfo=UTC)
            run.log_metrics({"loss": 1 / (step + 1), "step": step}, step=step * 0.1, timestamp=time)
        run.log_string_series({"log": "hello"}, step=1, timestamp=time)
        run.log_histograms({"h": Histogram(bin_edges=[0, 1, 2], counts=[3, 4])}, step=2, timestamp=time)
        run.assign_files({"file": File(b"x" * 3_000_000), "empty": File(b"")})
        run.log_files({"images": File(b"png", mime_type="image/png")}, step=3, timestamp=time)
        run.wait_for_processing(timeout=60)
"""


def start(*arguments: str) -> subprocess.Popen:
    """A script of its own: the client starts processes that import it."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Truth:
    return log_everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def offline(truth, tmp_path_factory) -> Path:
    """The logs before they are synchronized: that removes the files which the client has buffered."""
    folder = tmp_path_factory.mktemp("offline") / ".neptune"
    shutil.copytree(truth.directory, folder)
    return folder


@pytest.fixture(scope="module")
def server(truth, offline, tmp_path_factory):
    """A server into which the real client has brought what was logged offline, and a script has logged live."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "sync.py").write_text(SYNC)
    (folder / "live.py").write_text(SCRIPT)
    with serving(PROJECT) as server:
        # The parent before the fork, as a server wants it; everything else at once.
        server.store.add_run(PROJECT, "everything", name=truth.runs["everything"].experiment)
        server.store.projects[PROJECT]["everything"].set(
            "sys/creation_time", "datetime", round(truth.runs["everything"].created.timestamp() * 1000)
        )
        logs = [
            next(path.glob("*.sqlite3"))
            for run_id in RUNS
            for path in sorted(truth.directory.iterdir())
            if path.name.startswith(f"team_truth_{run_id}_")
        ]
        # A fork takes over what its parent has by then: the parent has to be there, whole.
        parent = next(log for log in logs if log.parent.name.startswith("team_truth_everything_"))
        finish(start(str(folder / "sync.py"), str(parent), server.api_token))
        started = [start(str(folder / "sync.py"), str(log), server.api_token) for log in logs if log != parent]
        started.append(start(str(folder / "live.py"), server.api_token))
        for process in started:
            finish(process)
        yield server


def finish(process: subprocess.Popen[str]) -> None:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def accepted(rows: list[Row]) -> list[Row]:
    """What a server takes of it: one type for each name, steps that go up, 999999999999.999999 as the double it is."""
    taken = []
    last: dict[str, Decimal] = {}
    types: dict[str, str] = {}
    for row in rows:
        if types.setdefault(row.path, row.type) != row.type or (
            row.step is not None and row.step <= last.get(row.path, -1)
        ):
            continue
        if row.step is not None:
            last[row.path] = row.step
        taken.append(row)
    return taken


def of_the_user(rows: list[Row]) -> list[Row]:
    named = ("sys/tags", "sys/group_tags", "sys/custom_run_id", "sys/name", "sys/experiment/name", "sys/creation_time")
    return [row for row in rows if row.path in named or not row.path.startswith("sys/")]


def expected(truth: Truth, run_id: str) -> list[Row]:
    run = truth.runs[run_id]
    rows = of_the_user(accepted(run.all_rows))
    if run.parent is not None:  # configurations are inherited, and those that are logged again win
        own = {row.path for row in rows}
        inherited = expected(truth, run.parent)
        rows += [
            row for row in inherited if row.step is None and row.path not in own and not row.path.startswith("sys/")
        ]
    return rows


def check(truth: Truth, home: Home) -> None:
    for run_id in RUNS:
        found = of_the_user(home.rows(run_id, PROJECT))
        tags = {row.path for row in truth.runs[run_id].rows}
        found = [row for row in found if row.path not in ("sys/tags", "sys/group_tags") or row.path in tags]
        if truth.runs[run_id].experiment is None:
            found = [row for row in found if row.path not in ("sys/name", "sys/experiment/name")]
        assert_same(expected(truth, run_id), found)
        assert home.staged(run_id, project=PROJECT).status == "complete"


def test_every_value_comes_home(truth, server, home):
    assert home.export(project=PROJECT) == 0
    check(truth, home)


def test_every_value_comes_home_through_trouble_at_every_endpoint(truth, server, home):
    for endpoint in (
        "oauth-token",
        "search/",
        "definitions",
        "attributes/query",
        "float",
        "series",
        "signedUrl",
        "storage",
    ):
        server.http.faults += [
            Fault(endpoint, "reset", times=2),
            Fault(endpoint, status=503, times=2),
            Fault(endpoint, "truncate"),
            Fault(endpoint, status=429, headers={"Retry-After": "1"}),
        ][: 3 if endpoint in ("float", "series") else 4]
    with without_waiting():
        assert home.export("--workers", "1", project=PROJECT) == 0
    server.http.faults.clear()
    check(truth, home)


def test_a_live_run_comes_home(server, home):
    assert home.export("-r", "^live.run$", project=PROJECT) == 0
    rows = {(row.path, row.step): row for row in home.rows("live.run", PROJECT)}
    time = millis(datetime(2026, 1, 1, 0, 0, 49, tzinfo=UTC))
    assert [rows["loss", Decimal(step) / 10 if step else Decimal(0)].value for step in range(50)] == [
        1 / (step + 1) for step in range(50)
    ]
    assert rows["step", Decimal("4.9")].time == time
    assert rows["big", None].value == 2**63 - 1
    assert (rows["lr", None].value, rows["on", None].value, rows["note", None].value) == (0.1, True, "ü")
    assert rows["when", None].value == datetime(2024, 1, 2, 3, tzinfo=UTC)
    assert rows["sys/tags", None].value == frozenset({"a", "b"})
    assert rows["log", Decimal(1)].value == "hello"
    assert rows["h", Decimal(2)].value == ("COUNTING", (0.0, 1.0, 2.0), (3.0, 4.0))
    assert rows["file", None].value == b"x" * 3_000_000
    assert rows["empty", None].value == b""
    assert rows["images", Decimal(3)].value == b"png"
    names = [path.name for path in (home.root / "files").rglob("*") if path.is_file()]
    assert "step_3_000000.png" in names


@pytest.mark.parametrize("first", ["offline", "neptune3"])
def test_offline_data_and_the_servers_are_joined(truth, offline, server, home, first):
    """Both ways round: the union of points; nothing twice, nothing lost."""
    only = "^everything$"
    logs = ["--exporter", "offline", "--offline-path", str(offline), "-r", only]
    orders = {"offline": (logs, ["-r", only]), "neptune3": (["-r", only], logs)}
    for arguments in orders[first]:
        assert home.export(*arguments, project=PROJECT) == 0
    found = of_the_user(home.rows("everything", PROJECT))
    points = [row for row in found if row.step is not None]
    all_points = [row for row in truth.runs["everything"].rows if row.step is not None]
    unknown = {row.path for row in all_points if row.time is ...}
    # "mixed" and "series/back" are refused by the server and are there from the offline data.
    assert_same(
        [row for row in all_points if row.path not in unknown], [row for row in points if row.path not in unknown]
    )
    singles = {row.path: row for row in found if row.step is None}
    for row in truth.runs["everything"].rows:
        if row.step is None and row.path not in ("sys/tags", "sys/group_tags"):
            assert singles[row.path].key == row.key
    for arguments in orders[first]:
        before = home.rows("everything", PROJECT)
        assert home.export(*arguments, project=PROJECT) == 0
        assert_same(before, home.rows("everything", PROJECT))


def test_the_clients_public_functions_work_on_this_server(truth, server, tmp_path):
    import neptune_query
    from neptune_query import runs

    neptune_query.set_api_token(server.api_token)
    assert {"everything", "fork", "..", "live.run"} <= set(runs.list_runs(project=PROJECT))
    assert runs.list_runs(project=PROJECT, runs="^fork$") == ["fork"]
    own = runs.fetch_metrics(
        project=PROJECT, runs=["fork"], attributes=["series/loss"], include_time="absolute", lineage_to_the_root=False
    )
    assert own["series/loss"]["value"].tolist() == [0.25]
    whole = runs.fetch_metrics(project=PROJECT, runs=["fork"], attributes=["series/loss"])
    assert len(whole) == 5
    table = runs.fetch_runs_table(project=PROJECT, runs="^everything$", attributes="^int/|^float/nan$|^files/")
    assert table["int/largest"].tolist() == [2**63 - 1]
    assert math.isnan(table["float/nan"].iloc[0])
    lines = runs.fetch_series(project=PROJECT, runs=["everything"], attributes=["text/one"])
    assert lines["text/one"].tolist() == [f"line {n}\nand more" for n in range(8)]
    for provider in ("aws", "gcp", "azure"):
        server.blobs.provider = provider
        stored = runs.download_files(files=table["files/model"], destination=tmp_path / provider)
        assert Path(stored.iloc[0, 0]).read_bytes() == truth.runs["everything"].files["files/model", None]
