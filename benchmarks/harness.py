# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs each case of a benchmark in a process of its own and prints time, speed, peak memory and ratios.

A case is a top-level function that returns how many things it did (rows, points, runs). A process of its own
gives each repetition a cold start and its own peak of resident memory, imports included.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Result:
    """What a case cost.

    Attributes:
        name: shown in the table.
        count: how many things it did.
        unit: what they are.
        seconds: wall time of the work itself, median of all repetitions.
        cpu_seconds: CPU time of the work itself, likewise.
        peak_mb: the largest peak of resident memory, of all its processes together.
        extra: whatever else the case reported.
    """

    name: str
    count: int
    unit: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0


def measure(
    name: str, case: Callable[..., Any], *arguments: Any, unit: str = "rows", repeat: int = 3, **environment: str
) -> Result:
    """Runs a case `repeat` times, each in a new process.

    Args:
        name: shown in the table.
        case: a top-level function of an importable module; returns a count, or a count and a dict of more numbers.
        arguments: for the case; must be JSON.
        unit: what it counts.
        repeat: how often; the median counts.
        environment: more environment variables.
    """
    runs = [_once(case, arguments, environment) for _ in range(repeat)]
    middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    return Result(
        name,
        middle["count"],
        unit,
        statistics.median(run["seconds"] for run in runs),
        statistics.median(run["cpu"] for run in runs),
        max(run["peak_mb"] for run in runs),
        middle["extra"],
    )


def _once(case: Callable[..., Any], arguments: Sequence[Any], environment: dict[str, str]) -> dict[str, Any]:
    module = case.__module__
    if module == "__main__":
        module = sys.modules["__main__"].__spec__.name
    command = [sys.executable, "-m", "benchmarks.harness", module, case.__qualname__, json.dumps(arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=errors, text=True)
        together = _peak_of_all(running)
        for file in (out, errors):
            file.seek(0)
        said, complained = out.read(), errors.read()
    if running.returncode:
        raise SystemExit(f"{case.__qualname__} failed:\n{said}\n{complained}")
    result = json.loads(said.splitlines()[-1])
    return {**result, "peak_mb": max(result["peak_mb"], together)}


def show(title: str, results: Sequence[Result], baseline: Result | None = None) -> None:
    """Prints a table; ratios are of speed against the baseline."""
    print(f"\n{title}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for result in results:
        ratio = f"  {result.speed / baseline.speed:5.2f}x" if baseline is not None else ""
        more = "".join(f"  {key} {value}" for key, value in result.extra.items())
        print(
            f"  {result.name:<44} {result.seconds:8.2f} s {result.cpu_seconds:8.2f} CPU s"
            f" {result.speed:14,.0f} {result.unit}/s {result.peak_mb:7.0f} MB{ratio}{more}"
        )


def _peak_of_all(running: subprocess.Popen[str]) -> float:
    """Waits for a process; the largest sum of its peak and those of the processes that it has at the same time."""
    peak = 0.0
    while running.poll() is None:
        peak = max(peak, sum(peak_mb(process) for process in _family(running.pid)))
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0.05)
    return peak


def _family(process: int) -> list[int]:
    """A process, its children and theirs, where the system tells."""
    members = [process]
    for member in members:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for task in Path(f"/proc/{member}/task").iterdir():
                members += map(int, (task / "children").read_text().split())
    return members


def peak_mb(process: int | str = "self") -> float:
    """The peak of resident memory. Not ru_maxrss where that can be helped: a child inherits its parent's."""
    try:
        status = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if process == "self" else 0.0
    return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0) / 1024


def main() -> None:
    """A child process: one case, once."""
    module, name, arguments = sys.argv[1:]
    case = getattr(importlib.import_module(module), name)
    cpu, start = time.process_time(), time.perf_counter()
    result = case(*json.loads(arguments))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    count, extra = result if isinstance(result, tuple) else (result, {})
    seconds, cpu = extra.pop("seconds", seconds), extra.pop("cpu", cpu)
    peak = peak_mb()
    print(json.dumps({"count": count, "seconds": seconds, "cpu": cpu, "peak_mb": peak, "extra": extra}))


if __name__ == "__main__":
    main()
