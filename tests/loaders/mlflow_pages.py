# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow's own pages in Chromium. `python -m loaders.mlflow_pages` in tests/ takes the docs' pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromium import Page, open_page
from mlflow import MlflowClient
from servers.mlflow_server import serving

DOCS = Path(__file__).resolve().parents[2] / "docs"


class Pages:
    """The pages of one experiment.

    Attributes:
        page: the tab.
        runs: the ids of its runs, by name.
    """

    def __init__(self, page: Page, uri: str, experiment: str) -> None:
        found = MlflowClient(uri).get_experiment_by_name(experiment)
        self._of = f"{uri}/#/experiments/{found.experiment_id}/runs"
        self.page = page
        self.runs = {r.info.run_name: r.info.run_id for r in MlflowClient(uri).search_runs([found.experiment_id])}

    def table(self) -> Page:
        """All runs as a table."""
        self.page.open(self._of)
        self.page.see("matching runs")
        return self.page

    def charts(self) -> Page:
        """The charts of all runs."""
        self.page.open(f"{self._of}?compareRunsMode=CHART")
        self.page.see("matching runs")
        return self.page

    def run(self, name: str) -> Page:
        """What is said of one run."""
        self.page.open(f"{self._of}/{self.runs[name]}")
        self.page.see("About this run")
        return self.page


@contextmanager
def pages_of(folder: Path, database: str, experiment: str, **size: int) -> Iterator[Pages]:
    """A server on a database, and a browser."""
    with serving(folder, database) as uri, open_page(uri, **size) as page:
        yield Pages(page, uri, experiment)


def main() -> None:
    """Loads the demo and takes its pictures."""
    from neptune_exporter.cli.main import main as command
    from neptune_exporter.demo_runs import PROJECT

    with tempfile.TemporaryDirectory() as name:
        assert command(["demo", "--path", name]) == 0
        folder = Path(name)
        with pages_of(folder, f"sqlite:///{folder / 'mlflow.db'}", PROJECT, width=1500, height=820) as pages:
            page = pages.charts()
            page.see("valid/loss")
            # The last button at the head of the panel for questions closes it.
            head = page.tab.get_by_text("MLflow Assistant").locator("xpath=ancestor::*[.//button][1]")
            head.locator("button").last.click()
            for picture, shown in (("charts", pages.charts), ("run", lambda: pages.run("digits-1-warm"))):
                shown()
                page.tab.wait_for_timeout(5000)  # charts move into place
                page.screenshot(DOCS / f"mlflow-{picture}.png")


if __name__ == "__main__":
    main()
