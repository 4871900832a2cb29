# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Pluto (mlop) as a live target, by the variables that existing scripts already set."""

from __future__ import annotations

import pytest
from mirrored import NOWHERE
from servers.pluto import KEY, PlutoServer

from neptune_exporter.mirror import spool

SCRIPT = """
import neptune_exporter.dual_logging
from neptune_scale import Run
from neptune_scale.types import File, Histogram

with Run(run_id="one", experiment_name="e", source_tracking_config=None, enable_console_log_capture=False) as run:
    run.log_configs({"lr": 0.5, "layers": 3})
    run.add_tags(["stays", "goes"])
    for step in range(20):
        run.log_metrics({"loss": 1 / (step + 1)}, step=step)
        run.log_string_series({"text": f"line {step}"}, step=step)
    run.log_histograms({"h": Histogram(bin_edges=[0, 1, 2], counts=[3, 4])}, step=2)
    run.assign_files({"picture": File(b"not really", mime_type="image/png")})
    run.remove_tags(["goes"])
"""


@pytest.fixture
def server(script):
    with PlutoServer() as server:
        urls = {f"MLOP_URL_{name}": server.url for name in ("APP", "API", "INGEST")}
        script.environment |= {"MLOP_PROJECT": "p", "MLOP_API_KEY": KEY, **urls}
        yield server


def check(server) -> None:
    (run,) = server.store.of_project("p")
    assert [(step, value) for step, _, value in run.points("loss")] == [(s, 1 / (s + 1)) for s in range(20)]
    texts = [row["data"] for row in run.data if row["logName"] == "text"]
    assert sorted(texts) == sorted(f"line {step}" for step in range(20))
    assert len([row for row in run.data if row["logName"] == "h"]) == 1
    assert {name: run.config[name] for name in ("lr", "layers")} == {"lr": 0.5, "layers": 3}
    assert len(run.files) == 1
    assert "stays" in run.tags
    assert "goes" not in run.tags
    assert server.content(run, "picture/picture.png") == b"not really"


def test_the_seeds_variables_are_all_it_takes(script, server):
    script.run(SCRIPT)
    script.replay("pluto")
    check(server)
    assert server.store.of_project("p")[0].status == "COMPLETED"


def test_what_is_sent_again_is_not_there_twice(script, server):
    script.run(SCRIPT, NEPTUNE_EXPORTER_TARGET=NOWHERE)
    assert "1 fed" in script.replay("pluto")
    for folder in spool.run_folders(script.spool):  # the record of how far it got is lost
        spool.progress_path(folder, "pluto").unlink()
    assert "1 fed" in script.replay("pluto")
    check(server)


def test_a_refused_key_is_neptune_only(script, server):
    result = script.run("import logging; logging.basicConfig(level=logging.WARNING)\n" + SCRIPT, MLOP_API_KEY="wrong")
    assert len(script.own()) == 45
    assert server.store.of_project("p") == []
    (progress,) = script.progress("pluto")
    assert progress.state in ("refused", "feeding", "failing")
    assert "wrong" not in result.stderr
    assert "1 fed" in script.replay("pluto")
    check(server)


def test_the_key_that_login_has_stored_is_used(script, server):
    """`MLOP_PROJECT` is set and no key is: what `mlop login` has put into the keyring is taken."""
    del script.environment["MLOP_API_KEY"]
    (script.folder / "stored").mkdir()
    (script.folder / "stored" / "keyring.py").write_text(
        "class Keyring:\n"
        "    def get_password(self, service, user):\n"
        f"        return {KEY!r} if (service, user) == ('mlop', 'mlop') else None\n"
        "def get_keyring(): return Keyring()\n"
    )
    script.environment["PYTHONPATH"] = str(script.folder / "stored")
    assert "takes the key" in script.command("doctor")
    script.run(SCRIPT)
    script.replay("pluto")
    check(server)
