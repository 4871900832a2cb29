# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever request of an export fails, or is done and never answered, or is the last one: the old run or the new one.

Every request of every kind of export is broken in turn. The truth is what the source in memory holds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from contracts import memory
from contracts.memory import MemoryRun, World
from contracts.rows import START
from memory_store import Death, MemoryStore
from test_crash import OUTSIDE, REF, fresh, keys, new_rows, official, old_rows, small_pieces, union_of
from truth import Row, rows_in

from neptune_exporter.errors import ExporterError, Problem
from neptune_exporter.export import export
from neptune_exporter.fingerprint import Fingerprint
from neptune_exporter.pipeline import Report
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage import claims
from neptune_exporter.storage.objects import claim
from neptune_exporter.storage.objects import path as object_path
from neptune_exporter.storage.place import parse_place
from neptune_exporter.storage.staging import Staging

DATA, FILES = "area/data", "area/files"


@dataclass
class Scenario:
    """An export over a state: the runs exported before and as which source; None for an archive of another tool."""

    before: list[tuple[MemoryRun, str]] | None
    source: MemoryRun
    old: list[Row] | None
    new: list[Row]
    name: str = "here"


def scenarios() -> dict[str, Scenario]:
    refused = {"loss": Problem("timed out", "loss", "retry")}
    later, earlier = START + timedelta(days=1), START
    without_loss = [row for row in old_rows() if row.path != "loss"]
    both = union_of(old_rows(), new_rows())
    return {
        "first": Scenario([], fresh(new_rows()), None, new_rows()),
        "replace": Scenario([(fresh(old_rows()), "here")], fresh(new_rows(), 2), old_rows(), new_rows()),
        "extend": Scenario([(fresh(old_rows(), refused=refused), "here")], fresh(old_rows()), without_loss, old_rows()),
        "union": Scenario(
            [(fresh(old_rows(), as_of=earlier), "there")], fresh(new_rows(), as_of=later), old_rows(), both
        ),
        "foreign": Scenario(None, fresh(new_rows(), as_of=later), old_rows(), both),
    }


@pytest.fixture
def area():
    return Staging(parse_place(f"s3://bucket/{DATA}"), parse_place(f"s3://bucket/{FILES}"))


class Bench:
    """One scenario, prepared: the objects of the old state, and how many requests the export takes."""

    def __init__(self, scenario: Scenario, area: Staging, root, monkeypatch) -> None:
        self.scenario, self.area, self._root, self._patch = scenario, area, root, monkeypatch
        self.store = MemoryStore()
        self.use(self.store)
        if scenario.before is None:
            official(Staging(root / "data", root / "files"))
            for place, prefix in (("data", DATA), ("files", FILES)):
                for file in (root / place).rglob("*"):
                    if file.is_file():
                        self.store.content[f"{prefix}/{file.relative_to(root / place).as_posix()}"] = file.read_bytes()
        for run, name in scenario.before or ():
            self.export(run, name)
        self.begin = dict(self.store.content)
        self.old = None if scenario.old is None else keys(scenario.old)
        self.new = keys(scenario.new)
        self.again()
        assert self.state() == self.old
        self.alive()
        self.store.breaks("none", 0)
        assert self.export().exit_code == 3  # the value outside the schema is named
        self.log = list(self.store.log)
        assert self.state() == self.new
        self.final = self.tree()

    def use(self, store: MemoryStore) -> None:
        self.store = store
        self._patch.setattr(object_path, "connect", lambda *_: store)
        self.alive()

    def alive(self) -> None:
        """A process that has just begun: it has listed nothing and holds nothing."""
        object_path.forget_lists()
        self._patch.setattr(claim, "held", claims._Held())

    def again(self) -> None:
        self.use(MemoryStore(self.begin))

    def export(self, run: MemoryRun | None = None, name: str = "") -> Report:
        options = World([run or self.scenario.source]).save(self._root / "world")
        with small_pieces():
            return export(
                "memory", replace(options, source=name or self.scenario.name), self.area, EVERYTHING, workers=1
            )

    def broken(self, mode, number: int) -> None:
        self.again()
        self.store.breaks(mode, number)
        try:
            report = self.export()
        except Death:
            pass
        except ExporterError as error:
            assert error.message.startswith("Cannot ")  # noqa: PT017 - or none at all
        else:
            assert mode not in ("death", "late death") or number > len(self.log)
            for outcome in report.outcomes:
                # A claim of which nobody knows whether it was put counts as another's, for a while.
                assert outcome.status in ("partial", "failed"), outcome
        self.store.breaks("none", 0)
        if "death" not in mode:
            assert claim.held._renew == {}  # nobody renews a claim that nobody holds
        self.alive()

    def state(self) -> list[tuple] | None:
        """What an ordinary reader finds of the run; everything it says of itself must be true."""
        run = self.area.run(REF)
        if run is None:
            return None
        project = self.area.folder(REF.project_id).files.key
        content = {key.removeprefix(f"{project}/"): data for key, data in self.store.content.items()}
        fingerprint, rows = Fingerprint(run.files.hash_content), []
        for batch in run.read():
            fingerprint.write(batch)
            rows += rows_in(batch, content)
        assert [a for a in run.attributes() if a.rows] == fingerprint.attributes()
        if run.manifest is not None:
            assert {e.path: len(content[e.path]) for e in run.manifest.files} == {
                e.path: e.bytes for e in run.manifest.files
            }
            outside = {name: getattr(OUTSIDE, name) for name in OUTSIDE.__slots__}
            assert run.extra() == (json.dumps(outside, ensure_ascii=True) + "\n").encode()
        return keys(rows)

    def tree(self) -> list[str]:
        """The names of all objects, whatever generation and token they carry; marks of what can never be left out."""
        return sorted(
            re.sub(r"\.g\d+(-[0-9a-f]{8})?", "", key)
            for key, data in self.store.content.items()
            if data or "/files/" in key
        )


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    memory.install(tmp_path / "site", monkeypatch)
    yield
    memory.forget_plugins()


@pytest.fixture
def bench(scenario, area, tmp_path, monkeypatch):
    return Bench(scenarios()[scenario], area, tmp_path, monkeypatch)


def check(bench: Bench, mode: str, number: int, *, again: bool) -> None:
    bench.broken(mode, number)
    found = bench.state()
    assert found in (bench.old, bench.new), (mode, number, bench.log[number - 1])
    if again:
        bench.alive()
        report = bench.export()
        assert [outcome.status for outcome in report.outcomes] == ["partial"], (mode, number, report.outcomes)
        bench.alive()
        assert bench.state() == bench.new
        assert bench.tree() == bench.final, (mode, number, bench.log[number - 1])


MODES = ["error", "unanswered", "hiccup", "down", "death", "late death"]
OFTEN = {("first", mode) for mode in MODES} | {("replace", "late death")}


@pytest.mark.parametrize(
    ("scenario", "mode"),
    [
        pytest.param(scenario, mode, marks=() if (scenario, mode) in OFTEN else pytest.mark.soak)
        for scenario in scenarios()
        for mode in MODES
    ],
)
def test_any_request_may_fail(bench, mode):
    assert sum(what == "create" and key.endswith(".json") for what, key in bench.log) in (1, 3)  # area.json is tried
    for number in range(1, len(bench.log) + 1):
        check(bench, mode, number, again=mode not in ("error", "down") or number % 3 == 0)


@pytest.mark.parametrize("scenario", ["replace"])
def test_the_old_goes_after_the_new_is_there(bench):
    stem_json = [n for n, (what, key) in enumerate(bench.log) if what == "create" and key.endswith(".json")]
    assert len(stem_json) == 1
    puts = [n for n, (what, _) in enumerate(bench.log) if what == "put"]
    deletes = [n for n, (what, _) in enumerate(bench.log) if what == "delete"]
    assert max(puts) < stem_json[0] < min(deletes)
