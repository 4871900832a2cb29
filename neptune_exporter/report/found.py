# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the page shows of a `Summary`, and of what `verify` has checked. Counts nothing that they do not say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from neptune_exporter.report.page import listed, text
from neptune_exporter.summary import ProjectSummary, Summary
from neptune_exporter.verify.check import Depth
from neptune_exporter.verify.finding import LEVELS, Checked, Where

PROJECTS = 500  # shown each for itself; the figures of all are added up
BARS = 400  # of runs over time
_LEVELS = ("difference", "unchecked", "note")
_RESULTS = {"difference": "differs", "unchecked": "unchecked", "note": "noted"}


def of_summary(found: Summary, place: str) -> dict[str, Any]:
    """A summary as the page's value.

    Args:
        found: the summary.
        place: where the staging area is.
    """
    projects = sorted(found.projects, key=lambda project: -sum(project.points.values()))
    numbers = list(enumerate(projects))
    return {
        "page": "summary",
        "place": text(place),
        "exit": found.exit_code,
        "total": _added(projects),
        "projects": [_project(project) for project in projects[:PROJECTS]],
        "more_projects": max(len(projects) - PROJECTS, 0),
        "runs": listed(
            _in_turn(
                [
                    (n, s.run, s.name, s.status, s.begun, s.points, s.bytes, s.files, s.file_bytes, s.problems)
                    for s in project.biggest
                ]
                for n, project in numbers[:PROJECTS]
            ),
            sum(sum(project.runs.values()) for project in projects),
        ),
        "forks": listed(
            (
                (n, node.run, min(node.depth, 999), node.step, node.here, node.forks)
                for n, project in numbers[:PROJECTS]
                for node in project.fork_trees
            ),
            sum(project.in_trees for project in projects),
        ),
        "problems": listed(
            _in_turn(
                [(n, p.kind, p.run, p.attribute, p.message, p.count) for p in project.problem_list]
                for n, project in numbers[:PROJECTS]
            ),
            sum(project.problem_entries for project in projects),
        ),
        "damaged": listed(((error.message, error.hint) for error in found.damaged), len(found.damaged)),
    }


def _project(project: ProjectSummary) -> dict[str, Any]:
    return {
        "name": text(project.project),
        "kind": project.kind,
        "steps": [project.first_step, project.last_step],
        "times": [project.first_time, project.last_time],
        "sources": _biggest_few(project.sources),
        **_figures([project]),
    }


def _added(projects: Sequence[ProjectSummary]) -> dict[str, Any]:
    return {"projects": len({project.project for project in projects}), **_figures(projects)}


def _figures(projects: Sequence[ProjectSummary]) -> dict[str, Any]:
    return {
        "runs": _sum(project.runs for project in projects),
        "attributes": _sum(project.attributes for project in projects),
        "points": _sum(project.points for project in projects),
        "bytes": _sum(project.bytes for project in projects),
        "begun": _over_time(_sum(project.begun for project in projects)),
        "problem_kinds": _sum(project.problem_kinds for project in projects),
        **{
            name: sum(getattr(project, name) for project in projects)
            for name in ("parts", "part_bytes", "files", "file_bytes", "forks", "problems", "problem_entries")
        },
        "in_trees": sum(project.in_trees for project in projects),
    }


def _sum(counts: Iterable[Any]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _biggest_few(counts: Any) -> list[tuple[str, int]]:
    return [(text(name) or "", count) for name, count in Counter(counts).most_common(20)]


def _over_time(days: dict[str, int]) -> dict[str, Any]:
    """Runs by day, or by month or year where there are too many days for a chart."""
    unknown = days.pop("", 0)
    for unit, length in (("day", 10), ("month", 7), ("year", 4)):
        bars: Counter[str] = Counter()
        for day, count in days.items():
            bars[day[:length]] += count
        first, last = (min(bars), max(bars)) if bars else ("", "")
        if _span(first, last, unit) <= BARS:
            break
    return {"unit": unit, "bars": sorted(bars.items())[:10_000], "unknown": unknown}


def _span(first: str, last: str, unit: str) -> int:
    """About how many days, months or years lie between two of them."""
    if not first:
        return 0

    def position(name: str) -> int:
        year, month, day = (int(part) for part in (*name.split("-"), "1", "1")[:3])
        return {"day": (year * 12 + month) * 31 + day, "month": year * 12 + month, "year": year}[unit]

    return position(last) - position(first)


def _in_turn(lists: Iterable[list[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
    """One of each list, then the second of each: no project keeps another one out of the page."""
    for row in zip_longest(*lists):
        yield from (one for one in row if one is not None)


# --- verify


def of_verify(checked: Sequence[Checked], depth: Depth, place: str, code: int) -> dict[str, Any]:
    """What was checked as the page's value.

    Args:
        checked: what was found of each run.
        depth: how thoroughly, and against what.
        place: where the staging area is.
        code: the exit code.
    """
    runs = [one for one in checked if one.ref is not None]
    findings = sorted(
        (finding for one in checked for finding in one.findings), key=lambda finding: _LEVELS.index(finding.level)
    )
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    for one in runs:
        tallies[one.ref.project_id if one.ref else ""].add(one)
    for finding in findings:
        tallies[finding.project].levels[finding.level] += 1
    projects = sorted(tallies, key=lambda name: (-tallies[name].points, name))[:PROJECTS]
    numbers = {name: number for number, name in enumerate(projects)}
    by_result = sorted(runs, key=lambda one: -_severity(one))
    return {
        "page": "verify",
        "place": text(place),
        "exit": code,
        "points": sum(one.points for one in runs),
        "read_data": depth.read_data,
        "compared": [
            {"with": text(name), "where": where, "runs": sum(_is_compared(one, where) for one in runs)}
            for where, name in _sides(depth)
        ],
        "projects": [tallies[name].value(name) for name in projects],
        "more_projects": max(len(tallies) - PROJECTS, 0),
        "results": dict(Counter(_result(one) for one in runs)),
        "levels": dict(Counter(finding.level for finding in findings)),
        "kinds": {kind: [LEVELS[kind], n] for kind, n in Counter(f.kind for f in findings).most_common()},
        "wheres": dict(Counter(finding.where for finding in findings)),
        "runs": listed((_run_row(one, numbers) for one in by_result), len(runs)),
        "findings": listed(
            ((numbers.get(f.project, -1), f.level, f.kind, f.where, f.run, f.attribute, f.message) for f in findings),
            len(findings),
        ),
    }


def _sides(depth: Depth) -> Iterator[tuple[Where, str]]:
    yield "staging", "its own manifests"
    if depth.source is not None:
        yield "source", depth.source.name
    if depth.target is not None:
        yield "target", depth.target.name


def _is_compared(one: Checked, where: Where) -> bool:
    return where in one.compared and (where != "staging" or one.status not in ("unproven", "adopted"))


class _Tally:
    """The figures of one project."""

    def __init__(self) -> None:
        self.points = 0
        self.results: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()

    def add(self, one: Checked) -> None:
        self.points += one.points
        self.results[_result(one)] += 1

    def value(self, name: str) -> dict[str, Any]:
        return {
            "name": text(name) or "(the area as a whole)",
            "points": self.points,
            "results": dict(self.results),
            "levels": dict(self.levels),
        }


def _run_row(one: Checked, numbers: Mapping[str, int]) -> tuple[Any, ...]:
    project, run = (one.ref.project_id, one.ref.run_id) if one.ref else ("", "")
    compared = sorted(one.compared)
    return numbers.get(project, -1), run, _result(one), one.status, one.points, len(one.findings), compared


def _severity(one: Checked) -> int:
    return max((3 - _LEVELS.index(finding.level) for finding in one.findings), default=0)


def _result(one: Checked) -> str:
    severity = _severity(one)
    return _RESULTS[_LEVELS[3 - severity]] if severity else "ok"
