# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The sample that `demo` logs, exports and loads, made once by the real command; each test works on a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Result, neptune_exporter


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> tuple[Path, Result]:
    """The folder of a whole demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "sample"
    return folder, neptune_exporter("demo", "--path", folder, cwd=folder.parent)


@pytest.fixture
def sample(demo, tmp_path) -> Path:
    """A folder with `.neptune`, `data` and `files`."""
    for name in (".neptune", "data", "files"):
        shutil.copytree(demo[0] / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def places():
    """The options that say where a staging area lies."""
    return lambda root: ("--data-path", root / "data", "--files-path", root / "files")
