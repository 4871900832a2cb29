# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whole scripts with the real client, as they are started and switched on: what arrives in the target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mirrored import NOWHERE
from seed_scripts import BASIC, CONTEXT, OURS, THEIRS

pytestmark = pytest.mark.usefixtures("with_mlflow")


def test_context_manager_under_run_with_the_seeds_own_line(script):
    """`import mlop.compat.neptune` means ours where that package is not installed."""
    path = script.folder / "context.py"
    path.write_text(CONTEXT.format(switch=THEIRS), encoding="utf-8")
    script.command("run", "--target", NOWHERE, str(path))
    script.replay()
    assert script.mlflow().points("loss") == [(0, 0.3)]


def test_without_neptune_only_the_target(script):
    """No token, no project, asynchronous by default: it would fail with Neptune."""
    del script.environment["NEPTUNE_MODE"], script.environment["NEPTUNE_PROJECT"]
    script.run(
        "import logging; logging.basicConfig(level=logging.INFO)\n" + BASIC.format(switch=OURS),
        NEPTUNE_EXPORTER_TARGET=NOWHERE,
        DISABLE_NEPTUNE_LOGGING="YES",
    )
    script.replay()
    assert script.mlflow().points("loss") == [(epoch, 0.5) for epoch in range(100)]
    assert script.own() != []  # Neptune's own offline data stays


def test_nothing_configured_is_neptune_only_and_says_so(script):
    result = script.run("import logging; logging.basicConfig(level=logging.INFO)\n" + BASIC.format(switch=OURS))
    assert len(script.own()) > 100
    assert not script.spool.exists()
    assert result.stderr.count("neptune_exporter.mirror") == 1
    assert "Neptune only" in result.stderr


def test_everything_in_one_script(script):
    """Values that only a later load holds exactly are listed; tags go and come; texts are readable."""
    script.run(
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "with Run(source_tracking_config=None, enable_console_log_capture=False) as run:\n"
        "    run.log_metrics({'half': 1.0}, step=0.5)\n"
        "    run.log_metrics({'inf': float('inf'), 'nan': float('nan')}, step=1)\n"
        "    run.log_metrics({'p': 0.25}, step=1, preview=True)\n"
        "    run.log_metrics({'p': 0.5}, step=1)\n"
        "    run.log_metrics({'never': 0.5}, step=1, preview=True)\n"
        "    run.log_configs({'a': 1}); run.log_configs({'a': 2})\n"
        "    run.log_string_series({'text': 'one\\ntwo'}, step=0.25)\n"
        "    run.add_tags(['stays', 'goes']); run.remove_tags(['goes'])\n"
        "    run.log_files({'series': b'first'}, step=1); run.log_files({'series': b'second'}, step=2)\n",
        NEPTUNE_EXPORTER_TARGET=NOWHERE,
    )
    script.replay()
    found = script.mlflow()
    data = found.only.data
    assert found.points("p") == [(1, 0.5)]
    assert "never" not in data.metrics
    assert "half" not in data.metrics
    exact = [json.loads(line) for line in found.text("neptune/live_exact.jsonl").splitlines()]
    assert {(e["attribute"], e["step"], e["value"]) for e in exact} == {("half", "0.5", "1.0"), ("inf", "1", "inf")}
    assert (data.params["a"], data.tags.get("neptune.now.a", "2")) == (data.params["a"], "2")
    assert "stays" in data.tags
    assert "goes" not in data.tags
    assert found.text("series/text.txt").splitlines()[1].startswith("0.25\t")
    assert found.text("series/text.txt").splitlines()[1].endswith("\tone\\ntwo")
    paths = [a.path for a in found.client.list_artifacts(found.only.info.run_id, "files/series")]
    assert sorted(paths) == ["files/series/step_1.bin", "files/series/step_2.bin"]


def test_the_example_of_every_kind_of_data(script):
    example = Path(__file__).parents[2] / "examples" / "neptune_migration_example.py"
    script.command("run", "--target", NOWHERE, "--without-neptune", str(example))
    script.replay()
    target = script.mlflow()
    assert [step for step, _ in target.points("train/loss")] == list(range(50))
    assert target.only.data.params["optimizer/lr"] == "0.001"
    assert target.text("series/notes.txt").count("loss ") == 5
    assert len(target.text("histograms/weights.jsonl").splitlines()) == 5
    samples = target.client.list_artifacts(target.only.info.run_id, "files/samples")
    assert sorted(a.path for a in samples) == sorted(f"files/samples/step_{step}.png" for step in range(0, 50, 10))
    assert target.content("files/picture.png").startswith(b"\x89PNG")
    assert not [name for name in target.only.data.tags if name.endswith("/example")]


def test_a_multiplier_keeps_fractional_steps(script):
    script.run(
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "with Run(source_tracking_config=None, enable_console_log_capture=False) as run:\n"
        "    for step in (0.1, 0.29, 0.57): run.log_metrics({'x': step}, step=step)\n",
        NEPTUNE_EXPORTER_TARGET=NOWHERE,
    )
    script.replay(NEPTUNE_EXPORTER_STEP_MULTIPLIER="100")
    assert script.mlflow().points("x") == [(10, 0.1), (29, 0.29), (57, 0.57)]


def test_staging_is_a_target(script):
    import pyarrow.parquet as pq

    script.run(BASIC.format(switch=OURS), NEPTUNE_EXPORTER_TARGET="staging", NEPTUNE_EXPORTER_CLOSE_SECONDS="5")
    script.replay("staging")
    (part,) = (script.folder / "exports" / "data").glob("*/*_part_*.parquet")
    rows = pq.read_table(part).to_pylist()
    losses = [(int(r["step"]), r["float_value"]) for r in rows if r["attribute_path"] == "loss"]
    assert sorted(losses) == [(epoch, 0.5) for epoch in range(100)]
