# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The queue between the script and the spool: what it holds, what it drops, and that nothing else is lost."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
from mirrored import neptunes_own, records, steps, updates, warnings

from neptune_exporter.mirror import recorder, spool
from neptune_exporter.mirror.mirror import Mirror


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
    dropped = sum(json.loads(p)["calls"] for p in records(spool_root, spool.DROPPED))
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


def test_a_signal_handler_that_logs_in_the_middle_of_a_call(new_run, spool_root, tmp_path):
    """It finds the queue as the call that it interrupts has left it."""
    run = new_run()
    lock = run.__dict__["_neptune_exporter_log"].recorder._lock
    with lock:
        previous = signal.signal(signal.SIGUSR1, lambda *_: run.log_metrics({"x": 1}, step=1))
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, previous)
    run.close()
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune") != []


def test_a_process_that_cannot_be_started_costs_the_spool_nothing(new_run, spool_root, monkeypatch, tmp_path, caplog):
    def no_more_processes(*args):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Mirror, "_opened", no_more_processes)
    run = new_run()
    run.log_metrics({"x": 1}, step=1)
    run.close()
    assert updates(spool_root) == neptunes_own(tmp_path / "neptune") != []
    assert records(spool_root, spool.DROPPED) == []
    assert len([w for w in warnings(caplog) if "not fed" in w]) == 1


def test_a_big_content_is_taken_when_there_is_room(new_run, spool_root, monkeypatch):
    monkeypatch.setattr(recorder, "QUEUE_BYTES", 1000)
    run = new_run()
    run.assign_files({"big": b"x" * 5000})
    run.close()
    assert len(records(spool_root, spool.FILE)) == len(updates(spool_root)) == 1


def test_nothing_of_a_run_comes_after_its_end(new_run, spool_root):
    """A call of another thread that meets the closing is left out as a whole, and never written to a closed file."""
    from neptune_exporter.mirror.mirror import current

    run = new_run()
    log, put = run.__dict__["_neptune_exporter_log"], current().recorder.put
    run.close()
    put(log, [(spool.UPDATE, b"too late")], 8)
    new_run().close()
    for folder in spool.run_folders(spool_root):
        (path,) = spool.segments(folder)
        assert [record.kind for record in spool.read_records(path)][-1] == spool.CLOSE
    assert updates(spool_root) == []


def test_a_record_that_cannot_be_made_costs_only_itself(new_run, spool_root, caplog):
    from neptune_exporter.mirror.mirror import current

    def broken():
        raise RuntimeError("no")

    run = new_run()
    run.log_metrics({"x": 1}, step=1)
    current().recorder.put(run.__dict__["_neptune_exporter_log"], [(spool.LEGACY, broken)], 1)
    run.log_metrics({"x": 1}, step=2)
    run.close()
    assert steps(spool_root) == [1, 2]
    assert [json.loads(payload)["calls"] for payload in records(spool_root, spool.DROPPED)] == [1]


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
