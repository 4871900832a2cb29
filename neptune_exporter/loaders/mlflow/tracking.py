# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The only place that talks to the MLflow client: the calls we make, its silence, and its errors in our words."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from neptune_exporter.certificates import is_untrusted, untrusted
from neptune_exporter.errors import ExporterError, TargetAccessError, TargetError, UsageError

PAGE_RUNS = 250  # each comes with all its parameters
PAGE_POINTS = 25_000  # what MLflow's own client asks for
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_WEB = ("http", "https")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow's own defaults keep a command waiting for minutes on a server that went away.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_REFUSED = re.compile(r"failed with error code (401|403)\b")
_NO_ANSWER = ("Max retries exceeded", "Connection", "connection to server", "could not translate host name")
_MISSING_CODES = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_REFUSED_CODES = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")


def scheme_of(uri: str) -> str:
    """The kind of tracking URI: `sqlite`, `postgresql`, `mysql`, `mssql`, `http` or `https`.

    Raises:
        UsageError: it is none of these.
    """
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    if scheme == "sqlite" and urlsplit(uri).path.strip("/") in ("", ":memory:"):
        raise UsageError("A database in memory is gone when the command ends.", "Use sqlite:///mlflow.db.")
    if scheme not in (*_DATABASES, *_WEB):
        raise UsageError(
            f"{without_password(uri)!r} is not a tracking URI that can be loaded into.",
            "Use sqlite:///mlflow.db, postgresql://user:password@host/database or http://host:5000.",
        )
    return scheme


def without_password(uri: str) -> str:
    """The URI with a password in it replaced by stars."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    account, _, host = parts.netloc.rpartition("@")
    user, colon, _ = account.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{colon}{'***' if colon else ''}@{host}"))


class Tracking:
    """A tracking server or database.

    Args:
        uri: the tracking URI; connected to at once, and given up quickly if nothing answers.

    Every method raises `TargetError` if the target does not answer or refuses what it is given, and
    `TargetAccessError` if it refuses our credentials.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._shown = without_password(uri)
        _silence()
        with self.explained():
            uri = with_driver(uri)
            if scheme_of(uri) in _DATABASES:
                _try_database(uri)
            from mlflow import MlflowClient

            with _retries(1):  # a server that does not answer is not worth minutes
                self._client = MlflowClient(tracking_uri=uri)
                self._client.search_experiments(max_results=1)

    def experiment(self, name: str) -> Any | None:
        """The experiment of that name, deleted or not, or None."""
        with self.explained():
            return self._client.get_experiment_by_name(name)

    def search_experiments(self, tag: str, value: str) -> Iterator[Any]:
        """The experiments that have a tag of this value, which needs no quoting; no deleted ones."""
        token = None
        while True:
            with self.explained():
                page = self._client.search_experiments(filter_string=f"tags.`{tag}` = '{value}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def create_experiment(self, name: str, location: str | None, tags: Mapping[str, str]) -> str:
        """Makes an experiment and returns its id."""
        with self.explained():
            return str(self._client.create_experiment(name, artifact_location=location, tags=dict(tags)))

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Sets a tag of an experiment."""
        with self.explained():
            self._client.set_experiment_tag(experiment_id, key, value)

    def search(self, experiment_ids: Sequence[str], tag: str, value: str | None = None) -> Iterator[Any]:
        """The runs that have a tag, of any value or of one that needs no quoting."""
        condition = f"tags.`{tag}` != ''" if value is None else f"tags.`{tag}` = '{value}'"
        token = None
        while True:
            with self.explained():
                page = self._client.search_runs(
                    list(experiment_ids), filter_string=condition, max_results=PAGE_RUNS, page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return

    def run(self, run_id: str) -> Any:
        """A run with its parameters, tags and latest metrics."""
        with self.explained():
            return self._client.get_run(run_id)

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> str:
        """Makes a run and returns its id. A start of 0 would become now.

        Not tried again by itself: should only the answer have been lost, there would be two.
        """
        with self.explained(), _retries(0):
            run = self._client.create_run(experiment_id, start_time=start_ms or 1, tags=dict(tags), run_name=name)
            return str(run.info.run_id)

    def log(self, run_id: str, metrics: Sequence[Any], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Sends metrics, parameters and tags, in as few calls as MLflow's limits allow."""
        from mlflow.entities import Param, RunTag

        with self.explained():
            self._client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
                synchronous=True,
            )

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Sets a tag of a run."""
        with self.explained():
            self._client.set_tag(run_id, key, value, synchronous=True)

    def end_run(self, run_id: str, status: str, end_ms: int) -> None:
        """Sets the status and the end time of a run."""
        with self.explained():
            self._client.set_terminated(run_id, status, end_time=end_ms or 1)

    def reopen_run(self, run_id: str) -> None:
        """Sets the status of a run that goes on."""
        with self.explained():
            self._client.update_run(run_id, status="RUNNING")

    def delete_tag(self, run_id: str, key: str) -> None:
        """Removes a tag of a run."""
        with self.explained():
            self._client.delete_tag(run_id, key)

    def delete_run(self, run_id: str) -> None:
        """Deletes a run, as the user interface does: `mlflow gc` removes it for good."""
        with self.explained():
            self._client.delete_run(run_id)

    def points(self, run_id: str, key: str) -> Iterator[Sequence[Any]]:
        """The whole history of a metric, in pages."""
        store = self._client._tracking_client.store  # noqa: SLF001 - the client's own method keeps all pages in memory
        token = None
        while True:
            with self.explained():
                page = store.get_metric_history(run_id, key, max_results=PAGE_POINTS, page_token=token)
            yield page
            token = page.token
            if not token:
                return

    def upload(self, run_id: str, folder: Path, into: str | None = None) -> None:
        """Uploads what is in a folder as artifacts."""
        with self.explained():
            self._client.log_artifacts(run_id, str(folder), into)

    def upload_file(self, run_id: str, file: Path, into: str) -> None:
        """Uploads one file into a folder of the artifacts, in place of one of that name."""
        with self.explained():
            self._client.log_artifact(run_id, str(file), into or None)

    def download(self, run_id: str, artifact: str, folder: Path) -> Path | None:
        """Fetches one artifact into a folder; None if the run does not have it."""
        return self.fetched(lambda: self._client.download_artifacts(run_id, artifact, str(folder)))

    def fetched(self, fetch: Callable[[], str]) -> Path | None:
        """What `fetch` fetches; None if it is not there."""
        from mlflow.exceptions import MlflowException

        with self.explained():
            try:
                return Path(fetch())
            except (MlflowException, OSError) as error:
                if _is_refusal(error) or not _is_missing(error):
                    raise
                return None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns the errors of MLflow, SQLAlchemy and requests into ours."""
        try:
            yield
        except ExporterError:
            raise
        except Exception as error:
            known = _our_error(error, self._shown)
            if known is None:
                raise
            raise known from error


def _our_error(error: Exception, shown: str) -> ExporterError | None:
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError)):
        return None
    text = " ".join(str(getattr(error, "orig", None) or error).split())[:500]
    if isinstance(error, ImportError):
        return TargetError(f"{shown} needs a driver that is not installed: {text}.", "For PostgreSQL: psycopg2-binary.")
    if "out-of-date database schema" in text:
        return TargetError(
            "The MLflow database was made by another version of MLflow.",
            f"Take a backup, then run: mlflow db upgrade {shown}",
        )
    if is_untrusted(error):
        return untrusted(shown, TargetAccessError)
    if _is_refusal(error):
        return TargetAccessError(
            f"MLflow at {shown} refuses our credentials.",
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
        )
    if isinstance(error, RequestException) or any(sign in text for sign in _NO_ANSWER):
        return TargetError(
            f"Nothing answers at {shown}, where MLflow should be: {_reason(error)}.",
            "Start it, or name another place with --mlflow-tracking-uri.",
        )
    return TargetError(f"MLflow at {shown}: {text.rstrip('.')}.")


def _reason(error: BaseException) -> str:
    """What lies at the bottom of an error of the network, in its own few words: `Connection refused`."""
    from urllib3.exceptions import HTTPError

    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    last = next((one for one in reversed(chain) if isinstance(one, (OSError, HTTPError))), chain[-1])
    last = next((argument for argument in last.args if isinstance(argument, OSError)), last)
    words = getattr(last, "strerror", None) or str(last) or type(last).__name__
    return " ".join(words.splitlines()[0].split())[:200].rstrip(".")


def _is_refusal(error: Exception) -> bool:
    code = getattr(error, "error_code", "")
    text = str(error)
    return code in _REFUSED_CODES or bool(_REFUSED.search(text)) or "password authentication failed" in text


def _is_missing(error: Exception) -> bool:
    """Whether an artifact is not there; every artifact store says so in its own way."""
    if isinstance(error, FileNotFoundError) or "No such artifact" in str(error):
        return True
    response = getattr(error, "response", None)
    return getattr(error, "error_code", "") in _MISSING_CODES or getattr(response, "status_code", 0) == 404


def _silence() -> None:
    """Keeps MLflow from printing, asking home, drawing bars and waiting for ever, unless the user wants it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for logger in ("alembic", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    import mlflow  # noqa: F401 - sets its own log level when it is imported

    logging.getLogger("mlflow").setLevel(logging.ERROR)


@contextmanager
def _retries(number: int) -> Iterator[None]:
    """Tries a call again so often at most."""
    usual = os.environ[_RETRIES]
    os.environ[_RETRIES] = str(min(number, int(usual)))
    try:
        yield
    finally:
        os.environ[_RETRIES] = usual


def with_driver(uri: str) -> str:
    """`postgresql://` means one driver to SQLAlchemy 2.0 and another from 2.1 on: name the one that is installed."""
    if uri.startswith("postgresql://"):
        for driver in ("psycopg2", "psycopg"):
            if importlib.util.find_spec(driver) is not None:
                return uri.replace("postgresql://", f"postgresql+{driver}://", 1)
    return uri


def _try_database(uri: str) -> None:
    """Connects once: MLflow itself would try for a minute and a half."""
    import sqlalchemy

    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() == "sqlite":
        folder = Path(url.database or "").resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
    wait = {"connect_timeout": 10} if url.get_backend_name() in ("postgresql", "mysql") else {}
    engine = sqlalchemy.create_engine(url, connect_args={} if "connect_timeout" in url.query else wait)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
