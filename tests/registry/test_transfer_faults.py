# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever breaks: nothing that looks whole is left, and the error says what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from neptune.types import File
from registry_state import BUCKET, PROJECT, attributes, keys, tree, write_tree
from servers.http import Fault, HttpServer, Reply

from neptune_exporter.errors import AccessError, ExporterError, SourceError, UsageError
from neptune_exporter.registry import TrackedModelVersion, neptune
from neptune_exporter.registry import s3 as s3_module
from neptune_exporter.registry.transfer import UnfinishedUploadError

MEGABYTE = 1 << 20
CONTENT = os.urandom(MEGABYTE * 3 // 2)


@pytest.fixture
def s3_proxy(s3_server):
    """The S3 server behind one that can be told to fail."""

    def forward(request):
        dropped = ("host", "content-length", "transfer-encoding", "connection")
        headers = {k: v for k, v in request.headers.items() if k not in dropped}
        place = s3_server + request.target  # on a busy machine, parts of many megabytes take their time
        reply = httpx.request(request.method, place, headers=headers, content=request.body, timeout=120)
        headers = {k: v for k, v in reply.headers.items() if k not in (*dropped, "date", "server")}
        length = int(reply.headers.get("content-length", 0))  # of a HEAD, only the length is sent
        return Reply(bytes(length) if request.method == "HEAD" else reply.content, reply.status_code, headers)

    server = HttpServer(forward)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def through(version, s3_proxy):
    """A model version whose S3 can fail."""
    version.configure_s3_storage_backend(s3_endpoint_url=s3_proxy.url, s3_part_megabytes=5)
    return version


@pytest.fixture
def at_once(monkeypatch):
    """Retries do not wait. Threads of the clients do, or they would spin and leave nothing for the servers here."""
    import botocore.endpoint
    import stamina

    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _seconds: None))
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def nothing_in(folder: Path) -> bool:
    return not list(folder.rglob("*"))


# --- downloads


def test_a_neptune_download_that_breaks_off_is_tried_again(version, server, tmp_path, at_once):
    version.upload_file_to_model_version("f", file_object=File.from_content(CONTENT), use_s3=False)
    for action in ("truncate", "short", "reset"):
        server.http.faults = [Fault("GET .*/attributes/download", action, times=2)]
        version.download_file_from_model_version("f", tmp_path / action)
        assert (tmp_path / action).read_bytes() == CONTENT
    server.http.faults = [Fault("GET .*/attributes/download", status=503, times=2)]
    version.download_file_from_model_version("f", tmp_path / "503")
    assert (tmp_path / "503").read_bytes() == CONTENT


@pytest.mark.parametrize("action", ["truncate", "short", "reset"])
def test_a_neptune_download_that_never_succeeds_leaves_nothing(version, server, tmp_path, action, at_once):
    folder = write_tree(tmp_path / "up", {"a": b"a", "b": CONTENT, "c": b"c"})
    version.upload_directory_to_model_version(folder, "m", use_s3=False)
    server.http.faults = [Fault("attribute=m/b", action, times=None)]
    down = tmp_path / "down"
    down.mkdir()
    with pytest.raises(ExporterError, match="m/b"):
        version.download_directory_from_model_version(down / "m", "m")
    with pytest.raises(ExporterError, match="m/b"):
        version.download_file_from_model_version("m/b", down / "b")
    assert nothing_in(down)
    (down / "b").write_bytes(b"old")
    with pytest.raises(ExporterError, match="m/b"):
        version.download_file_from_model_version("m/b", down / "b", overwrite=True)
    assert tree(down) == {"b": b"old"}


@pytest.mark.parametrize("action", ["truncate", "reset"])
def test_an_s3_download_that_never_succeeds_leaves_nothing(through, s3_proxy, tmp_path, action, at_once):
    folder = write_tree(tmp_path / "up", {"a": b"a", "b": CONTENT})
    through.upload_directory_to_model_version(folder, "m")
    s3_proxy.faults = [Fault("GET .*/m/b", action, times=None)]
    down = tmp_path / "down"
    down.mkdir()
    with pytest.raises(SourceError, match="m/b"):
        through.download_directory_from_model_version(down / "m", "m")
    assert nothing_in(down)
    s3_proxy.faults = [Fault("GET .*/m/b", action, times=1)]
    through.download_directory_from_model_version(down / "m", "m")
    assert tree(down / "m") == {"a": b"a", "b": CONTENT}


def test_an_object_that_comes_short_or_changed_is_noticed(through, s3, s3_proxy, tmp_path):
    through.upload_file_to_model_version("f", file_object=File.from_content(b"content"))
    key = next(iter(keys(s3)))
    s3_proxy.faults = [Fault("GET .*/f", "short", times=None)]
    with pytest.raises(SourceError):
        through.download_file_from_model_version("f", tmp_path / "f")
    s3_proxy.faults = []
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"CONTENT")
    with pytest.raises(SourceError, match="was changed since it was recorded"):
        through.download_file_from_model_version("f", tmp_path / "f")
    s3.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(SourceError, match=r"s3://models/.*/f does not exist"):
        through.download_file_from_model_version("f", tmp_path / "f")
    assert nothing_in(tmp_path / "f") or not (tmp_path / "f").exists()


def test_content_that_is_not_what_was_uploaded_is_noticed(version, s3, server, tmp_path, monkeypatch):
    """A checksum over the whole way, also where size and ETag agree."""
    version.upload_file_to_model_version("f", file_object=File.from_content(b"content"))
    real = s3_module.file_sha256
    monkeypatch.setattr(s3_module, "file_sha256", lambda path: real(path)[::-1])
    with pytest.raises(SourceError, match="SHA-256"):
        version.download_file_from_model_version("f", tmp_path / "f")
    assert not (tmp_path / "f").exists()


# --- uploads


def test_an_upload_that_neptune_refuses_leaves_the_directory_unfinished(version, server, tmp_path):
    folder = write_tree(tmp_path / "up", {"a": b"a", "b": b"b", "c": b"c"})
    server.http.faults = [Fault("POST .*/storage/file/upload.*attribute=m/b", status=422, times=None)]
    with pytest.raises(Exception, match=r"422|Unprocessable|limit"):
        version.upload_directory_to_model_version(folder, "m", use_s3=False)
    assert "m/b" not in attributes(server)
    with pytest.raises(UnfinishedUploadError, match="m was interrupted"):
        version.download_directory_from_model_version(tmp_path / "down", "m")
    server.http.faults = []
    version.upload_directory_to_model_version(folder, "m", use_s3=False)
    version.download_directory_from_model_version(tmp_path / "down", "m")
    assert tree(tmp_path / "down") == {"a": b"a", "b": b"b", "c": b"c"}
    assert set(attributes(server)) == {"m/a", "m/b", "m/c"}


def test_an_error_of_the_server_is_raised_and_not_only_logged(version, server):
    from neptune_exporter.registry.neptune import NeptuneReceiver

    server.store.container(f"{PROJECT}/DEMO-MOD-1").set("c", "string", "text")
    receiver = NeptuneReceiver(version._files)
    receiver.mark("d")
    with pytest.raises(SourceError, match="Neptune did not take"):
        version._files.execute(neptune.AssignArtifact(["c"], "hash"))


def test_an_upload_to_s3_in_parts_that_breaks_off_leaves_nothing(through, server, s3, s3_proxy, tmp_path, at_once):
    path = tmp_path / "big"
    path.write_bytes(os.urandom(12 * MEGABYTE))
    s3_proxy.faults = [
        Fault("PUT .*partNumber=2", status=403, times=None, body=b"<Error><Code>AccessDenied</Code></Error>")
    ]
    with pytest.raises(AccessError, match="AccessDenied"):
        through.upload_file_to_model_version("big", path)
    assert not keys(s3)
    assert not s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    assert not attributes(server)
    s3_proxy.faults = []
    through.upload_file_to_model_version("big", path)
    (key,) = keys(s3)
    assert s3.head_object(Bucket=BUCKET, Key=key)["ETag"].endswith('-3"')
    through.download_file_from_model_version("big", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == path.read_bytes()


def test_a_file_that_neptune_does_not_get_to_know_is_not_there(version, server, s3, tmp_path):
    server.http.faults = [Fault("PUT .*/artifact", status=400, times=None)]
    with pytest.raises(Exception, match="400"):
        version.upload_config_to_model_version({"a": 1}, "c")
    assert not attributes(server)
    server.http.faults = []
    version.upload_config_to_model_version({"a": 2}, "c")
    assert version.download_config_from_model_version("c") == {"a": 2}


def test_a_file_that_changes_while_it_is_uploaded(version, server, tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(b"before")
    real = s3_module.file_sha256

    def changed_after(of):
        digest = real(of)
        path.write_bytes(b"after and longer")
        return digest

    monkeypatch.setattr(s3_module, "file_sha256", changed_after)
    with pytest.raises(SourceError, match="changed while it was uploaded"):
        version.upload_file_to_model_version("f", path)
    assert not attributes(server)


KILLED = """
import os, signal, sys
from neptune_exporter.registry import TrackedModelVersion
from neptune_exporter.registry.neptune import NeptuneFiles
from neptune_exporter.registry.s3 import S3Storage

calls = 0
def dying(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

version = TrackedModelVersion(with_id="DEMO-MOD-1", project=sys.argv[1])
version.configure_s3_storage_backend(transfer_threads=1)
S3Storage.upload = dying(S3Storage.upload)
NeptuneFiles._fetch_tracked = dying(NeptuneFiles._fetch_tracked)
if sys.argv[2] == "upload":
    version.upload_directory_to_model_version(sys.argv[3], "m")
else:
    version.download_directory_from_model_version(sys.argv[3], "m")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_in_the_middle(version, server, tmp_path):
    files = {f"f{n}": b"%d" % n for n in range(6)}
    folder = write_tree(tmp_path / "up", files)

    def killed(what: str, place: Path) -> int:
        command = [sys.executable, "-c", KILLED, PROJECT, what, str(place)]
        return subprocess.run(command, capture_output=True, check=False, cwd=tmp_path).returncode

    assert killed("upload", folder) == -signal.SIGKILL
    with pytest.raises(UnfinishedUploadError):
        version.download_directory_from_model_version(tmp_path / "down", "m")
    version.upload_directory_to_model_version(folder, "m")
    assert killed("download", tmp_path / "down") == -signal.SIGKILL
    assert not (tmp_path / "down").exists()
    version.download_directory_from_model_version(tmp_path / "down", "m")
    assert tree(tmp_path / "down") == files


# --- large files

MEASURED = """
import sys
from pathlib import Path
from neptune_exporter.registry import TrackedModelVersion
def peak_kb():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
version = TrackedModelVersion(with_id="DEMO-MOD-1", project=sys.argv[1])
version.upload_config_to_model_version({}, "warm/up", use_s3=sys.argv[4] == "s3")
version.download_config_from_model_version("warm/up")
before = peak_kb()
version.upload_file_to_model_version("big", sys.argv[2], use_s3=sys.argv[4] == "s3")
version.download_file_from_model_version("big", sys.argv[3])
print("KB", peak_kb() - before)
version.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("storage", ["neptune", "s3"])
def test_100_megabytes_come_back_and_are_never_held_in_memory(version, server, tmp_path, storage):
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(MEGABYTE))
    command = [sys.executable, "-c", MEASURED, PROJECT, str(path), str(tmp_path / "down"), storage]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "down").read_bytes() == path.read_bytes()
    grown = int(done.stdout.split("KB")[1].split()[0])
    # S3 sends four parts of 16 MB at a time.
    assert grown < 90 * 1024, f"{grown} KB"


# --- credentials, buckets, settings


def test_no_credentials(version, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessError, match="no credentials for S3") as error:
        version.upload_config_to_model_version({}, "c")
    assert "AWS_ACCESS_KEY_ID" in error.value.hint


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken"])
def test_wrong_credentials(through, s3_proxy, server, code, tmp_path):
    through.upload_config_to_model_version({}, "there")
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    s3_proxy.faults = [Fault(".", status=403, times=None, body=body)]
    with pytest.raises(AccessError, match=f"refuses our credentials for s3://models/.*: {code}"):
        through.upload_config_to_model_version({}, "c")
    with pytest.raises(AccessError, match="refuses our credentials"):  # HEAD tells no code
        through.download_config_from_model_version("there")
    assert set(attributes(server)) == {"there"}


def test_a_bucket_that_is_not_there(version, server, s3, tmp_path):
    version.upload_config_to_model_version({}, "c")
    version.configure_s3_storage_backend(s3_backend_bucket="nowhere")
    with pytest.raises(SourceError, match="There is no bucket nowhere") as error:
        version.upload_config_to_model_version({}, "d")
    assert "ONCLUSIVEML_TRACKING_BACKEND_S3_BACKEND_BUCKET" in error.value.hint
    (key,) = keys(s3)
    s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)
    with pytest.raises(SourceError, match="There is no bucket models"):
        version.download_config_from_model_version("c")
    assert set(attributes(server)) == {"c"}


def test_an_endpoint_that_does_not_answer(version, monkeypatch, at_once):
    version.configure_s3_storage_backend(s3_endpoint_url="http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"cannot be reached at http://127.0.0.1:9") as error:
        version.upload_config_to_model_version({}, "c")
    assert "endpoint" in error.value.hint


def test_s3_without_a_bucket_says_which_variable_at_the_first_upload(server, monkeypatch):
    version = TrackedModelVersion(model="DEMO-MOD", project=PROJECT)
    with pytest.raises(UsageError, match="no bucket is set") as error:
        version.upload_config_to_model_version({}, "c")
    assert "ONCLUSIVEML_TRACKING_BACKEND_S3_BACKEND_BUCKET" in error.value.hint
    version.upload_config_to_model_version({"a": 1}, "c", use_s3=False)
    assert version.download_config_from_model_version("c") == {"a": 1}
    version.stop()


def test_wrong_neptune_credentials(server, monkeypatch):
    server.revoke()
    with pytest.raises(Exception, match=r"(?i)unauthorized|token"):
        TrackedModelVersion(model="DEMO-MOD", project=PROJECT)
