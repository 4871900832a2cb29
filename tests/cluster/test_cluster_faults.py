# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Workers of a Dask cluster that die, or only seem to, in the middle of a run: nothing doubled, nothing mixed."""

from __future__ import annotations

import json
import signal
import time

import pytest
from cluster_source import PATIENCE_SECONDS, PROJECT, Gate, places, running, values
from contracts.rows import snapshot
from servers.pluto import KEY, PlutoServer

from neptune_exporter.cli.main import main
from neptune_exporter.model import RunRef
from neptune_exporter.storage import names


def asks_for_points(number: int):
    """The request for the points of a run."""
    return lambda request: request.path.endswith("/series/float") and f'CLUS-{number + 1}"'.encode() in request.body


def manifests(area):
    return area.folder(PROJECT).data / "_manifest"


def claim_of(area, number: int) -> dict:
    return json.loads((manifests(area) / f"{names.stem(f'run-{number}')}.claim").read_text())


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def leftovers(area) -> list[str]:
    return [path.name for path in manifests(area).iterdir() if path.name.endswith((".tmp", ".claim", ".next.json"))]


def test_a_worker_is_killed_in_the_middle_of_a_run(two_workers, source, area, capsys):
    gate = Gate(source.server.http, asks_for_points(3))
    with running("export", "-p", PROJECT, *places(area), "--executor", f"dask:{two_workers.address}") as command:
        gate.wait()
        two_workers.kill(two_workers.named(claim_of(area, 3)["pid"]))
        gate.open()
        assert command.result(PATIENCE_SECONDS) == 0
    assert "Export: 6 done." in capsys.readouterr().out
    source.assert_staged(area)
    assert leftovers(area) == []
    assert main(["verify", "--read-data", *places(area)]) == 0


def test_a_worker_that_only_seemed_dead_goes_on_while_another_has_its_run(two_workers, source, area, capsys):
    """It is stopped, given up by the scheduler, and goes on while its heir is at work on the same run."""
    late, heir = Gate(source.server.http, asks_for_points(3)), None
    with running("export", "-p", PROJECT, *places(area), "--executor", f"dask:{two_workers.address}") as command:
        late.wait()
        first = claim_of(area, 3)
        stopped = two_workers.named(first["pid"])
        two_workers.signal(stopped, signal.SIGSTOP)
        heir = Gate(source.server.http, asks_for_points(3))
        late.open()
        heir.wait()
        second = claim_of(area, 3)
        assert second["pid"] != first["pid"]
        two_workers.signal(stopped, signal.SIGCONT)
        until(lambda: two_workers.workers[stopped].poll() is not None or not files_of(area, first))
        assert files_of(area, second)
        heir.open()
        assert command.result(PATIENCE_SECONDS) == 0
    assert "Export: 6 done." in capsys.readouterr().out
    source.assert_staged(area)
    two_workers.workers[stopped].wait(PATIENCE_SECONDS)  # Dask ends a worker that the scheduler does not know any more
    before = snapshot(area.data_path)
    source.assert_staged(area)
    assert main(["verify", "--read-data", *places(area)]) == 0
    assert leftovers(area) == []
    assert snapshot(area.data_path) == before
    assert staged_generation(area) == 1


def files_of(area, claim: dict) -> list[str]:
    """The temporary files of who held this claim; its folder for sorting, which is made when it is needed, aside."""
    token = claim["token"][:8]
    return [path.name for path in manifests(area).iterdir() if token in path.name] or (
        ["claim"] if claim_of_or_nothing(area) == claim else []
    )


def claim_of_or_nothing(area) -> dict:
    try:
        return claim_of(area, 3)
    except FileNotFoundError:
        return {}


def staged_generation(area) -> int:
    return area.run(RunRef(PROJECT, "run-3")).generation


def test_ctrl_c_reaches_the_workers(two_workers, source, area):
    """The command ends; what its workers are in the middle of comes to nothing, and nobody waits for it."""
    gate = Gate(source.server.http, asks_for_points(3))

    def interrupted(*_, **__):
        gate.wait()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neptune_exporter.pipeline.wait", interrupted)
        code = main(["export", "-p", PROJECT, *places(area), "--executor", f"dask:{two_workers.address}"])
    assert code == 130
    gate.open()
    until(lambda: not leftovers(area))
    assert area.run(RunRef(PROJECT, "run-3")) is None
    assert main(["export", "-p", PROJECT, *places(area), "--executor", f"dask:{two_workers.address}"]) == 0
    source.assert_staged(area)


@pytest.fixture
def pluto():
    with PlutoServer() as server:
        yield server


def worker_of_run(cluster) -> str:
    """Who works, where there is one run to be done."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        busy = [worker for worker, keys in client.processing().items() if keys]
        assert len(busy) == 1
        return client.scheduler_info(n_workers=-1)["workers"][busy[0]]["name"]


def complete(pluto) -> list:
    """The runs that count, each with its points."""
    return [
        {step: found[-1][1] for step, found in run.metrics["metrics/loss"].items()}
        for run in pluto.store.runs.values()
        if run.config["neptune.load"].startswith("complete") and "metrics/loss" in run.metrics
    ]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_load_whose_worker_dies_or_seems_to(two_workers, source, area, pluto, capsys, how):
    assert main(["export", "-p", PROJECT, "-r", "run-3", *places(area)]) == 0
    gate = Gate(pluto.http, lambda request: request.path.startswith("/ingest/metrics"))
    load = ["load", "--loader", "pluto", "--pluto-host", pluto.url, "--pluto-api-key", KEY, *places(area)]
    with running(*load, "--executor", f"dask:{two_workers.address}") as command:
        gate.wait()
        name = worker_of_run(two_workers)
        if how == "killed":
            two_workers.kill(name)
            gate.open()
        else:
            two_workers.signal(name, signal.SIGSTOP)
            heir = Gate(pluto.http, lambda request: request.path.startswith("/ingest/metrics"))
            gate.open()
            heir.wait()
            two_workers.signal(name, signal.SIGCONT)
            two_workers.workers[name].wait(PATIENCE_SECONDS)
            heir.open()
        assert command.result(PATIENCE_SECONDS) == 0
    assert "Load: 1 done." in capsys.readouterr().out
    assert complete(pluto) == [dict(enumerate(values(3, 2000).tolist()))]
    verify = ["verify", "--loader", "pluto", "--pluto-host", pluto.url, "--pluto-api-key", KEY, *places(area)]
    assert main(verify) == 0
    capsys.readouterr()
    assert main([*load, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"skipped": 1}
