# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""File sets of the official exporter: a folder with a zip in it, named by one row."""

from __future__ import annotations

import hashlib
from pathlib import Path

from neptune_exporter.model import RunRef
from neptune_exporter.verify.check import Depth, verify
from tests import areas


def archive(root: Path) -> None:
    rows = [
        areas.row("sys/id", "string", string_value="DEMO-1"),
        areas.row("data/set", "file_set", file_value={"path": "DEMO-1/data/set"}),
        areas.row("data/one", "file", file_value={"path": "DEMO-1/data/one.bin"}),
        areas.row("data/gone", "file_set", file_value={"path": "DEMO-1/data/gone"}),
    ]
    areas.official(root, "DEMO-1", rows)
    files = root / "files" / areas.stem(areas.PROJECT) / "DEMO-1" / "data"
    (files / "set" / "below").mkdir(parents=True)
    (files / "gone").mkdir()
    (files / "set" / "DEMO-1_set.zip").write_bytes(b"zip")
    (files / "set" / "below" / "more.txt").write_bytes(b"more")
    (files / "one.bin").write_bytes(b"one")


def test_a_folder_is_read_as_the_files_in_it(tmp_path: Path) -> None:
    archive(tmp_path)
    run = areas.staging(tmp_path).run(RunRef(areas.PROJECT, "DEMO-1"))
    assert run is not None
    rows = [row for batch in run.read("attribute") for row in batch.to_pylist() if row["file_value"]]
    assert [(row["attribute_path"], row["file_value"]["path"]) for row in rows] == [
        ("data/one", "DEMO-1/data/one.bin"),
        ("data/set", "DEMO-1/data/set/DEMO-1_set.zip"),
        ("data/set", "DEMO-1/data/set/below/more.txt"),
    ]
    assert run.files.sha256("DEMO-1/data/set/below/more.txt") == hashlib.sha256(b"more").hexdigest()
    assert [(problem.attribute, problem.kind) for problem in run.problems] == [("data/gone", "permanent")]


def test_an_adopted_run_holds_the_same(tmp_path: Path) -> None:
    archive(tmp_path)
    staging = areas.staging(tmp_path)
    before = staging.run(RunRef(areas.PROJECT, "DEMO-1"))
    assert before is not None
    expected = before.attributes()
    list(verify(staging, Depth(write_manifests=True)))
    run = staging.run(RunRef(areas.PROJECT, "DEMO-1"))
    assert run is not None
    assert run.status == "partial"
    assert run.attributes() == expected
    kinds = {f.kind for checked in verify(staging, Depth(read_data=True)) for f in checked.findings}
    assert kinds == {"partial"}
