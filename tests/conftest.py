# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a known environment, and how hard hypothesis tries."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from commands import Result
from contracts.injected import COUNT, injected
from hypothesis import HealthCheck, settings

from neptune_exporter.cli.main import main

# The same examples every time, so that a red test is red for everybody;
# `--hypothesis-profile=search` looks for new ones.
settings.register_profile(
    "default", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

# The user's own accounts and servers are none of the tests' business; those of the end-to-end tests are named for them.
for name in list(os.environ):
    if name.startswith(("NEPTUNE_", "MLFLOW_", "WANDB_", "MLOP_", "PLUTO_")) and "_E2E_" not in name:
        del os.environ[name]

# What kills processes and what waits for servers says nothing new on another Python, but takes minutes.
LONG = re.compile(
    r"cluster|crash|interrupt|faults|lifecycle|tampering|guarantees|transfers|contract|load_models|opened|replay|scripts|wire"
    r"|live|kills|takeover|hostile|merge|object|stores|secrets|listing|roundtrip|offline_legacy|certificates"
    r"|mlflow_(values|official|direct|limits|verify|pages|targets)|wandb_|pluto_(area|client)"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if LONG.search(item.path.stem):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", autouse=True)
def signals_are_counted() -> Iterator[None]:
    """Every process that a test stops or kills is a fault injected."""
    send = subprocess.Popen.send_signal

    def counted(process: subprocess.Popen[bytes], number: int) -> None:
        injected("signal")
        send(process, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "send_signal", counted)
        yield


@pytest.fixture(autouse=True)
def faults_are_counted(request: pytest.FixtureRequest) -> Iterator[None]:
    before = COUNT.copy()
    yield
    request.node.user_properties.append(("faults", dict(COUNT - before)))


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Runs a command in this process, in an empty working folder; gives exit code, stdout and stderr."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def run(*arguments) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many faults were injected, by kind, in tests that passed."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    survived: Counter[str] = Counter()
    for report in reports:
        if getattr(report, "when", "") == "teardown":
            for name, value in report.user_properties:
                survived.update(value if name == "faults" else {})
    if survived:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(survived.items()))
        terminalreporter.write_line(f"Faults injected: {survived.total():,} ({kinds}).")
