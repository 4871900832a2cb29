# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Counters: nothing for library users, bars on stderr for the command line, right from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from neptune_exporter.progress import Bars, NoProgress


@pytest.mark.parametrize("progress", [NoProgress(), Bars()])
def test_a_counter_takes_calls_in_any_order(progress, capsys):
    for calls in (
        [("start", 3), ("add", 1), ("add", 2), ("done",)],
        [("add", 1), ("start", 5), ("start", None), ("add", 1), ("done",), ("done",)],
        [("done",)],
        [("start", None), ("done",), ("start", 2), ("add", 2), ("done",)],
    ):
        counter = progress.counter("runs", "run")
        for name, *arguments in calls:
            getattr(counter, name)(*arguments)
    assert capsys.readouterr().out == ""


def test_no_progress_says_nothing(capsys):
    counter = NoProgress().counter("runs", "run", scale=True)
    counter.start(10)
    counter.add(10)
    counter.done()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_bars_go_to_stderr(capsys):
    counter = Bars().counter("points", "pt", scale=True)
    counter.start(4_000_000)
    counter.add(2_000_000)
    counter.start(2_000_000)
    counter.done()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "points" in captured.err
    assert "2.00M/2.00M" in captured.err


def test_counts_from_several_threads_add_up(capsys):
    counter = Bars().counter("points", "pt")

    def work(_):
        for _ in range(2000):
            counter.add()

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(8)))
    counter.start(16_000)
    bar = counter._bar
    counter.done()
    assert bar.n == 16_000
    assert capsys.readouterr().err.count("points") >= 1
