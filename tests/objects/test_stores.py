# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What every store has to do, on S3 and through fsspec; and what S3 does when it is tired, or says no."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from memory_store import MemoryStore

from neptune_exporter.errors import MissingExtraError, StagingError, StoreAccessError, UsageError
from neptune_exporter.storage.objects import s3 as s3_module
from neptune_exporter.storage.objects.filesystem import FilesystemStore, open_filesystem
from neptune_exporter.storage.objects.s3 import S3Store
from neptune_exporter.storage.objects.store import split_address
from neptune_exporter.storage.place import parse_place
from neptune_exporter.storage.staging import Staging

_numbers = itertools.count()


@pytest.fixture(params=["s3", "fsspec", "memory"])
def store(request, bucket):
    if request.param == "s3":
        return S3Store(bucket.name)
    if request.param == "memory":
        return MemoryStore()
    import fsspec

    return FilesystemStore(fsspec.filesystem("memory"), "memory", f"bucket-{next(_numbers)}")


def test_what_was_put_is_listed_and_read(store, tmp_path):
    store.put("a/b/one", b"1")
    store.put("a/b/two ü/☃", b"22")
    store.put("a/c", b"")
    file = tmp_path / "file"
    file.write_bytes(b"333")
    store.put("a/b/three", file)
    assert list(store.objects("a/b/")) == [("a/b/one", 1), ("a/b/three", 3), ("a/b/two ü/☃", 2)]
    assert list(store.objects("a/b/t")) == [("a/b/three", 3), ("a/b/two ü/☃", 2)]
    assert list(store.objects("nothing/")) == []
    assert store.folders("a/") == ["b"] or store.folders("a/") == ["b", "c"]
    assert store.read("a/b/three") == b"333"
    assert store.read("a/b/three", 1, 2) == b"33"
    assert b"".join(store.stream("a/b/two ü/☃")) == b"22"
    assert b"".join(store.stream("a/c")) == b""
    content, age = store.aged("a/b/one")
    assert content == b"1"
    assert -5 < age < 60
    store.put("a/b/one", b"new")
    assert store.read("a/b/one") == b"new"


def test_what_is_not_there_is_said_so(store):
    for ask in (store.read, store.aged, lambda key: list(store.stream(key))):
        with pytest.raises(FileNotFoundError):
            ask("nothing")
    store.delete(["nothing", "nobody"])


def test_only_the_first_creates(store):
    assert store.create("key", b"first")
    assert not store.create("key", b"second")
    assert store.create("key", b"first")  # an attempt of our own whose answer was lost
    assert store.read("key") == b"first"
    store.delete(["key"])
    assert store.create("key", b"")
    assert not store.create("key", b"third")


def test_of_many_who_create_at_once_one_does(store):
    barrier = threading.Barrier(8)

    def create(number):
        barrier.wait()
        return [store.create(f"claim-{n}", b"%d" % number) for n in range(5)]

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 5


def test_many_are_removed(store, monkeypatch):
    monkeypatch.setattr(s3_module, "KEYS_PER_DELETE", 3)
    for number in range(7):
        store.put(f"x/{number}", b"1")
    store.delete([f"x/{number}" for number in range(6)])
    assert [key for key, _ in store.objects("x/")] == ["x/6"]


# --- S3 alone


def test_a_big_file_goes_up_in_parts_and_leaves_none_if_it_fails(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 << 20)
    content = os.urandom((5 << 20) + 7)
    file = tmp_path / "big"
    file.write_bytes(content)
    store = S3Store(bucket.name)
    store.put("big", file)
    assert bucket.content()["big"] == content
    assert b"".join(store.stream("big")) == content
    assert store.requests["UploadPart"] == 2

    def stop(_bytes):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        store.put("interrupted", file, stop)
    assert bucket.unfinished_uploads() == []
    bucket.server.fault = lambda _n, request: (403, "AccessDenied", "no") if "partNumber=2" in request[1] else None
    with pytest.raises(StoreAccessError, match="AccessDenied"):
        store.put("refused", file)
    bucket.server.fault = lambda _n, _request: None
    assert bucket.unfinished_uploads() == []
    assert set(bucket.content()) == {"big"}


def test_uploads_that_nobody_finishes_are_ended(bucket):
    for key in ("mine/1", "mine/2", "yours/1"):
        bucket.s3.create_multipart_upload(Bucket=bucket.name, Key=key)
    S3Store(bucket.name).abandon("mine/")
    assert bucket.unfinished_uploads() == ["yours/1"]


def test_a_list_has_more_than_one_page(bucket):
    from moto.s3.models import s3_backends

    for number in range(1005):
        s3_backends["123456789012"]["aws"].put_object(bucket.name, f"many/{number:04d}", b"")
    store = S3Store(bucket.name)
    assert len(list(store.objects("many/"))) == 1005
    assert store.requests["ListObjectsV2"] == 2
    store.delete([f"many/{number:04d}" for number in range(1005)])
    assert store.requests["DeleteObjects"] == 2
    assert bucket.content() == {}


@pytest.mark.parametrize("answer", [(500, "InternalError", "oops"), (503, "SlowDown", "Reduce your request rate.")])
def test_a_tired_server_is_asked_again(bucket, answer):
    store, server = S3Store(bucket.name), bucket.server
    for act in (
        lambda: store.put("a", b"1"),
        lambda: store.create("b", b"2"),
        lambda: store.read("a"),
        lambda: list(store.objects("")),
        lambda: store.delete(["a"]),
    ):
        begin = len(server.log)
        server.fault = lambda n, _request, begin=begin: answer if n == begin + 1 else None
        act()
        assert len(server.log) > begin + 1
    assert bucket.content() == {"b": b"2"}


def test_a_create_that_was_done_and_not_answered_is_ours(bucket):
    store, server = S3Store(bucket.name), bucket.server
    begin = len(server.log)
    server.fault = lambda n, _request: (lambda: (500, "InternalError", "")) if n == begin + 1 else None
    assert store.create("key", b"mine")
    assert bucket.content() == {"key": b"mine"}


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        ((403, "InvalidAccessKeyId", "The key does not exist."), "refuses to", "AWS_ACCESS_KEY_ID"),
        ((403, "SignatureDoesNotMatch", "no"), "refuses to", "AWS_ACCESS_KEY_ID"),
        ((400, "ExpiredToken", "The token has expired."), "ExpiredToken", "AWS_ACCESS_KEY_ID"),
        ((403, "AccessDenied", "Access Denied"), "AccessDenied", "s3:PutObject"),
        ((404, "NoSuchBucket", "The bucket does not exist"), "There is no bucket", "Make it"),
    ],
)
def test_what_s3_refuses_ends_everything_with_a_line(bucket, answer, said, hint):
    store = S3Store(bucket.name)
    bucket.server.fault = lambda _n, _request: answer
    for act in (
        lambda: store.put("a", b"1"),
        lambda: store.create("a", b"1"),
        lambda: store.read("a"),
        lambda: list(store.objects("")),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(StoreAccessError, match=said) as caught:
            act()
        assert caught.value.fatal
        assert hint in caught.value.hint
        assert "\n" not in caught.value.message + caught.value.hint


def test_without_credentials(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreAccessError, match="There are no credentials for S3"):
        S3Store(bucket.name).read("a")


def test_a_server_that_is_not_there(bucket, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StagingError, match=r"Cannot read s3://.*/a: Could not connect"):
        S3Store(bucket.name, "http://127.0.0.1:9").read("a")


def test_what_is_no_address_or_no_bucket(bucket):
    with pytest.raises(UsageError, match="Invalid endpoint: minio"):
        S3Store(bucket.name, "minio")
    with pytest.raises(StagingError, match="Invalid bucket name") as caught:
        list(S3Store("no bucket!").objects(""))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_MAX_ATTEMPTS", "abc"), ("AWS_MAX_ATTEMPTS", "0"), ("AWS_MAX_ATTEMPTS", "-1"), ("AWS_RETRY_MODE", "foo")],
)
@pytest.mark.parametrize("command", ["summary", "verify"])
def test_settings_of_aws_that_mean_nothing(bucket, call, monkeypatch, name, value, command):
    monkeypatch.setenv(name, value)
    result = call(command, *bucket.places)
    assert result.code == 2
    assert result.err.count("Error:") == 1
    assert f"{name} is {value!r}" in result.err
    assert "Hint: Correct or unset it." in result.err


@pytest.mark.parametrize(
    "address", ["s3://me:hidden@{}/x", "s3:/{}/x", "s3://{}/x/../y", "s3://{}/.."], ids=lambda address: address
)
@pytest.mark.parametrize("option", ["--data-path", "--files-path"])
def test_addresses_that_mean_nothing_are_refused_before_anything_is_done(bucket, call, tmp_path, address, option):
    where = {"--data-path": bucket.data, "--files-path": bucket.files, option: address.format(bucket.name)}
    before = len(bucket.server.log)
    for command in (["summary"], ["verify"], ["export", "--exporter", "offline"], ["load"]):
        result = call(*command, *(part for pair in where.items() for part in pair))
        assert result.code == 2, result
        assert result.err.count("Error:") == 1
        assert "hidden" not in result.err
    assert len(bucket.server.log) == before
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_store_that_replaces_what_it_must_not_is_refused(bucket, monkeypatch):
    """Some servers do not know If-None-Match and say nothing of it."""
    area = Staging(parse_place(bucket.data), parse_place(bucket.files))
    put = S3Store.put
    monkeypatch.setattr(S3Store, "create", lambda self, key, content: put(self, key, content) is None)
    with pytest.raises(StagingError, match="If-None-Match"):
        area.folder("team/project").ensure_ours()
    assert bucket.content() == {}


# --- addresses and extras


def test_addresses():
    assert split_address("exports/data") is None
    assert split_address("s3://bucket/a/b/") == ("s3", "bucket", "a/b")
    assert split_address("s3a://bucket") == ("s3", "bucket", "")
    assert split_address("gcs://bucket/x") == ("gs", "bucket", "x")
    assert split_address("abfss://c@account.dfs.core.windows.net/x")[:2] == ("abfs", "c@account.dfs.core.windows.net")
    assert split_address("./s3:/bucket") is None
    assert split_address("s3://bucket/a..b/.c") == ("s3", "bucket", "a..b/.c")
    wrongs = ("s3:/bucket/x", "S3:bucket/x", "gs:bucket", "s3://bucket/a/../x", "s3://bucket/./x", "s3://bucket/..")
    for wrong in ("ftp://host/x", "s3:///x", *wrongs, "s3://localhost:9000/bucket"):
        with pytest.raises(UsageError):
            split_address(wrong)
    with pytest.raises(UsageError, match="of different kinds"):
        Staging(parse_place("s3://bucket/a"), parse_place("files"))


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("abfs", "azure")])
def test_a_missing_package_is_named_with_its_extra(scheme, extra, monkeypatch):
    import builtins

    found = builtins.__import__

    def missing(name, *rest):
        if name in ("gcsfs", "adlfs"):
            raise ImportError
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError) as caught:
        open_filesystem(scheme)
    assert f"neptune-exporter[{extra}]" in caught.value.hint


def test_boto3_is_named_with_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtraError) as caught:
        S3Store("bucket")
    assert "neptune-exporter[s3]" in caught.value.hint
