# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Changes on disk: whole or not at all, and failures that say what to do."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest
from contracts.disk_faults import Faults
from contracts.rows import snapshot

from neptune_exporter.errors import StagingError
from neptune_exporter.storage import disk


def test_a_file_is_there_at_the_end_of_the_block(tmp_path):
    with disk.create(tmp_path / "a") as file:
        file.write(b"x")
    assert snapshot(tmp_path) == {"a": b"x"}


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ECONNRESET, "reset"), KeyboardInterrupt()])
def test_a_file_is_gone_if_its_block_fails(tmp_path, error):
    def write():
        with disk.create(tmp_path / "a") as file:
            file.write(b"x")
            raise error

    with pytest.raises(type(error)) as raised:
        write()
    assert raised.value is error
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "The disk is full. Free some space and run the same command again"),
        (errno.EDQUOT, "The disk quota is used up"),
        (errno.EACCES, "Check the permissions"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "names this long"),
        (errno.EIO, ""),
    ],
)
def test_failures_say_what_to_do(tmp_path, number, hint):
    with pytest.raises(StagingError) as raised, disk.explained("write", tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert str(raised.value) == f"Cannot write {tmp_path / 'a'}: {os.strerror(number)}."
    assert hint in raised.value.hint


def test_json_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "a.json"
    disk.write_json(path, {"n": 1, "text": "ü\ud800"})
    with Faults(tmp_path).active() as faults:
        disk.write_json(path, {"n": 2})
    for number in range(1, len(faults.log) + 1):
        disk.write_json(path, {"n": 1})
        with Faults(tmp_path, "error", number).active(), pytest.raises(StagingError):
            disk.write_json(path, {"n": 2})
        assert json.loads(path.read_bytes()) in ({"n": 1}, {"n": 2})
        assert [p for p in tmp_path.iterdir() if p != path] == []


def test_folders_are_made_with_those_above(tmp_path):
    disk.make_folder(tmp_path / "a" / "b" / "c")
    disk.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(StagingError, match=r"Cannot create the folder .*/a"):
        disk.make_folder(tmp_path / "a" / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_explained(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StagingError) as raised, disk.create(tmp_path / "a"):
            pass
        assert "--data-path" in raised.value.hint
    finally:
        tmp_path.chmod(0o700)


def test_what_is_not_there_is_removed_without_ado(tmp_path):
    disk.remove(tmp_path / "a")
    disk.remove_tree(tmp_path / "b")
    disk.remove_empty_folder(tmp_path / "c")


def test_a_folder_that_holds_something_stays(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    disk.remove_empty_folder(tmp_path / "a")
    assert (tmp_path / "a" / "b").exists()
    disk.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_does_not_sync_folders_will_do(tmp_path, monkeypatch, number):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    disk.make_folder(tmp_path / "a" / "b")
    disk.write_json(tmp_path / "a" / "b" / "c.json", {"n": 1})
    assert json.loads((tmp_path / "a" / "b" / "c.json").read_text()) == {"n": 1}


def test_other_failures_of_syncing_are_failures(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StagingError, match="Cannot sync the folder"):
        disk.sync_folder(tmp_path)
