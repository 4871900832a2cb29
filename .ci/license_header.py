# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001 - a script, not a package
"""Puts the licence header on the Python files given as arguments that lack it; exits 1 if there were any."""

from __future__ import annotations

import sys
from pathlib import Path

HEADER = "# Copyright 2026 the neptune-exporter authors\n# SPDX-License-Identifier: Apache-2.0\n"


def with_header(text: str) -> str:
    """The source text with the header, below a `#!` line if it starts with one."""
    shebang, rest = "", text
    if text.startswith("#!"):
        first, _, rest = text.partition("\n")
        shebang = first + "\n"
    return text if rest.startswith(HEADER) else shebang + HEADER + rest


def main(paths: list[str]) -> int:
    """Mends the files and names those that it mended."""
    mended = []
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8")
        if with_header(text) != text:
            path.write_text(with_header(text), encoding="utf-8")
            mended.append(path)
    for path in mended:
        print(f"licence header added: {path}")  # noqa: T201 - the output of this program
    return 1 if mended else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
