# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The contract suites over the implementations in memory and over the staging area."""

from __future__ import annotations

import uuid

import pytest
from truth import PROJECT, log_everything, rows_in

from contracts.exporter import ExporterContract
from contracts.loader import LoaderContract
from contracts.memory import MemoryExporter, MemoryLoader, MemoryRun, MemorySink, MemoryTargetOptions, World
from contracts.rows import curve, everything, read_rows
from contracts.sink import REF, SinkContract
from neptune_exporter.exporters.offline import OfflineOptions
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.model import RunInfo, RunRef
from neptune_exporter.plugins import EXPORTERS, find
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging


class TestMemoryExporter(ExporterContract):
    @pytest.fixture
    def expected(self):
        return {
            RunRef("team/a", "run-1"): everything(),
            RunRef("team/a", "run-2"): curve("loss", 3),
            RunRef("team/b", "run-1"): [],
        }

    @pytest.fixture
    def exporter(self, expected, tmp_path):
        world = World([MemoryRun(RunInfo(ref), rows) for ref, rows in expected.items()])
        return MemoryExporter(world.save(tmp_path / "world"))


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return log_everything(tmp_path_factory.mktemp("logged"))


class TestOfflineExporter(ExporterContract):
    @pytest.fixture
    def expected(self, truth):
        return {RunRef(PROJECT, run_id): run.all_rows for run_id, run in truth.runs.items()}

    @pytest.fixture
    def exporter(self, truth):
        exporter = find(EXPORTERS, "offline").make(OfflineOptions(offline_path=(str(truth.directory),)))
        yield exporter
        exporter.close()


class TestMemorySink(SinkContract):
    @pytest.fixture
    def behind(self):
        class Behind:
            def __init__(self):
                self._sinks = []

            def open(self):
                self._sinks.append(MemorySink())
                return self._sinks[-1]

            def rows(self):
                done = [sink.committed for sink in self._sinks if sink.committed is not None]
                return [row for batch in done[-1] for row in rows_in(batch, {})] if done else None

        return Behind()


class TestStagingWriter(SinkContract):
    @pytest.fixture
    def behind(self, tmp_path):
        staging = Staging(tmp_path / "data", tmp_path / "files")

        class Behind:
            def open(self):
                return staging.writer(RunInfo(REF), SourceRecord("memory", "here"), staging.run(REF))

            def rows(self):
                run = staging.run(REF)
                return None if run is None else read_rows(run, staging)

        return Behind()


class TestMemoryLoader(LoaderContract):
    @pytest.fixture
    def loader(self):
        return MemoryLoader(MemoryTargetOptions(uuid.uuid4().hex), LoadOptions())
