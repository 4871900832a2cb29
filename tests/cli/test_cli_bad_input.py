# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong: one `Error:` and one `Hint:`, the right exit code, no traceback, nothing lost."""

from __future__ import annotations

import errno
import gc
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading

import areas
import pytest
from areas import PROJECT, row, stage, text

from neptune_exporter.cli import console
from neptune_exporter.errors import Problem
from neptune_exporter.model import RunRef
from neptune_exporter.pipeline import Outcome, Report
from neptune_exporter.storage import disk
from neptune_exporter.verify import check

ONE = RunRef(PROJECT, "RUN-1")
USAGE, ERROR, INCOMPLETE, DIFFERENT = 2, 1, 3, 4
POINTS = 2297  # of the sample
READERS = [["summary"], ["verify"], ["load"]]


def told(result, code, message, hint=None):
    """The failure is told as it should be."""
    assert result.code == code, result
    assert result.out == ""
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if not line.startswith(("Usage:", "Try "))]
    assert lines[0].startswith("Error: ") or lines[0] == "", result.err
    assert message in result.err
    if hint is not None:
        assert any(line.startswith("Hint: ") and hint in line for line in lines), result.err


@pytest.fixture
def area(tmp_path):
    stage(tmp_path, "RUN-1", text(ONE, "a", "b"))
    return tmp_path


# --- folders


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_no_such_data_folder(call, tmp_path, command, places):
    told(call(*command, *places(tmp_path / "no")), ERROR, "There is no staging area at", "neptune-exporter export")


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_the_default_folder_is_named(call, command):
    told(call(*command), ERROR, "exports/data")


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_an_empty_data_folder(call, tmp_path, command, places):
    (tmp_path / "data").mkdir()
    told(call(*command, *places(tmp_path)), ERROR, "does not hold any", "neptune-exporter")


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_file_where_the_data_folder_should_be(call, tmp_path, command, places):
    (tmp_path / "data").write_text("")
    told(call(*command, *places(tmp_path)), ERROR, f"Cannot read {tmp_path / 'data'}: Not a directory", "")


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_project_that_is_not_there(call, area, command, places):
    told(call(*command, "-p", "acme/none", *places(area)), ERROR, "does not hold acme/none", "neptune-exporter summary")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_no_permission(call, area, command, places):
    (area / "data").chmod(0)
    try:
        told(call(*command, *places(area)), ERROR, "Permission denied", "permissions")
    finally:
        (area / "data").chmod(0o700)


def test_no_offline_folder(call, tmp_path):
    result = call("export", "--exporter", "offline", "--offline-path", tmp_path / "no")
    told(result, ERROR, f"There is no folder {tmp_path / 'no'}", "--offline-path")


def test_an_offline_folder_without_data(call, tmp_path):
    result = call("export", "--exporter", "offline", "--offline-path", tmp_path)
    told(result, ERROR, "No offline Neptune data found", "--offline-path")


def test_export_to_where_a_file_is(call, sample):
    (sample / "file").write_text("")
    arguments = ["--data-path", sample / "file", "--files-path", sample / "f"]
    result = call("export", "--exporter", "offline", "--offline-path", sample / ".neptune", *arguments)
    assert result.code == INCOMPLETE
    assert "4 failed" in result.out
    assert f"Cannot read {sample / 'file'}" in result.out
    assert "Traceback" not in result.out + result.err


def test_a_log_file_that_cannot_be_written(call, area, places):
    result = call("summary", *places(area), "--log-file", area / "no" / "log")
    told(result, ERROR, "Cannot write the log file", "--log-file")


# --- options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--exporter", "nonsense"], "There is no exporter named 'nonsense'"),
        (["load", "--loader", "nonsense"], "There is no loader named 'nonsense'"),
        (["verify", "--exporter", "nonsense"], "There is no exporter named 'nonsense'"),
        (["verify", "--loader", "nonsense"], "There is no loader named 'nonsense'"),
        (["export", "--exporter", "offline", "-r", "("], "is not a valid regular expression"),
        (["export", "--exporter", "offline", "-a", "["], "is not a valid regular expression"),
        (["load", "-a", "*"], "is not a valid regular expression"),
        (["verify", "--offline-path", "x"], "--offline-path needs --exporter offline"),
        (["verify", "--mlflow-tracking-uri", "x"], "--mlflow-tracking-uri needs --loader mlflow"),
        (["verify", "--loader", "mlflow", "--offline-path", "x"], "--offline-path needs --exporter offline"),
        (["export", "-c", "nonsense"], "'nonsense' is not one of"),
        (["load", "-c", "files", "--exclude", "files"], "Nothing is left to do"),
        (["load", "--step-multiplier", "many"], "neither auto nor a whole number"),
        (["load", "--mlflow-tracking-uri", "nonsense://x"], "nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["summary", "--nonsense"], "No such option"),
        (["summary", "--workers", "many"], "'many' is not a valid integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(call, arguments, message):
    told(call(*arguments), USAGE, message)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "-1"], "--workers must be at least 1"),
        (["--executor", "nonsense"], "Unknown executor 'nonsense'"),
        (["--executor", "dask:"], "needs the address"),
        (["--executor", "dask:foo"], "'foo' is not the address of a Dask scheduler: it needs a host and a port"),
        (["--executor", "dask:tcp://127.0.0.1"], "it needs a host and a port"),
        (["--executor", "dask:tcp://host:99999"], "it needs a host and a port"),
        (["--executor", "dask:http://127.0.0.1:1"], "it begins with none of tcp, tls"),
        (["--executor", "dask:tcp://me:hidden@host:1"], "'tcp://***@host:1' holds a user name or password"),
        (["--executor", "dask:me:hidden@host:1"], "'***@host:1' holds a user name or password"),
        (["--executor", "dask:tls://127.0.0.1:1"], "needs certificates, and Dask's configuration names none"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_ways_to_work(call, area, places, more, message):
    told(call("verify", *places(area), *more), USAGE, message)


@pytest.mark.parametrize(
    ("answers", "said"),
    [(b"", "says nothing for 0.5 s"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no Dask scheduler")],
    ids=["nothing", "http"],
)
def test_a_server_that_is_not_dask(call, area, places, monkeypatch, answers, said):
    """It is not waited for without end, and no half-made client of Dask's complains when it is collected."""
    monkeypatch.setattr("neptune_exporter.cluster.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepted: list[socket.socket] = []

        def answer():
            connection, _ = listening.accept()
            accepted.append(connection)
            connection.sendall(answers)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        result = call("verify", *places(area), "--executor", f"dask:{address}")
        thread.join(20)
        for connection in accepted:
            connection.close()
    gc.collect()
    told(result, ERROR, f"What answers at {address} is no Dask scheduler", "dask scheduler")
    assert said in result.err


def test_no_dask_scheduler_at_all(call, area, places, monkeypatch):
    monkeypatch.setattr("neptune_exporter.cluster.CONNECT_SECONDS", 0.5)
    result = call("verify", *places(area), "--executor", "dask:tcp://127.0.0.1:1")
    told(result, ERROR, "No Dask scheduler answers at tcp://127.0.0.1:1", "dask scheduler")
    gc.collect()


def test_a_multiplier_that_rounds_steps_is_refused_before_anything_is_sent(call, sample, places):
    uri = f"sqlite:///{sample / 'new.db'}"
    result = call("load", "--mlflow-tracking-uri", uri, "--step-multiplier", "1", *places(sample))
    told(result, USAGE, "would round steps of 'valid/loss'", "--step-multiplier 100")
    assert not (sample / "new.db").exists()


def test_a_missing_extra(call, area, places, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else found(name, *rest)
    )
    told(call("load", *places(area)), ERROR, "mlflow is not installed", "pip install 'neptune-exporter[mlflow]'")
    told(call("verify", "--loader", "mlflow", *places(area)), ERROR, "mlflow is not installed", "pip install")


# --- damage


def test_a_part_that_was_cut_short(call, sample, places):
    part = min((sample / "data").rglob("*_part_*.parquet"))
    part.write_bytes(part.read_bytes()[:-7])
    result = call("verify", *places(sample))
    assert result.code == DIFFERENT
    assert str(part) in result.out
    result = call("load", "--mlflow-tracking-uri", f"sqlite:///{sample / 'new.db'}", *places(sample))
    assert result.code == INCOMPLETE
    assert "1 failed" in result.out
    assert str(part) in result.out
    assert "Traceback" not in result.out + result.err


def test_a_missing_file(call, sample, places):
    path = next(path for path in (sample / "files").rglob("*") if path.is_file())
    path.unlink()
    result = call("verify", *places(sample))
    assert result.code == DIFFERENT
    assert f"{path} is missing" in result.out


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_manifest_from_a_newer_version(call, area, places, command):
    areas.changed_json(areas.manifest(area, "RUN-1"), lambda manifest: manifest.update(format=99))
    result = call(*command, *places(area))
    assert result.code in (ERROR, INCOMPLETE)
    assert "newer version of neptune-exporter" in result.out + result.err
    assert "pip install -U neptune-exporter" in result.out + result.err
    assert "Traceback" not in result.err


def test_a_damaged_run_in_a_summary_is_one_line_and_the_rest_is_shown(call, area, places):
    stage(area, "RUN-2", text(RunRef(PROJECT, "RUN-2"), "a", "b"))
    areas.manifest(area, "RUN-1").write_text("{")
    result = call("summary", *places(area))
    assert result.code == INCOMPLETE
    assert "1 run (1 complete)" in result.out
    errors = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert str(areas.manifest(area, "RUN-1")) in errors[0]


def test_unproven_archives_are_read_by_every_command(call, tmp_path, places):
    areas.official(tmp_path, "RUN-1", [row("a", "int", int_value=2**63 - 1)])
    assert "1 unproven" in call("summary", *places(tmp_path)).out
    result = call("verify", *places(tmp_path))
    assert result.code == 0
    assert "verify --write-manifests" in result.out
    assert call("verify", "--write-manifests", *places(tmp_path)).code == 0
    assert "1 complete" in call("summary", *places(tmp_path)).out


# --- a full disk


def test_a_full_disk_leaves_what_was_there_and_nothing_half(call, sample, monkeypatch):
    """First exports and such as add to what is there."""
    first, wider = [["--data-path", sample / name, "--files-path", sample / f"{name}files"] for name in ("new", "some")]
    source = ["--exporter", "offline", "--offline-path", sample / ".neptune"]
    assert call("export", *source, *wider, "-c", "parameters").code == 0
    before = call("verify", "--read-data", *source, *wider)
    assert before.code == 0
    create = disk.create

    def full(path):
        if "part_" in path.name:
            with disk.explained("write", path):
                raise OSError(errno.ENOSPC, "No space left on device")
        return create(path)

    monkeypatch.setattr(disk, "create", full)
    for place in (first, wider):
        result = call("export", *source, *place)
        assert result.code == INCOMPLETE
        assert "4 failed" in result.out
        assert "The disk is full. Free some space" in result.out
        assert "Traceback" not in result.out + result.err
    monkeypatch.undo()

    assert call("verify", "--read-data", *source, *wider)[:2] == before[:2]
    assert not list((sample / "new").rglob("*_part_*.parquet"))
    assert not [path for path in (sample / "new").rglob("*.json") if path.name != "area.json"]
    for place in (first, wider):
        assert call("export", *source, *place).code == 0
        proof = call("verify", "--read-data", *source, *place, "--json")
        assert proof.code == 0
        assert sum(run["points"] for run in json.loads(proof.out)["runs"]) == POINTS


# --- what is on stdout


def test_json_is_all_that_is_on_stdout(call, sample, places):
    source = ["--exporter", "offline", "--offline-path", sample / ".neptune"]
    for arguments in (
        ["export", *source],
        ["export", *source, "--dry-run"],
        ["summary"],
        ["verify", "--read-data", *source],
        ["verify", "--dry-run"],
        ["load", "--dry-run", "--mlflow-tracking-uri", f"sqlite:///{sample / 'new.db'}"],
    ):
        result = call(*arguments, *places(sample), "--json")
        assert result.code == 0, arguments
        assert json.loads(result.out)["exit_code"] == 0
        assert result.err == ""


def test_json_lists_runs_in_the_same_order_whichever_was_done_first():
    refs = [RunRef(project, run, kind) for project in "ab" for kind in ("model", "run") for run in ("1", "10", "2")]
    report = Report([Outcome(ref, "done") for ref in reversed(refs)])
    listed = [(run["project"], run["kind"], run["run"]) for run in console.report_json(report)["runs"]]
    assert listed == [(ref.project_id, ref.kind, ref.run_id) for ref in refs]


def test_verify_lists_runs_in_the_same_order_whichever_was_done_first(call, area, places, monkeypatch):
    for number in (3, 2):
        stage(area, f"RUN-{number}", text(RunRef(PROJECT, f"RUN-{number}"), "a", "b"), problems=[Problem("lost", "x")])
    real = check.verify
    monkeypatch.setattr(check, "verify", lambda *how, **more: reversed(list(real(*how, **more))))
    said = json.loads(call("verify", *places(area), "--json").out)
    assert [run["run"] for run in said["runs"]] == ["RUN-1", "RUN-2", "RUN-3"]
    assert [finding["run"] for finding in said["findings"]] == ["RUN-2", "RUN-3"]


def test_the_log_goes_to_stderr_and_to_the_log_file(call, area, places):
    areas.manifest(area, "RUN-1").write_text("{")
    result = call("load", *places(area), "-v", "--json", "--log-file", area / "log", "-r", "RUN-1")
    assert result.code != 0
    assert "Traceback" not in result.out
    assert (area / "log").exists()


def test_a_reader_of_stdout_that_stops_early_is_no_traceback(area):
    """As in `neptune-exporter summary | head -0`."""
    command = [sys.executable, "-m", "neptune_exporter", "summary", "-d", str(area / "data"), "-f", str(area / "files")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert b"Traceback" not in err
    assert b"Exception" not in err
