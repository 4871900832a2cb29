# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A rich area loaded by both ways, online and offline: every value, step and time is in W&B or in the artifact."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from servers.wandb import API_KEY, ENTITY, WandbServer, serving
from truth import PROJECT, Row, differences, exact
from wandb_area import HARD, rich_area
from wandb_seen import Seen, comparable, native_key, seen_by_server, seen_in_log
from wandb_target import no_settings_of_the_user  # noqa: F401

from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb import WandbOptions
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunRef
from neptune_exporter.selection import Selection
from neptune_exporter.storage.staging import Staging

WAYS = ("log", "client")
METRICS = {"float_series", "histogram_series"}
FILES = {"file", "file_series"}


class Area:
    """The area, and what came of loading it."""

    def __init__(self, root: Path, monkeypatch: Any) -> None:
        self.root = root
        self.staging, self.expected = rich_area(root, monkeypatch)
        self.servers: dict[str, WandbServer] = {}

    def options(self, way: str, **more: Any) -> WandbOptions:
        url = self.servers[way].url if way in self.servers else "http://127.0.0.1:9"
        return WandbOptions(
            wandb_entity=ENTITY,
            wandb_api_key=API_KEY,
            wandb_base_url=url,
            wandb_way=way,
            wandb_dir=str(self.root / way),
            **more,
        )

    @cache  # noqa: B019 - as long as the module
    def seen(self, way: str, mode: str, ref: RunRef) -> Seen:
        name = run_id(ref, 1)
        if mode == "online":
            return seen_by_server(self.servers[way], name)
        (log,) = (self.root / way / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb")
        return seen_in_log(log)


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    """Loaded four times."""
    with pytest.MonkeyPatch.context() as monkeypatch, serving() as one, serving() as two:
        made = Area(tmp_path_factory.mktemp("area"), monkeypatch)
        made.servers = dict(zip(WAYS, (one, two), strict=True))
        for way in WAYS:
            for mode in ("online", "offline"):
                report = load(
                    "wandb", made.options(way, wandb_mode=mode), LoadOptions(), made.staging, Selection(), workers=1
                )
                assert report.exit_code == 0, [o for o in report.outcomes if o.status != "done"]
                assert report.count("done") == len(made.expected)
        yield made
        assert one.unknown == two.unknown == []


@pytest.fixture(params=[f"{way}-{mode}" for way in WAYS for mode in ("online", "offline")])
def where(request) -> tuple[str, str]:
    way, mode = request.param.split("-")
    return way, mode


@pytest.fixture
def runs(area, where) -> dict[RunRef, tuple[Seen, list[Row]]]:
    return {ref: (area.seen(*where, ref), rows) for ref, rows in area.expected.items()}


def of_types(rows: list[Row], types: set[str]) -> list[Row]:
    return [row for row in rows if row.type in types]


def fits(row: Row) -> bool:
    """Whether W&B takes it as a metric."""
    return row.type == "float_series" or len(row.value.values) <= 512


def test_every_metric_is_native_with_its_step_time_and_value(runs):
    for seen, rows in runs.values():
        expected = Counter(
            (seen.keys[row.path, row.type], *native_key(row)) for row in of_types(rows, METRICS) if fits(row)
        )
        found = Counter((key, step, time, comparable(value)) for key, step, time, value in seen.points)
        missing, surplus = list(expected - found), list(found - expected)
        assert (missing[:3], surplus[:3]) == ([], [])


def test_what_w_and_b_cannot_hold_exactly_is_attached(runs):
    for seen, rows in runs.values():
        attached = Counter(row.key for row in seen.attached)
        for row in of_types(rows, METRICS | FILES | {"string_series"}):
            inexact = row.type != "float_series" or exact(row.value) in map(
                exact, (float("nan"), float("inf"), -float("inf"), -0.0)
            )
            if inexact and row.time is not ...:
                assert attached[row.key], row
        assert not differences(seen.attached, [row for row in rows if row.time is not ...])[0] or any(
            r.time is ... for r in rows
        )


def test_every_row_is_in_the_config_in_the_history_or_attached(runs):
    for seen, rows in runs.values():
        native = {(key, step, time, comparable(value)) for key, step, time, value in seen.points}
        attached = Counter(row.key for row in seen.attached)
        loose = Counter((row.path, row.type, row.step, exact(row.value)) for row in seen.attached)
        for row in rows:
            if row.time is ...:
                assert loose[row.path, row.type, row.step, exact(row.value)]
            elif attached[row.key]:
                attached[row.key] -= 1
            elif row.type in METRICS:
                assert (seen.keys[row.path, row.type], *native_key(row)) in native
                assert exact(row.value) != exact(-0.0)
                assert abs(row.step) < 10**9
            else:
                assert same_in_config(row, seen.config[seen.keys[row.path, row.type]]), row


def same_in_config(row: Row, held: Any) -> bool:
    if row.type == "datetime":
        return datetime.fromisoformat(held) == row.value
    if row.type == "string_set":
        return held == sorted(row.value)
    if row.type == "int":
        return int(held) == row.value and isinstance(held, str) == (abs(row.value) > 2**53)
    if row.type == "float":
        return exact(float(held)) == exact(row.value) and isinstance(held, str) == (
            row.value != row.value or abs(row.value) > 1e308
        )
    return type(held) is type(row.value) and held == row.value


def test_native_things_are_as_many_as_were_logged(runs):
    for seen, rows in runs.values():
        count = Counter(row.type for row in rows if row.type not in METRICS or fits(row))
        points = Counter(
            "histogram_series" if isinstance(value, tuple) else "float_series" for *_, value in seen.points
        )
        assert points == {kind: count[kind] for kind in METRICS if count[kind]}
        singles = {row.path for row in rows if row.step is None and row.type not in FILES}
        assert len(seen.config) == len(singles) + 1
        files = [path for path in seen.artifact if path.startswith("files/")]
        assert len(files) == count["file"] + count["file_series"]
        texts = {
            path: body for path, body in seen.artifact.items() if path.startswith("series/") and path.endswith(".txt")
        }
        assert len(texts) == len({row.path for row in rows if row.type == "string_series"})
        assert sum(body.count(b"\n") - 1 for body in texts.values()) == count["string_series"]


def test_rows_are_one_per_step_and_time_in_rising_order(runs):
    for seen, _ in runs.values():
        steps = [int(row["_step"]) for row in seen.history]
        assert all(a < b for a, b in pairwise(steps))
        assert all(step >= 0 for step in steps)
        order = [(Decimal(row["neptune_step"]), Decimal(row["_timestamp"])) for row in seen.history]
        assert order == sorted(order)
        for before, row in pairwise(seen.history):  # a row is only repeated for keys that were logged twice
            if (before["neptune_step"], before["_timestamp"]) == (row["neptune_step"], row["_timestamp"]):
                assert set(row) <= set(before)


def test_loss_20_nothing_is_dropped_by_the_order_of_steps(area):
    """Several parts, histograms and metrics of other cadences, steps below zero."""
    ref = RunRef(PROJECT, HARD)
    for way in WAYS:
        counts = Counter(key for key, *_ in area.seen(way, "online", ref).points)
        assert counts["acc"] == 900
        assert counts["hist"] == 129
        assert counts["slow"] == 18
        assert counts["other cadence"] == 9
        assert counts["hist 512"] == 1
        assert "hist 513" not in counts
        attached = Counter(row.path for row in area.seen(way, "online", ref).attached)
        assert (attached["hist"], attached["hist 512"], attached["hist 513"]) == (129, 1, 3)


def test_loss_21_text_series_are_whole(area):
    for way in WAYS:
        seen = area.seen(way, "online", RunRef(PROJECT, HARD))
        lines = seen.artifact["series/console.txt"].decode().split("\n")
        assert lines[0] == "step\ttime\tvalue"
        assert lines[-1] == ""
        assert [line.split("\t")[2] for line in lines[1:-1]] == [f"line {n}\\t\\\\ \\n" for n in range(20_000)]
        assert "series/console.table.json" not in seen.artifact
        table = json.loads(seen.artifact["series/short text.table.json"])
        assert table["columns"] == ["step", "time", "value"]
        assert [row[0] for row in table["data"]] == list(range(50))
        assert [row[2] for row in table["data"]] == [f'{n} "quoted" ü' for n in range(50)]
        assert table["nrows"] == 50


def test_loss_22_names_stay_and_stay_apart(area):
    for way in WAYS:
        seen = area.seen(way, "online", RunRef(PROJECT, "everything"))
        assert [seen.config[key] for key in ("a/b", "a_b", "a b")] == [1, 2, 3]
        keys = {key for key, *_ in seen.points}
        assert {"series/a/b", "series/a_b", "series/a b", "series/метрика/日本"} <= keys
        hard = area.seen(way, "online", RunRef(PROJECT, HARD))
        assert (hard.config["a.b"], hard.config["A.b"]) == (1, 2)
        assert set(hard.config["neptune"]) > {"project_id", "run_id", "load"}
        by_place = defaultdict(list)
        for attribute in hard.manifest["attributes"]:
            by_place[attribute["place"]].append(attribute["key"])
        assert all(len(set(keys)) == len(keys) for keys in by_place.values())
        assert all(not key.startswith("_") for keys in by_place.values() for key in keys)
        changed = {a["path"] for a in hard.manifest["attributes"] if a["place"] != "artifact" and a["path"] != a["key"]}
        assert changed == {
            *(
                "neptune",
                "neptune_step",
                "_wandb",
                "",
                "wandb_version",
                "odd--0123abcd",
                "line\nfeed",
                "_step",
                "_timestamp",
                "--flag",
            )
        }


def test_files_lie_under_their_attributes(area):
    for way in WAYS:
        artifact = area.seen(way, "online", RunRef(PROJECT, HARD)).artifact
        assert artifact["files/images/ü/step_3.5.bin"] == b"\3\3\3"
        assert artifact["files/dir/file#1?.txt.bin"] == b"1"
        assert artifact["files/dir.bin"] == b"2"


def test_identity_group_tags_and_notes(area, runs):
    for ref, (seen, _) in runs.items():
        info = area.staging.run(ref).info
        ours = seen.config["neptune"]
        assert (ours["project_id"], ours["run_id"], ours["kind"]) == (ref.project_id, ref.run_id, "run")
        assert seen.about["name"] == (info.name or ref.run_id)
        assert seen.about["group"] == (info.experiment or "")
        assert seen.about["job_type"] == "run"
        if info.created:
            assert datetime.fromisoformat(ours["created"]) == info.created
    fork = runs[RunRef(PROJECT, "fork")][0].config["neptune"]
    assert (fork["parent"], fork["fork_step"]) == ("everything", "0.57")
    assert fork["parent_wandb_id"] == run_id(RunRef(PROJECT, "everything"), 1)
    hard = runs[RunRef(PROJECT, HARD)][0]
    assert hard.about["notes"] == "What it is.\nMore of it."
    assert {"x" * 64, "ok", ","} < set(hard.about["tags"])
    assert len(hard.about["tags"]) == 4
    assert all(1 <= len(tag) <= 64 for tag in hard.about["tags"])


def test_the_summary_has_the_last_value_of_every_metric(runs):
    for seen, rows in runs.values():
        last = {}
        for row in sorted(of_types(rows, METRICS), key=lambda row: (row.step, row.time)):
            if fits(row):
                last[seen.keys[row.path, row.type]] = row
        for key, row in last.items():
            same = [r for r in of_types(rows, METRICS) if (r.path, r.step, r.time) == (row.path, row.step, row.time)]
            held = seen.summary[key]
            held = (tuple(held["values"]), tuple(held["bins"])) if isinstance(held, dict) else float(held)
            assert comparable(held) in [native_key(r)[2] for r in same]
        assert set(seen.summary) - set(last) <= {"_step", "_timestamp", "_runtime", "neptune_step"}


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_both_ways_give_the_same(area, mode):
    for ref in area.expected:
        by_log, by_client = (area.seen(way, mode, ref) for way in WAYS)
        assert [plain(row) for row in by_log.history] == [plain(row) for row in by_client.history]
        assert by_log.config == by_client.config
        assert plain(by_log.summary) == plain(by_client.summary)
        assert by_log.artifact == by_client.artifact
        assert by_log.about == by_client.about


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with numbers that compare, without `_runtime`, which the client counts from its own start."""
    return {key: number(value) for key, value in row.items() if key != "_runtime"}


def number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: number(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [number(inner) for inner in value]
    try:
        return comparable(float(value))
    except ValueError:
        return value


def test_the_exact_step_is_the_x_axis_of_all_metrics(area):
    for server in area.servers.values():
        for run in server.runs.all():
            metrics = run.config["_wandb"]["value"]["m"]
            axis = next(n for n, metric in enumerate(metrics, 1) if metric.get("1") == "neptune_step")
            assert any(metric.get("2") == "*" and metric["5"] == axis for metric in metrics)


def test_runtime_counts_from_the_runs_start(area):
    for ref in area.expected:
        info = area.staging.run(ref).info
        for row in area.seen("log", "online", ref).history:
            if info.created:
                assert abs(float(row["_timestamp"]) - info.created.timestamp() - float(row["_runtime"])) < 1e-3


def test_every_run_is_finished_and_marked(area):
    for server in area.servers.values():
        assert len(server.runs.all()) == len(area.expected)
        for run in server.runs.all():
            load_marker = run.values["neptune"]["load"]
            assert (load_marker["state"], load_marker["rows"]) == ("complete", len(run.history))
            assert (run.complete, run.state) == (True, "finished")
            assert run.project == "team-truth"


def test_a_second_load_sends_nothing(area):
    for way in WAYS:
        for mode in ("online", "offline"):
            before = len(area.servers[way].http.log)
            report = load(
                "wandb", area.options(way, wandb_mode=mode), LoadOptions(), area.staging, Selection(), workers=1
            )
            assert report.count("skipped") == len(area.expected)
            assert len(area.servers[way].http.log) - before == (1 if mode == "online" else 0)


def test_the_files_of_the_artifact_are_what_was_staged(area):
    ref = RunRef(PROJECT, "everything")
    seen = area.seen("log", "online", ref)
    staged = {entry.sha256 for entry in area.staging.run(ref).file_entries().values()}
    assert staged <= {hashlib.sha256(content).hexdigest() for content in seen.artifact.values()}
    assert isinstance(area.staging, Staging)
