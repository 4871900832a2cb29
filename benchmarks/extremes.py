# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Projects as large as they get, through every command: many runs, many attributes, long texts, many files.

python -m benchmarks.extremes [CASE ...] [--scale 0.01]

The wire-level server of the tests holds the data; export, summary, verify, load into MLflow and verify of the target
run as commands, each in a process of its own. At the end the staging area is counted against what was generated.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from benchmarks.harness import Result, measure, show

TESTS = Path(__file__).parent.parent / "tests"
PROJECT = "team/extremes"
BEGIN = 1_700_000_000_000
CASES = {  # what there is many of, in how many runs
    "runs": (10_000, 10_000),
    "attributes": (100_000, 1),
    "lines": (1_000_000, 1),
    "files": (50_000, 1),
}


def text(number: int) -> str:
    """A line of a log: some end with a carriage return, some are empty, some are not ASCII."""
    return ["", f"epoch {number}\r", f"损失 {number / 7!r}", f"step {number}: loss={number / 3!r}"][number % 4]


def content(number: int) -> bytes:
    """A small file; every hundredth is empty."""
    return b"" if number % 100 == 0 else hashlib.sha256(str(number).encode()).digest() * (number % 50 + 1)


def serve(case: str, count: int) -> None:
    """A server with the data of one case; ends with stdin."""
    sys.path.insert(0, str(TESTS))
    from servers.neptune3 import Neptune3Server

    with Neptune3Server() as server:
        if case == "runs":
            for number in range(count):
                run = server.store.add_run(PROJECT, f"run-{number}")
                run.set("config/seed", "int", number)
                run.series("loss", "floatSeries").extend([0.0, 0.5], [BEGIN, BEGIN + 1], [number, number / 3])
        else:
            fill(server, server.store.add_run(PROJECT, "run"), case, count)
        print(server.api_token, flush=True)
        sys.stdin.read()


def fill(server: object, run: object, case: str, count: int) -> None:
    """The one run of the other cases."""
    for number in range(count):
        if case == "attributes" and number % 10:
            run.set(f"config/group_{number % 997}/name_{number}", "float", number / 7)
        elif case == "attributes":
            run.series(f"metrics/group_{number % 97}/name_{number}", "floatSeries").extend([1.0], [BEGIN], [number / 7])
        elif case == "lines":
            run.series("monitoring/stdout", "stringSeries").append((float(number), BEGIN + number, text(number)))
        else:
            path = f"{run.sys_id}/{number}"
            server.store.blobs[PROJECT, path] = content(number)
            file = {"path": path, "size": len(content(number)), "mime": "application/octet-stream"}
            run.set(f"files/{number % 89}/{number}.bin", "fileRef", file)


@contextmanager
def served(case: str, count: int) -> Iterator[str]:
    """The token of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.extremes", "serve", case, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def command(count: int, *arguments: str) -> int:
    """One command of the program, in this process; `count` is what it is measured by."""
    from neptune_exporter.cli.main import main

    with redirect_stdout(io.StringIO()):  # the harness reads what is printed
        code = main([*arguments])
    assert code == 0, f"neptune-exporter {' '.join(arguments)} ended with {code}"
    return count


def staged(case: str, count: int, folder: str) -> int:
    """Compares what is staged with what was generated, one by one; returns how many there were."""
    from neptune_exporter.model import RunRef
    from neptune_exporter.storage.staging import Staging

    staging = Staging(Path(folder) / "data", Path(folder) / "files")
    if case == "runs":
        seeds = set()
        for run in staging.folder(PROJECT).runs(_raised):
            rows = [row for batch in run.read() for row in batch.to_pylist()]
            seed = next(row["int_value"] for row in rows if row["attribute_path"] == "config/seed")
            values = [(float(row["step"]), row["float_value"]) for row in rows if row["attribute_path"] == "loss"]
            assert values == [(0.0, seed), (0.5, seed / 3)], (seed, values)
            assert run.ref.run_id == f"run-{seed}"
            seeds.add(seed)
        assert seeds == set(range(count))
        return len(seeds)
    run = staging.run(RunRef(PROJECT, "run"))
    assert run is not None
    found = 0
    for batch in run.read():
        for row in batch.to_pylist():
            if not row["attribute_path"].startswith("sys/"):
                check(case, row, staging.files_path)
                found += 1
    assert found == count, (found, count)
    return found


def check(case: str, row: dict, files: Path) -> None:
    """One row against what was generated for its number."""
    if case == "lines":
        number = int(row["step"])
        assert (row["string_value"], row["step"]) == (text(number), number), row
        return
    number = int(row["attribute_path"].rpartition("/")[2].removeprefix("name_").removesuffix(".bin"))
    if case == "attributes":
        assert row["float_value"] == number / 7, row
    else:
        (path,) = files.glob(f"*/{row['file_value']['path']}")
        assert path.read_bytes() == content(number), row


def _raised(error: Exception) -> None:
    raise error


def take(case: str, scale: float) -> list[Result]:
    """All steps of one case."""
    count = max(1, int(CASES[case][0] * scale))
    with tempfile.TemporaryDirectory() as folder, served(case, count) as token:
        places = ("--data-path", f"{folder}/data", "--files-path", f"{folder}/files")
        target = ("--loader", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{folder}/mlflow.db")
        steps = {
            "export": ("export", "--exporter", "neptune3", "-p", PROJECT, *places),
            "export again": ("export", "--exporter", "neptune3", "-p", PROJECT, *places),
            "summary": ("summary", *places),
            "verify": ("verify", "--read-data", *places),
            "load into MLflow": ("load", *target, *places),
            "load again": ("load", *target, *places),
            "verify MLflow": ("verify", *target, *places),
        }
        environment = {"NEPTUNE_API_TOKEN": token, "MLFLOW_ARTIFACT_ROOT": folder}
        os.chdir(folder)
        results = [
            measure(name, command, count, *arguments, unit=case, repeat=1, **environment)
            for name, arguments in steps.items()
        ]
        results.append(measure("compared with the source", staged, case, count, folder, unit=case, repeat=1))
        os.chdir("/")
    return results


def main(arguments: list[str]) -> None:
    scale = 1.0
    if "--scale" in arguments:
        place = arguments.index("--scale")
        scale = float(arguments[place + 1])
        del arguments[place : place + 2]
    for case in arguments or CASES:
        count, runs = (max(1, int(number * scale)) for number in CASES[case])
        show(f"{count:,} {case} in {runs:,} run{'s' * (runs > 1)}", take(case, scale))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1:])
