# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster as the place where work runs, behind the face of a `concurrent.futures` executor.

The scheduler gives a run to another worker when the first one is gone, or seems to be. A worker that goes on
nevertheless asks the scheduler whether the run is still its own, at most once a second, and before it commits.

Tasks travel pickled. What they hold, API keys included, shows in no key, name or log of the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import pkgutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from neptune_exporter import __version__, free_space
from neptune_exporter.assignment import Assignment, assigned, close_connections
from neptune_exporter.errors import ExporterError, MissingExtraError, TargetError
from neptune_exporter.scheduler import connected

P = ParamSpec("P")
R = TypeVar("R")

CONNECT_SECONDS = 10
ANSWER_SECONDS = 30  # of the scheduler, to a worker that asks about its run
KNOWN_SECONDS = 1.0  # how long its answer is good for
ALONE_SECONDS = 60.0  # how long a cluster may be without workers
WATCH_SECONDS = 2.0


class ClusterError(ExporterError):
    """A worker of the cluster, or the cluster, is not as it must be: the command ends."""

    fatal = True


@dataclass(frozen=True)
class SharedFolder:
    """A folder that must be the same one for every worker, and what shows that it is.

    Attributes:
        path: absolute.
        entries: names of what is in it.
    """

    path: str
    entries: frozenset[str]

    def check(self) -> None:
        """Raises `ClusterError` if this process does not see what is in it."""
        try:
            found = {entry.name for entry in Path(self.path).iterdir()}
        except OSError:
            found = set()
        if not self.entries <= found:
            raise ClusterError(
                f"The worker {_own_address()} does not see {self.path} as this machine does.",
                "Every worker needs the folder under the same path: use --data-path and --files-path on a shared "
                "file system, or object storage.",
            )


@contextmanager
def _shared(path: Path) -> Iterator[SharedFolder]:
    """A folder as this machine sees it, with something in it that no other folder has, if that can be written."""
    sign = path / f".neptune-exporter-{uuid.uuid4().hex}"
    try:
        sign.touch(exist_ok=False)
    except OSError:  # it can only be read: what is in it must do
        yield SharedFolder(
            str(path), frozenset(entry.name for entry in path.iterdir()) if path.is_dir() else frozenset()
        )
        return
    try:
        yield SharedFolder(str(path), frozenset([sign.name]))
    finally:
        with suppress(OSError):
            sign.unlink()


@contextmanager
def open_cluster(address: str, folders: Sequence[Path]) -> Iterator[Executor]:
    """An executor over a Dask cluster for the length of a with block; see `concurrency.open_executor`.

    Args:
        address: of the scheduler.
        folders: absolute, existing; every worker must see them.
    """
    client = connected(address, CONNECT_SECONDS)
    logger = logging.getLogger("distributed")
    level, logger.level = logger.level, logging.CRITICAL  # what ends is said by us, in one line
    with ExitStack() as stack:
        stack.callback(logger.setLevel, level)
        stack.enter_context(client)
        shared = tuple(stack.enter_context(_shared(folder)) for folder in folders)
        executor = ClusterExecutor(client, address, shared)
        with executor.explained():
            try:
                yield executor
            except BaseException:
                executor.shutdown(wait=False)
                raise
            executor.shutdown(wait=True)


class ClusterExecutor(Executor):
    """Hands tasks to `Client.get_executor()`, wrapped in what makes them safe to be done twice.

    Args:
        client: connected.
        address: of the scheduler, for messages.
        shared: what every worker must see.

    Attributes:
        slots: how many tasks the cluster does at once.
        processes: how many workers it has.

    Raises:
        TargetError: the cluster has no workers.
    """

    def __init__(self, client: Any, address: str, shared: Sequence[SharedFolder]) -> None:
        self._client, self._address, self._shared = client, address, tuple(shared)
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        threads = client.nthreads()
        if not threads:
            raise TargetError(
                f"The Dask cluster at {address} has no workers.", f"Start some with: dask worker {address}"
            )
        self.slots, self.processes = sum(threads.values()), len(threads)
        self._check_versions()
        self.command = uuid.uuid4().hex
        self._executor: Executor = client.get_executor(pure=False)
        self._keys: list[str] = []
        self._ended = threading.Event()
        self._alone = False
        threading.Thread(target=self._watch, name="cluster", daemon=True).start()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hands over one task. Only the worker unpacks it, once it knows that it has the same version of us."""
        key = f"{getattr(fn, '__name__', 'task')}-{uuid.uuid4().hex}"
        self._keys.append(key)
        parcel = Parcel(pickle.dumps((fn, args, kwargs)))
        remote = _Remote(__version__, self.command, key, self.processes, self._shared, free_space.reserve())
        future: Future[R] = self._executor.submit(remote, parcel, key=key)  # type: ignore[call-arg]
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Waits for all tasks, or has the scheduler forget them, at which their workers give up."""
        self._ended.set()
        self._executor.shutdown(wait=wait)
        with suppress(Exception):  # the cluster may be gone, and nothing depends on it
            self._client.sync(self._clean_up, callback_timeout=CONNECT_SECONDS)
        self._run(close_connections, self.command)

    async def _clean_up(self) -> None:
        await asyncio.gather(*(self._client.scheduler.event_clear(name=key) for key in self._keys))

    def _check_versions(self) -> None:
        """Before anything of ours is sent that a worker without us could not even read. Raises `ClusterError`."""
        for worker, version in self._run(pkgutil.resolve_name, "neptune_exporter:__version__").items():
            if isinstance(version, Exception):
                raise ClusterError(
                    f"The worker {worker} has no neptune-exporter: {version}.",
                    f"Install neptune-exporter {__version__} there, with the same extras as here.",
                )
            _check_version(worker, here=__version__, there=version)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What every worker answers, or raises; a worker that hangs is not waited for long."""
        answers: dict[str, Any] = {}

        def run() -> None:
            with suppress(Exception):
                answers.update(self._client.run(function, *arguments, on_error="return"))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(CONNECT_SECONDS)
        return dict(answers)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what a cluster raises into our own errors."""
        from distributed.scheduler import KilledWorker

        try:
            yield
        except KilledWorker as error:
            raise ExporterError(
                "Several workers of the cluster died over the same run, most likely for lack of memory: "
                f"{error.last_worker.address} was the last.",
                "Give the workers more memory or fewer threads. Run the same command again: it goes on where it was.",
            ) from error
        except CancelledError as error:
            what = "has no workers any more" if self._alone else "is gone"
            raise TargetError(
                f"The Dask cluster at {self._address} {what}.",
                "What was finished is kept. Run the same command again when it is back.",
            ) from error

    def _watch(self) -> None:
        """Ends the command when no worker is left and none comes."""
        seen = time.monotonic()
        while not self._ended.wait(WATCH_SECONDS):
            there = True
            with suppress(Exception):  # a scheduler that is gone is what the client finds out itself
                there = bool(self._client.nthreads())
            if there:
                seen = time.monotonic()
            elif time.monotonic() - seen > ALONE_SECONDS:
                self._alone = True
                self._executor.shutdown(wait=False)
                return


class Parcel:
    """A task on its way. Dask writes arguments of failed tasks into its logs: this shows nothing of it.

    Args:
        content: the pickled function and its arguments.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __repr__(self) -> str:
        return f"<{len(self.content)} bytes>"


@dataclass(frozen=True)
class _Remote:
    """What a worker does with a parcel."""

    version: str
    command: str
    key: str
    processes: int
    shared: tuple[SharedFolder, ...]
    min_free: int

    def __call__(self, parcel: Parcel) -> Any:
        _check_version(_own_address(), here=self.version, there=__version__)
        _check_folders(self.shared)
        free_space.set_reserve(self.min_free)
        lease = _Lease(self.key)
        given = Assignment(self.command, self.key, lease.again, lease.revoked, self.processes)
        function, args, kwargs = pickle.loads(parcel.content)  # noqa: S301 - from our own client, as all of Dask
        with assigned(given):
            try:
                return function(*args, **kwargs)
            except MissingExtraError as error:
                message = f"On the worker {_own_address()} a package is missing: {error.message}"
                raise ClusterError(message, error.hint) from None
            except ExporterError as error:
                if error.fatal and not isinstance(error, ClusterError):  # what it lacks, this machine may have
                    error.message = f"On the worker {_own_address()}: {error.message}"
                    error.args = (error.message, error.hint)
                raise
            finally:
                if given.again:
                    close_connections(self.command, self.key)


def _check_version(worker: str, *, here: str, there: str) -> None:
    if here != there:
        raise ClusterError(
            f"The worker {worker} has neptune-exporter {there}, and this machine {here}.",
            "Install the same version everywhere.",
        )


@lru_cache(maxsize=8)
def _check_folders(shared: tuple[SharedFolder, ...]) -> None:
    """Once for each command, which has signs of its own, and worker. Raises `ClusterError`."""
    for folder in shared:
        folder.check()


class _Lease:
    """What the scheduler says of the task that this thread works on.

    Args:
        key: the task.

    Attributes:
        again: whether it was begun before, by whomever.
    """

    def __init__(self, key: str) -> None:
        from distributed import get_worker

        self._key = key
        self._worker = get_worker()
        self.again = bool(self._ask("event_is_set", name=key))
        self._ask("event_set", name=key)
        self._revoked, self._known_until = False, time.monotonic() + KNOWN_SECONDS

    def revoked(self, exactly: bool) -> bool:
        """Whether the task is another worker's now, or nobody's.

        Raises:
            ClusterError: it must be known exactly, and the scheduler does not answer.
        """
        if exactly or time.monotonic() > self._known_until:
            try:
                own = self._ask("processing", workers=[self._worker.address])
                self._revoked = self._key not in own[self._worker.address]
            except KeyError:  # the scheduler does not know this worker any more
                self._revoked = True
            except (OSError, TimeoutError, RuntimeError) as error:
                if exactly:
                    raise ClusterError(
                        f"The scheduler does not answer the worker {self._worker.address}: {error}.",
                        "What was finished is kept. Run the same command again.",
                    ) from error
            self._known_until = time.monotonic() + KNOWN_SECONDS
        return self._revoked

    def _ask(self, operation: str, **arguments: Any) -> Any:
        from distributed.utils import sync

        ask = getattr(self._worker.scheduler, operation)
        return sync(self._worker.loop, ask, callback_timeout=ANSWER_SECONDS, **arguments)


def _own_address() -> str:
    from distributed import get_worker

    return str(get_worker().address)
