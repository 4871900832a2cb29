# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Writing straight into MLflow's tables: the same rows as MLflow's own store writes, all of a run or nothing."""

from __future__ import annotations

import math
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from logged_run import REF, LoggedRun, load, read_back
from mlflow import MlflowClient
from mlflow.entities import Metric, ViewType
from mlflow.store.db.utils import _get_latest_schema_revision
from test_mlflow_values import everything

from neptune_exporter.errors import TargetError, UsageError
from neptune_exporter.loaders.mlflow import MLflowOptions, database, dialects
from neptune_exporter.loaders.mlflow.database import SCHEMAS, OtherTablesError
from neptune_exporter.loaders.mlflow.dialects import copy_rows
from neptune_exporter.loaders.mlflow.direct import Spool, latest_of, run_id_of
from neptune_exporter.loaders.mlflow.loader import MLflowLoader
from neptune_exporter.loaders.mlflow.points import Points
from neptune_exporter.model import RunRef

START = 1_700_000_000_000
LARGEST = 1.7976931348623157e308


@pytest.fixture
def mode() -> str:
    return "sql"


@pytest.fixture
def logged(tmp_path) -> LoggedRun:
    run = LoggedRun(tmp_path / "files").single("a", "int", 1).single("f", "file", None)
    run.single("f", "file", run.file("p/f", b"f"))
    return run.series("loss", "float_series", [(n, START + n, n / 7) for n in range(2500)])


@pytest.fixture(params=["sqlite", "postgres"])
def database_uri(request) -> str:
    return request.getfixturevalue(f"{request.param}_uri")


def runs_of(uri: str, view: int = ViewType.ACTIVE_ONLY) -> list:
    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name(REF.project_id).experiment_id], run_view_type=view)


def tables(uri: str, run_id: str) -> dict[str, list]:
    """Every row of a run as the database holds it, but for ids and the time of loading."""
    engine = sa.create_engine(uri)
    found = {}
    with engine.connect() as connection:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            statement = sa.text(f"SELECT * FROM {table} WHERE run_uuid = :id")
            rows = [dict(row) for row in connection.execute(statement, {"id": run_id}).mappings()]
            for row in rows:
                for changing in ("run_uuid", "artifact_uri", "experiment_id"):
                    row.pop(changing, None)
            rows = [row for row in rows if row.get("key") != "neptune.loaded"]
            found[table] = sorted(repr(sorted(row.items())) for row in rows)
    engine.dispose()
    return found


def hard_values(tmp_path: Path) -> LoggedRun:
    run = everything(LoggedRun(tmp_path / "files"))
    run.info = {"name": "a 'name'", "owner": "ada", "failed": True}
    nan = [(0, START, math.nan), (0, START, 0.0), (0, START, -1.0), (1, START, -2.0), (1, START, math.nan)]
    run.series("latest/nan and zero", "float_series", nan)
    run.series("latest/nan first", "float_series", [(0, 5, math.nan), (0, 5, 0.0)])
    run.series("latest/late time", "float_series", [(7, 9, 1.0), (7, 8, 5.0), (-3, 10, 7.0)])
    run.series("steps", "float_series", [(-(10**6), 1, 1.0), (10**11, 1, 2.0)])
    run.series("infinite", "float_series", [(0, 1, math.inf), (1, 1, LARGEST), (2, 1, -math.inf), (2, 1, -LARGEST)])
    return run


def test_the_tables_are_those_that_mlflow_itself_would_have_written(database_uri, tmp_path, make_loader):
    run = hard_values(tmp_path)
    written = {}
    for mode in ("rest", "sql"):
        loader = make_loader(database_uri, mode, name_prefix=f"{mode}-{tmp_path.name}-")
        written[mode] = tables(database_uri, load(loader, run, 100, batch_rows=3))
        assert read_back(loader) == run.attributes()
    manifests = [[row for row in rows["tags"] if "neptune.manifest" in row] for rows in written.values()]
    assert manifests[0] == manifests[1]  # so all of `neptune/` is the same
    for table, rows in written["rest"].items():
        assert written["sql"][table] == rows, table


def test_points_are_those_of_log_batch(sqlite_uri, make_loader, tmp_path):
    """MLflow's client is given the values as they were logged, without any code of ours between."""
    random_ = np.random.default_rng(3)
    values = [*random_.standard_normal(500).tolist(), math.nan, math.inf, -math.inf, 5e-324, LARGEST, -0.0, 0.0]
    points = [(int(step), START + int(step % 7), value) for step, value in enumerate(values)]
    client = MlflowClient(sqlite_uri)
    theirs = client.create_run(client.create_experiment("theirs")).info.run_id
    client.log_batch(theirs, metrics=[Metric("loss", value, time, step) for step, time, value in points])
    ours = load(make_loader(sqlite_uri), LoggedRun(tmp_path / "files").series("loss", "float_series", points))
    for table in ("metrics", "latest_metrics"):
        assert tables(sqlite_uri, ours)[table] == tables(sqlite_uri, theirs)[table]
    with sqlite3.connect(sqlite_uri.removeprefix("sqlite:///")) as connection:
        kinds = connection.execute(
            "select distinct run_uuid = ?, typeof(value), typeof(step), typeof(timestamp), typeof(is_nan) from metrics",
            (ours,),
        ).fetchall()
    connection.close()
    assert {kind[1:] for kind in kinds} == {("real", "integer", "integer", "integer")}


def test_the_known_tables_are_those_of_the_mlflow_that_is_tested():
    assert _get_latest_schema_revision() in SCHEMAS, "check loaders/mlflow/database.py against the new MLflow"


# --- all or nothing


def test_nothing_is_there_before_the_run_is_complete(loader, logged, sqlite_uri):
    loader.prepare(REF.project_id, 1)
    sink = loader.start(logged.to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
    assert runs_of(sqlite_uri, ViewType.ALL) == []
    sink.abort()
    assert runs_of(sqlite_uri, ViewType.ALL) == []
    load(loader, logged)
    assert len(runs_of(sqlite_uri, ViewType.ALL)) == 1


def test_the_same_run_has_the_same_id_and_a_changed_one_another(loader, logged, sqlite_uri):
    first = load(loader, logged)
    MlflowClient(sqlite_uri).delete_run(first)
    again = load(loader, logged)  # the deleted one keeps its id
    assert again != first
    assert load(loader, logged.single("a", "int", 2)) not in (first, again)
    assert len(runs_of(sqlite_uri)) == 1
    assert read_back(loader) == logged.attributes()


def test_a_changed_run_takes_the_place_of_the_old_one_in_the_same_transaction(
    loader, logged, sqlite_uri, make_loader, monkeypatch
):
    old = load(loader, logged)
    logged.single("a", "int", 2)
    sink = loader.start(logged.to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
    insert = dialects.SQLite.insert

    def broken(self, *args):
        insert(self, *args)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(dialects.SQLite, "insert", broken)
    with pytest.raises(TargetError, match="disk I/O error"):
        sink.commit()
    sink.abort()
    assert [run.info.run_id for run in runs_of(sqlite_uri, ViewType.ALL)] == [old]
    monkeypatch.undo()
    new = load(loader, logged)
    assert [run.info.run_id for run in runs_of(sqlite_uri)] == [new]
    assert MlflowClient(sqlite_uri).get_run(old).info.lifecycle_stage == "deleted"


def test_what_the_client_left_half_done_is_replaced(sqlite_uri, make_loader, logged):
    by_client = make_loader(sqlite_uri, "rest")
    by_client.prepare(REF.project_id, 1)
    by_client.start(logged.to_load(), 1).write(logged.batches()[0])
    direct = make_loader(sqlite_uri, "sql")
    assert not direct.states(REF.project_id).runs[REF].complete
    new = load(direct, logged)
    assert [run.info.run_id for run in runs_of(sqlite_uri)] == [new]


def test_the_ways_can_be_mixed(sqlite_uri, make_loader, logged):
    for number, mode in enumerate(["rest", "sql", "sql", "rest", "sql"]):
        new = load(make_loader(sqlite_uri, mode), logged.single("a", "int", number))
        assert [run.info.run_id for run in runs_of(sqlite_uri)] == [new]
    assert read_back(make_loader(sqlite_uri, "rest")) == logged.attributes()


def test_artifacts_that_a_killed_attempt_has_left_are_overwritten(loader, logged, tmp_path, monkeypatch):
    loader.prepare(REF.project_id, 1)
    sink = loader.start(logged.to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
    monkeypatch.setattr(database.Database, "write", lambda *_: (_ for _ in ()).throw(TargetError("killed")))
    with pytest.raises(TargetError, match="killed"):
        sink.commit()
    monkeypatch.undo()
    (left,) = (tmp_path / "mlruns").rglob("files/f")
    left.write_bytes(b"half")
    load(loader, logged)
    assert [path.read_bytes() for path in (tmp_path / "mlruns").rglob("files/f")] == [b"f"]
    assert read_back(loader) == logged.attributes()


# --- other processes


def test_it_waits_for_another_process_that_writes(loader, logged, tmp_path):
    loader.prepare(REF.project_id, 1)
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    sink = loader.start(logged.to_load(), 1)
    for batch in logged.batches():
        sink.write(batch)
    begun = threading.Event()
    begin = dialects.SQLite.writing

    def release() -> None:
        begun.wait(30)
        other.execute("COMMIT")

    thread = threading.Thread(target=release)
    thread.start()
    real = begin

    def writing(self, connection):
        begun.set()
        return real(self, connection)

    dialects.SQLite.writing = writing
    try:
        sink.commit()
    finally:
        dialects.SQLite.writing = real
        thread.join()
        other.close()
    assert read_back(loader) == logged.attributes()


def test_a_database_that_stays_locked_is_a_clear_error(sqlite_uri, make_loader, logged, tmp_path, monkeypatch):
    monkeypatch.setattr(dialects, "BUSY_SECONDS", 0.1)
    loader = make_loader(sqlite_uri, "sql")
    loader.prepare(REF.project_id, 1)
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sink = loader.start(logged.to_load(), 1)
    with pytest.raises(TargetError, match="locked") as caught:
        sink.commit()
    sink.abort()
    assert "run the same command again" in caught.value.hint
    other.execute("ROLLBACK")
    other.close()
    load(loader, logged)
    assert read_back(loader) == logged.attributes()


def test_a_second_command_that_loads_the_same_run_finds_it_done(sqlite_uri, make_loader, logged):
    loaders = [make_loader(sqlite_uri, "sql") for _ in range(2)]
    sinks = []
    for loader in loaders:
        loader.prepare(REF.project_id, 1)
        sinks.append(loader.start(logged.to_load(), 1))
    for sink in sinks:
        for batch in logged.batches():
            sink.write(batch)
        sink.commit()
    assert len(runs_of(sqlite_uri, ViewType.ALL)) == 1
    assert read_back(loaders[0]) == logged.attributes()


# --- where it is possible


def test_tables_of_another_version_are_left_to_the_client(sqlite_uri, make_loader, logged, monkeypatch, caplog):
    monkeypatch.setattr(database, "SCHEMAS", {"0123456789ab": "9.9"})
    with pytest.raises(OtherTablesError, match=r"only those of MLflow 9.9 \(0123456789ab\) are written directly"):
        make_loader(sqlite_uri, "sql").states(REF.project_id)
    loader = make_loader(sqlite_uri)
    run_id = load(loader, logged)
    assert "MLflow's client is used" in caplog.text
    assert run_id != run_id_of_ours(sqlite_uri, logged)
    assert read_back(loader) == logged.attributes()


def run_id_of_ours(uri: str, run: LoggedRun) -> str:
    from dataclasses import dataclass

    @dataclass
    class New:
        ref: RunRef
        digest: str
        experiment_id: str

    experiment = MlflowClient(uri).get_experiment_by_name(run.ref.project_id).experiment_id
    return run_id_of(New(run.ref, run.digest, experiment))


def test_auto_writes_directly_where_it_can(sqlite_uri, make_loader, logged):
    assert load(make_loader(sqlite_uri), logged) == run_id_of_ours(sqlite_uri, logged)


@pytest.mark.parametrize(
    "change",
    [
        "alter table metrics add column who varchar(10) not null default 'me'",
        "alter table metrics rename column is_nan to nan",
        "alter table tags rename column value to v",
    ],
)
def test_tables_that_were_changed_are_not_written(sqlite_uri, make_loader, tmp_path, change):
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute(change)
    connection.close()
    if "default" in change:  # a column that fills itself does no harm
        make_loader(sqlite_uri, "sql").states(REF.project_id)
        return
    with pytest.raises(OtherTablesError, match="is not as MLflow makes it"):
        make_loader(sqlite_uri, "sql").states(REF.project_id)


@pytest.mark.parametrize(
    "options",
    [
        {"mlflow_tracking_uri": "http://127.0.0.1:9", "mlflow_mode": "sql"},
        {"mlflow_tracking_uri": "mysql://host/db", "mlflow_mode": "sql"},
        {"mlflow_tracking_uri": "http://127.0.0.1:9", "mlflow_backend_store_uri": "mysql://host/db"},
        {"mlflow_tracking_uri": "sqlite:///a.db", "mlflow_backend_store_uri": "sqlite:///a.db"},
    ],
)
def test_what_cannot_be_written_directly_is_a_usage_error(options):
    with pytest.raises(UsageError):
        MLflowLoader(MLflowOptions(**options))


def test_a_database_of_another_server_is_refused(server_uri, sqlite_uri, tmp_path, monkeypatch, logged):
    monkeypatch.chdir(tmp_path)
    logged.ref = RunRef("team/other-server", "run-1")
    loader = MLflowLoader(MLflowOptions(server_uri, mlflow_backend_store_uri=sqlite_uri))
    with pytest.raises(TargetError, match="is not the database of the MLflow server"):
        load(loader, logged)


# --- pieces


def test_binary_rows_are_what_postgresql_says_they_are():
    points = Points(np.array([2], np.int64), np.array([3], np.int64), np.array([math.nan]))
    row = copy_rows("0f", "é", points)
    assert row == (
        b"\0\6"
        b"\0\0\0\2\xc3\xa9"
        b"\0\0\0\x08" + bytes(8) + b"\0\0\0\x08" + b"\0\0\0\0\0\0\0\3"
        b"\0\0\0\x020f"
        b"\0\0\0\x08\0\0\0\0\0\0\0\2"
        b"\0\0\0\1\1"
    )


def test_the_spool_gives_back_what_it_took_as_often_as_it_is_asked(tmp_path):
    spool = Spool(tmp_path / "spool")
    given = []
    for number in range(5):
        steps = np.arange(number * 40_000, dtype=np.int64)
        points = Points(steps, steps * 2, steps / 3.0)
        spool.add(f"k{number}", points)
        given.append(points)
    for _ in range(2):
        found: dict[str, list[Points]] = {}
        for key, points in spool.read():
            found.setdefault(key, []).append(points)
        for number, points in enumerate(given):
            parts = found.get(f"k{number}", [])
            for column in range(3):
                whole = np.concatenate([part[column] for part in parts]) if parts else np.empty(0)
                assert whole.tolist() == points[column].tolist()
    spool.close()


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 5, 2.0), (2, 4, 1.0)], (2, 4, 1.0, False)),
        ([(2, 4, 9.0), (2, 5, 1.0)], (2, 5, 1.0, False)),
        ([(2, 5, -1.0), (2, 5, math.nan)], (2, 5, 0.0, True)),
        ([(2, 5, 0.0), (2, 5, math.nan)], (2, 5, 0.0, False)),
        ([(2, 5, math.nan), (2, 5, 0.0)], (2, 5, 0.0, True)),
    ],
)
def test_the_latest_point(points, expected):
    steps, times, values = zip(*points, strict=True)
    assert latest_of(Points(np.array(steps), np.array(times), np.array(values))) == expected
