# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What dual logging promises to the training script, whatever happens."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from mirrored import neptunes_own, records, snapshots, updates, warnings

from neptune_exporter.mirror import mirror as mirror_module
from neptune_exporter.mirror import recorder, scale, spool
from neptune_exporter.mirror.settings import Settings


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
        "import multiprocessing, neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "run = Run(source_tracking_config=None, enable_console_log_capture=False)\n"
        "for step in range(100): run.log_metrics({'parent': 1.0}, step=step)\n"
        "def work():\n"
        "    for step in range(100): run.log_metrics({'child': 1.0}, step=step)\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start(); child.join(); assert child.exitcode == 0\n"
        "for step in range(100, 200): run.log_metrics({'parent': 1.0}, step=step)\n"
        "run.close()\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
    )
    found = updates(script.spool)
    assert len(found) == len(set(found)) == 300
    assert sorted(found) == sorted(script.own())
    assert len(spool.segments(spool.run_folders(script.spool)[0])) == 2
    assert len(records(script.spool, spool.CLOSE)) == 2


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


def test_many_runs_at_once_do_not_start_as_many_processes(tmp_path, monkeypatch):
    """Those that find no room are fed as soon as others have ended."""
    started = []

    class Feeding:
        running, done = True, False

        def __init__(self, settings, folder):
            self.folder = folder
            started.append(self)

        def look_after(self, *, logging):
            return ""

    monkeypatch.setattr(mirror_module, "Worker", Feeding)
    mirror = mirror_module.Mirror(Settings("staging", "", tmp_path))
    logs = [mirror.open("p", str(number), "neptune-scale", "") for number in range(2 * mirror_module.WORKERS)]
    for log in logs:
        mirror._opened(log)
        mirror._tick()
    assert len(started) == mirror_module.WORKERS
    for feeding in started[:3]:
        feeding.running, feeding.done = False, True
    mirror._tick()
    assert [feeding.folder for feeding in started] == [log.folder for log in logs[: mirror_module.WORKERS + 3]]


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


def test_a_client_that_looks_quite_different_is_still_imported(script):
    package = script.folder / "neptune_scale" / "api"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from neptune_scale.api.run import Run\n")
    (package / "__init__.py").touch()
    (package / "run.py").write_text("class Run: works = True\n")
    done = script.run(
        "import neptune_exporter.dual_logging\nfrom neptune_scale import Run\nassert Run.works\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
    )
    assert done.stderr.count("Dual logging is off") == 1


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


def test_closing_keeps_to_its_time_with_many_runs_at_exit(script):
    """The target takes connections and never answers; what is measured is what closing spends, by its own account."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        out = script.run(
            "import atexit, time\n"
            "import neptune_exporter.dual_logging\n"
            "from neptune_exporter.mirror import mirror\n"
            "spent, close = [], mirror.Mirror.close\n"
            "def timed(*args):\n"
            "    start = time.monotonic(); close(*args); spent.append(time.monotonic() - start)\n"
            "mirror.Mirror.close = timed\n"
            "atexit.register(lambda: print(len(spent), sum(spent)))\n"
            "from neptune_scale import Run\n"
            "quiet = dict(source_tracking_config=None, enable_console_log_capture=False)\n"
            "runs = [Run(**quiet) for _ in range(4)]\n",
            NEPTUNE_EXPORTER_TARGET="mlflow",
            NEPTUNE_EXPORTER_CLOSE_SECONDS="1.5",
            NEPTUNE_EXPORTER_LINGER_SECONDS="0",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}",
        ).stdout
    count, spent = out.split()
    assert (int(count), float(spent) < 3) == (4, True)  # each by itself: 6
    assert len(records(script.spool, spool.CLOSE)) == 4
