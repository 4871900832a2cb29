# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A rich staging area: what the real Neptune client logged, and a run with what that client cannot be made to log."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts.rows import curve, point, single, write_run
from truth import HistogramValue, Row, log_everything

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.storage import parquet, sort
from neptune_exporter.storage.staging import Staging

HARD = "hard ü/run"
ODD_VALUES = (math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1e308)


def widest(bins: int) -> HistogramValue:
    """A histogram with so many bins."""
    return HistogramValue(
        "COUNTING", tuple(float(n) / 3 for n in range(bins + 1)), tuple(float(n) for n in range(bins))
    )


def hard_rows() -> list[Row]:
    """Names, steps and sizes that are hard."""
    return [
        single("neptune", "a name of ours"), single("neptune_step", 1), single("_wandb", "internal"), single("", "x"),
        single("wandb_version", 1),
        single("odd--0123abcd", "looks changed"), single("--flag", "stripped by the client"),
        single("a.b", 1), single("A.b", 2), single("line\nfeed", 1),
        single("big", 2**53 + 1), single("small", -(2**53)), single("long", "é" * 20_001),
        single("sys/tags", frozenset({"x" * 64, "x" * 65, "ok", " ", ","})),
        single("sys/description", "What it is.\nMore of it."),
        single("many", b"0"), single("dir/file#1?.txt", b"1"), single("dir", b"2"),
        *curve("acc", 900), *curve("Acc", 900, seed=2), *curve("acc.x", 30),
        *curve("_step", 30), *curve("_timestamp", 30),
        *curve("neptune_step", 20), *curve("other cadence", 9, first=-4),
        *(point("slow", step, float(step), 900 - step) for step in range(0, 900, 50)),
        *(point("fraction", f"{step}.{step % 7}", step / 3, step) for step in range(70)),
        *(point("finest", f"{step}.000001", -step / 3, step) for step in (0, 1, 999999999998)),
        *(point("odd values", n, value, n) for n, value in enumerate(ODD_VALUES)),
        *(point("again", 5, float(n), 5) for n in range(3)), point("again", 5, 1.0, 5),
        *(point("hist", step, widest(3), step) for step in range(0, 900, 7)),
        *(point("hist 513", step, widest(513), step) for step in range(3)), point("hist 512", 1, widest(512), 1),
        point("hist/density", 1, HistogramValue("DENSITY", (0.0, 0.1, 1e300), (-0.0, 1 / 3)), 1),
        *(point("console", Decimal(n) / 10**6, f"line {n}\t\\ \n", n) for n in range(20_000)),
        *(point("short text", n, f'{n} "quoted" ü', n) for n in range(50)), point("acc", 3, "a text", 3),
        *(point("images/ü", f"{n}.5", bytes([n]) * n, n) for n in range(5)),
    ]  # fmt: skip


def rich_area(root: Path, monkeypatch: Any) -> tuple[Staging, dict[RunRef, list[Row]]]:
    """The area below a folder, and every row of every run in it."""
    truth = log_everything(root)
    staging = Staging(root / "data", root / "files")
    monkeypatch.setattr(parquet, "PART_BYTES", 2_000)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3_000)
    monkeypatch.setattr(sort, "BLOCK_ROWS", 500)
    places = ["--data-path", str(staging.data_path), "--files-path", str(staging.files_path)]
    assert (
        main(["export", "--exporter", "offline", "--offline-path", str(truth.directory), "--no-progress", *places]) == 0
    )
    expected = {RunRef(truth.project, run_id): run.all_rows for run_id, run in truth.runs.items()}
    ref = RunRef(truth.project, HARD)
    run = write_run(staging, ref, hard_rows(), info=RunInfo(ref, name="hard", experiment="Grün & co"), batch_rows=5000)
    assert len(run.part_names()) > 3, run.part_names()
    expected[ref] = hard_rows()
    return staging, expected
