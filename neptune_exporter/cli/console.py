# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""How results look on stdout: the closing table of a command, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neptune_exporter.errors import ExporterError, StagingError
from neptune_exporter.printable import json_text, printable

if TYPE_CHECKING:
    from neptune_exporter.model import RunRef
    from neptune_exporter.pipeline import Outcome, Report

SHOWN_PROBLEMS = 20


def say(text: str, *, err: bool = False) -> None:
    """Text on stdout, or on stderr."""
    stream = sys.stderr if err else sys.stdout
    click.echo(printable(text, stream.encoding or "utf-8"), err=err)


def show(error: ExporterError) -> None:
    """The two lines that a user sees of a failure."""
    say(f"Error: {error.message}", err=True)
    if error.hint:
        say(f"Hint: {error.hint}", err=True)


def print_json(value: Any) -> None:
    """A value as JSON on stdout."""
    click.echo(json_text(value, indent=2, encoding=sys.stdout.encoding or "utf-8"))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Rows as aligned text; numbers to the right."""
    texts = [[number(cell) if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    lines = [list(header), *texts] if header else texts
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    right = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in range(len(widths))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def number(value: int) -> str:
    """A whole number with thousands marked."""
    return f"{value:,}"


def size(count: float) -> str:
    """Bytes for humans."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def report_json(report: Report) -> dict[str, Any]:
    """A report as a JSON object."""
    return {
        "exit_code": report.exit_code,
        "counts": counts(report),
        "rows": report.rows,
        "errors": [{"message": error.message, "hint": error.hint} for error in report.errors],
        "notes": report.notes,
        "runs": [
            {
                "project": outcome.ref.project_id,
                "run": outcome.ref.run_id,
                "kind": outcome.ref.kind,
                "status": outcome.status,
                "reason": outcome.reason,
                "rows": outcome.rows,
                "problems": [problem.to_json() for problem in outcome.problems],
            }
            for outcome in sorted(report.outcomes, key=lambda outcome: order(outcome.ref))
        ],
    }


def order(ref: RunRef | None) -> tuple[str, str, str]:
    """By what runs are sorted where they are listed: not by which of them was done first; no run comes first."""
    return (ref.project_id, ref.kind, ref.run_id) if ref is not None else ("", "", "")


def write_problems(path: str, report: Report) -> None:
    """Every error and problem of a report as a JSON object a line. Raises `StagingError` if that cannot be written."""
    lines: list[dict[str, Any]] = [{"message": error.message, "hint": error.hint} for error in report.errors]
    for outcome in sorted(report.outcomes, key=lambda outcome: order(outcome.ref)):
        run = {"project": outcome.ref.project_id, "run": outcome.ref.run_id, "kind_of_run": outcome.ref.kind}
        if outcome.status == "failed":
            lines.append({**run, "message": outcome.reason})
        lines += [{**run, **problem.to_json()} for problem in outcome.problems]
    try:
        Path(path).write_text("".join(f"{json_text(line)}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise StagingError(
            f"Cannot write {path}: {error.strerror}.", "Choose another with --error-report-file."
        ) from error


def counts(report: Report) -> dict[str, int]:
    """How many runs ended how; only what there is."""
    statuses = ("done", "planned", "skipped", "partial", "failed")
    return {status: count for status in statuses if (count := report.count(status))}  # type: ignore[arg-type]


def print_report(report: Report, verb: str, after: str = "") -> None:
    """The closing table: how many runs ended how, what is wrong with which, and what to type next."""
    found = counts(report)
    say(f"{verb}: " + (", ".join(f"{number(n)} {status}" for status, n in found.items()) or "no runs found") + ".")
    if report.rows:
        say(f"{number(report.rows)} rows.")
    wrong = [outcome for outcome in report.outcomes if outcome.status in ("partial", "failed")]
    busy = [o for o in report.outcomes if o.status == "skipped" and "being worked on" in o.reason]
    _print_outcomes([*wrong, *busy])
    for note in report.notes:
        say(f"Note: {note}")
    for error in report.errors:
        show(error)
    if after:
        say(after)


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    lines: list[tuple[str, str, str]] = []
    for outcome in outcomes:
        lines.append((str(outcome.ref), outcome.status, outcome.reason))
        lines += [
            (
                "",
                "",
                f"{problem.attribute or 'run'}: {problem.message}"
                + ("" if problem.kind == "permanent" else " (retried next time)"),
            )
            for problem in outcome.problems
        ]
    if lines:
        say(table(lines[:SHOWN_PROBLEMS]))
    if len(lines) > SHOWN_PROBLEMS:
        say(f"... and {len(lines) - SHOWN_PROBLEMS} more; --json lists them all.")
