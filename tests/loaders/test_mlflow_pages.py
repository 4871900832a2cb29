# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow's own pages of what was loaded, in a browser: what a user sees of it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from contracts.official import write_official
from contracts.rows import START, point, single
from mlflow_pages import Pages, pages_of

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunRef

PROJECT = "acme/handwriting"
SECONDS = 600


def rows(name: str, *, failed: bool) -> list:
    curves = [
        point(path, step, value * (1 + step / 700), step * 1000)
        for path, value in (("train/loss", 0.5), ("train/accuracy", 0.25), ("valid/loss", 0.125))
        for step in range(0, SECONDS + 1, 10)
    ]
    return [
        *curves,
        single("sys/name", name),
        single("sys/owner", "ada"),
        single("sys/creation_time", START),
        single("sys/modification_time", START + timedelta(seconds=SECONDS)),
        single("sys/failed", failed),
        single("sys/tags", frozenset({"baseline", "to show"})),
        single("optimizer/learning rate", 0.003),
        single("model/width", 2**53 + 1),
    ]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for run_id, failed in (("whole run", False), ("broken run", True)):
        run = rows(run_id, failed=failed)
        write_official(folder / "data", folder / "files", RunRef(PROJECT, run_id), run)
    database = f"sqlite:///{folder / 'mlflow.db'}"
    places = ["--data-path", str(folder / "data"), "--files-path", str(folder / "files")]
    assert main(["load", "--mlflow-tracking-uri", database, *places]) == 0
    with pages_of(folder, database, PROJECT, width=1600, height=1000) as found:
        yield found


def test_runs_stand_in_a_table_with_how_long_they_took(pages: Pages):
    page = pages.table()
    for shown in ("whole run", "broken run", "10.0min"):
        page.see(shown)
    assert re.search(r"^2\nmatching runs|^2 matching runs", page.text, re.MULTILINE)
    assert not page.refused


def test_charts_are_grouped_by_the_first_part_of_their_names(pages: Pages):
    page = pages.charts()
    for shown in ("train/loss", "train/accuracy", "valid/loss"):
        page.see(shown)
    assert re.search(r"^train\n\(2\)$", page.text, re.MULTILINE)
    assert re.search(r"^valid\n\(1\)$", page.text, re.MULTILINE)
    page.see("whole run (valid/loss)")
    page.see("broken run (valid/loss)")


@pytest.mark.parametrize(("name", "status"), [("whole run", "Finished"), ("broken run", "Failed")])
def test_a_run_shows_its_real_time_status_owner_parameters_and_tags(pages: Pages, name, status):
    page = pages.run(name)
    page.see(name)
    text = page.text
    about = text[text.index("About this run") :]
    for line in (f"{START:%m/%d/%Y, %I:%M:%S %p}", "ada", status, "10.0min"):
        assert f"\n{line}\n" in about
    for tag in ("baseline", "to show"):
        assert f"\n{tag}\n: true\n" in about
    for key, value in (("optimizer/learning rate", "0.003"), ("model/width", str(2**53 + 1))):
        assert f"\n{key}\n{value}\n" in text
    for metric in ("train/loss", "train/accuracy", "valid/loss"):
        assert f"\n{metric}\n" in text
