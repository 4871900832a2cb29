# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The fifteen mistakes that were found in another compatibility layer, each as a test that ours does not make it."""

from __future__ import annotations

import copy
import inspect
import logging
import signal
import socket
import sys
import threading
import time

import pytest
from mirrored import neptunes_own, records, snapshots, updates

from neptune_exporter.mirror import spool


def test_01_positional_arguments_work(new_run, spool_root, tmp_path):
    run = new_run()
    run.add_tags(["a"], True)
    run.remove_tags(["b"], False)
    run.log_metrics({"x": 1}, 0)
    assert run.wait_for_submission(1, False) in (True, False)
    assert run.wait_for_processing(1, False) in (True, False)
    run.close(5)
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune")
    assert set(snapshots(updates(spool_root))[0].modify_sets) == {"sys/group_tags"}


def test_02_the_logging_handler_takes_the_run_and_is_mirrored(new_run, spool_root):
    from neptune_scale import NeptuneLoggingHandler

    run = new_run()
    handler = NeptuneLoggingHandler(run=run)
    logger = logging.getLogger("a user's own")
    logger.addHandler(handler)
    logger.warning("seen")
    logger.removeHandler(handler)
    run.close()
    appended = [value.string for s in snapshots(updates(spool_root)) for value in s.append.values()]
    assert any("seen" in text for text in appended)


@pytest.mark.parametrize(
    "line",
    ["from neptune_scale import Run", "from neptune_scale.api.run import Run", "from neptune_scale.legacy import Run"],
)
@pytest.mark.parametrize("first", [True, False])
def test_03_whatever_is_imported_and_whenever(script, line, first):
    switch = "import neptune_exporter.dual_logging"
    lines = [switch, line] if first else [line, switch]
    script.run(
        "\n".join(lines) + "\nimport neptune_scale\n"
        "run = Run(source_tracking_config=None, enable_console_log_capture=False)\n"
        "assert isinstance(run, Run) and isinstance(run, neptune_scale.Run)\n"
        "run.log_metrics({'x': 1.0}, step=1)\n"
        "run.close()\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
    )
    assert updates(script.spool) == script.own() != []


def test_04_a_target_that_hangs_costs_a_call_nothing(script):
    """Every call is timed by the script itself; the target takes connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        result = script.run(
            "import time\n"
            "import neptune_exporter.dual_logging\n"
            "from neptune_scale import Run\n"
            "times = []\n"
            "def timed(call, *args, **kwargs):\n"
            "    start = time.perf_counter(); value = call(*args, **kwargs)\n"
            "    times.append(time.perf_counter() - start)\n"
            "    return value\n"
            "run = timed(Run, source_tracking_config=None, enable_console_log_capture=False)\n"
            "timed(run.log_configs, {'a': 1})\n"
            "for step in range(20):\n"
            "    timed(run.log_metrics, {f'new/{step}': 1.0}, step=step)\n"
            "slowest = max(times)\n"
            "timed(run.close)\n"
            "print(slowest, times[-1])\n",
            NEPTUNE_EXPORTER_TARGET="mlflow",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}",
            NEPTUNE_EXPORTER_LINGER_SECONDS="0",
        )
    slowest, closing = map(float, result.stdout.split())
    assert slowest < 10  # 169 s there; Neptune's own disk work is in it
    assert closing < 5 + 5  # at most 5 s are ours
    assert updates(script.spool) == script.own() != []


def test_05_neptune_is_on_unless_it_is_switched_off(new_run, spool_root, tmp_path):
    run = new_run()
    run.log_metrics({"x": 1}, 0)
    run.close()
    assert neptunes_own(tmp_path / "neptune") != []


def test_06_without_neptune_everything_still_exists(new_run, monkeypatch, tmp_path, spool_root):
    monkeypatch.setenv("DISABLE_NEPTUNE_LOGGING", "yes")
    monkeypatch.delenv("NEPTUNE_API_TOKEN", raising=False)
    run = new_run(mode=None, project=None, experiment_name="e")  # would be async, without a token
    run.log(step=1, metrics={"a": 1.0}, tags_add={"sys/tags": ["t"]})
    assert run._run_id
    assert run._project
    with pytest.raises(TypeError):
        run.log_metrics([1], step=1)
    assert run._run_id in run.get_run_url()
    assert run.get_experiment_url()
    run.close()
    assert len(updates(spool_root)) == 1
    assert new_run(mode=None, project=None).get_run_url()
    with pytest.raises(ValueError, match="experiment_name"):
        new_run(mode=None, project=None).get_experiment_url()


def test_07_a_second_run_that_fails_leaves_the_first_alone(new_run, spool_root):
    first = new_run()
    with pytest.raises(ValueError, match="project"):
        new_run(project="not a qualified name")
    with pytest.raises(ValueError, match="together"):
        new_run(fork_run_id="x")
    first.log_metrics({"x": 1}, 1)
    first.close()
    assert len(updates(spool_root)) == 1


def test_08_no_handlers_no_hooks_no_capture(new_run, spool_root):
    signals = {s: signal.getsignal(s) for s in signal.valid_signals()}
    before = (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr, sys.unraisablehook)
    run = new_run()
    run.log_metrics({"x": 1}, 1)
    during = (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr, sys.unraisablehook)
    run.close()
    assert during == before
    assert {s: signal.getsignal(s) for s in signal.valid_signals()} == signals


def test_09_everything_arrives(new_run, spool_root, tmp_path):
    """Series of text, `log()`, times, previews, forks, group tags: the very bytes that Neptune has."""
    from datetime import UTC, datetime

    when = datetime(2024, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)
    run = new_run(run_id="child", fork_run_id="parent", fork_step=3.5, creation_time=when, inherit_configs=False)
    run.log_string_series({"text": "a\nb"}, step=0.29, timestamp=when)
    run.log(step=1, timestamp=when, metrics={"m": 1.5}, configs={"c": 2**62})
    run.log_metrics({"p": 0.5}, step=2, timestamp=when, preview=True, preview_completion=0.5)
    run.log_configs({"when": when, "set": {"a", "b"}})
    run.add_tags(["g"], group_tags=True)
    run.close()
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune")
    from neptune_api.proto.neptune_pb.ingest.v1.common_pb2 import Run as CreateRun

    (created,) = (CreateRun.FromString(blob) for blob in records(spool_root, spool.CREATE))
    assert (created.fork_point.parent_run_id, created.fork_point.step.whole) == ("parent", 3)
    assert created.creation_time.seconds == int(when.timestamp())
    assert not created.inherit_configs


def test_10_it_is_the_users_own_class(new_run, spool_root):
    from neptune_scale import Run

    class Mine(Run):
        def _log(self, *args, **kwargs):
            self.__dict__.setdefault("calls", []).append(kwargs)
            super()._log(*args, **kwargs)

    run = new_run(Mine)
    run.attribute = "set on the run"
    run.log_metrics({"x": 1}, 1)
    run.close()
    assert run.attribute == "set on the run"
    assert len(run.calls) == 1
    assert Run._flatten({"a": {"b": 1}}) == {"a/b": 1}
    assert copy.copy(run)._run_id == run._run_id
    assert len(updates(spool_root)) == 1
    assert "experiment_name" in inspect.signature(Run.__init__).parameters
    assert list(inspect.signature(Run._log).parameters)[:3] == ["self", "timestamp", "step"]


def test_11_nothing_is_mirrored_after_close(new_run, spool_root, tmp_path):
    run = new_run()
    run.log_metrics({"x": 1}, 1)
    run.close()
    run.log_metrics({"x": 2}, 2)
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune")
    assert len(updates(spool_root)) == 1


def test_12_nobody_is_asked_anything(script):
    """No key, and a stdin that is a terminal's worth of nothing: the script ends by itself."""
    script.run(
        "import sys, neptune_exporter.dual_logging\n"
        "sys.stdin.isatty = lambda: True\n"
        "import builtins, webbrowser\n"
        "builtins.input = webbrowser.open = lambda *a: sys.exit('asked')\n"
        "from neptune_scale import Run\n"
        "Run(source_tracking_config=None, enable_console_log_capture=False).close()\n",
        MLOP_PROJECT="p",
        MLOP_URL_API="http://127.0.0.1:9",
        NEPTUNE_EXPORTER_LINGER_SECONDS="0",
        NEPTUNE_EXPORTER_CLOSE_SECONDS="0.5",
    )


def test_13_nothing_is_written_outside_the_spool(script, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    script.run(
        "import neptune_exporter.dual_logging\n"
        "from neptune_scale import Run\n"
        "Run(source_tracking_config=None, enable_console_log_capture=False).close()\n",
        NEPTUNE_EXPORTER_TARGET="nowhere",
        MLOP_API_KEY="a-secret-of-the-user",
        HOME=str(home),
    )
    assert list(home.rglob("*")) == []
    kept = b"".join(path.read_bytes() for path in script.spool.rglob("*") if path.is_file())
    assert b"a-secret-of-the-user" not in kept


def test_14_leaving_the_context_calls_what_neptune_calls(new_run, spool_root, monkeypatch):
    from neptune_scale import Run

    called = []
    monkeypatch.setattr(Run, "wait_for_processing", lambda *a, **k: called.append("waits") or True)
    with new_run() as run:
        run.log_metrics({"x": 1}, 1)
    assert called == []


def test_15_a_call_costs_microseconds(new_run, spool_root):
    """The measurement is in benchmarks/dual_logging.py; here only the order of magnitude, by the thread's clock."""
    from neptune_exporter.mirror.mirror import current

    run = new_run()
    log, recorder = run.__dict__["_neptune_exporter_log"], current().recorder
    entries = [(spool.UPDATE, b"x" * 1000)]
    start = time.thread_time()
    for _ in range(10_000):
        recorder.put(log, entries, 1000)
    assert (time.thread_time() - start) / 10_000 < 200e-6
