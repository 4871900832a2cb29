# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Files: one for each attribute and step whatever the names, whole or not at all, read back safely."""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from decimal import Decimal

import pytest
from contracts.rows import snapshot
from hypothesis import given
from hypothesis import strategies as st

from neptune_exporter.errors import DamagedDataError, StagingError
from neptune_exporter.storage import names
from neptune_exporter.storage.files import FileReader, FileWriter
from neptune_exporter.storage.manifest import FileEntry

CLASHING = [
    ["a.b", "a_b"],
    ["A", "a"],
    ["a", "a/b", "a/b/c"],
    ["a/b", "a"],
    ["a/b.bin", "a/b"],
    ["é", unicodedata.normalize("NFD", "é")],
    ["x" * 300, "x" * 301],
    ["..", "../..", "a/../b", "/a", "a//a", "a/", "."],
    ["con", "CON", "nul.txt", "aux/x"],
    ["a\0", "a\1", "a\n"],
    ["ß", "ss", "SS"],
    ["a.g2", "a"],
    ["s/step_1_000000", "s"],
]


def distinct(root, paths):
    """Whether no two paths are one file on any file system, and all lie inside."""
    keys = {names.collision_key(path) for path in paths}
    assert len(keys) == len(paths)
    for path in paths:
        assert names.is_inside(path)
        assert (root / path).resolve().is_relative_to(root.resolve())
        assert not any(other.startswith(path + "/") for other in paths)


@pytest.mark.parametrize("attributes", CLASHING, ids=lambda names: ascii(names[0])[:20])
@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("extension", ["", "x.bin", "x.GZ"])
def test_names_that_clash_get_files_of_their_own(tmp_path, attributes, generation, extension):
    """Loss 7: `run.1`/`run_1` and `a.b`/`a_b` shared a local path."""
    files = FileWriter(tmp_path, "run-1", generation)
    paths = {name: files.add(name, extension, [name.encode("utf-8", "replace")]) for name in attributes}
    distinct(tmp_path, list(paths.values()))
    for name, path in paths.items():
        assert (tmp_path / path).read_bytes() == name.encode("utf-8", "replace")


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.sampled_from([None, Decimal(0), Decimal("0.5")])), max_size=12, unique=True
    )
)
def test_any_names_get_files_of_their_own(tmp_path_factory, wanted):
    root = tmp_path_factory.mktemp("files")
    files = FileWriter(root, "run-1", 1)
    paths = [files.add(name, "content.bin", [repr((name, step)).encode()], step=step) for name, step in wanted]
    distinct(root, paths)
    for (name, step), path in zip(wanted, paths, strict=True):
        assert (root / path).read_bytes() == repr((name, step)).encode()


def test_steps_of_a_series_have_the_official_names(tmp_path):
    files = FileWriter(tmp_path, "run-1", 1)
    steps = [Decimal(0), Decimal("1.5"), Decimal(-1), Decimal("0.000001")]
    paths = [files.add("images/i0", "x.png", [b"x"], step=step) for step in steps]
    assert paths == [f"run-1/images/i0/step_{name}.png" for name in ("0_000000", "1_500000", "-1_000000", "0_000001")]


def test_extensions_are_kept_once(tmp_path):
    """Loss 10: extensions were dropped."""
    files = FileWriter(tmp_path, "run-1", 1)
    assert files.add("model", "weights.pt", [b""]) == "run-1/model.pt"
    assert files.add("data.csv", "upload.csv", [b""]) == "run-1/data.csv"
    assert files.add("plain", "", [b""]) == "run-1/plain"


def test_a_new_generation_never_touches_the_old_one(tmp_path):
    first = FileWriter(tmp_path, "run-1", 1)
    old = first.add("model", "m.bin", [b"old"])
    second = FileWriter(tmp_path, "run-1", 2, [old])
    new = second.add("model", "m.bin", [b"new"])
    assert (tmp_path / old).read_bytes() == b"old"
    assert (tmp_path / new).read_bytes() == b"new"
    second.remove_all()
    assert snapshot(tmp_path) == {old: b"old"}


def test_size_and_digest_are_those_of_the_content(tmp_path):
    files = FileWriter(tmp_path, "run-1", 1)
    content = [b"a" * 1000, b"", b"b" * 7]
    path = files.add("x", "", content)
    whole = b"".join(content)
    assert files.entries[path] == FileEntry(path, 1007, hashlib.sha256(whole).hexdigest())


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("slow"), ValueError("odd")])
def test_what_breaks_the_download_is_raised_and_the_file_is_gone(tmp_path, error):
    """Loss 6: a truncated file kept its final name. And a network is not a disk."""
    files = FileWriter(tmp_path, "run-1", 1)

    def chunks():
        yield b"half"
        raise error

    with pytest.raises(type(error)) as raised:
        files.add("model", "m.bin", chunks())
    assert raised.value is error
    assert snapshot(tmp_path) == {}
    assert files.entries == {}
    again = files.add("model", "m.bin", [b"whole"])
    assert snapshot(tmp_path) == {again: b"whole"}


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "run-1").write_text("a file where the folder should be")
    with pytest.raises(StagingError, match="Cannot create the folder"):
        FileWriter(tmp_path, "run-1", 1).add("model", "m.bin", [b"x"])


def test_many_threads_may_store_files(tmp_path):
    files = FileWriter(tmp_path, "run-1", 1)
    paths: list[str] = []

    def store(number):
        paths.extend(files.add(f"a{'_.'[number % 2]}{n}", "", [b"%d %d" % (number, n)]) for n in range(25))

    threads = [threading.Thread(target=store, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 200
    assert len(snapshot(tmp_path)) == 200
    distinct(tmp_path, paths)


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "files" / "run").mkdir(parents=True)
    (tmp_path / "files" / "run" / "a.bin").write_bytes(b"content")
    (tmp_path / "secret").write_text("secret")
    entry = FileEntry("run/a.bin", 7, hashlib.sha256(b"content").hexdigest())
    return FileReader(tmp_path / "files", {entry.path: entry})


def test_reads_what_is_there(reader):
    with reader.open("run/a.bin") as file:
        assert file.read() == b"content"
    assert reader.size("run/a.bin") == 7
    assert reader.sha256("run/a.bin") == reader.hash_content("run/a.bin") == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "run/../../secret", "", "run\0", "c:\\x"])
def test_paths_that_escape_are_refused(reader, path):
    for use in (reader.local, reader.open, reader.size, reader.hash_content):
        with pytest.raises(DamagedDataError, match="leaves the files folder"):
            use(path)


def test_links_that_escape_are_refused(reader, tmp_path):
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(DamagedDataError, match="leaves the files folder"):
        reader.open("link")


def test_a_missing_file_is_named(reader):
    with pytest.raises(DamagedDataError, match=r"run/b\.bin is missing"):
        reader.open("run/b.bin")


def test_a_file_of_another_size_is_named(reader, tmp_path):
    (tmp_path / "files" / "run" / "a.bin").write_bytes(b"cut")
    with pytest.raises(DamagedDataError, match=r"run/a\.bin has 3 bytes instead of 7"):
        reader.open("run/a.bin")


def test_a_file_that_the_manifest_does_not_know_is_refused(reader, tmp_path):
    (tmp_path / "files" / "run" / "b.bin").write_bytes(b"content")
    for use in (reader.local, reader.open, reader.size, reader.sha256, reader.check):
        with pytest.raises(DamagedDataError, match=r"knows no file run/b\.bin"):
            use("run/b.bin")


def test_without_a_manifest_the_content_is_hashed_once(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    reader = FileReader(tmp_path, None)
    first = reader.sha256("a")
    (tmp_path / "a").write_bytes(b"y")
    assert reader.sha256("a") == first
    assert reader.hash_content("a") != first
