# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Against a real Neptune 2.x server: skipped unless NEPTUNE2_E2E_API_TOKEN and NEPTUNE2_E2E_PROJECT are set.

Writes one run into the project, exports just that run, and moves it to the trash.
"""

from __future__ import annotations

import os

import pytest
from collect2 import Home
from truth2 import QUIET, Truth, log_all_series, log_atoms, log_files, without_lists

TOKEN, PROJECT = os.environ.get("NEPTUNE2_E2E_API_TOKEN"), os.environ.get("NEPTUNE2_E2E_PROJECT")

pytestmark = pytest.mark.skipif(
    not (TOKEN and PROJECT), reason="NEPTUNE2_E2E_API_TOKEN and NEPTUNE2_E2E_PROJECT are not set"
)


def test_what_was_logged_comes_home(tmp_path, monkeypatch):
    import neptune
    from neptune import management

    monkeypatch.setenv("NEPTUNE_API_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    truth = Truth()
    run = neptune.init_run(project=PROJECT, name="neptune-exporter test", git_ref=False, source_files=[], **QUIET)
    run_id = run["sys/id"].fetch()
    try:
        log_atoms(run, truth)
        log_all_series(run, truth)
        log_files(run, truth, tmp_path)
        run.stop()
        home = Home(tmp_path / "home")
        assert home.export("-r", f"^{run_id}$", project=PROJECT) == 0
        found = without_lists(home.values(run_id, project=PROJECT))
        expected = truth.values
        assert expected <= found, sorted(expected - found, key=str)[:5]
        assert home.run("verify", "--exporter", "neptune2", "-r", run_id, project=PROJECT) == 0
        again = Home(tmp_path / "again")
        assert again.run("export-models", "--dry-run", project=PROJECT) in (0, 3)
    finally:
        management.trash_objects(project=PROJECT, ids=run_id)
