# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Disks are never filled: commands stop cleanly before, say what they need, and go on when they have it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from areas import PROJECT, Listed, floats, offered, stage, staging
from contracts.rows import snapshot

from neptune_exporter import free_space
from neptune_exporter.cli.main import main
from neptune_exporter.errors import UsageError
from neptune_exporter.free_space import NoSpaceError, parse_size, reserved
from neptune_exporter.model import RunRef

GB = 10**9


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch):
    """A disk whose free space is what the test says, less what has been written below a folder."""

    class Disk:
        free = 10 * GB
        counted: Path | None = None
        asked = 0

        def usage(self, path):
            self.asked += 1
            Path(path).stat()
            written = sum(p.stat().st_size for p in self.counted.rglob("*") if p.is_file()) if self.counted else 0
            return Usage(100 * GB, 0, self.free - written)

    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    return disk


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1GB", GB),
        ("1.5 gb", 1_500_000_000),
        ("2GiB", 2 * 2**30),
        ("500M", 500_000_000),
        ("7", 7),
        ("3kB", 3000),
        (".5MB", 500_000),
        ("1PiB", 2**50),
    ],
)
def test_sizes(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1XB", "GB", "1 2", ".", "1.", "\uff11GB"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


def test_what_is_needed_is_said(disk, tmp_path):
    disk.free = 300_000_000
    with reserved(GB), pytest.raises(NoSpaceError) as raised:
        free_space.check(tmp_path / "not" / "there", coming=50_000_000)
    assert raised.value.message.startswith("Only 300.0 MB are free on the disk of ")
    assert "--min-free-space 1.0 GB" in raised.value.message
    assert "Free at least 750.0 MB" in raised.value.hint
    assert raised.value.exit_code == 1
    free_space.check(tmp_path)  # nothing is to stay free: nothing is said


def test_an_export_stops_before_the_disk_is_full_and_goes_on_later(disk, tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(1)
    rows = {f"run-{n}": [floats(RunRef(PROJECT, f"run-{n}"), "loss", random.normal(size=50_000))] for n in range(6)}
    offered(monkeypatch, Listed(rows))
    places = ["-d", str(tmp_path / "data"), "-f", str(tmp_path / "files"), "--no-progress"]
    export = ["export", "-p", PROJECT, "--exporter", "listed", "--workers", "1", *places]
    disk.counted = tmp_path
    disk.free = GB + 1_500_000
    assert main(export) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: Only 1.0 GB are free on the disk of ")
    assert "Free at least" in said
    done = [run.ref.run_id for run in staging(tmp_path).folder(PROJECT).runs()]
    assert 0 < len(done) < 6
    assert not [name for name in snapshot(tmp_path) if name.endswith((".tmp", ".claim"))]
    assert main(["verify", "--read-data", *places]) == 0
    disk.free = 10 * GB
    assert main(export) == 0
    assert f"{6 - len(done)} done, {len(done)} skipped" in capsys.readouterr().out
    assert main(["verify", "--read-data", *places]) == 0


def test_a_load_stops_as_well(disk, tmp_path, monkeypatch, capsys):
    stage(tmp_path, "run-1", floats(RunRef(PROJECT, "run-1"), "loss", [1.0, 2.0]))
    places = ["-d", str(tmp_path / "data"), "-f", str(tmp_path / "files"), "--no-progress"]
    load = ["load", "--mlflow-tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", *places]
    disk.free = 999_000_000
    assert main(load) == 1
    assert "Error: Only 999.0 MB are free" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
    assert main([*load, "--min-free-space", "100MB"]) == 0


def test_nothing_is_asked_where_nothing_is_to_stay_free(disk, tmp_path, monkeypatch):
    stage(tmp_path, "run-1", floats(RunRef(PROJECT, "run-1"), "loss", [1.0]))
    assert disk.asked == 0
    assert free_space.reserve() == 0


def test_a_size_that_is_none(tmp_path, capsys):
    assert main(["summary", "-d", str(tmp_path), "--min-free-space", "lots"]) == 2
    assert "'lots' is no size" in capsys.readouterr().err
