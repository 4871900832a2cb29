# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Attached files: moved, missing, changed, never uploaded, or uploaded already."""

from __future__ import annotations

import os
import shutil
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
from collect import collect_all, offline
from truth import START, Logger, Row, differences, millis

from neptune_exporter.errors import StagingError
from neptune_exporter.exporters.offline_scale.attachments import Attachments, parse_path_map
from neptune_exporter.exporters.offline_scale.database import FileRequest
from neptune_exporter.selection import Selection


@pytest.fixture
def session(tmp_path):
    """A session with a folder of user files beside it."""
    (tmp_path / "data").mkdir()
    return Logger(tmp_path / "neptune", "run")


def export(tmp_path: Path, **options):
    return collect_all(offline(tmp_path / "neptune", **options), tmp_path / "files")["run"]


def execute(log: Logger, statement: str) -> None:
    with sqlite3.connect(log.store / "run_operations.sqlite3") as connection:
        connection.execute(statement)
    connection.close()


def test_everything_moved_to_another_machine(session, tmp_path):
    """Buffers move with their store, files by path are found through --path-map."""
    (tmp_path / "data" / "deep").mkdir()
    (tmp_path / "data" / "deep" / "x.bin").write_bytes(b"by path")
    session.files({"path": tmp_path / "data" / "deep" / "x.bin", "bytes": b"by bytes"})
    session.files({"series": tmp_path / "data" / "deep" / "x.bin", "series/bytes": b"more"}, "0.29")
    truth = session.close()
    (tmp_path / "neptune").rename(tmp_path / "elsewhere")
    (tmp_path / "data").rename(tmp_path / "moved")
    found = collect_all(offline(tmp_path / "elsewhere"), tmp_path / "without")["run"]
    assert sorted(found.values("bytes") + found.values("series/bytes")) == [b"by bytes", b"more"]
    assert sorted((problem.attribute, problem.kind) for problem in found.problems) == [
        ("path", "retry"),
        ("series", "retry"),
    ]
    assert str(tmp_path / "data" / "deep" / "x.bin") in found.problems[0].message
    assert "--path-map" in found.problems[0].message
    mapped = offline(tmp_path / "elsewhere", path_map=(f"{tmp_path}/data={tmp_path}/moved/",))
    found = collect_all(mapped, tmp_path / "with")["run"]
    assert differences(truth.all_rows, found.rows) == ([], [])
    assert found.problems == []


def test_where_a_mapped_file_is_looked_for(tmp_path):
    def candidates(source: str, *pairs: str) -> list[str]:
        request = FileRequest(source, "run/a/none/x", 1, temporary=False)
        located = Attachments(tmp_path / "db", [request], parse_path_map(pairs)).locate("run/a/none/x", 1)
        return [str(path) for path in located.candidates]

    assert candidates("/data/a/x", "/data=/mnt") == ["/mnt/a/x", "/data/a/x"]
    assert candidates("/data/a/x", "/data/=/mnt/", "/data/a=/b") == ["/b/x", "/mnt/a/x", "/data/a/x"]
    assert candidates("/database/x", "/data=/mnt") == ["/database/x"]
    assert candidates("/data", "/data=/mnt") == ["/mnt", "/data"]
    assert candidates("/x", "/=/mnt") == ["/mnt/x", "/x"]
    assert candidates("C:\\runs\\a\\x", "C:\\runs=/mnt") == ["/mnt/a/x", "C:\\runs\\a\\x"]
    assert candidates("/a=b/x", "/a=b/c=/mnt")[-1] == "/a=b/x"


def test_a_missing_buffer_costs_only_itself(session, tmp_path):
    session.files({"one": b"1", "two": b"2"})
    session.close()
    next(p for p in session.store.iterdir() if p.read_bytes() == b"1").unlink()
    found = export(tmp_path)
    assert found.values("two") == [b"2"]
    assert found.values("one") == []
    assert [(problem.attribute, problem.kind) for problem in found.problems] == [("one", "retry")]


def test_a_file_that_has_changed_since(session, tmp_path):
    path = tmp_path / "data" / "log.txt"
    path.write_bytes(b"short")
    session.files({"log": path})
    session.close()
    path.write_bytes(b"longer than before")
    found = export(tmp_path)
    assert found.values("log") == [b"longer than before"]
    (problem,) = found.problems
    assert problem.attribute == "log"
    assert "5 bytes" in problem.message


def test_what_is_no_file_is_not_opened(session, tmp_path):
    for name in ("pipe", "folder"):
        (tmp_path / "data" / name).write_bytes(b"x")
        session.files({name: tmp_path / "data" / name})
        (tmp_path / "data" / name).unlink()
    os.mkfifo(tmp_path / "data" / "pipe")
    (tmp_path / "data" / "folder").mkdir()
    session.close()
    found = export(tmp_path)
    assert sorted((p.attribute, "not a regular file" in p.message) for p in found.problems) == [
        ("folder", True),
        ("pipe", True),
    ]


def test_two_files_for_one_destination(session, tmp_path):
    from neptune_scale.types import File

    session.files({"series": File(b"first", destination="same/place.txt")}, "1")
    session.files({"series": File(b"other", destination="same/place.txt")}, "2")
    session.files({"series": File(b"the third", destination="same/place.txt")}, "3")
    truth = session.close()
    found = export(tmp_path)
    assert differences(truth.all_rows, found.rows) == ([], [])
    assert found.problems == []


def test_the_first_of_two_files_for_one_destination_is_gone(session, tmp_path):
    """The recorded size says which of the references the remaining content belongs to."""
    from neptune_scale.types import File

    session.files({"series": File(b"first", destination="same/place.txt")}, "1")
    session.files({"series": File(b"the second", destination="same/place.txt")}, "2")
    session.close()
    execute(session, "DELETE FROM run_operations WHERE sequence_id <= 2")
    session = Logger(tmp_path / "neptune", "run", truth=None)
    session.files({"other": File(b"12", destination="x.txt")})
    session.files({"other": File(b"1234", destination="x.txt")})
    session.close()
    execute(session, "DELETE FROM file_upload_requests WHERE id = 1")
    found = export(tmp_path)
    assert [row.value for row in found.rows if row.step == 2] == [b"the second"]
    assert found.values("other") == [b"1234"]


def test_a_file_that_was_uploaded_is_named(session, tmp_path):
    (tmp_path / "data" / "model.bin").write_bytes(b"weights")
    session.files({"model": tmp_path / "data" / "model.bin"})
    session.close()
    execute(session, "DELETE FROM file_upload_requests")
    found = export(tmp_path)
    assert found.values("model") == []
    (problem,) = found.problems
    assert problem.attribute == "model"
    assert problem.kind == "permanent"


def test_a_refused_upload_leaves_its_buffer(session, tmp_path):
    """The client deletes the request and keeps the buffer, whose name is a part of the reference."""
    session.files({"model": b"weights"})
    truth = session.close()
    execute(session, "DELETE FROM file_upload_requests")
    found = export(tmp_path)
    assert differences(truth.all_rows, found.rows) == ([], [])
    assert found.problems == []


def test_files_whose_operations_were_synced(session, tmp_path):
    """A store without operations still holds content; the destination says which attribute it belongs to."""
    (tmp_path / "data" / "x.bin").write_bytes(b"by path")
    session.files({"models/best_of.all/weights": b"single", "plain": tmp_path / "data" / "x.bin"})
    session.files({"images/val": b"series"}, "12.5")
    truth = session.close()
    execute(session, "DELETE FROM run_operations")
    found = export(tmp_path)
    expected = [row for row in truth.rows if row.type == "file"]
    expected += [Row("images/val", "file_series", Decimal("12.5"), None, b"series")]
    expected += [row for row in truth.system_rows if row.path == "sys/custom_run_id"]
    assert differences(expected, found.rows) == ([], [])
    assert found.problems == []


def test_content_that_nothing_names_is_kept_and_said_so(session, tmp_path):
    session.files({"model": b"weights"})
    session.close()
    execute(session, "DELETE FROM run_operations")
    execute(session, "DELETE FROM file_upload_requests")
    (session.store / ".DS_Store").write_bytes(b"not ours")
    found = export(tmp_path)
    (row,) = [row for row in found.rows if row.type == "file"]
    assert row.value == b"weights"
    assert [problem.attribute for problem in found.problems] == [row.path]


def test_an_overwritten_file_is_gone(session, tmp_path):
    session.files({"model": b"first"})
    session.configs({"model": "now a string"})
    session.files({"other": b"1"})
    truth = session.close()
    found = export(tmp_path)
    assert differences(truth.all_rows, found.rows) == ([], [])
    assert found.problems == []


def test_files_that_are_not_selected_are_not_read(session, tmp_path):
    session.files({"model": b"weights", "other": b"1"})
    session.files({"series": b"2"}, "1")
    session.configs({"lr": 0.1})
    session.close()
    shutil.rmtree(tmp_path / "data")
    for path in session.store.iterdir():
        if path.suffix != ".sqlite3":
            path.unlink()
    selection = Selection(classes=frozenset({"parameters", "metrics"}))
    found = collect_all(offline(tmp_path / "neptune"), tmp_path / "files", selection)["run"]
    assert found.values("lr") == [0.1]
    assert found.problems == []


def test_a_disk_that_refuses_the_copy_ends_the_run(session, tmp_path):
    """Not being able to write is no problem of the source: it must not look like a missing file."""
    session.files({"model": b"weights"})
    session.close()

    class FullDisk:
        def add(self, attribute, name, chunks, *, step=None):
            raise StagingError("The disk is full.")

    exporter = offline(tmp_path / "neptune")
    (run,) = exporter.runs("team/truth", Selection())
    with pytest.raises(StagingError):
        list(exporter.batches(run, Selection(), FullDisk(), None))


def test_a_large_file_goes_in_pieces(session, tmp_path):
    content = os.urandom(3 * 2**20 + 17)
    session.files({"big": content})
    session.files({"big series": content}, "7", START)
    session.close()
    found = export(tmp_path)  # the folder asserts that no piece is over 1 MiB
    assert found.values("big") == [content]
    (row,) = [row for row in found.rows if row.path == "big series"]
    assert (row.value, row.step, row.time) == (content, 7, millis(START))
