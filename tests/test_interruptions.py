# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The real command, killed at random moments and interrupted: nothing unfinished looks finished, and it goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contracts import memory
from contracts.memory import MemoryRun, World
from contracts.rows import assert_same, curve, read_rows, snapshot
from truth import PROJECT, Truth, differences, log_everything

from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage.staging import Staging

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Truth:
    return log_everything(tmp_path_factory.mktemp("logged"))


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "area" / "data", tmp_path / "area" / "files")


def command(staging: Staging, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    place = ["--data-path", str(staging.data_path), "--files-path", str(staging.files_path), "--no-progress"]
    return subprocess.Popen(
        [sys.executable, "-m", "neptune_exporter", "export", *place, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def offline(staging: Staging, truth: Truth, *more: str) -> subprocess.Popen[str]:
    return command(staging, "--exporter", "offline", "--offline-path", str(truth.directory), *more)


def manifests(staging: Staging) -> Path:
    return staging.folder(PROJECT).data / "_manifest"


def mark(staging: Staging) -> int:
    """Changes as soon as an export begins to write."""
    try:
        return manifests(staging).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def wait_for(process: subprocess.Popen[str], happened) -> bool:
    """Whether it happened while the process lived."""
    while process.poll() is None:
        if happened():
            return True
        time.sleep(0.0005)
    return False


def check(staging: Staging, truth: Truth, *, all_there: bool) -> None:
    """Every run that is there is whole; all are, if they have to be."""
    found = {run.ref.run_id for run in staging.folder(PROJECT).runs()}
    assert found <= set(truth.runs)
    if all_there:
        assert found == set(truth.runs)
    for run_id in found:
        run = staging.run(RunRef(PROJECT, run_id))
        assert run.status == "complete"
        assert differences(truth.runs[run_id].all_rows, read_rows(run, staging)) == ([], [])


def kill_again_and_again(staging: Staging, truth: Truth, times: int, *more: str, seed: int) -> None:
    chance = random.Random(seed)
    whole = staging.data_path.parent.with_name(f"whole-{seed}")
    if more:
        shutil.copytree(staging.data_path.parent, whole)
    timed = Staging(whole / "data", whole / "files")
    before = mark(timed)
    process = offline(timed, truth, *more)
    assert wait_for(process, lambda: mark(timed) != before)
    begun = time.monotonic()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    length = time.monotonic() - begun
    for _ in range(times):
        before = mark(staging)
        process = offline(staging, truth, *more)
        if not wait_for(process, lambda before=before: mark(staging) != before):
            shutil.rmtree(staging.data_path.parent)  # all was there already: from the beginning again
            continue
        time.sleep(chance.random() * length)
        process.kill()
        process.communicate()
        check(staging, truth, all_there=bool(more))
    process = offline(staging, truth, *more)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    check(staging, truth, all_there=True)
    left = [name for name in snapshot(staging.data_path.parent) if ".tmp" in name or ".next." in name]
    assert left == []


def test_a_first_export_killed_at_random_moments(staging, logged):
    kill_again_and_again(staging, logged, 3, seed=1)


def test_a_re_export_killed_at_random_moments(staging, logged):
    offline(staging, logged).communicate()
    kill_again_and_again(staging, logged, 4, "--overwrite", seed=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_exports_killed_at_many_random_moments(staging, logged, seed):
    kill_again_and_again(staging, logged, 20, seed=seed)
    kill_again_and_again(staging, logged, 20, "--overwrite", seed=100 + seed)


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_with_130_and_a_hint(staging, tmp_path, monkeypatch, number, executor):
    """The run that is exported just then has no end: only the interruption can end it."""
    memory.install(tmp_path / "site", monkeypatch)
    refs = [RunRef(PROJECT, run_id) for run_id in ("done", "endless", "waiting")]
    runs = [MemoryRun(RunInfo(ref), curve("loss", 60), endless=ref.run_id == "endless") for ref in refs]
    options = World(runs).save(tmp_path / "world")
    process = command(
        staging,
        *("--exporter", "memory", "--world", options.world, "--workers", "1", "--executor", executor),
        PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), str(TESTS)]),
    )
    try:
        assert wait_for(process, lambda: any(manifests(staging).glob("endless-*.claim")))
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Error: Interrupted. What was finished is kept." in errors
    assert "Hint: Run the same command again, it goes on where it was: neptune-exporter export" in errors
    assert "Traceback" not in errors
    assert output == ""
    assert_same(curve("loss", 60), read_rows(staging.run(refs[0]), staging))
    assert staging.run(refs[1]) is None
    assert staging.run(refs[2]) is None
    memory.forget_plugins()
