# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow's own tables, written and read directly: what its store would write, without an object for every point.

MLflow does the same in its `migrate-filestore`. It is done only where the tables are exactly those of an MLflow that
this was tested with, by the version that MLflow keeps in its database and by their columns. A run is one transaction:
it is there with everything, the marker of its completion among it, or it is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from neptune_exporter.errors import ExporterError, TargetAccessError, TargetError
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.loaders.mlflow.dialects import BUSY_SECONDS, DIALECTS, KeyedPoints
from neptune_exporter.loaders.mlflow.known import KnownRun
from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.loaders.mlflow.tracking import with_driver, without_password

# The version of the tables, as MLflow's migrations name it, and the MLflow that this was tested with.
SCHEMAS = {"dc11669786a5": "3.17"}
_TEXT, _INT, _REAL, _BOOL = "VARCHAR", "BIGINT", "FLOAT DOUBLE", "BOOLEAN"
_TABLES: dict[str, dict[str, str]] = {
    "runs": {
        **dict.fromkeys(("run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id"), _TEXT),
        **dict.fromkeys(("status", "source_version", "lifecycle_stage", "artifact_uri"), _TEXT),
        **dict.fromkeys(("start_time", "end_time", "deleted_time"), _INT),
        "experiment_id": "INTEGER",
    },
    "metrics": {"key": _TEXT, "value": _REAL, "timestamp": _INT, "run_uuid": _TEXT, "step": _INT, "is_nan": _BOOL},
    "latest_metrics": {
        "key": _TEXT,
        "value": _REAL,
        "timestamp": _INT,
        "step": _INT,
        "is_nan": _BOOL,
        "run_uuid": _TEXT,
    },
    "params": {"key": _TEXT, "value": _TEXT, "run_uuid": _TEXT},
    "tags": {"key": _TEXT, "value": _TEXT, "run_uuid": _TEXT},
}
_SEARCHED = (tags.PROJECT, tags.RUN, tags.KIND, tags.REF, tags.LOAD, tags.LOADED, tags.PARENT_REF)
_EXPERIMENTS = sa.table("experiments", sa.column("experiment_id"), sa.column("name"))
_RUNS, _LATEST, _PARAMS, _TAGS = (
    sa.table(name, *map(sa.column, _TABLES[name])) for name in ("runs", "latest_metrics", "params", "tags")
)


class OtherTablesError(TargetError):
    """The database can be reached, but its tables are none that we know."""


@dataclass(frozen=True, slots=True)
class RunRows:
    """What makes up a run, but for its points.

    Attributes:
        run: the row of the table of runs, by column.
        params: the parameters.
        tags: the tags.
        latest: the latest point of each metric: step, time, value (0 for NaN), is NaN.
        deleted: ids of the runs that are deleted in its stead.
        forks: ids of the runs that become its children.
    """

    run: Mapping[str, Any]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    latest: Mapping[str, tuple[int, int, float, bool]]
    deleted: Sequence[str] = ()
    forks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run as the tables hold it, but for its points."""

    artifact_uri: str
    active: bool
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


class Database:
    """The database of an MLflow.

    Args:
        uri: `sqlite://` or `postgresql://`.

    Raises:
        OtherTablesError: the tables are not as we know them.
        TargetError: it does not answer, or is locked for too long. So does every method.
        TargetAccessError: it refuses our credentials.
    """

    def __init__(self, uri: str) -> None:
        self._shown = without_password(uri)
        url = sa.make_url(with_driver(uri))
        self._dialect = DIALECTS[url.get_backend_name()]
        self._engine = self._dialect.engine(url)
        with self._explained(), self._engine.connect() as connection:
            _check_tables(connection, self._shown)

    def close(self) -> None:
        """Lets go of connections."""
        self._engine.dispose()

    def holds(self, experiment_id: str, name: str) -> bool:
        """Whether an experiment of that id has that name here."""
        experiment = sa.select(_EXPERIMENTS.c.name).where(_EXPERIMENTS.c.experiment_id == int(experiment_id))
        return self._rows(experiment) == [(name,)]

    def known_runs(self, experiment_ids: Sequence[str], ref_digest: str | None = None) -> Iterator[KnownRun]:
        """The runs of ours in some experiments that are not deleted; those of one Neptune run, if it is named."""
        runs, tag = _RUNS.c, _TAGS.c
        wanted = (
            sa.select(tag.run_uuid, tag.key, tag.value)
            .join_from(_TAGS, _RUNS, tag.run_uuid == runs.run_uuid)
            .where(runs.experiment_id.in_([int(experiment_id) for experiment_id in experiment_ids]))
            .where(runs.lifecycle_stage == "active", tag.key.in_(_SEARCHED))
        )
        if ref_digest is not None:
            of_ref = sa.select(tag.run_uuid).where(tag.key == tags.REF, tag.value == ref_digest)
            wanted = wanted.where(runs.run_uuid.in_(of_ref))
        found: dict[str, dict[str, str]] = {}
        for run_id, key, value in self._rows(wanted):
            found.setdefault(run_id, {})[key] = value
        for run_id, own in found.items():
            run = KnownRun.of_tags(run_id, own)
            if run is not None:
                yield run

    def has_run(self, run_id: str) -> bool:
        """Whether there is a run of that id, deleted or not."""
        return bool(self._rows(sa.select(_RUNS.c.run_uuid).where(_RUNS.c.run_uuid == run_id)))

    def write(self, rows: RunRows, metrics: Callable[[], KeyedPoints]) -> None:
        """Writes a run, whole.

        Args:
            rows: everything but the points.
            metrics: gives the points, no two of them alike, as often as it is asked.
        """
        run_id = rows.run["run_uuid"]
        with self._explained(), self._engine.connect() as connection, self._dialect.writing(connection):
            connection.execute(sa.insert(_RUNS), [rows.run])
            for table, pairs in ((_PARAMS, rows.params), (_TAGS, rows.tags)):
                if pairs:
                    connection.execute(sa.insert(table), _pairs(run_id, pairs))
            if rows.latest:
                self._dialect.insert(connection, run_id, metrics())
                connection.execute(sa.insert(_LATEST), [_latest(run_id, key, at) for key, at in rows.latest.items()])
            deleted = {"lifecycle_stage": "deleted", "deleted_time": int(rows.tags[tags.LOADED])}
            for old in rows.deleted:
                connection.execute(sa.update(_RUNS).where(_RUNS.c.run_uuid == old), deleted)
            for fork in rows.forks:
                link = (_TAGS.c.run_uuid == fork) & (_TAGS.c.key == tags.MLFLOW_PARENT)
                connection.execute(sa.delete(_TAGS).where(link))
                connection.execute(sa.insert(_TAGS), _pairs(fork, {tags.MLFLOW_PARENT: run_id}))

    def run(self, run_id: str) -> HeldRun | None:
        """A run with its parameters, tags and latest metrics."""
        row = self._rows(sa.select(_RUNS.c.artifact_uri, _RUNS.c.lifecycle_stage).where(_RUNS.c.run_uuid == run_id))
        if not row:
            return None
        params, of_tags, latest = (
            self._rows(sa.select(*(table.c[name] for name in names)).where(table.c.run_uuid == run_id))
            for table, names in (
                (_PARAMS, ("key", "value")),
                (_TAGS, ("key", "value")),
                (_LATEST, ("key", "value", "is_nan")),
            )
        )
        metrics = {key: math.nan if is_nan else value for key, value, is_nan in latest}
        return HeldRun(row[0][0], row[0][1] == "active", dict(params), dict(of_tags), metrics)

    def points(self, run_id: str, key: str) -> Iterator[Points]:
        """The whole history of a metric, in pages.

        Raises:
            TargetError: it holds what is no number.
        """
        with self._explained(), self._engine.connect() as connection:
            for page in self._dialect.history(connection, run_id, key):
                steps, times, values, is_nan = zip(*page, strict=True)
                try:
                    numbers = np.array(values, np.float64)
                    numbers[np.array(is_nan, np.bool_)] = np.nan
                    yield Points(np.array(steps, np.int64), np.array(times, np.int64), numbers)
                except (ValueError, TypeError, OverflowError) as error:
                    raise TargetError(
                        f"Metric {key!r} of the MLflow run {run_id} holds no numbers: {error}."
                    ) from error

    def _rows(self, statement: sa.Select[Any]) -> list[Any]:
        with self._explained(), self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(statement)]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the errors of SQLAlchemy and of the drivers into ours."""
        driver: Any = self._engine.dialect.dbapi
        try:
            yield
        except ExporterError:
            raise
        except (SQLAlchemyError, driver.Error) as error:
            raise _our_error(error, self._shown) from error


def _our_error(error: Exception, shown: str) -> ExporterError:
    text = " ".join(str(getattr(error, "orig", None) or error).split())[:500]
    if "database is locked" in text or "database table is locked" in text:
        return TargetError(
            f"Another process has kept {shown} locked for {BUSY_SECONDS} seconds.",
            "Wait until it has finished, or stop it; then run the same command again.",
        )
    if "password authentication failed" in text or "permission denied" in text:
        return TargetAccessError(f"The database {shown} refuses our credentials: {text}.")
    return TargetError(f"The database {shown}: {text}.", "Run the same command again: nothing is half there.")


def _check_tables(connection: sa.Connection, shown: str) -> None:
    inspector = sa.inspect(connection)
    if not inspector.has_table("alembic_version"):
        raise OtherTablesError(f"{shown} is no database of MLflow.")
    versions = list(connection.scalars(sa.text("SELECT version_num FROM alembic_version")))
    if len(versions) != 1 or versions[0] not in SCHEMAS:
        known = ", ".join(f"MLflow {mlflow} ({version})" for version, mlflow in SCHEMAS.items())
        raise OtherTablesError(
            f"The tables of {shown} are of version {', '.join(versions) or 'none'}, "
            f"and only those of {known} are written directly."
        )
    for table, expected in _TABLES.items():
        found = inspector.get_columns(table)
        types = {column["name"]: str(column["type"]).upper() for column in found}
        required = {column["name"] for column in found if not column["nullable"] and column["default"] is None}
        if required - expected.keys() or any(
            not any(kind in types.get(column, "") for kind in kinds.split()) for column, kinds in expected.items()
        ):
            raise OtherTablesError(f"The table {table} of {shown} is not as MLflow makes it.")


def _pairs(run_id: str, pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value, "run_uuid": run_id} for key, value in pairs.items()]


def _latest(run_id: str, key: str, at: tuple[int, int, float, bool]) -> dict[str, Any]:
    step, time, value, is_nan = at
    return {"key": key, "value": value, "timestamp": time, "step": step, "is_nan": is_nan, "run_uuid": run_id}
