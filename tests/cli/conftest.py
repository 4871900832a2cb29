# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The sample that `demo` logs, exports and loads, made once by the real command; each test works on a copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from neptune_exporter.cli.main import main


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> tuple[Path, Result]:
    """The folder of a whole demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "sample"
    command = [sys.executable, "-m", "neptune_exporter", "demo", "--path", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent)
    return folder, Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def sample(demo, tmp_path) -> Path:
    """A folder with `.neptune`, `data` and `files`."""
    for name in (".neptune", "data", "files"):
        shutil.copytree(demo[0] / name, tmp_path / name)
    return tmp_path


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


@pytest.fixture
def places():
    """The options that say where a staging area lies."""
    return lambda root: ("--data-path", root / "data", "--files-path", root / "files")
