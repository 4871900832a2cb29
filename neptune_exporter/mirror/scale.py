# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Mirrors `neptune_scale.Run`: methods of the client's own classes are wrapped in place.

So whatever was imported before, whatever is derived from `Run`, and every signature, value and exception stays
Neptune's own. What is mirrored are the operations that the client has just stored, byte for byte: what it validated,
dropped, split or stamped with a time is the same on both sides, and what it refused never arrives here.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from neptune_exporter.mirror import spool
from neptune_exporter.mirror.kept_files import FileToKeep
from neptune_exporter.mirror.mirror import current
from neptune_exporter.mirror.recorder import Entry, RunLog
from neptune_exporter.mirror.settings import Settings, stand_in_project
from neptune_exporter.mirror.wrapping import guarded, is_known, version_of

logger = logging.getLogger("neptune_exporter.mirror")

MODULE = "neptune_scale.api.run"
_LOG = "_neptune_exporter_log"


class _Thread(threading.local):
    """What a call of a thread has seen so far.

    Attributes:
        run: the run whose constructor it is in.
        buffers: contents that the client wrote to temporary files, by their paths.
        files: files that the operations that follow refer to.
    """

    def __init__(self) -> None:
        self.run: Any = None
        self.buffers: dict[str, bytes] = {}
        self.files: list[Entry] = []


_thread = _Thread()


def patch(module: ModuleType) -> None:
    """Wraps the client. Does nothing but warn if it is not the client that we know."""
    run: Any = getattr(module, "Run", None)
    repository: Any = getattr(module, "OperationsRepository", None)
    if not is_known("neptune-scale", _expected(module, run, repository)):
        return
    if getattr(run, "_neptune_exporter_patched", False):
        return
    run._neptune_exporter_patched = True  # noqa: SLF001 - ours
    run.__init__ = _wrapped_init(run.__init__)
    run._close = _wrapped_close(run._close)  # noqa: SLF001
    for name in ("get_run_url", "get_experiment_url"):
        setattr(run, name, _with_placeholder(getattr(run, name)))
    repository._insert_update_run_snapshots = wrapped_insert(repository._insert_update_run_snapshots)  # noqa: SLF001
    repository.save_create_run = _noting(repository.save_create_run, _note_created)
    repository.save_file_upload_requests = _noting(repository.save_file_upload_requests, _note_files)
    module._save_buffer_to_disk = _noting_buffers(module._save_buffer_to_disk)  # type: ignore[attr-defined] # noqa: SLF001


def _expected(module: ModuleType, run: Any, repository: Any) -> list[tuple[Any, str, set[str]]]:
    """What we rely on."""
    return [
        (run, "_close", {"timeout"}),
        (run, "__init__", {"run_id", "project", "mode", "experiment_name"}),
        (repository, "_insert_update_run_snapshots", {"ops"}),
        (repository, "save_create_run", {"run"}),
        (repository, "save_file_upload_requests", {"files"}),
        (module, "_save_buffer_to_disk", {"directory_path", "buffer", "extension"}),
    ]


# --- runs


def _wrapped_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        before, _thread.run = _thread.run, self
        try:
            original(self, *args, **(kwargs if args else _without_neptune(kwargs)))
        except BaseException:
            guarded(_end, self, "failed", 0.0)
            raise
        finally:
            _thread.run = before

    return __init__


def _without_neptune(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a run that never calls Neptune, if that is wanted: its own offline mode."""
    try:
        if not Settings.from_environment().without_neptune:
            return kwargs
        mode = kwargs.get("mode") or os.environ.get("NEPTUNE_MODE")
        changed = dict(kwargs) if mode == "disabled" else {**kwargs, "mode": "offline"}
        if not kwargs.get("project") and not os.environ.get("NEPTUNE_PROJECT"):
            changed["project"] = stand_in_project(os.environ)
    except Exception:
        logger.debug("dual logging", exc_info=True)
        return kwargs
    return changed


def _with_placeholder(original: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(original)
    def get_url(self: Any) -> str:
        try:
            return original(self)
        except Exception:
            mistaken = original.__name__ == "get_experiment_url" and self._experiment_name is None
            if mistaken or not Settings.from_environment().without_neptune:
                raise
            return f"https://neptune.invalid/{self._project}/{self._run_id}"

    return get_url


def _wrapped_close(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _close(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            return original(self, *args, **kwargs)
        finally:
            guarded(_end, self, "finished", kwargs.get("timeout"))

    return _close


def _end(run: Any, status: str, timeout: float | None) -> None:
    log, mirror = run.__dict__.get(_LOG), current()
    if log is not None and mirror is not None:
        mirror.close(log, status, timeout)


# --- what they log


def wrapped_insert(original: Callable[..., Any]) -> Callable[..., Any]:
    """The one method that stores operations, in the thread that logs them: all that a call of the script pays for."""

    @functools.wraps(original)
    def _insert_update_run_snapshots(self: Any, ops: list[bytes], *args: Any, **kwargs: Any) -> Any:
        stored = original(self, ops, *args, **kwargs)
        log: RunLog | None = self.__dict__.get(_LOG)
        if log is None:
            return stored
        try:
            if stored is not None:  # otherwise the client has dropped them
                entries: list[Entry] = [(spool.UPDATE, blob) for blob in ops]
                size = len(ops[0]) if len(ops) == 1 else sum(map(len, ops))
                if _thread.files:
                    size += sum(_bytes_of(file) for _, file in _thread.files)
                    entries = _thread.files + entries
                log.recorder.put(log, entries, size)
            if _thread.files:
                _thread.files = []
        except Exception:
            logger.debug("dual logging", exc_info=True)
        return stored

    return _insert_update_run_snapshots


def _noting(original: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    """A method of the client's store: what it has stored is noted."""
    name = list(inspect.signature(original).parameters)[1]

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        stored = original(self, *args, **kwargs)
        guarded(note, self, args[0] if args else kwargs[name])
        return stored

    return method


def _note_created(repository: Any, message: Any) -> None:
    """The run exists from here on."""
    run, mirror = _thread.run, current()
    if mirror is None or run is None:
        return
    log = mirror.open(run._project, run._run_id, "neptune-scale", version_of("neptune-scale"))  # noqa: SLF001
    run.__dict__[_LOG] = repository.__dict__[_LOG] = log
    payload = message.SerializeToString()
    mirror.recorder.put(log, [(spool.CREATE, payload)], len(payload), always=True)


def _note_files(repository: Any, requests: list[Any]) -> None:
    """Files go into the spool together with the operations that refer to them, which are stored next."""
    buffers, _thread.buffers = _thread.buffers, {}
    _thread.files = []
    if _LOG not in repository.__dict__:
        return
    for request in requests:
        content = buffers.get(request.source_path)
        path = request.source_path if content is None else request.destination
        file = FileToKeep(
            request.destination,
            request.source_path if content is None else content,
            path.replace("\\", "/").rpartition("/")[2],
            request.size_bytes,
            request.mime_type,
        )
        _thread.files.append((spool.FILE, file))


def _bytes_of(payload: Any) -> int:
    """What a file keeps in memory until it is in the spool."""
    return len(payload.source) if isinstance(payload.source, bytes) else 0


def _noting_buffers(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _save_buffer_to_disk(directory_path: Any, buffer: bytes, extension: Any) -> Any:
        path = original(directory_path, buffer, extension)
        guarded(_note_buffer, path, buffer)
        return path

    return _save_buffer_to_disk


def _note_buffer(path: Path, buffer: bytes) -> None:
    if current() is not None:
        _thread.buffers[str(path.absolute())] = buffer
