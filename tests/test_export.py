# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `export`: what is fetched, what becomes of what was there, and what a failure costs."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from contracts import memory
from contracts.memory import MemoryExporter, MemoryRun, World
from contracts.official import write_official
from contracts.rows import START, assert_same, curve, everything, point, read_rows, rows_on_disk, single, snapshot
from truth import Row

from neptune_exporter.errors import (
    AccessError,
    ExporterError,
    InterruptedRunError,
    Problem,
    SourceError,
    StagingError,
)
from neptune_exporter.export import Task, export, plan_for
from neptune_exporter.exporters.exporter import SourceRun
from neptune_exporter.model import OutsideValue, RunInfo, RunRef
from neptune_exporter.selection import CLASS_OF_TYPE, CLASSES, EVERYTHING, Selection
from neptune_exporter.storage.claims import Claim
from neptune_exporter.storage.commit import claim_path, manifest_path
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.names import stem
from neptune_exporter.storage.staging import Staging

REF = RunRef("team/export", "run-1")
METRICS, PARAMETERS = (Selection(classes=frozenset({name})) for name in ("metrics", "parameters"))
RETRY, GONE = Problem("timed out", "loss", "retry"), Problem("deleted", "note", "permanent")


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    memory.install(tmp_path / "site", monkeypatch)
    MemoryExporter.asked.clear()
    yield
    memory.forget_plugins()


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "data", tmp_path / "files")


def run_of(rows: list[Row], ref: RunRef = REF, **more) -> MemoryRun:
    return MemoryRun(RunInfo(ref), rows, **more)


def command(staging, *runs, selection=EVERYTHING, source="here", world=None, **more):
    world = world or World(list(runs))
    options = replace(world.save(staging.data_path.parent / "world"), source=source)
    return export("memory", options, staging, selection, **more)


def outcome(report):
    (only,) = report.outcomes
    return only


def staged_rows(staging, ref=REF):
    return read_rows(staging.run(ref), staging)


ROWS = [*everything(), *curve("other", 10)]


def of_classes(rows, *classes):
    return [row for row in rows if CLASS_OF_TYPE[row.type] in classes]


# --- the first export, and the same again


def test_everything_is_exported_and_then_skipped(staging):
    report = command(staging, run_of(ROWS), run_of(curve("loss", 3), RunRef("team/other", "run-1")))
    assert [o.status for o in report.outcomes] == ["done", "done"]
    assert report.exit_code == 0
    assert report.rows == len(ROWS) + 3
    assert_same(ROWS, staged_rows(staging))
    assert_same(ROWS, rows_on_disk(staging, REF))
    before = snapshot(staging.data_path.parent)
    MemoryExporter.asked.clear()
    report = command(staging, run_of(ROWS), run_of(curve("loss", 3), RunRef("team/other", "run-1")))
    assert [(o.status, o.reason) for o in report.outcomes] == [("skipped", "exported before")] * 2
    assert report.exit_code == 0
    assert MemoryExporter.asked == []
    assert snapshot(staging.data_path.parent) == before


def test_the_manifest_records_the_source(staging):
    command(staging, run_of(ROWS, version=7, as_of=START), selection=METRICS)
    (record,) = staging.run(REF).sources
    assert record.name == ("memory", "here")
    assert record.state == {"version": 7, "lineage": ""}
    assert record.as_of == START
    assert record.selection == METRICS


def test_a_run_that_went_on_is_exported_again(staging):
    command(staging, run_of(curve("loss", 10)))
    report = command(staging, run_of(curve("loss", 20), version=2))
    assert outcome(report).status == "done"
    assert_same(curve("loss", 20), staged_rows(staging))


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_many_runs_at_once(staging, executor):
    refs = [RunRef(f"team/{n % 2}", f"run-{n}") for n in range(10)]
    runs = [run_of([*curve("loss", n + 1), single("model", b"%d" % n)], ref) for n, ref in enumerate(refs)]
    runs[3].failure = SourceError("The server is gone.", "Try later.")
    report = command(staging, *runs, workers=3, executor=executor)
    assert sorted((o.ref, o.status) for o in report.outcomes) == sorted(
        (ref, "failed" if n == 3 else "done") for n, ref in enumerate(refs)
    )
    assert report.exit_code == 3
    for n, ref in enumerate(refs):
        if n != 3:
            assert_same([*curve("loss", n + 1), single("model", b"%d" % n)], staged_rows(staging, ref))
    assert staging.run(refs[3]) is None


def test_a_dry_run_changes_nothing(staging):
    report = command(staging, run_of(ROWS), dry_run=True)
    assert (outcome(report).status, report.rows) == ("planned", len(ROWS))
    assert not staging.data_path.exists()
    command(staging, run_of(ROWS))
    assert outcome(command(staging, run_of(ROWS), dry_run=True)).status == "skipped"
    assert outcome(command(staging, run_of(ROWS), dry_run=True, overwrite=True)).status == "planned"


# --- selections


@pytest.mark.parametrize("first", CLASSES)
@pytest.mark.parametrize("second", CLASSES)
def test_a_wider_selection_fetches_what_it_adds(staging, first, second):
    command(staging, run_of(ROWS), selection=Selection(classes=frozenset({first})))
    assert_same(of_classes(ROWS, first), staged_rows(staging))
    MemoryExporter.asked.clear()
    both = Selection(classes=frozenset({first, second}))
    report = command(staging, run_of(ROWS), selection=both)
    assert_same(of_classes(ROWS, first, second), staged_rows(staging))
    fetched = [selection.classes for _, selection in MemoryExporter.asked]
    assert fetched == ([] if first == second else [frozenset({second})])
    assert outcome(report).status == ("skipped" if first == second else "done")
    report = command(staging, run_of(ROWS), selection=both)
    assert outcome(report).status == "skipped"
    assert outcome(command(staging, run_of(ROWS), selection=Selection(classes=frozenset({second})))).status == "skipped"
    command(staging, run_of(ROWS))
    assert_same(ROWS, staged_rows(staging))
    assert outcome(command(staging, run_of(ROWS))).status == "skipped"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Selection(attributes=("loss", "other")), Selection(attributes=("other", "log"))),
        (Selection(attributes=("^l",)), Selection(attributes=("^o",))),
        (Selection(attributes=("^l",)), METRICS),
        (METRICS, Selection(attributes=("^c",))),
        (Selection(attributes=("loss", "model")), PARAMETERS),
        (Selection(attributes=("^l",), classes=frozenset({"series"})), Selection(attributes=("^l",))),
    ],
)
def test_another_selection_adds_to_what_is_there(staging, first, second):
    command(staging, run_of(ROWS), selection=first)
    assert_same([row for row in ROWS if first.wants(row.path, row.type)], staged_rows(staging))
    command(staging, run_of(ROWS), selection=second)
    wanted = [row for row in ROWS if first.wants(row.path, row.type) or second.wants(row.path, row.type)]
    assert_same(wanted, staged_rows(staging))
    command(staging, run_of(ROWS, version=2), selection=second)  # replaced, with all that was selected before
    assert_same(wanted, staged_rows(staging))
    command(staging, run_of(ROWS), selection=second, overwrite=True)
    assert_same(wanted, staged_rows(staging))
    command(staging, run_of(ROWS))
    assert_same(ROWS, staged_rows(staging))


def test_two_selections_of_one_export_do_not_double(staging):
    first, second = Selection(attributes=("^l",)), Selection(attributes=("o",))
    rows = [*ROWS, single("extra", b"x")]
    outside = [OutsideValue("loss", "float_series", "too far", "1", "1000000000000")]
    command(staging, run_of(rows, outside=outside, empty=[("lost", "int")]), selection=first)
    command(staging, run_of(rows, outside=outside, empty=[("lost", "int")], version=2), selection=second)
    run = staging.run(REF)
    assert_same([r for r in rows if r.path.startswith("l") or "o" in r.path], staged_rows(staging))
    assert run.extra().count(b"\n") == 1
    assert [p.count for p in run.problems] == [1]
    files = [p for p in staging.folder(REF.project_id).files.rglob("*") if p.is_file()]
    assert len(files) == len(run.manifest.files)


# --- problems


def test_what_the_source_refuses_makes_a_partial_run_and_is_fetched_the_next_time(staging):
    """Losses 1 and 12: it was marked complete, so that a re-export never repaired it."""
    report = command(staging, run_of(ROWS, refused={"loss": RETRY}))
    assert outcome(report).status == "partial"
    assert outcome(report).problems == (RETRY,)
    assert report.exit_code == 3
    assert_same([row for row in ROWS if row.path != "loss"], staged_rows(staging))
    assert staging.run(REF).status == "partial"
    MemoryExporter.asked.clear()
    report = command(staging, run_of(ROWS))
    assert outcome(report).status == "done"
    assert report.exit_code == 0
    assert [selection.attributes for _, selection in MemoryExporter.asked] == [("^loss$",)]
    assert_same(ROWS, staged_rows(staging))
    assert staging.run(REF).status == "complete"


def test_what_fails_again_stays_as_it_is(staging):
    command(staging, run_of(ROWS, refused={"loss": RETRY}))
    for _ in range(3):
        report = command(staging, run_of(ROWS, refused={"loss": RETRY}))
        assert outcome(report).problems == (RETRY,)
        assert report.exit_code == 3
        assert_same([row for row in ROWS if row.path != "loss"], staged_rows(staging))


def test_what_failed_for_good_is_tried_again_only_when_asked(staging):
    rows = [*ROWS, single("note", "x")]
    command(staging, run_of(rows, refused={"note": GONE}))
    MemoryExporter.asked.clear()
    report = command(staging, run_of(rows))
    assert outcome(report).status == "partial"
    assert "with 1 problems; --retry-failed tries them again" in outcome(report).reason
    assert report.exit_code == 3
    assert MemoryExporter.asked == []
    report = command(staging, run_of(rows), retry_failed=True)
    assert outcome(report).status == "done"
    assert_same(rows, staged_rows(staging))


def test_retryable_ones_are_tried_and_permanent_ones_stand(staging):
    rows = [*ROWS, single("note", "x")]
    command(staging, run_of(rows, refused={"note": GONE, "loss": RETRY}))
    report = command(staging, run_of(rows))
    assert outcome(report).problems == (GONE,)
    assert_same([row for row in rows if row.path != "note"], staged_rows(staging))


def test_a_problem_of_the_whole_run_fetches_it_all_again(staging):
    whole = Problem("the listing broke off", None, "retry")
    command(staging, run_of(curve("loss", 5), refused={".": whole}))
    MemoryExporter.asked.clear()
    report = command(staging, run_of(ROWS))
    assert outcome(report).status == "done"
    assert [selection for _, selection in MemoryExporter.asked] == [EVERYTHING]
    assert_same(ROWS, staged_rows(staging))


def test_values_outside_the_schema_stay_with_a_retry(staging):
    outside = [OutsideValue("far", "float_series", "too far", "1", "1000000000000")]
    command(staging, run_of(ROWS, outside=outside, refused={"loss": RETRY}))
    report = command(staging, run_of(ROWS, outside=outside))
    assert_same(ROWS, staged_rows(staging))
    assert staging.run(REF).extra().count(b"\n") == 1
    assert [(p.attribute, p.count) for p in outcome(report).problems] == [("far", 1)]
    report = command(staging, run_of(ROWS, outside=outside), retry_failed=True)
    assert staging.run(REF).extra().count(b"\n") == 1
    assert [(p.attribute, p.count) for p in outcome(report).problems] == [("far", 1)]


def test_a_re_export_that_fails_in_part_leaves_no_less(staging):
    command(staging, run_of(ROWS))
    newer = [row for row in ROWS if row.path != "loss"] + curve("fresh", 3)
    report = command(staging, run_of(newer, version=2, refused={"loss": RETRY}))
    assert outcome(report).status == "partial"
    assert_same([*ROWS, *curve("fresh", 3)], staged_rows(staging))


# --- several sources


HEAD, TAIL = curve("loss", 60), [row for row in curve("loss", 100) if row.step >= 50]


@pytest.mark.parametrize("first", ["head", "tail"])
def test_another_source_is_merged_never_skipped_never_replaced(staging, first):
    head = (run_of([*HEAD, single("lr", 0.1)], as_of=START), "server")
    tail = (run_of([*TAIL, single("lr", 0.2)], as_of=START + timedelta(days=1)), "laptop")
    order = [head, tail] if first == "head" else [tail, head]
    for run, source in order:
        assert outcome(command(staging, run, source=source)).status == "done"
    expected = [*curve("loss", 100), single("lr", 0.2)]
    assert_same(expected, staged_rows(staging))
    for run, source in order:  # both are known now
        assert outcome(command(staging, run, source=source)).status == "skipped"
        command(staging, run, source=source, overwrite=True)
        assert_same(expected, staged_rows(staging))
    run, source = order[0]
    more = replace(run, rows=[*run.rows, *curve("more", 3)], version=2)
    command(staging, more, source=source)
    assert_same([*expected, *curve("more", 3)], staged_rows(staging))


def test_a_retry_from_one_source_keeps_the_rows_of_the_other(staging):
    command(staging, run_of([*HEAD, single("a", 1)], refused={"loss": RETRY}), source="server")
    command(staging, run_of(TAIL, as_of=START), source="laptop")
    assert_same([single("a", 1), *TAIL], staged_rows(staging))
    assert staging.run(REF).status == "partial"
    assert outcome(command(staging, run_of(TAIL, as_of=START), source="laptop")).status == "partial"
    assert staging.run(REF).generation == 2  # nothing of the laptop's to try again
    report = command(staging, run_of([*HEAD, single("a", 1)]), source="server")
    assert outcome(report).status == "done"
    assert_same([single("a", 1), *curve("loss", 100)], staged_rows(staging))
    assert staging.run(REF).status == "complete"


def test_a_wider_selection_of_one_source_keeps_the_rows_of_the_other(staging):
    command(staging, run_of([*HEAD, single("a", 1)]), source="server", selection=PARAMETERS)
    command(staging, run_of(TAIL), source="laptop")
    command(staging, run_of([*HEAD, single("a", 1)]), source="server")
    assert_same([single("a", 1), *curve("loss", 100)], staged_rows(staging))


def test_a_source_that_may_have_lost_something_is_merged_with_what_it_had(staging):
    command(staging, run_of(HEAD, lineage="one"))
    report = command(staging, run_of(TAIL, lineage="two"))
    assert outcome(report).status == "done"
    assert_same(curve("loss", 100), staged_rows(staging))
    command(staging, run_of([single("a", 1)], lineage="three"), overwrite=True)
    assert_same([*curve("loss", 100), single("a", 1)], staged_rows(staging))


def test_an_archive_of_another_tool_is_merged_and_stays(staging):
    old = [*HEAD, single("only", "in the archive"), single("model", b"archived")]
    write_official(staging.data_path, staging.files_path, REF, old)
    new = [*TAIL, single("new", 1)]
    command(staging, run_of(new, as_of=START))
    expected = [*curve("loss", 100), *old[-2:], single("new", 1)]
    assert_same(expected, staged_rows(staging))
    assert outcome(command(staging, run_of(new, as_of=START))).status == "skipped"
    command(staging, run_of(new, as_of=START), overwrite=True)
    assert_same(expected, staged_rows(staging))
    command(staging, run_of([*new, single("b", 2)], version=2, as_of=START))
    assert_same([*expected, single("b", 2)], staged_rows(staging))


# --- every decision, against the rule


@pytest.mark.parametrize("sources", ["own", "foreign", "both", "archive"])
@pytest.mark.parametrize("relation", ["same", "newer", "apart"])
def test_every_decision(relation, sources):
    """The rule, spelled out: never skipped without proof, never replaced what may be another's, never fetched twice."""
    widths, failures = ["same", "narrower", "wider", "other"], ["nothing", "retry", "permanent", "run"]
    for width, failed, overwrite, retry_failed in product(widths, failures, [False, True], [False, True]):
        check_decision(relation, width, failed, overwrite, retry_failed, sources)


def check_decision(relation, width, failed, overwrite, retry_failed, sources):
    asked = {
        "same": METRICS,
        "narrower": Selection(attributes=("loss", "other"), classes=METRICS.classes),
        "wider": EVERYTHING,
        "other": PARAMETERS,
    }[width]
    problems = {
        "nothing": (),
        "retry": (RETRY,),
        "permanent": (replace(GONE, attribute="loss"),),
        "run": (replace(RETRY, attribute=None),),
    }[failed]
    state = {
        "same": {"version": 1, "lineage": ""},
        "newer": {"version": 2, "lineage": ""},
        "apart": {"version": 1, "lineage": "x"},
    }
    own = _record("here", problems)
    staged = _Staged(
        {"own": (own,), "foreign": (_record("there", ()),), "both": (_record("there", ()), own)}.get(sources, ())
    )
    run = SourceRun(RunInfo(REF), state[relation])
    options = memory.MemoryOptions()
    task = Task("memory", options, None, None, run, asked, overwrite, retry_failed)  # type: ignore[arg-type]
    plan = plan_for(_Comparing(), staged, task)  # type: ignore[arg-type]
    if sources in ("foreign", "archive"):
        assert (plan.selections, plan.policy, plan.claims) == ((asked,), "union", asked)
        return
    alone = sources == "own"
    tried = failed in ("retry", "run") or (failed == "permanent" and retry_failed)
    whole = relation != "same" or overwrite or (failed == "run" and tried)
    if whole:
        assert plan.policy == ("replace" if alone and relation != "apart" else "union")
        assert plan.standing == ()
        for path, kind in [("loss", "float_series"), ("x", "float_series"), ("a", "int"), ("model", "file")]:
            fetched = any(selection.wants(path, kind) for selection in plan.selections)
            assert fetched == (METRICS.wants(path, kind) or asked.wants(path, kind))
    elif width in ("wider", "other") or tried:
        assert plan.policy == ("extend" if alone else "union")
        fetched = [(s.attributes, s.classes) for s in plan.selections]
        expected = []
        if width == "wider":
            expected.append(((), frozenset(CLASSES) - METRICS.classes))
        if width == "other":
            expected.append(((), PARAMETERS.classes))
        if tried:
            expected.append((("^loss$",), frozenset(CLASSES)))
        assert fetched == expected
        assert plan.standing == (problems if problems and not tried else ())
    else:
        assert plan.selections == ()
        assert plan.reason.startswith("exported before")
        assert ("--retry-failed" in plan.reason) == bool(problems)
    if plan.selections and whole is False:
        assert plan.claims.covers(METRICS)


def _record(source, problems):
    return SourceRecord("memory", source, {"version": 1, "lineage": ""}, None, METRICS, problems)


class _Staged:
    """What `plan_for` looks at of a staged run."""

    def __init__(self, sources):
        self.sources = sources
        self.problems = tuple(problem for source in sources for problem in source.problems)


class _Comparing(MemoryExporter):
    """An exporter that is only asked who it is and how states relate."""

    def __init__(self):
        self.source = "here"
        self.lists_all = True


# --- overwrite and vanished runs


def test_overwrite_exports_again(staging):
    command(staging, run_of(ROWS))
    report = command(staging, run_of(curve("loss", 3)), overwrite=True)
    assert outcome(report).status == "done"
    assert_same(curve("loss", 3), staged_rows(staging))
    assert staging.run(REF).generation == 2


@pytest.mark.parametrize(
    ("asked", "lists_all", "overwrite", "gone"),
    [
        (EVERYTHING, True, True, True),
        (Selection(projects=(REF.project_id,)), True, True, True),
        (EVERYTHING, True, False, False),
        (EVERYTHING, False, True, False),
        (METRICS, True, True, False),
        (Selection(run_patterns=("run",)), True, True, False),
        (Selection(run_ids=("run-2",)), True, True, False),
        (Selection(attributes=("loss", "x")), True, True, False),
    ],
)
def test_vanished_runs_go_only_with_an_unfiltered_overwrite(staging, asked, lists_all, overwrite, gone):
    second, elsewhere = RunRef(REF.project_id, "run-2"), RunRef("team/elsewhere", "run-1")
    command(staging, run_of(ROWS), run_of(ROWS, second), run_of(ROWS, elsewhere))
    world = World([run_of(ROWS, second)], lists_all=lists_all)
    command(staging, world=world, selection=asked, overwrite=overwrite)
    assert (staging.run(REF) is None) == gone
    assert staging.run(second) is not None
    assert staging.run(elsewhere) is not None  # its project was not listed at all


def test_what_another_source_has_given_does_not_vanish(staging):
    second = RunRef(REF.project_id, "run-2")
    archived = RunRef(REF.project_id, "archived")
    write_official(staging.data_path, staging.files_path, archived, curve("loss", 3))
    command(staging, run_of(ROWS), run_of(ROWS, archived), run_of(ROWS, second))
    command(staging, run_of(HEAD), source="laptop")
    command(staging, run_of(ROWS, second), overwrite=True)
    assert_same([*ROWS, *HEAD[40:]], staged_rows(staging))
    assert staging.run(archived) is not None


def test_a_failed_listing_removes_nothing(staging):
    second = RunRef("team/second", "run-1")
    command(staging, run_of(ROWS), run_of(ROWS, second))
    broken = {second.project_id: SourceError("No permission.", "Ask for it.")}
    report = command(staging, world=World([run_of(ROWS, RunRef(REF.project_id, "new"))], broken), overwrite=True)
    assert staging.run(REF) is not None
    assert staging.run(second) is not None
    assert report.exit_code == 3


def test_a_vanished_run_that_somebody_works_on_stays(staging):
    second = RunRef(REF.project_id, "run-2")
    command(staging, run_of(ROWS), run_of(ROWS, second))
    with Claim(claim_path(staging.folder(REF.project_id).data, stem(REF.run_id)), str(REF)):
        report = command(staging, run_of(ROWS, second), overwrite=True)
    assert staging.run(REF) is not None
    assert [str(error).split(" is being")[0] for error in report.errors] == [str(REF)]
    assert report.exit_code == 3


# --- failures


@pytest.mark.parametrize(
    "failure",
    [SourceError("The server is gone."), StagingError("The disk is gone."), ValueError("a bug"), KeyError("x")],
)
@pytest.mark.parametrize("before", [False, True])
def test_a_run_that_fails_costs_only_itself(staging, failure, before, caplog):
    second = RunRef(REF.project_id, "run-2")
    if before:
        command(staging, run_of(ROWS))
    with caplog.at_level(logging.CRITICAL):
        report = command(staging, run_of(curve("loss", 99), version=2, failure=failure), run_of(ROWS, second))
    assert {o.ref: o.status for o in report.outcomes} == {REF: "failed", second: "done"}
    assert report.exit_code == 3
    assert_same(ROWS, staged_rows(staging, second))
    if before:
        assert_same(ROWS, staged_rows(staging))
    else:
        assert staging.run(REF) is None


def test_the_exit_code_is_not_0_if_every_run_failed(staging, caplog):
    """The easiest bug to write."""
    refs = [RunRef(REF.project_id, f"run-{n}") for n in range(5)]
    for failure in (SourceError("gone"), RuntimeError("bug")):
        with caplog.at_level(logging.CRITICAL):
            report = command(staging, *(run_of(ROWS, ref, failure=failure) for ref in refs))
        assert report.count("failed") == 5
        assert report.exit_code != 0


def test_a_project_that_cannot_be_listed_costs_only_itself(staging):
    """Loss 10: one project that failed ended the whole export."""
    broken = {"team/broken": SourceError("No permission.", "Ask for it.")}
    report = command(staging, world=World([run_of(ROWS)], broken))
    assert outcome(report).status == "done"
    assert [str(e) for e in report.errors] == ["No permission."]
    assert report.exit_code == 3
    report = command(staging, world=World([], broken))
    assert report.exit_code == 1


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_refused_credentials_end_everything(staging, executor):
    """Losses 2 and 3: a token revoked half way left runs without metrics that looked complete."""
    refs = [RunRef(REF.project_id, f"run-{n:02d}") for n in range(12)]
    runs = [run_of(curve("loss", 200), ref) for ref in refs]
    runs[2].failure = AccessError("The token was revoked.", "Get a new one.")
    with pytest.raises(AccessError) as raised:
        command(staging, *runs, workers=2, executor=executor)
    assert raised.value.exit_code == 1
    assert staging.run(refs[2]) is None
    complete = list(staging.folder(REF.project_id).runs())
    for run in complete:
        assert_same(curve("loss", 200), read_rows(run, staging))
    assert len(complete) < len(refs)
    runs[2].failure = None
    assert command(staging, *runs).exit_code == 0
    for ref in refs:
        assert_same(curve("loss", 200), staged_rows(staging, ref))


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), InterruptedRunError()])
def test_an_interruption_leaves_nothing_half_done(staging, failure):
    """Loss 2: Ctrl-C marked all runs in flight complete."""
    with pytest.raises(type(failure)):
        command(staging, run_of(curve("loss", 200), failure=failure), workers=1)
    assert staging.run(REF) is None
    assert not [name for name in snapshot(staging.data_path.parent) if "part" in name or name.endswith(".tmp")]


def test_a_run_that_another_command_works_on_is_skipped_and_said_so(staging):
    command(staging, run_of(ROWS))
    folder = staging.folder(REF.project_id)
    second = RunRef(REF.project_id, "run-2")
    with Claim(claim_path(folder.data, stem(REF.run_id)), str(REF)):
        report = command(staging, run_of(ROWS, version=2), run_of(ROWS, second))
    by_ref = {o.ref: o for o in report.outcomes}
    assert by_ref[REF].status == "skipped"
    assert "is being worked on by process" in by_ref[REF].reason
    assert by_ref[second].status == "done"
    assert_same(ROWS, staged_rows(staging))


def test_no_permission_is_one_clear_error(staging, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    report = command(staging, run_of(ROWS))
    assert outcome(report).status == "failed"
    assert "Cannot " in outcome(report).reason
    assert report.exit_code == 3


# --- damage


def test_a_damaged_run_is_named_and_replaced_when_asked(staging):
    second = RunRef(REF.project_id, "run-2")
    command(staging, run_of(ROWS), run_of(ROWS, second))
    path = manifest_path(staging.folder(REF.project_id).data, stem(REF.run_id))
    path.write_text("{")
    old_files = snapshot(staging.files_path)
    for more in ({}, {"dry_run": True}, {"selection": METRICS, "overwrite": True}):
        report = command(staging, run_of(ROWS), run_of(ROWS, second), **more)
        failed = next(o for o in report.outcomes if o.ref == REF)
        assert failed.status == "failed"
        assert path.name in failed.reason
        assert "--overwrite" in failed.reason
        assert report.exit_code == 3
        assert snapshot(staging.files_path) == old_files or "selection" in more
    report = command(staging, run_of(ROWS), run_of(ROWS, second), overwrite=True)
    assert report.exit_code == 0
    assert_same(ROWS, staged_rows(staging))
    named = {file.path for run in staging.folder(REF.project_id).runs() for file in run.manifest.files}
    folder = staging.folder(REF.project_id).files
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == named


def test_an_interrupted_overwrite_of_a_damaged_run_touches_nothing_that_lies_there(staging):
    command(staging, run_of(ROWS))
    manifest_path(staging.folder(REF.project_id).data, stem(REF.run_id)).write_text("{")
    before = snapshot(staging.data_path.parent)
    with pytest.raises(KeyboardInterrupt):
        command(staging, run_of(ROWS, failure=KeyboardInterrupt()), overwrite=True)
    after = snapshot(staging.data_path.parent)
    assert {k: v for k, v in after.items() if k != "world"} == {k: v for k, v in before.items() if k != "world"}


def test_cut_parts_are_replaced_by_an_overwrite(staging):
    command(staging, run_of(ROWS))
    (part,) = staging.folder(REF.project_id).data.glob("*_part_*.parquet")
    part.write_bytes(part.read_bytes()[:99])
    with pytest.raises(ExporterError):
        staged_rows(staging)
    assert command(staging, run_of(ROWS), overwrite=True).exit_code == 0
    assert_same(ROWS, staged_rows(staging))


def test_points_of_all_types_survive_every_policy(staging):
    """Everything at once: a first part, a wider selection, a retry, another source, a newer state."""
    rows = [*ROWS, *(point("deep/log", n, "x" * n, n) for n in range(30))]
    problem = Problem("slow", "deep/log", "retry")
    command(staging, run_of(rows, refused={"deep/log": problem}), selection=Selection(classes=frozenset({"series"})))
    command(staging, run_of(rows), selection=Selection(classes=frozenset({"series", "files"})))
    command(staging, run_of(rows[::3], as_of=START), source="laptop")
    command(staging, run_of(rows, as_of=START))
    assert_same(rows, staged_rows(staging))
    assert_same(rows, rows_on_disk(staging, REF))
    command(staging, run_of(rows, version=2, as_of=START))
    assert_same(rows, staged_rows(staging))
    run = staging.run(REF)
    assert run.status == "complete"
    stored = [p for p in staging.folder(REF.project_id).files.rglob("*") if p.is_file()]
    assert len(stored) == len(run.manifest.files) == 5
