# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What dual logging adds to a call of `log_metrics`: `python -m benchmarks.dual_logging [--calls N]`.

The real client logs offline. Calls with the mirror and calls without it take turns in one process (the wrapped method
and the original one), so that the disk, the clock and the neighbours are the same for both. With an idle target the
mirror writes its spool and feeds nobody; with a busy one a process feeds MLflow in SQLite at the same time.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

AIM_MEDIAN, AIM_P99 = 20.0, 100.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=3000, help="pairs of calls for each row")
    parser.add_argument("--soak", type=int, default=1_000_000, help="calls of the memory test, 0 for none")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(Path(options.child[0]), options.child[1], options.calls)
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}"
    )
    print(f"aims: added time {AIM_MEDIAN:.0f} µs median, {AIM_P99:.0f} µs p99, for up to 100 keys; µs per call\n")
    print("target   keys | plain median     p99 | mirrored median     p99 | added: median     p99 | of which clock")
    for target in ("idle", "busy"):
        with tempfile.TemporaryDirectory() as folder:
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

    run = Run(
        project="bench/mark",
        mode="offline",
        log_directory=folder / "neptune",
        source_tracking_config=None,
        enable_console_log_capture=False,
    )
    plain, mirrored = Run._log.__wrapped__, Run._log  # noqa: SLF001
    clock = _clock()
    mirrored_and_timed = clock.timed(mirrored, +1)
    # What the clock itself adds: the same, around a wrapper that does nothing but call.
    empty = clock.timed(_empty(clock.timed(plain, -1)), +1)
    if target == "busy":  # until the target is being fed
        run.log_metrics({"first": 1.0}, step=0)
        while not list((folder / "spool").rglob("targets/*.json")):
            time.sleep(0.2)
    for keys in (1, 10, 100):
        data = {f"metric/{number}": float(number) for number in range(keys)}
        times: dict[str, list[float]] = {"plain": [], "mirrored": [], "added": [], "clock": []}
        gc.collect()
        for step in range(calls):
            order = (plain, mirrored_and_timed, empty) if step % 2 else (empty, mirrored_and_timed, plain)
            for way in order:
                Run._log = way  # noqa: SLF001
                clock.spent = 0.0
                start = time.perf_counter()
                run.log_metrics(data, step=step)
                spent = time.perf_counter() - start
                if way is empty:
                    times["clock"].append(clock.spent)
                    continue
                times["plain" if way is plain else "mirrored"].append(spent)
                if way is not plain:
                    times["added"].append(clock.spent)
        columns = [
            f"{_median(times[name]):9.1f} {_p99(times[name]):9.1f}" for name in ("plain", "mirrored", "added", "clock")
        ]
        print(f"{target:<8} {keys:>4} | {' | '.join(columns)}", flush=True)
    Run._log = mirrored  # noqa: SLF001
    run.close()


def _empty(original: Any) -> Any:
    @functools.wraps(original)
    def _log(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

    return _log


class _Clock:
    """Counts the time of a call that is not spent in the client's own code: what the call is made longer by."""

    spent = 0.0

    def inside(self, method: Any, sign: float) -> None:
        """Times what a wrapper calls: `sign` says whether that counts for or against."""
        (cell,) = (c for n, c in zip(method.__code__.co_freevars, method.__closure__, strict=True) if n == "original")
        cell.cell_contents = self.timed(cell.cell_contents, sign)

    def timed(self, function: Any, sign: float) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent += sign * (time.perf_counter() - start)

        return call


def _clock() -> _Clock:
    """Added is: the wrapper of the call without the client's call, and the wrapper of its store without the store."""
    from neptune_scale.api.run import OperationsRepository, Run

    clock = _Clock()
    clock.inside(Run._log, -1)  # noqa: SLF001
    store = OperationsRepository._insert_update_run_snapshots  # noqa: SLF001
    clock.inside(store, -1)
    OperationsRepository._insert_update_run_snapshots = clock.timed(store, +1)  # noqa: SLF001
    return clock


def _soak(folder: Path, calls: int) -> None:
    """Calls through the queue and the writing thread, and the memory that they leave behind."""
    from neptune_exporter.mirror import spool
    from neptune_exporter.mirror.recorder import Recorder, RunLog

    recorder = Recorder(lambda _log: None, lambda: None)
    header = spool.Header("bench/mark", "soak", "neptune-scale", "", "here", os.getpid())
    log = RunLog(folder, header, recorder)
    recorder.logs.add(log)
    blob = b"x" * 300
    recorder.put(log, [(spool.UPDATE, blob)], len(blob))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for number in range(calls):
        recorder.put(log, [(spool.UPDATE, blob)], len(blob))
        if number % 20_000 == 0:
            recorder.flush(10)
    recorder.flush(60)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
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
