# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Where files and texts of a run go in live targets that keep paths: no two in one place, none without a name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from neptune_exporter.loaders.live_files import TextFiles, file_places
from neptune_exporter.model import RunRef, rows_batch, series_of

RUN = RunRef("p", "r")


def series(path, kind, stored, names=None, steps=None):
    column = pa.StructArray.from_arrays([pa.array(stored, pa.string())], ["path"])
    more = {} if steps is None else {"step_micros": np.array(steps, np.int64)}
    rows = rows_batch(RUN, path, kind, file_value=column, string_value=pa.array(names or [None] * len(stored)), **more)
    (found,) = series_of(rows)
    return found


@pytest.mark.parametrize(
    ("logged", "places"),
    [
        (series("a/picture", "file", ["1.png"]), ["files/a/picture.png"]),
        (series("notes.txt", "file", ["1.txt"]), ["files/notes.txt"]),
        (series("s", "file_series", ["1.bin", "2"], steps=[500_000, 2_000_000]), ["step_0.5.bin", "step_2"]),
        (series("set", "file_set", ["1.py", "2.py"], ["src/a.py", "b.py"]), ["src/a.py", "b.py"]),
        (series("data", "artifact", ["1.json", "2.csv"], [None, "x.csv"]), ["files_list.json", "x.csv"]),
    ],
)
def test_files(logged, places):
    below = "" if places[0].startswith("files/") else f"files/{logged.path}/"
    assert [place for _, place in file_places(logged)] == [below + place for place in places]


def test_texts_grow_and_never_share_a_file(tmp_path):
    texts = TextFiles(tmp_path)

    def add(path, value):
        for found in series_of(rows_batch(RUN, path, "string_series", string_value=pa.array([value], pa.string()))):
            texts.add(found)

    for path, value in (("a?b", "one"), ("a*b", "two"), ("a?b", "three\nlines")):
        add(path, value)
    contents = [(tmp_path / path).read_text().splitlines()[1:] for path in sorted(texts.changed)]
    assert sorted([line.rpartition("\t")[2] for line in lines] for lines in contents) == [
        ["one", "three\\nlines"],
        ["two"],
    ]
