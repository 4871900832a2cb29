# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Commands of the program, as a user types them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def neptune_exporter(*arguments: Any, **how: Any) -> Result:
    """Runs a command in a process of its own; `how` is for `subprocess.run`."""
    command = [sys.executable, "-m", "neptune_exporter", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    return Result(done.returncode, done.stdout, done.stderr)
