# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What dual logging promises to the training script, whatever happens."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mirrored import neptunes_own, records, snapshots, updates

from neptune_exporter.mirror import mirror as mirror_module
from neptune_exporter.mirror import recorder, scale, spool
from neptune_exporter.mirror.settings import Settings

LOGGER = "neptune_exporter.mirror"


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == LOGGER and r.levelno == logging.WARNING]


def steps(root):
    return sorted(s.step.whole for s in snapshots(updates(root)))


def test_exceptions_are_neptunes_own(new_run, spool_root):
    run = new_run()
    for call in (
        lambda: run.log_metrics("no dict", step=1),
        lambda: run.log_metrics({"a": 1}, step="x"),
        lambda: run.log_metrics({"a": 1}, step=1, preview_completion=0.5),
        lambda: run.log_configs({"too big": 2**70}),
        lambda: run.log_string_series({"a": "b"}, None),
    ):
        with pytest.raises((TypeError, ValueError)) as mirrored:
            call()
        original = type(run._operations_repo)._insert_update_run_snapshots.__wrapped__
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(run._operations_repo), "_insert_update_run_snapshots", original)
            with pytest.raises((TypeError, ValueError)) as plain:
                call()
        assert (type(mirrored.value), mirrored.value.args) == (type(plain.value), plain.value.args)
    run.close()
    assert updates(spool_root) == []


def test_what_neptune_drops_is_not_mirrored(new_run, spool_root, tmp_path):
    run = new_run()
    run.log_metrics({"good": 1, "bad": "text", "x" * 2000: 1.0}, step=1)
    run.close()
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune")
    assert set(snapshots(updates(spool_root))[0].append) == {"good"}


def test_what_changes_after_the_call_does_not_change_the_mirror(new_run, spool_root, tmp_path):
    import numpy as np
    from neptune_scale.types import Histogram

    run = new_run()
    data, edges, counts = {"x": 1.0}, np.arange(3.0), np.array([1, 2])
    run.log_metrics(data, step=1)
    run.log_histograms({"h": Histogram(bin_edges=edges, counts=counts)}, step=1)
    data["x"] = 2.0
    edges[:] = 7
    counts[:] = 7
    run.close()
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune")
    assert list(snapshots(updates(spool_root))[1].append["h"].histogram.counts.values) == [1, 2]


def test_a_disabled_run_is_not_mirrored(new_run, spool_root):
    run = new_run(mode="disabled")
    run.log_metrics({"x": 1}, step=1)
    run.close()
    assert records(spool_root, spool.UPDATE, spool.CREATE) == []


def test_a_full_queue_drops_counts_and_says_so_once(new_run, spool_root, monkeypatch, caplog):
    monkeypatch.setattr(recorder, "QUEUE_ITEMS", 5)
    held = threading.Event()
    real = recorder.Recorder._write_all
    monkeypatch.setattr(recorder.Recorder, "_write_all", lambda self, items: (held.wait(30), real(self, items)))
    run = new_run()
    for step in range(200):
        run.log_metrics({"x": 1}, step=step)
    held.set()
    run.close()
    dropped = sum(__import__("json").loads(p)["calls"] for p in records(spool_root, spool.DROPPED))
    assert dropped + len(updates(spool_root)) == 200
    assert dropped > 0
    assert len([w for w in warnings(caplog) if "keep up" in w]) == 1


def test_a_queue_full_of_bytes_drops_too(new_run, spool_root, monkeypatch):
    monkeypatch.setattr(recorder, "QUEUE_BYTES", 1_000_000)
    held = threading.Event()
    real = recorder.Recorder._write_all
    monkeypatch.setattr(recorder.Recorder, "_write_all", lambda self, items: (held.wait(30), real(self, items)))
    run = new_run()
    for number in range(20):
        run.assign_files({f"f{number}": b"x" * 100_000})
    held.set()
    run.close()
    assert 0 < len(updates(spool_root)) < 20


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "mkfifo"), reason="needs a path that cannot be a folder")
def test_a_spool_that_cannot_be_written_costs_nothing(new_run, spool_root, tmp_path, caplog):
    spool_root.write_text("a file where the spool should be")
    run = new_run()
    run.log_metrics({"x": 1}, step=1)
    run.close()
    assert len(neptunes_own(tmp_path / "neptune")) == 1
    assert len([w for w in warnings(caplog) if "cannot write" in w]) == 1


def test_errors_of_ours_never_reach_the_script(new_run, spool_root, monkeypatch, tmp_path):
    class BrokenError(Exception):
        pass

    def broken(*args, **kwargs):
        raise BrokenError

    run = new_run()
    monkeypatch.setattr(recorder.Recorder, "put", broken)
    run.log_metrics({"x": 1}, step=1)
    monkeypatch.setattr(mirror_module.Mirror, "close", broken)
    monkeypatch.setattr(mirror_module.Mirror, "open", broken)
    new_run().log_metrics({"x": 1}, step=1)
    monkeypatch.setattr(Settings, "from_environment", broken)
    new_run().log_metrics({"x": 1}, step=1)
    run.close()
    assert len(neptunes_own(tmp_path / "neptune")) == 3


def test_threads_and_several_runs(new_run, spool_root, tmp_path):
    runs = [new_run(run_id=f"run-{number}") for number in range(3)]

    def work(number):
        for step in range(50):
            runs[number % 3].log_metrics({f"thread{number}": step}, step=step)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    for run in runs:
        run.close()
    assert len(updates(spool_root)) == 300
    assert sorted(updates(spool_root)) == sorted(neptunes_own(tmp_path / "neptune"))
    assert len(spool.run_folders(spool_root)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_goes_on_in_a_segment_of_its_own(script):
    script.run(
        "import os, neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "run = Run(source_tracking_config=None, enable_console_log_capture=False)\n"
        "for step in range(100): run.log_metrics({'parent': 1.0}, step=step)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    for step in range(100): run.log_metrics({'child': 1.0}, step=step)\n"
        "    import time\n"
        "    from neptune_exporter.mirror.mirror import current\n"
        "    ok = current().recorder.flush(20)\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "for step in range(100, 200): run.log_metrics({'parent': 1.0}, step=step)\n"
        "run.close()\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
    )
    found = updates(script.spool)
    assert len(found) == len(set(found)) == 300
    assert sorted(found) == sorted(script.own())
    assert len(spool.segments(spool.run_folders(script.spool)[0])) == 2


def test_spawned_processes_are_mirrored_under_run(script):
    script.start("")
    script.command(
        *("run", "--target", "nowhere"),
        str(
            _written(
                script.folder / "spawns.py",
                "import multiprocessing\n"
                "def work(rank):\n"
                "    from neptune_scale import Run\n"
                "    run = Run(run_id='shared', source_tracking_config=None, enable_console_log_capture=False)\n"
                "    run.log_metrics({f'rank{rank}': 1.0}, step=rank)\n"
                "    run.close()\n"
                "if __name__ == '__main__':\n"
                "    context = multiprocessing.get_context('spawn')\n"
                "    ranks = [context.Process(target=work, args=(rank,)) for rank in range(2)]\n"
                "    [rank.start() for rank in ranks]; [rank.join() for rank in ranks]\n"
                "    assert [rank.exitcode for rank in ranks] == [0, 0]\n",
            )
        ),
    )
    assert sorted(updates(script.spool)) == sorted(script.own())
    assert len(updates(script.spool)) == 2
    assert len(spool.run_folders(script.spool)) == 1


def _written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_an_unknown_client_is_left_alone(caplog):
    from types import SimpleNamespace

    class Run:
        def __init__(self, run_id=None, project=None, mode=None, experiment_name=None): ...
        def _close(self, timeout=None): ...

    class OperationsRepository:
        def _insert_update_run_snapshots(self, everything): ...
        def save_create_run(self, run): ...
        def save_file_upload_requests(self, files): ...

    before = dict(vars(Run))
    scale.patch(
        SimpleNamespace(Run=Run, OperationsRepository=OperationsRepository, _save_buffer_to_disk=lambda *a: None)
    )
    assert dict(vars(Run)) == before
    assert len(warnings(caplog)) == 1
    assert "_insert_update_run_snapshots" in warnings(caplog)[0]


def test_it_is_switched_on_once(new_run, spool_root):
    import neptune_scale

    from neptune_exporter import dual_logging

    wrapped = neptune_scale.Run.__init__
    dual_logging._switched_on = False
    dual_logging.switch_on()
    assert neptune_scale.Run.__init__ is wrapped


def test_other_import_hooks_go_on_working(script):
    script.run(
        "import sys\n"
        "seen = []\n"
        "class Hook:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        seen.append(name)\n"
        "sys.meta_path.insert(0, Hook())\n"
        "import neptune_exporter.dual_logging\n"
        "class Later(Hook): pass\n"
        "sys.meta_path.insert(0, Later())\n"
        "import neptune_scale.api.run\n"
        "assert seen.count('neptune_scale.api.run') >= 2\n"
        "spec = neptune_scale.api.run.__spec__\n"
        "assert type(spec.loader).__name__ == 'SourceFileLoader', spec\n"
        "assert neptune_scale.Run._neptune_exporter_patched\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
    )


def test_switching_on_imports_neither_clients_nor_targets(script):
    out = script.run(
        "import sys, neptune_exporter.dual_logging\n"
        "print([name for name in ('neptune_scale', 'neptune', 'mlflow', 'wandb', 'pyarrow', 'numpy', 'click', 'httpx')"
        " if name in sys.modules])\n",
        NEPTUNE_EXPORTER_TARGET="mlflow",
    ).stdout
    assert out.strip() == "[]"


def test_leaving_without_closing_is_bounded(script):
    """Three runs are left open; their target takes nothing."""
    script.run(
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "runs = [Run(source_tracking_config=None, enable_console_log_capture=False) for _ in range(3)]\n"
        "for run in runs: run.log_metrics({'x': 1.0}, step=1)\n"
        "import atexit, time\n"
        "start = time.monotonic()\n"
        "from neptune_exporter.mirror.mirror import current\n"
        "def check():\n"
        "    import os\n"
        "    if time.monotonic() - start > 12: os._exit(9)\n"
        "atexit._run_exitfuncs()\n"
        "check()\n",
        NEPTUNE_EXPORTER_TARGET="mlflow",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        NEPTUNE_EXPORTER_LINGER_SECONDS="0",
    )
    assert sorted(updates(script.spool)) == sorted(script.own())
    assert len(records(script.spool, spool.CLOSE)) == 3


@pytest.mark.soak
def test_a_million_calls_without_growing_memory(script):
    """Through the queue and the thread, with operations as the client makes them; a process of its own."""
    out = script.run(
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "from neptune_exporter.mirror import spool\n"
        "from neptune_exporter.mirror.mirror import current\n"
        "def peak():\n"
        "    lines = open('/proc/self/status')\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024\n"
        "run = Run(source_tracking_config=None, enable_console_log_capture=False)\n"
        "run.log_metrics({f'm{number}': 1.0 for number in range(10)}, step=0)\n"
        "log, recorder = run.__dict__['_neptune_exporter_log'], current().recorder\n"
        "recorder.flush(30)\n"
        "blob = next(r.payload for r in spool.read_records(log.segment.path) if r.kind == spool.UPDATE)\n"
        "before = peak()\n"
        "for number in range(1_000_000):\n"
        "    recorder.put(log, [(spool.UPDATE, blob)], len(blob))\n"
        "    if number % 50_000 == 0: recorder.flush(30)\n"
        "run.close()\n"
        "print(peak() - before)\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
    ).stdout
    assert float(out) < 100
    (segment,) = spool.segments(spool.run_folders(script.spool)[0])
    assert sum(record.kind == spool.UPDATE for record in spool.read_records(segment)) == 1_000_001
