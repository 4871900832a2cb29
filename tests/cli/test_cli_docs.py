# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the documentation says is what the program does."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from reference import PAGE, program, reference

from neptune_exporter import errors
from neptune_exporter.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command_lines(text: str) -> list[list[str]]:
    """Every `neptune-exporter …` of the code blocks, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" && ")[-1] for block in blocks for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    starts = [line.index("neptune-exporter") + 1 if "neptune-exporter" in line else 0 for line in words]
    return [line[start:] for line, start in zip(words, starts, strict=True) if start]


@pytest.mark.parametrize("words", command_lines(README), ids=" ".join)
def test_every_command_of_the_readme_can_be_typed(words):
    context = program()
    command = cli.get_command(context, words[0])
    assert command is not None
    with command.make_context(words[0], list(words[1:]), parent=context) as parsed:
        assert parsed.params


def test_the_readme_has_commands():
    assert {words[0] for words in command_lines(README)} == set(COMMANDS)


def test_the_reference_is_what_the_program_says():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python tests/cli/reference.py"


def test_every_option_has_a_help_text():
    context = program()
    for name in COMMANDS:
        command = cli.get_command(context, name)
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.opts}"


def test_no_two_options_of_a_command_share_a_name():
    """Exporters and loaders bring their own; on `verify` they meet."""
    context = program()
    for name in COMMANDS:
        flags = [flag for p in cli.get_command(context, name).params for flag in (*p.opts, *p.secondary_opts)]
        assert sorted(flags) == sorted(set(flags)), name
        names = [parameter.name for parameter in cli.get_command(context, name).params]
        assert sorted(names) == sorted(set(names)), name


@pytest.mark.parametrize("seam", ["exporters", "loaders"])
def test_the_readme_names_every_source_and_target(seam):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = set(project["entry-points"][f"neptune_exporter.{seam}"])
    option = "exporter" if seam == "exporters" else "loader"
    table = README.split(f"| `--{option}` | today |")[1].split("\n\n")[0]
    named = set(re.findall(r"\| `(\w+)` \|", table))
    assert named == installed


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_exit_codes_are_explained(page):
    explained = re.findall(r"^\| (\d+) \| ", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in explained} == {
        value for name, value in vars(errors).items() if name.startswith("EXIT_")
    }


def test_every_message_of_the_readme_is_one_of_the_program():
    """The words of a message in the table of troubles stand in the code, in this order."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "neptune_exporter").rglob("*.py"))
    literal = re.sub(r"\{[^{}\n]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", sources))
    table = README.split("| message | what to do |")[1].split("\n\n")[0]
    for cell in re.findall(r"^\| (.+?) \| ", table, re.MULTILINE):
        for message in re.findall(r"`([^`]+)`", cell):
            pieces = [re.escape(piece.strip(" .")) for piece in message.split("…") if len(piece.strip(" .-")) > 3]
            assert pieces
            assert re.search(r"[^\n]*?".join(pieces), literal), message


def test_help_names_every_command_and_exit_code(call):
    out = call("--help").out
    for name in COMMANDS:
        assert re.search(rf"^  {name}  ", out, re.MULTILINE)
    for code in ("0", "1", "2", "3", "4", "130"):
        assert f" {code} " in out
