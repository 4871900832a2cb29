# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/cli.md from the program itself: `python tests/cli/reference.py`. A test keeps the two equal."""

from __future__ import annotations

import re
from pathlib import Path

import click

from neptune_exporter.cli.main import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
HEAD = """# The command line

<!-- Written by tests/cli/reference.py from the program itself. -->

Results go to stdout, everything else (progress, `Error:`, `Hint:`, the log of `-v`) to stderr. `[name]` before an
option says which exporter or loader it belongs to.

| exit code | meaning |
|---|---|
| 0 | all done |
| 1 | error: nothing came of it |
| 2 | wrong usage |
| 3 | finished, but something is partial or failed, or could not be checked |
| 4 | `verify` found differences |
| 130 | interrupted: run the same command again, it goes on where it was |
"""


def program() -> click.Context:
    """The program as it is started."""
    return click.Context(cli, info_name="neptune-exporter", **cli.context_settings)


def reference() -> str:
    """The whole page."""
    context = program()
    sections = [HEAD]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        sections.append(_section(name, command, click.Context(command, parent=context, info_name=name)))
    return "\n".join(sections)


def _section(name: str, command: click.Command, context: click.Context) -> str:
    text = re.sub(r"[ \n]*\n[ ]*", "\n", (command.help or "").strip())
    lines = [f"## neptune-exporter {name}", "", text.replace("\n", " "), "", "| option | what it does |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            option, meaning = (" ".join(cell.split()).replace("|", "\\|") for cell in record)
            environment = getattr(parameter, "envvar", None)
            if environment:
                names = [environment] if isinstance(environment, str) else environment
                meaning += f" [env: {', '.join(names)}]"
            lines.append(f"| `{option}` | {meaning} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
