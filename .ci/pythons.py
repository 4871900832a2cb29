# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001 - a script, not a package
"""Names the other Pythons of this machine that the tests should pass on: `3.12 /path/to/python` per line.

One interpreter per minor version from 3.11 on, the newest patch of each, never the version that runs this
program. What counts is what an interpreter says about itself when it is started: several names of the same
interpreter are one, a shim that starts nothing is none, and pre-releases and free-threaded builds do not count.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)
ASK = (
    "import os, sys, sysconfig;"
    "usable = sys.implementation.name == 'cpython' and sys.version_info.releaselevel == 'final'"
    " and not sysconfig.get_config_var('Py_GIL_DISABLED');"
    "print(int(usable), *sys.version_info[:3], os.path.realpath(getattr(sys, '_base_executable', sys.executable)))"
)


def candidates() -> Iterator[Path]:
    """Everything that looks like an interpreter: on the PATH, of pyenv, and what uv knows of."""
    for folder in os.get_exec_path():
        if Path(folder).is_dir():
            yield from Path(folder).glob("python3*")
    for root in {os.environ.get("PYENV_ROOT", ""), str(Path.home() / ".pyenv")} - {""}:
        yield from (Path(root) / "versions").glob("*/bin/python3*")
    listed = _output(["uv", "python", "list", "--only-installed", "--no-project"])
    for line in listed.splitlines():
        if len(line.split()) > 1:
            yield Path(line.split()[1])


def versions() -> dict[tuple[int, int], tuple[int, str]]:
    """By minor version, the newest patch and its real path."""
    found: dict[tuple[int, int], tuple[int, str]] = {}
    names = {path for path in candidates() if re.fullmatch(r"python3(\.\d+)?(\.exe)?", path.name)}
    for path in sorted(names):
        answer = _output([str(path), "-I", "-c", ASK]).split(maxsplit=4)
        if len(answer) == 5 and answer[0] == "1":
            major, minor, patch = map(int, answer[1:4])
            if (major, minor) >= OLDEST:
                found[major, minor] = max(found.get((major, minor), (-1, "")), (patch, answer[4].strip()))
    return found


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout  # noqa: S603 - interpreters of this machine
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    for (major, minor), (_, executable) in sorted(versions().items()):
        if (major, minor) != sys.version_info[:2]:
            print(f"{major}.{minor} {executable}")  # noqa: T201 - the output of this program
