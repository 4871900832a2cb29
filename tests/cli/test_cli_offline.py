# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`verify --exporter offline` against stores that the real client goes on writing, or that somebody damages."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

from neptune_exporter import demo_runs

MORE = """
import sys
from neptune_scale import Run
with Run(project=sys.argv[2], run_id="digits-0", mode="offline", log_directory=sys.argv[1],
         enable_console_log_capture=False, source_tracking_config=None) as run:
    run.log_metrics({"train/loss": 0.125}, step=1000.5)
"""


def commands(sample, places):
    source = ["--exporter", "offline", "--offline-path", sample / ".neptune"]
    return ["verify", *source, *places(sample), "--json"], ["export", *source, *places(sample)]


def differences(result):
    found = json.loads(result.out)["findings"]
    return {(f["run"], f["attribute"], f["kind"]) for f in found if f["level"] == "difference"}


def test_a_run_that_went_on_is_found_and_exported_anew(sample, places, call):
    verify, export = commands(sample, places)
    command = [sys.executable, "-c", MORE, str(sample / ".neptune"), demo_runs.PROJECT]
    subprocess.run(command, check=True, capture_output=True)

    result = call(*verify)
    assert result.code == 4
    assert differences(result) >= {("digits-0", None, "outdated"), ("digits-0", "train/loss", "count")}
    assert {run for run, _, _ in differences(result)} == {"digits-0"}

    assert "1 done, 3 skipped" in call(*export).out
    assert call(*verify).code == 0


def test_operations_that_are_gone_from_a_store_are_missed(sample, places, call):
    """Deleted by hand, in the middle: the archive has them still, and `verify` does not call the two equal."""
    verify, _ = commands(sample, places)
    (path,) = (path for path in sample.rglob("run_operations.sqlite3") if "digits-2" in str(path))
    database = sqlite3.connect(path)
    with database:
        assert database.execute("delete from run_operations where sequence_id between 200 and 209").rowcount == 10
    database.close()

    result = call(*verify)
    assert result.code in (3, 4)
    named = {(f["run"], f["kind"]) for f in json.loads(result.out)["findings"] if f["level"] != "note"}
    assert {run for run, _ in named} == {"digits-2"}
    assert call("verify", "--read-data", *places(sample)).code == 0


def test_a_file_that_is_gone_from_a_store_could_not_be_checked(sample, places, call):
    verify, _ = commands(sample, places)
    path = next(path for path in (sample / ".neptune").rglob("*") if path.suffix in (".svg", ".txt", ".bin"))
    path.unlink()
    result = call(*verify)
    assert result.code == 3
    assert {f["kind"] for f in json.loads(result.out)["findings"]} == {"unreadable"}
