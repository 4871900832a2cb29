# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The HTML report in a real browser, clicked through, against what the real client was given to log."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC

import areas
import pytest
from areas import stage, text
from chromium import open_page
from truth import PROJECT, log_everything

from neptune_exporter.cli.main import main
from neptune_exporter.errors import Problem
from neptune_exporter.model import RunRef

EVIL = "evil/</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """An area with what was logged, and beside it a project that means no good."""
    root = tmp_path_factory.mktemp("report")
    truth = log_everything(root)
    where = ["--data-path", str(root / "data"), "--files-path", str(root / "files"), "--no-progress"]
    assert main(["export", "--exporter", "offline", "--offline-path", str(truth.directory), *where]) == 0
    problems = [Problem(f"refused {number} {EVIL}", f"m/{number}", "retry") for number in range(130)]
    for number in range(40):
        ref = RunRef(EVIL, f"{EVIL}{number:02}")
        stage(root, ref.run_id, text(ref, EVIL, EVIL), project=EVIL, problems=problems if number == 7 else [])
    assert main(["summary", *where, "--html", str(root / "summary.html")]) == 0
    return root, truth, where


def tiles(page) -> list[str]:
    return page.tab.locator("#tiles .tile b").all_inner_texts()


def section(page, title):
    return page.tab.locator("section", has=page.tab.get_by_role("heading", name=title, exact=True))


def cells(page, title, column: int) -> list[str]:
    return section(page, title).locator(f"tbody tr td:nth-child({column})").all_inner_texts()


def harmless(page) -> bool:
    return not page.errors and not page.refused and page.tab.title() != "broken" and not page.tab.locator("img").count()


def test_the_summary_shows_what_was_logged(logged):
    root, truth, _ = logged
    with open_page((root / "summary.html").as_uri()) as page:
        assert page.tab.title() == "Staging area"
        assert tiles(page)[:2] == ["2", f"{len(truth.runs) + 40}"]

        page.tab.select_option("select.project", label=PROJECT)
        rows = [row for run in truth.runs.values() for row in run.all_rows]
        assert tiles(page)[0] == f"{len(rows):,} points"
        assert tiles(page)[1] == f"{len(truth.runs)}"
        by_type = dict(
            line.rsplit("\t", 2)[:2] for line in section(page, "Points by type").locator("tr").all_inner_texts()
        )
        assert by_type == {kind: f"{count:,}" for kind, count in Counter(row.type for row in rows).items()}

        files = sum(len(run.files) for run in truth.runs.values())
        file_bytes = sum(len(content) for run in truth.runs.values() for content in run.files.values())
        assert f"in {files} file" in page.text
        assert file_bytes == sum(p.stat().st_size for p in (root / "files").rglob("*") if p.is_file())

        days = Counter(run.created.astimezone(UTC).date().isoformat() for run in truth.runs.values() if run.created)
        drawn = page.tab.locator("svg rect[data-bar]")
        found = {bar.get_attribute("data-bar"): int(bar.get_attribute("data-runs")) for bar in drawn.all()}
        assert found == dict(days)

        shown = dict(zip(cells(page, "Biggest runs", 2), cells(page, "Biggest runs", 6), strict=True))
        assert {run: int(count.replace(",", "")) for run, count in shown.items()} == {
            run_id: len(run.all_rows) for run_id, run in truth.runs.items()
        }
        forks = section(page, "Forks").inner_text()
        for run in truth.runs.values():
            if run.parent is not None:
                assert re.search(rf"{re.escape(run.run_id)} from step {re.escape(str(run.fork_step))}", forks)
        assert harmless(page)


def test_sorting_searching_and_leafing(logged):
    root, truth, _ = logged
    with open_page((root / "summary.html").as_uri()) as page:
        runs = section(page, "Biggest runs")
        most = [int(value.replace(",", "")) for value in cells(page, "Biggest runs", 6)]
        assert most[0] == max(most) == max(len(run.all_rows) for run in truth.runs.values())
        runs.get_by_role("button", name="points", exact=True).click()
        assert runs.locator("th[aria-sort=descending]").inner_text() == "points"
        runs.get_by_role("button", name="points", exact=True).press("Enter")
        least = [int(value.replace(",", "")) for value in cells(page, "Biggest runs", 6)]
        assert least == sorted(least)
        assert len(least) == 25

        runs.get_by_role("button", name=re.compile("Show .* more")).click()
        assert len(cells(page, "Biggest runs", 1)) == len(truth.runs) + 40
        runs.get_by_role("searchbox").fill("everything")
        assert cells(page, "Biggest runs", 2) == ["everything"]

        problems = section(page, "Problems")
        page.tab.get_by_role("button", name=EVIL).click()  # the project in the table of projects
        assert tiles(page)[1] == "40"
        assert "25 of 130 problems shown" in problems.inner_text()
        chip = problems.locator("button.chip")
        assert chip.inner_text() == "tried again next time 130"
        chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
        problems.get_by_role("searchbox").fill("m/12")
        assert cells(page, "Problems", 3) == ["m/12", *(f"m/{number}" for number in range(120, 130))]
        assert harmless(page)


def test_verification_with_filters(logged, tmp_path):
    root, truth, where = logged
    lost = sorted((root / "data" / areas.stem(EVIL)).glob("*_part_0.parquet"))[:3]
    kept = [part.read_bytes() for part in lost]
    lost[0].unlink()
    lost[1].write_bytes(kept[1][:-9])
    lost[2].write_bytes(kept[2].replace(b"PAR1", b"PAR2"))
    try:
        code = main(
            [
                "verify",
                *where,
                "--exporter",
                "offline",
                "--offline-path",
                str(truth.directory),
                "--html",
                str(tmp_path / "v.html"),
            ]
        )
    finally:
        for part, content in zip(lost, kept, strict=True):
            part.write_bytes(content)
    assert code == 4
    with open_page((tmp_path / "v.html").as_uri()) as page:
        assert page.tab.locator("#verdict").inner_text() == "Differences found"
        # 3 runs differ; one of the others has 130 problems that its export has listed
        assert tiles(page)[0] == f"{len(truth.runs) + 40}"
        assert tiles(page)[2:] == [f"{len(truth.runs) + 36}", "3", "0", "130"]
        compared = page.tab.locator("#compared tbody tr").all_inner_texts()
        assert [line.split("\t") for line in compared] == [
            ["its own manifests", f"{len(truth.runs) + 40} of {len(truth.runs) + 40}"],
            ["the source: offline", f"{len(truth.runs)} of {len(truth.runs) + 40}"],
        ]
        findings = section(page, "Findings")
        findings.locator("button[data-filter=difference]").click()
        assert cells(page, "Findings", 2) == ["differs"] * 3
        assert cells(page, "Findings", 3) == ["part"] * 3
        findings.locator("button[data-filter=difference]").click()
        findings.locator("button[data-filter=partial]").click()
        assert set(cells(page, "Findings", 2)) == {"note"}
        runs = section(page, "Runs")
        runs.locator("button[data-filter=differs]").click()
        assert len(cells(page, "Runs", 2)) == 3
        page.tab.select_option("select.project", label=PROJECT)
        assert tiles(page)[2:] == [f"{len(truth.runs)}", "0", "0", "0"]
        assert cells(page, "Runs", 2) == []
        runs.locator("button[data-filter=ok]").focus()
        page.tab.keyboard.press("Space")
        assert sorted(cells(page, "Runs", 2)) == sorted(truth.runs)
        assert harmless(page)


def test_light_and_dark(logged):
    root, _, _ = logged
    with open_page((root / "summary.html").as_uri()) as page:
        seen = {}
        for scheme in ("light", "dark"):
            page.tab.emulate_media(color_scheme=scheme)
            style = "([getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color])"
            ground, ink = (sum(map(int, re.findall(r"\d+", value)[:3])) for value in page.tab.evaluate(style))
            assert abs(ground - ink) > 450, scheme
            seen[scheme] = ground
        assert seen["light"] > seen["dark"]
        page.tab.set_viewport_size({"width": 380, "height": 700})
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 380
