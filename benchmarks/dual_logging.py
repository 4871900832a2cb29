# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What dual logging adds to a call of `log_metrics`: `python -m benchmarks.dual_logging [--calls N]`.

The real client logs offline, on a file system in memory where there is one: on a disk its own `fsync` takes
milliseconds now and then, and hides whatever one looks for. Blocks of calls with the mirror and blocks of calls
without it (the client's own method back in its place) take turns in one process, so that the clock and the neighbours
are the same for both; between them the queue is emptied, so that the writing thread costs only the mirrored calls.

The table shows whole calls of both kinds, the difference of their medians and of their 99th percentiles (which
includes what the writing thread takes from the interpreter), and the time inside our own code alone. With an idle
target the mirror writes its spool and feeds nobody; with a busy one a process feeds MLflow in SQLite at the same time.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import peak_mb

AIM_MEDIAN, AIM_P99 = 20.0, 100.0
_BLOCK = 100
_MEMORY = Path("/dev/shm")  # a file system in memory, if there is one


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=3000, help="calls of each kind for each row")
    parser.add_argument("--soak", type=int, default=1_000_000, help="calls of the memory test, 0 for none")
    parser.add_argument("--disk", action="store_true", help="let the client log to a disk")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(Path(options.child[0]), options.child[1], options.calls)
        return
    in_memory = not options.disk and os.access(_MEMORY, os.W_OK)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}, the client logs {'in memory' if in_memory else 'to a disk'}"
    )
    print(f"aims: added time {AIM_MEDIAN:.0f} µs median, {AIM_P99:.0f} µs p99, for up to 100 keys; µs per call\n")
    titles = " | ".join(f"{title + ': median':>15} {'p99':>9}" for title in ("plain", "mirrored", "added", "inside"))
    print(f"target   keys | {titles}")
    for target in ("idle", "busy"):
        with tempfile.TemporaryDirectory(dir=_MEMORY if in_memory else None) as folder:
            _run(folder, target, options.calls)
    if options.soak:
        with tempfile.TemporaryDirectory() as folder:
            _soak(Path(folder), options.soak)


def _run(folder: str, target: str, calls: int) -> None:
    environment = {
        **os.environ,
        "NEPTUNE_EXPORTER_TARGET": "mlflow" if target == "busy" else "none-at-all",
        "NEPTUNE_EXPORTER_SPOOL": str(Path(folder, "spool")),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "NEPTUNE_EXPORTER_LINGER_SECONDS": "0",
        "NEPTUNE_EXPORTER_CLOSE_SECONDS": "0.5",
    }
    command = [sys.executable, "-m", "benchmarks.dual_logging", "--calls", str(calls), "--child", folder, target]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    if done.returncode:
        raise SystemExit(done.stderr)


def _child(folder: Path, target: str, calls: int) -> None:
    from neptune_scale import Run

    import neptune_exporter.dual_logging  # noqa: F401 - that switches it on
    from neptune_exporter.mirror.mirror import current

    run = Run(
        project="bench/mark",
        mode="offline",
        log_directory=folder / "neptune",
        source_tracking_config=None,
        enable_console_log_capture=False,
    )
    mirror = current()
    if mirror is None:
        raise SystemExit("dual logging is off")
    if target == "busy":  # until the target is being fed
        run.log_metrics({"first": 1.0}, step=0)
        while not list((folder / "spool").rglob("targets/*.json")):
            time.sleep(0.2)
    ways = _ways()
    for keys in (1, 10, 100):
        data = {f"metric/{number}": float(number) for number in range(keys)}
        times: dict[str, list[float]] = {"plain": [], "mirrored": [], "inside": []}
        gc.collect()
        step = 0
        for _ in range(max(1, calls // _BLOCK)):
            for way in ("plain", "mirrored", "inside"):
                clock = ways[way]()
                for _ in range(_BLOCK):
                    step += 1
                    start = time.perf_counter()
                    run.log_metrics(data, step=step)
                    times[way].append(clock.take(time.perf_counter() - start))
                mirror.recorder.flush(10)
        plain, mirrored, inside = (times[way] for way in ("plain", "mirrored", "inside"))
        columns = [
            *((_median(plain), _p99(plain)), (_median(mirrored), _p99(mirrored))),
            *((_median(mirrored) - _median(plain), _p99(mirrored) - _p99(plain)), (_median(inside), _p99(inside))),
        ]
        print(f"{target:<8} {keys:>4} | {' | '.join(f'{a:15.1f} {b:9.1f}' for a, b in columns)}", flush=True)
    ways["mirrored"]()
    run.close()


class _Clock:
    """Times a whole call, or only what our wrapper adds to the client's method."""

    def __init__(self, *, inside: bool = False) -> None:
        self._inside, self._spent = inside, 0.0

    def take(self, whole: float) -> float:
        """The time of the call that has just ended."""
        spent, self._spent = self._spent, 0.0
        return spent if self._inside else whole

    def timed(self, function: Callable[..., Any], sign: float) -> Callable[..., Any]:
        """Counts the time of a function for us, or against us."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._spent += sign * (time.perf_counter() - start)

        return call


def _ways() -> dict[str, Callable[[], _Clock]]:
    """What puts the client's own method in place, or ours, or ours with a clock in it."""
    from neptune_scale.api.run import OperationsRepository

    from neptune_exporter.mirror.scale import wrapped_insert

    ours = OperationsRepository._insert_update_run_snapshots  # noqa: SLF001
    own = ours.__wrapped__

    def put(method: Any, clock: _Clock) -> _Clock:
        OperationsRepository._insert_update_run_snapshots = method  # noqa: SLF001
        return clock

    def inside() -> _Clock:
        clock = _Clock(inside=True)
        return put(clock.timed(wrapped_insert(clock.timed(own, -1)), +1), clock)

    return {"plain": lambda: put(own, _Clock()), "mirrored": lambda: put(ours, _Clock()), "inside": inside}


def _soak(folder: Path, calls: int) -> None:
    """Calls through the queue and the writing thread, and the memory that they leave behind."""
    from neptune_exporter.mirror import spool
    from neptune_exporter.mirror.recorder import Recorder, RunLog

    recorder = Recorder(lambda _log: None, lambda: None)
    header = spool.Header("bench/mark", "soak", "neptune-scale", "", "here", os.getpid())
    log = RunLog(folder, header, recorder)
    recorder.begin(log)
    blob = b"x" * 300
    recorder.put(log, [(spool.UPDATE, blob)], len(blob))
    before, start = peak_mb(), time.perf_counter()
    for number in range(calls):
        recorder.put(log, [(spool.UPDATE, blob)], len(blob))
        if number % 20_000 == 0:
            recorder.flush(10)
    recorder.flush(60)
    grown = peak_mb() - before
    print(
        f"\n{calls:,} calls: {time.perf_counter() - start:.1f} s, memory +{grown:.0f} MB, {log.dropped} dropped, "
        f"{sum(path.stat().st_size for path in folder.rglob('*.nxspool')) / 1e6:.0f} MB of spool"
    )


def _median(values: list[float]) -> float:
    return statistics.median(values) * 1e6


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] * 1e6


if __name__ == "__main__":
    main()
