# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The table of errors in docs/migration.md: what happens, what the script sees, what is logged."""

from __future__ import annotations

import logging

import pytest

from neptune_exporter.mirror import launch, spool
from neptune_exporter.mirror.settings import Settings
from neptune_exporter.mirror.spool import Progress


def levels(caplog):
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "neptune_exporter.mirror"]


def test_nothing_configured_is_info(monkeypatch, caplog):
    from neptune_exporter import dual_logging

    monkeypatch.setattr(dual_logging, "_switched_on", False)
    caplog.set_level(logging.DEBUG)
    dual_logging.switch_on()
    ((level, text),) = levels(caplog)
    assert (level, "Neptune only" in text) == ("INFO", True)


def test_no_such_target_is_one_warning(new_run, caplog):
    for _ in range(2):
        new_run().close()
    found = [text for level, text in levels(caplog) if level == "WARNING"]
    assert len([text for text in found if "nowhere" in text]) == 1


def test_a_package_that_is_not_installed_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    reason = launch.obstacle(Settings.from_environment({"NEPTUNE_EXPORTER_TARGET": "mlflow"}))
    assert "mlflow is not installed" in reason
    assert "neptune-exporter[mlflow]" in reason


@pytest.mark.parametrize("state", ["failing", "refused"])
def test_a_target_that_takes_nothing_is_a_warning(tmp_path, state):
    Progress({}, state, "the key is refused").save(tmp_path, "mlflow")
    worker = object.__new__(launch.Worker)
    worker._settings = Settings.from_environment({"NEPTUNE_EXPORTER_TARGET": "mlflow"})
    worker._folder, worker._process, worker._starts = tmp_path, None, 1
    complaint = worker.look_after(logging=False)
    assert "the key is refused" in complaint
    assert "replay" in complaint


@pytest.mark.parametrize(
    ("environment", "target"),
    [
        ({}, ""),
        ({"NEPTUNE_EXPORTER_TARGET": "MLflow"}, "mlflow"),
        ({"NEPTUNE_EXPORTER_TARGET": "mlop"}, "pluto"),
        ({"MLOP_PROJECT": "p"}, "pluto"),
        ({"PLUTO_PROJECT": "p"}, "pluto"),
        ({"MLOP_PROJECT": "p", "NEPTUNE_EXPORTER_TARGET": "staging"}, "staging"),
        ({"MLOP_PROJECT": "p", "NEPTUNE_EXPORTER_DISABLE": "1"}, ""),
        ({"MLOP_API_KEY": "key"}, ""),
    ],
)
def test_the_target_that_the_environment_names(environment, target):
    assert Settings.from_environment(environment).target == target


@pytest.mark.parametrize("text", ["true", "1", "yes", "YES", " True "])
def test_what_switches_neptune_off(text):
    assert Settings.from_environment({"DISABLE_NEPTUNE_LOGGING": text}).without_neptune


@pytest.mark.parametrize("text", ["", "false", "0", "no"])
def test_what_does_not(text):
    assert not Settings.from_environment({"DISABLE_NEPTUNE_LOGGING": text}).without_neptune


def test_closing_is_never_more_than_five_seconds():
    given = {"NEPTUNE_EXPORTER_CLOSE_SECONDS": "600"}
    assert Settings.from_environment(given).close_seconds == 5
    assert Settings.from_environment({"NEPTUNE_EXPORTER_CLOSE_SECONDS": "x"}).close_seconds == 5


def test_drops_are_a_problem_of_the_export(script):
    folder = spool.run_folder(script.spool, "team/project", "run")
    writer = spool.SegmentWriter(folder, spool.Header("team/project", "run", "neptune-scale", "", "here", 1), 10**18)
    writer.write(spool.record(spool.DROPPED, 1, b'{"calls": 12}'))
    writer.write(spool.record(spool.CLOSE, 1, b'{"status": "finished"}'))
    writer.close()
    out = script.command("export", "--exporter", "offline", "--offline-path", "spool", code=3)
    assert "12 calls" in out
