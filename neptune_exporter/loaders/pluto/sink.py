# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One Neptune run on its way into Pluto."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neptune_exporter.assignment import assignment
from neptune_exporter.errors import ExporterError, TargetError
from neptune_exporter.loaders.attachments import FOLDER, AttachmentsWriter, AttributeRecord, Manifest, run_json
from neptune_exporter.loaders.loader import RunToLoad
from neptune_exporter.loaders.pluto import marks
from neptune_exporter.loaders.pluto.api import LogType, OpenRun, Pluto
from neptune_exporter.loaders.pluto.files import Files
from neptune_exporter.loaders.pluto.outlets import Destination, Metrics, Series, Singles
from neptune_exporter.loaders.pluto.places import records_of
from neptune_exporter.loaders.runs import end_ms
from neptune_exporter.model import codes_of, normalize, series_of

logger = logging.getLogger(__name__)

END_ATTEMPTS = 3
_ANNOUNCED: dict[str, LogType] = {
    "float_series": "METRIC",
    "string_series": "DATA",
    "histogram_series": "HISTOGRAM",
}


class RunSink:
    """Takes the rows of one run, by (step, time), into a Pluto run that was just made.

    Args:
        api: the server.
        target: the run there.
        run: what is loaded.
        multiplier: for steps.
        start_ms: the run's start, which stands in for missing times.
        ended: told whether the run is complete (True) or given up.
        folder: an empty folder on this machine, removed in the end.
        attach_all: whether every row goes into `data.parquet`.
    """

    def __init__(
        self,
        api: Pluto,
        target: OpenRun,
        run: RunToLoad,
        *,
        multiplier: int,
        start_ms: int,
        ended: Callable[[bool], None],
        folder: Path,
        attach_all: bool,
    ) -> None:
        self._api, self._target, self._run = api, target, run
        self._ended, self._folder = ended, folder
        self._manifest = Manifest(run_json(run), multiplier, start_ms)
        (folder / FOLDER).mkdir()
        self._attachments = AttachmentsWriter(folder / FOLDER)
        to = Destination(api, target, run, self._attachments, multiplier, start_ms, attach_all)
        self._by_name = records_of(run.attributes)
        self._records = list(self._by_name.values())
        self._numbers = {name: number for number, name in enumerate(self._by_name)}
        self._is_metric = np.array([record.place == "metric" for record in self._records], np.bool_)
        self._metrics, self._series, self._singles = Metrics(self._records, to), Series(to), Singles(to)
        announced = {(a.path, a.type): a.rows for a in run.attributes}
        self._files = Files(to, announced, {record.key for record in self._records})
        self._opened = self._complete = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes rows, in order of their steps and times.

        Raises:
            TargetError: Pluto does not take them.
            DamagedDataError: a file of the run cannot be read.
        """
        self._open()
        batch = normalize(batch)
        if batch.num_rows == 0:
            return
        numbers = self._numbers_of(batch)
        counts = np.bincount(numbers)
        for number in np.flatnonzero(counts).tolist():
            self._records[number].rows += int(counts[number])
        metric = self._is_metric[numbers]
        if metric.all():
            self._metrics.write(numbers, batch)
            return
        if metric.any():
            self._metrics.write(numbers[metric], batch.filter(pa.array(metric)))
            batch = batch.filter(pa.array(~metric))
        for series in series_of(batch):
            record = self._by_name[series.path, series.type]
            self._outlet(record).write(record, series.rows)

    def commit(self) -> None:
        """Completes the run: the marker is written last; then the loads that it replaces are marked."""
        self._open()
        self._metrics.finish()
        self._series.finish()
        entries, tags = self._singles.finish()
        self._manifest.attributes = self._records
        digest = self._attachments.finish(self._manifest, self._run.extra)
        self._files.add_folder(self._folder / FOLDER)
        self._files.finish()
        self._api.set_config(self._target.id, {**entries, marks.MANIFEST: digest})
        self._api.set_tags(self._target.id, tags)
        self._end()
        assignment().confirm()
        self._mark_complete()
        self._complete = True
        self._ended(True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Marks the run abandoned unless it is complete; where that fails, its marker still says that it is not."""
        try:
            if not self._complete:
                self._ended(False)
                self._api.abandon(self._target.id)
            self._attachments.close()
        except ExporterError as error:
            logger.info("Run %d of Pluto stays behind, unfinished: %s", self._target.id, error.message)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self) -> None:
        """Announces the names of all series that will come."""
        if self._opened:
            return
        rows = {(a.path, a.type): a.rows for a in self._run.attributes}
        for attribute_type, log_type in _ANNOUNCED.items():
            coming = [
                record.key
                for name, record in self._by_name.items()
                if record.type == attribute_type and record.place != "log" and rows[name]
            ]
            self._api.add_names(self._target, log_type, coming)
        self._opened = True

    def _numbers_of(self, batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
        """The position of each row's attribute among the records."""
        path_column, type_column = batch.column("attribute_path"), batch.column("attribute_type")
        paths, types = path_column.dictionary, type_column.dictionary
        pairs, inverse = np.unique(
            codes_of(path_column).astype(np.int64) * len(types) + codes_of(type_column), return_inverse=True
        )
        known = np.empty(len(pairs), np.int32)
        for position, pair in enumerate(pairs.tolist()):
            name = (paths[pair // len(types)].as_py(), types[pair % len(types)].as_py())
            if name not in self._numbers:
                raise ValueError(f"{name} was not announced")
            known[position] = self._numbers[name]
        return known[inverse]

    def _outlet(self, record: AttributeRecord) -> Series | Singles | Files:
        if record.place in ("series", "log"):
            return self._series
        return self._files if record.place == "artifact" else self._singles

    def _end(self) -> None:
        """Ends the run at its own time, and asks whether it did: a server may give up an old run in between."""
        status = "FAILED" if self._run.info.failed else "COMPLETED"
        when = end_ms(self._run, self._manifest.start_ms)
        for _ in range(END_ATTEMPTS):
            self._api.set_status(self._target.id, status, when)
            found = self._api.details(self._target.id)["status"]
            if found == status:
                return
            self._api.resume(self._target)
        raise TargetError(f"Pluto says that the run is {found}, not {status}.", "Run the same command again.")

    def _mark_complete(self) -> None:
        marker = marks.COMPLETE + self._run.digest
        self._api.set_config(self._target.id, {marks.LOAD: marker})
        if (self._api.details(self._target.id)["config"] or {}).get(marks.LOAD) != marker:
            raise TargetError("Pluto did not keep the marker of a complete run.", "Run the same command again.")
