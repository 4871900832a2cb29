# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The spool's format: torn ends, damage, full disks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neptune_exporter.mirror import spool
from neptune_exporter.mirror.kept_files import FileToKeep, keep
from neptune_exporter.mirror.spool import Header, Progress, SegmentWriter

HEADER = Header("team/project", "run", "neptune-scale", "0.30.0", "here", os.getpid())


@pytest.fixture
def segment(tmp_path):
    writer = SegmentWriter(tmp_path / "run", HEADER, 1_700_000_000_000_000_000)
    for number in range(3):
        writer.write(spool.record(spool.UPDATE, number, b"payload %d" % number))
    writer.close()
    return writer.path


def payloads(path):
    return [record.payload for record in spool.read_records(path) if record.kind == spool.UPDATE]


def test_what_is_written_is_read(segment):
    assert spool.read_header(segment) == HEADER
    assert payloads(segment) == [b"payload 0", b"payload 1", b"payload 2"]
    assert [record.time for record in spool.read_records(segment)][1:] == [0, 1, 2]


def test_a_reader_goes_on_where_it_was(segment):
    ends = [record.end for record in spool.read_records(segment)]
    assert [record.payload for record in spool.read_records(segment, ends[1])] == [b"payload 1", b"payload 2"]
    assert list(spool.read_records(segment, ends[-1])) == []


def test_whatever_is_cut_off_the_rest_is_read(segment):
    whole = segment.read_bytes()
    ends = [record.end for record in spool.read_records(segment)]
    for size in range(len(whole)):
        segment.write_bytes(whole[:size])
        assert len(list(spool.read_records(segment))) == sum(end <= size for end in ends)


def test_every_changed_byte_is_noticed(segment):
    whole = segment.read_bytes()
    records = list(spool.read_records(segment))
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x5A
        segment.write_bytes(bytes(changed))
        read = list(spool.read_records(segment))
        assert read == records[: len(read)]
        assert len(read) < len(records)


def test_a_full_disk_leaves_whole_records(tmp_path, monkeypatch):
    writer = SegmentWriter(tmp_path / "run", HEADER, 1)
    writer.write(spool.record(spool.UPDATE, 1, b"before"))
    real = os.write

    def some_then_full(descriptor, data):
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.os, "write", some_then_full)
    with pytest.raises(OSError, match="No space"):
        writer.write(spool.record(spool.UPDATE, 2, b"x" * 1000))
    monkeypatch.undo()
    writer.write(spool.record(spool.UPDATE, 3, b"after"))
    writer.close()
    assert payloads(writer.path) == [b"before", b"after"]


def test_files_are_kept_as_they_were(tmp_path):
    writer = SegmentWriter(tmp_path / "run", HEADER, 1)
    source = tmp_path / "picture.png"
    source.write_bytes(b"first")
    first = keep(FileToKeep("a", str(source), "picture.png", 5), writer)
    source.write_bytes(b"second")
    second = keep(FileToKeep("b", b"in memory", "x.bin", 9), writer)
    writer.write(spool.record(spool.FILE, 1, first) + spool.record(spool.FILE, 1, second))
    writer.close()
    kept = sorted(path.read_bytes() for path in writer.files.iterdir())
    assert kept == [b"first", b"in memory"]


@pytest.mark.parametrize("what", ["missing", "folder", "fifo"])
def test_a_file_that_cannot_be_kept_is_named(tmp_path, what):
    writer = SegmentWriter(tmp_path / "run", HEADER, 1)
    path = tmp_path / "it"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)  # opening it would block for ever
    payload = keep(FileToKeep("a", str(path), "it", 0), writer)
    assert b'"stored": null' in payload
    assert str(path).encode() in payload


def test_progress_survives_and_damage_means_none(tmp_path):
    Progress({"a": 5}, "done", "", "id").save(tmp_path, "mlflow")
    assert Progress.load(tmp_path, "mlflow") == Progress({"a": 5}, "done", "", "id")
    assert Progress.load(tmp_path, "wandb") == Progress({})
    spool.progress_path(tmp_path, "mlflow").write_text("{")
    assert Progress.load(tmp_path, "mlflow") == Progress({})


def test_hostile_names_stay_in_the_spool(tmp_path):
    for name in ("../../etc", "/abs", "a/b", "nul", "\ud800", "x" * 500, ""):
        folder = spool.run_folder(tmp_path, name, name)
        assert folder.parent.parent == tmp_path
        assert len(folder.name) < 120
    assert spool.run_folder(tmp_path, "p", "a/b") != spool.run_folder(tmp_path, "p", "a_b")


def test_a_file_stays_with_the_operation_that_names_it(tmp_path):
    """However a run is followed: by pieces, from the middle, while it is being written, or after a kill in between."""
    from neptune_exporter.exporters.offline_spool.segment import SegmentPart

    writer = SegmentWriter(tmp_path / "run", HEADER, 1)
    first = end = writer.size
    for number in range(3):
        writer.write(spool.record(spool.FILE, 1, keep(FileToKeep(f"f{number}", b"content", "f"), writer)))
        kept = writer.size
        assert SegmentPart(writer.path, end).load().end == end
        writer.write(spool.record(spool.UPDATE, 1, b"names it"))
        part = SegmentPart(writer.path, end, 1).load()
        assert [request.destination for request in part.file_requests()] == [f"f{number}"]
        end = part.end
        assert end == writer.size
    cut = SegmentPart(writer.path, first, 2**20, kept).load()
    assert (cut.end, len(cut.file_requests())) == (kept, 3)
    writer.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_younger_process_of_the_same_number_is_another_one():
    from time import time

    from neptune_exporter.exporters.offline_spool.segment import is_alive

    of_this_process = Header("team/project", "run", "neptune-scale", "", spool.host_name(), os.getpid())
    now = round(time() * 1000)
    assert is_alive(of_this_process, now)
    assert not is_alive(of_this_process, now - 30 * 86_400_000)
    assert not is_alive(Header("p", "r", "neptune-scale", "", spool.host_name(), 2**22 + 1), now)
    assert is_alive(Header("p", "r", "neptune-scale", "", "another machine", 2**22 + 1), now)
