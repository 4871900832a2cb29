# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The HTML report as a file: whole or not at all, harmless whatever names it holds, bounded whatever there is."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from html.parser import HTMLParser
from pathlib import Path

import areas
import pytest
from areas import PROJECT, floats, stage, text

from neptune_exporter.cli.main import main
from neptune_exporter.errors import Problem
from neptune_exporter.model import RunRef
from neptune_exporter.report.found import of_summary, of_verify
from neptune_exporter.report.page import html
from neptune_exporter.summary import LISTED, Summary, summary
from neptune_exporter.verify.check import Depth
from neptune_exporter.verify.finding import Checked, finding_of

EVIL = "</script><script>document.title='broken'</script><!--<script>\u2028\ud800\u202e&amp;\"'"


class Elements(HTMLParser):
    """What a browser would take for elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.content: dict[int, str] = {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, content):
        self.content[len(self.tags)] = self.content.get(len(self.tags), "") + content


def data_in(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def arguments(root, *more):
    return [*more, "--data-path", str(root / "data"), "--files-path", str(root / "files")]


def test_strange_names_are_data_and_nothing_else(tmp_path):
    value = {"page": "summary", "place": EVIL, EVIL: [EVIL, {"%SCRIPT%": "%DATA%"}]}
    page = html(EVIL, value)
    assert page.isascii()
    elements = Elements(page)
    scripts = [about for tag, about in elements.tags if tag == "script"]
    assert [about.get("type") for about in scripts] == ["application/json", None]
    assert [tag for tag, _ in elements.tags] == [tag for tag, _ in Elements(html("", {})).tags]
    assert data_in(page)[EVIL] == value[EVIL]


def test_asks_no_network_and_forbids_all_other_scripts():
    page = html("", {})
    elements = Elements(page)
    assert not [about for _, about in elements.tags if about.keys() & {"src", "srcset", "action", "data"}]
    assert [about["href"] for _, about in elements.tags if "href" in about] == ["data:,"]
    without_namespace = page.replace("http://www.w3.org/2000/svg", "")
    assert "http" not in without_namespace.replace("http-equiv", "")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|fetch|XMLHttp|import\(|url\(", page)
    (policy,) = [about["content"] for _, about in elements.tags if about.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_is_replaced_whole_or_left_alone(tmp_path, monkeypatch, capsys):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    page = tmp_path / "report.html"
    page.write_text("the old one")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert main(arguments(tmp_path, "summary", "--html", str(page))) == 1
    assert page.read_text() == "the old one"
    assert "No space left" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "files", "report.html"]
    assert main(arguments(tmp_path, "summary", "--html", str(page))) == 0
    assert data_in(page.read_text())["total"]["runs"] == {"complete": 1}


@pytest.mark.parametrize("command", ["summary", "verify"])
def test_a_place_that_cannot_take_it_is_said_at_once(tmp_path, capsys, command):
    for target, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "r.html", "no folder")):
        assert main(arguments(tmp_path, command, "--html", str(target))) == 1
        assert said in capsys.readouterr().err  # and not that there is no staging area


def test_a_link_is_followed(tmp_path):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    (tmp_path / "elsewhere").mkdir()
    for name in ("there.html", "new.html"):
        link = tmp_path / name
        link.symlink_to(tmp_path / "elsewhere" / name)
        if name == "there.html":
            link.write_text("the old one")
        assert main(arguments(tmp_path, "summary", "--html", str(link))) == 0
        assert link.is_symlink()
        assert data_in((tmp_path / "elsewhere" / name).read_text())["total"]["runs"] == {"complete": 1}


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for target in (pipe, link):
        read = []
        reader = threading.Thread(target=lambda into=read: into.append(pipe.read_text()), daemon=True)
        reader.start()
        assert main(arguments(tmp_path, "summary", "--html", str(target))) == 0
        assert pipe.is_fifo()
        reader.join(20)
        assert data_in(read[0])["total"]["runs"] == {"complete": 1}


def test_a_pipe_of_another_process_is_written_to(tmp_path):
    """As a shell makes it for `--html >(gzip > FILE)`."""
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    reading, writing = os.pipe()
    try:
        page, read = Path(f"/dev/fd/{writing}"), []
        reader = threading.Thread(target=lambda: read.append(Path(f"/dev/fd/{reading}").read_text()), daemon=True)
        reader.start()
        assert main(arguments(tmp_path, "summary", "--html", str(page))) == 0
    finally:
        os.close(writing)
    reader.join(20)
    os.close(reading)
    assert data_in(read[0])["total"]["runs"] == {"complete": 1}


@pytest.mark.parametrize("command", ["summary", "verify"])
def test_has_no_place_in_the_staging_area_nor_on_stdout(tmp_path, capsys, command):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"), files={"f": b"12345"})
    part = next((tmp_path / "data").rglob("*.parquet"))
    (tmp_path / "link").symlink_to(part)
    (tmp_path / "way").symlink_to(tmp_path / "files")
    before = part.read_bytes()
    for target in (part, tmp_path / "link", tmp_path / "way" / "r.html", tmp_path / "data" / "x" / ".." / "r.html"):
        assert main(arguments(tmp_path, command, "--html", str(target))) == 2
        assert "lies in the staging area" in capsys.readouterr().err
    assert part.read_bytes() == before
    assert not list(tmp_path.rglob("*.html"))
    assert main(arguments(tmp_path, command, "--html", "-")) == 2
    assert "needs the name of a file" in capsys.readouterr().err


def test_links_that_lead_in_circles_are_no_place(tmp_path, capsys):
    (tmp_path / "r.html").symlink_to(tmp_path / "r.html")
    assert main(arguments(tmp_path, "summary", "--html", str(tmp_path / "r.html"))) == 1
    assert "Cannot write the report" in capsys.readouterr().err


def test_needs_a_real_check(tmp_path, capsys):
    assert main(arguments(tmp_path, "verify", "--dry-run", "--html", str(tmp_path / "r.html"))) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_is_made_with_the_users_umask(tmp_path):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            assert main(arguments(tmp_path, "summary", "--html", str(tmp_path / "r.html"))) == 0
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "r.html").stat().st_mode) == mode


def test_says_what_the_json_says(tmp_path, capsys):
    one = RunRef(PROJECT, "RUN-1")
    stage(
        tmp_path, "RUN-1", floats(one, "loss", [1.0] * 3), files={"f": b"12345"}, problems=[Problem("x", "y", count=7)]
    )
    stage(tmp_path, "RUN-2", text(RunRef(PROJECT, "RUN-2"), "a", "b"), parent="RUN-1")
    assert main(arguments(tmp_path, "summary", "--json", "--html", str(tmp_path / "r.html"))) == 0
    (said,) = json.loads(capsys.readouterr().out)["projects"]
    page = data_in((tmp_path / "r.html").read_text())
    for figure in ("runs", "attributes", "points", "bytes", "parts", "part_bytes", "files", "file_bytes", "problems"):
        assert page["total"][figure] == page["projects"][0][figure] == said[figure], figure
    assert sum(said["bytes"].values()) == said["part_bytes"] + said["file_bytes"]
    assert said["bytes"]["files"] == 5
    assert main(arguments(tmp_path, "summary", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["projects"] == [said]  # whether there is a page or not
    assert page["problems"] == {"total": 1, "rows": [[0, "permanent", "RUN-1", "y", "x", 7]]}
    assert [row[1:5] for row in page["forks"]["rows"]] == [["RUN-1", 0, None, True], ["RUN-2", 1, None, True]]


def test_a_parent_that_is_not_there_and_runs_that_name_each_other_are_shown_once(tmp_path):
    for run_id, parent in (("a", "b"), ("b", "a"), ("c", "gone"), ("self", "self")):
        stage(tmp_path, run_id, text(RunRef(PROJECT, run_id), "x", "y"), parent=parent)
    (project,) = summary(areas.staging(tmp_path)).projects
    assert [(node.run, node.depth, node.here) for node in project.fork_trees] == [
        *(("gone", 0, False), ("c", 1, True)),
        *(("a", 0, True), ("b", 1, True)),
        ("self", 0, True),
    ]
    assert (project.in_trees, project.forks) == (5, 4)


def test_the_identity_of_official_runs_is_read(tmp_path):
    rows = [
        areas.row("sys/name", "string", string_value="a name"),
        areas.row("sys/creation_time", "datetime", datetime_value=areas.TIME),
        areas.row("sys/forking/parent", "string", string_value="RUN-0"),
        areas.row("sys/forking/step", "float", float_value=2.5),
        areas.row("loss", "float_series", step=1, timestamp=areas.TIME, float_value=1.0),
    ]
    for how in ({}, {"row_group_size": 2}, {"write_statistics": False}):
        areas.official(tmp_path, "RUN-1", rows, **how)
        (project,) = summary(areas.staging(tmp_path)).projects
        assert (project.biggest[0].name, project.biggest[0].begun) == ("a name", "2024-05-01T10:00:00.250+00:00")
        assert project.begun == {"2024-05-01": 1}
        assert [(node.run, node.step, node.here) for node in project.fork_trees] == [
            ("RUN-0", None, False),
            ("RUN-1", "2.5", True),
        ]


def test_many_days_become_months_and_years(tmp_path):
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"))
    (project,) = summary(areas.staging(tmp_path)).projects
    for days, unit, bars in (
        ({"2024-01-31": 1, "2024-12-01": 2, "": 5}, "day", [("2024-01-31", 1), ("2024-12-01", 2)]),
        ({"2019-01-31": 1, "2019-01-01": 3, "2024-12-01": 2}, "month", [("2019-01", 4), ("2024-12", 2)]),
        ({"0001-01-31": 1, "9999-12-01": 2}, "year", [("0001", 1), ("9999", 2)]),
    ):
        object.__setattr__(project, "begun", days)
        found = of_summary(Summary([project]), "x")["total"]["begun"]
        assert (found["unit"], found["bars"], found["unknown"]) == (unit, bars, days.get("", 0))


def test_bounded_with_a_hundred_thousand_runs_and_a_million_findings():
    """Names of a thousand characters, too: full figures, but no page that no browser opens."""
    long = "\u65e5" * 1000
    noted = [
        tuple(finding_of(RunRef(f"p{number}", long), "partial", long, attribute=long) for _ in range(10))
        for number in range(1000)
    ]
    refs = (RunRef(f"p{number % 1000}", f"{number}{long}") for number in range(100_000))
    checked = [Checked(ref, "partial", noted[number % 1000], 5) for number, ref in enumerate(refs)]
    bad = RunRef("p1", "bad")
    checked.append(Checked(bad, "complete", (finding_of(bad, "values", "differs"),), 1))
    value = of_verify(checked, Depth(), "x", 4)
    page = html("Verification", value)
    assert len(page) < 12_000_000
    assert value["levels"] == {"difference": 1, "note": 1_000_000}
    assert value["findings"]["total"] == 1_000_001
    assert value["findings"]["rows"][0][1:5] == ("difference", "values", "staging", "bad")
    assert value["runs"]["total"] == 100_001
    assert value["results"] == {"noted": 100_000, "differs": 1}
    assert value["more_projects"] == 500


def test_lists_of_a_summary_are_bounded(tmp_path):
    problems = [Problem(f"problem {number}", f"a{number}", "retry") for number in range(LISTED + 5)]
    stage(tmp_path, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "a", "b"), problems=problems)
    (project,) = summary(areas.staging(tmp_path)).projects
    assert (project.problems, project.problem_entries, len(project.problem_list)) == (LISTED + 5, LISTED + 5, LISTED)
