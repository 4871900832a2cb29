# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Reports of an area on an object store say what lies there, byte by byte."""

from __future__ import annotations

import json

from contracts.rows import curve, single, write_run

from neptune_exporter.model import RunRef


def test_the_bytes_of_an_area_on_a_store_add_up(bucket, call, tmp_path):
    for name in ("one", "two"):
        write_run(bucket.staging, RunRef("team/report", name), [*curve("loss", 50), single("model", b"weights")])
    result = call("summary", "--json", "--html", tmp_path / "s.html", *bucket.places)
    assert result.code == 0
    (project,) = json.loads(result.out)["projects"]
    parts = sum(len(data) for key, data in bucket.content().items() if "_part_0" in key)
    assert project["bytes"]["files"] == 2 * len(b"weights") == project["file_bytes"]
    assert sum(project["bytes"].values()) == parts + 2 * len(b"weights")
    assert call("verify", "--read-data", "--html", tmp_path / "v.html", *bucket.places).code == 0
    assert (tmp_path / "s.html").stat().st_size > 10_000 < (tmp_path / "v.html").stat().st_size
