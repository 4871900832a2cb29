# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Against a real Neptune 3.x server. The project is written to: runs of these tests stay in it."""

from __future__ import annotations

import os
import uuid
from decimal import Decimal

import pytest
from collect3 import Home

TOKEN, PROJECT = os.environ.get("NEPTUNE3_E2E_API_TOKEN"), os.environ.get("NEPTUNE3_E2E_PROJECT")
pytestmark = [
    pytest.mark.skipif(not (TOKEN and PROJECT), reason="set NEPTUNE3_E2E_API_TOKEN and NEPTUNE3_E2E_PROJECT"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def run_id() -> str:
    """A run with a value of every type, and a fork of it."""
    from neptune_scale import Run
    from neptune_scale.types import File, Histogram

    name = f"neptune-exporter-{uuid.uuid4().hex[:12]}"
    common = {"project": PROJECT, "api_token": TOKEN, "enable_console_log_capture": False}
    with Run(run_id=name, experiment_name=name, **common) as run:
        run.log_configs({"int": 2**63 - 1, "float": 0.1, "text": "ünï", "on": True})
        run.add_tags(["a", "b"])
        for step in range(100):
            run.log_metrics({"loss": 1 / (step + 1), "zero": 0.0}, step=step / 10)
        run.log_string_series({"log": "hello"}, step=1)
        run.log_histograms({"hist": Histogram(bin_edges=[0, 1, 2], counts=[3, 4])}, step=2)
        run.assign_files({"a.b": File(b"x" * 1_000_000), "a_b": File(b"other")})
        run.log_files({"images": File(b"png", mime_type="image/png")}, step=3)
        run.wait_for_processing(timeout=300)
    with Run(run_id=f"{name}-fork", fork_run_id=name, fork_step=5, **common) as fork:
        fork.log_metrics({"loss": 7.0}, step=6)
        fork.wait_for_processing(timeout=300)
    return name


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", TOKEN)
    return Home(tmp_path)


def test_everything_comes_home(run_id, home):
    assert home.export("-r", f"^{run_id}$", project=PROJECT) == 0
    rows = {(row.path, row.step): row.value for row in home.rows(run_id, PROJECT)}
    assert [rows["loss", Decimal(step) / 10 if step else Decimal(0)] for step in range(100)] == [
        1 / (step + 1) for step in range(100)
    ]
    assert (rows["int", None], rows["float", None], rows["text", None], rows["on", None]) == (
        2**63 - 1,
        0.1,
        "ünï",
        True,
    )
    assert rows["sys/tags", None] == frozenset({"a", "b"})
    assert rows["log", Decimal(1)] == "hello"
    assert rows["hist", Decimal(2)] == ("COUNTING", (0.0, 1.0, 2.0), (3.0, 4.0))
    assert (rows["a.b", None], rows["a_b", None], rows["images", Decimal(3)]) == (b"x" * 1_000_000, b"other", b"png")


def test_a_fork_brings_its_ancestors_and_a_second_export_brings_nothing(run_id, home, capsys):
    arguments = ("-r", f"^{run_id}-fork$")
    assert home.export(*arguments, project=PROJECT) == 0
    assert home.runs(PROJECT) == [run_id, f"{run_id}-fork"]
    own = [row for row in home.rows(f"{run_id}-fork", PROJECT) if row.path == "loss"]
    assert [(row.step, row.value) for row in own] == [(6, 7.0)]
    assert home.staged(f"{run_id}-fork", project=PROJECT).info.parent.run_id == run_id
    capsys.readouterr()
    assert home.export(*arguments, project=PROJECT) == 0
    assert "2 skipped" in capsys.readouterr().out
