# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The real command against S3: killed, interrupted, two at once, refused, slowed down. Then the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from contracts.injected import injected
from contracts.rows import assert_same, curve, rows_on_disk, single, write_run
from test_object_commands import download

from neptune_exporter.errors import ClaimedError
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage import names
from neptune_exporter.storage.manifest import SourceRecord

REF = RunRef("team/crash", "run-1")
BIG = """
import os, sys
from neptune_scale import Run
from neptune_scale.types import File
with Run(project="team/big", run_id="big", mode="offline", log_directory=sys.argv[1],
         enable_console_log_capture=False, source_tracking_config=None) as run:
    run.assign_files({"model": File(os.urandom(20 << 20))})
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Path:
    """Four runs, logged offline by the real client."""
    folder = tmp_path_factory.mktemp("logged") / ".neptune"
    subprocess.run([sys.executable, "-m", "neptune_exporter.demo_runs", str(folder)], check=True, capture_output=True)
    return folder


def command(logged: Path, bucket) -> list[str]:
    return ["export", "--exporter", "offline", "--offline-path", str(logged), "--workers", "1", *bucket.places]


def started(arguments: list[str], **how) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "neptune_exporter", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


class Signal:
    """Sends a signal to a process when its request comes that looks so; before S3 sees it, or when it is done."""

    def __init__(self, number: int, looks: str, *, method: str = "PUT", done: bool = False) -> None:
        self._number, self._looks, self._method, self._done = number, looks, method, done
        self._seen = 0
        self.pid = 0
        self.ready = threading.Event()

    def __call__(self, _number, request):
        method, path = request
        self._seen += method == self._method and self._looks in path
        if self._seen != 1 or not (method == self._method and self._looks in path):
            return None
        self.ready.wait(30)
        if not self._done:
            injected("signal")
            os.kill(self.pid, self._number)
            return (500, "InternalError", "nobody hears this") if self._number == signal.SIGKILL else None
        return self._after

    def _after(self):
        injected("signal")
        os.kill(self.pid, self._number)
        return (500, "InternalError", "nobody hears this")


def check_all(bucket, logged: Path, call) -> None:
    """All runs are there, equal to what was logged, and nothing else is."""
    result = call("verify", "--read-data", "--exporter", "offline", "--offline-path", logged, *bucket.places)
    assert result.code == 0, result
    named = set()
    content = bucket.content("exports/")
    for key, data in content.items():
        if key.endswith(".json") and "/_manifest/" in key:
            named.add(key)
            value = json.loads(data) if data else {}
            folder = key.rpartition("/_manifest/")[0]
            for part in value.get("parts", ()):
                named.add(f"{folder}/{part['path']}")
            for entry in (value.get("index"), value.get("extra")):
                if entry:
                    named.add(f"{folder}/_manifest/{entry['path']}")
            for path, *_ in value.get("files", ()):
                named.add(f"{folder.replace('/data/', '/files/')}/{path}")
    assert set(content) == named


@pytest.mark.parametrize(
    "fatal",
    [
        pytest.param(Signal(signal.SIGKILL, ".claim", done=True), id="claimed", marks=pytest.mark.soak),
        pytest.param(Signal(signal.SIGKILL, "_part_0."), id="part", marks=pytest.mark.soak),
        pytest.param(Signal(signal.SIGKILL, ".g1.json"), id="manifest", marks=pytest.mark.soak),
        pytest.param(Signal(signal.SIGKILL, ".g1.json", done=True), id="committed"),
        pytest.param(Signal(signal.SIGKILL, "delete", method="POST"), id="cleanup", marks=pytest.mark.soak),
    ],
)
def test_a_killed_export_goes_on(fatal, bucket, logged, call, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bucket.server.fault = fatal
    process = started(command(logged, bucket), env={**os.environ, "TMPDIR": str(scratch)})
    fatal.pid = process.pid
    fatal.ready.set()
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    bucket.server.fault = lambda _number, _request: None

    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    complete = {key for key, data in bucket.content().items() if key.endswith(".g1.json") and data}
    result = call("verify", "--read-data", *bucket.places)
    assert result.code == 0 or "not hold any" in result.err or "no staging area" in result.err, result
    result = call(*command(logged, bucket), "--json")
    assert result.code == 0, result
    statuses = [run["status"] for run in json.loads(result.out)["runs"]]
    assert statuses.count("skipped") == len(complete)
    assert statuses.count("done") == 4 - len(complete)
    assert not [path for path in scratch.iterdir() if path.name.startswith("neptune-exporter-")]
    check_all(bucket, logged, call)


def test_an_interrupted_upload_leaves_nothing(bucket, call, tmp_path):
    folder = tmp_path / ".neptune"
    subprocess.run([sys.executable, "-c", BIG, str(folder)], check=True, capture_output=True)
    stop = Signal(signal.SIGINT, "partNumber=1")
    bucket.server.fault = stop
    process = started(command(folder, bucket))
    stop.pid = process.pid
    stop.ready.set()
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    bucket.server.fault = lambda _number, _request: None
    assert bucket.unfinished_uploads() == []
    assert {key.rpartition("/")[2] for key in bucket.content()} == {"area.json"}
    assert call(*command(folder, bucket)).code == 0
    check_all(bucket, folder, call)


def test_two_exports_at_once_share_the_work(bucket, logged, call):
    both = [started([*command(logged, bucket), "--json"]) for _ in range(2)]
    reports = []
    for process in both:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        reports.append({run["run"]: run["status"] for run in json.loads(out)["runs"]})
    for run_id in reports[0]:
        assert sorted(report[run_id] for report in reports) == ["done", "skipped"], reports
    check_all(bucket, logged, call)


def claim_of(bucket, number: int) -> str:
    project = bucket.staging.folder(REF.project_id).data
    return f"{project.key}/_manifest/{names.stem(REF.run_id)}.g{number}.claim"


def of_another_host(bucket, number: int, age: float) -> None:
    """The claim is somebody else's and was renewed so long ago."""
    from moto.s3.models import s3_backends

    holder = {"host": "another-host", "boot": "x", "pid": 1, "started": "1", "token": "theirs"}
    bucket.s3.put_object(Bucket=bucket.name, Key=claim_of(bucket, number), Body=json.dumps(holder).encode())
    s3_backends["123456789012"]["aws"].get_object(bucket.name, claim_of(bucket, number)).last_modified -= timedelta(
        seconds=age
    )


def test_a_claim_is_kept_while_it_is_renewed_and_taken_over_when_it_is_not(bucket, tmp_path):
    area = bucket.staging
    area.folder(REF.project_id).ensure_ours()
    of_another_host(bucket, 1, age=60)
    with pytest.raises(ClaimedError, match="process 1 on another-host"):
        write_run(area, REF, curve("loss", 3))
    of_another_host(bucket, 1, age=200)
    run = write_run(area, REF, curve("loss", 3))
    assert run.generation == 2
    assert_same(curve("loss", 3), rows_on_disk(download(bucket, tmp_path), REF))


def test_who_only_seemed_dead_cannot_commit(bucket, tmp_path):
    """It goes on, uploads and tries: the other one's run stays as it is, and nothing else does."""
    area = bucket.staging
    seemed_dead = area.writer(RunInfo(REF), SourceRecord("memory", "here"))
    path = seemed_dead.files.add("model", "m.bin", [b"theirs"])
    of_another_host(bucket, 1, age=200)
    rows = [*curve("loss", 5), single("model", b"ours")]
    assert write_run(area, REF, rows).generation == 2
    seemed_dead.files.add("late", "l.bin", [b"after that"])
    import pyarrow as pa

    from neptune_exporter.model import rows_batch

    seemed_dead.write(rows_batch(REF, "model", "file", file_value=pa.array([{"path": path}])))
    with pytest.raises(ClaimedError, match="taken over"):
        seemed_dead.commit()
    seemed_dead.abort()
    assert_same(rows, rows_on_disk(download(bucket, tmp_path), REF))
    run = bucket.staging.run(REF)
    assert run.generation == 2
    assert run.files.open(run.file_paths()[0]).read() == b"ours"
    assert not [key for key, data in bucket.content("exports/files/").items() if data != b"ours"]
    assert not [key for key in bucket.content() if key.endswith(".claim")]


def test_a_reader_sees_one_generation_or_the_other(bucket):
    """What was opened before a new generation came is read to its end, or refused as a whole."""
    area = bucket.staging
    write_run(area, REF, [*curve("loss", 5), single("model", b"old")])
    old = area.run(REF)
    write_run(area, REF, [*curve("loss", 6), single("model", b"new")])
    from neptune_exporter.errors import StagingError

    for read in (lambda: list(old.read()), old.attributes, lambda: old.files.local(old.file_paths()[0])):
        with pytest.raises(StagingError, match="exported again while it was being read"):
            read()
    assert sum(batch.num_rows for batch in area.run(REF).read()) == 7


@pytest.mark.parametrize(
    ("fault", "said", "hint"),
    [
        ((403, "InvalidAccessKeyId", "It does not exist."), "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ((403, "AccessDenied", "Access Denied"), "AccessDenied", "s3:PutObject"),
        (None, "There is no bucket nowhere", "Make it"),
    ],
)
def test_what_is_refused_is_one_line_and_no_run(bucket, logged, call, fault, said, hint):
    if fault is not None:
        bucket.server.fault = lambda _n, request: fault if request[0] in ("PUT", "POST") else None
    places = ["--data-path", bucket.data, "--files-path", bucket.files]
    if fault is None:
        places = ["--data-path", "s3://nowhere/data", "--files-path", "s3://nowhere/files"]
    result = call("export", "--exporter", "offline", "--offline-path", logged, "--no-progress", *places)
    assert result.code == 1
    lines = result.err.splitlines()
    assert len(lines) == 2, result.err
    assert lines[0].startswith("Error: ")
    assert said in lines[0]
    assert lines[1].startswith("Hint: ")
    assert hint in lines[1]
    assert bucket.content() == {}
    if fault is None:
        for other in ("summary", "verify", "load"):
            result = call(other, *places)
            assert result.code == 1
            assert result.err.splitlines()[0] == lines[0]


@pytest.mark.soak  # waits between its attempts
def test_every_seventh_request_is_too_much_for_the_server(bucket, logged, call):
    bucket.server.fault = lambda n, _request: (503, "SlowDown", "Reduce your request rate.") if n % 7 == 0 else None
    assert call(*command(logged, bucket)).code == 0
    check_all(bucket, logged, call)


@pytest.mark.soak
@pytest.mark.parametrize("number", [3, 11, 19, 27])
def test_a_server_that_goes_away(bucket, logged, call, monkeypatch, number):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    begin = len(bucket.server.log)
    bucket.server.fault = lambda n, _request: (503, "SlowDown", "") if n >= begin + number else None
    result = call(*command(logged, bucket))
    assert result.code in (1, 3)
    assert "503" in result.err + result.out or "SlowDown" in result.err + result.out
    bucket.server.fault = lambda _n, _request: None
    assert call(*command(logged, bucket)).code == 0
    check_all(bucket, logged, call)
