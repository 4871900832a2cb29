# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Mirrors runs of the 1.x client: every operation that it takes, as it would write it to its own log.

All attributes hand their operations to one method, `Attribute._enqueue_operation`; only deletions take another way.
Models, model versions and projects are not mirrored.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from neptune_exporter.mirror import spool
from neptune_exporter.mirror.imports import after_import
from neptune_exporter.mirror.kept_files import FilesToKeep, FileToKeep
from neptune_exporter.mirror.mirror import current
from neptune_exporter.mirror.recorder import Entry, RunLog
from neptune_exporter.mirror.settings import Settings, stand_in_project
from neptune_exporter.mirror.wrapping import guarded, is_known, version_of

logger = logging.getLogger("neptune_exporter.mirror")

MODULE = "neptune.metadata_containers.run"
_OTHERS = ("model", "model_version", "project")
_ATTRIBUTE, _CONTAINER = "neptune.attributes.attribute", "neptune.metadata_containers.metadata_container"
_LOG, _PROJECT = "_neptune_exporter_log", "_neptune_exporter_project"
_numbers = itertools.count(1)


def patch(module: ModuleType) -> None:
    """Wraps the client. Does nothing but warn if it is not the client that we know."""
    attribute: Any = getattr(sys.modules.get(_ATTRIBUTE), "Attribute", None)
    container: Any = getattr(sys.modules.get(_CONTAINER), "MetadataContainer", None)
    if not is_known("neptune", _expected(attribute, container, module.Run)):
        return
    if getattr(attribute, "_neptune_exporter_patched", False):
        return
    attribute._neptune_exporter_patched = True  # noqa: SLF001 - ours
    attribute._enqueue_operation = _wrapped_enqueue(attribute._enqueue_operation)  # noqa: SLF001
    container._pop_impl = _wrapped_pop(container._pop_impl)  # noqa: SLF001
    container.stop = _wrapped_stop(container.stop)
    module.Run.__init__ = _wrapped_init(module.Run.__init__)
    for name in _OTHERS:
        after_import(f"neptune.metadata_containers.{name}", _patch_other)


def _patch_other(module: ModuleType) -> None:
    """Models, versions and projects only learn to do without Neptune."""
    name = module.__name__.rpartition(".")[2].title().replace("_", "")
    kind = getattr(module, name, None)
    if kind is not None and "mode" in inspect.signature(kind.__init__).parameters:
        kind.__init__ = _wrapped_init(kind.__init__)


def _expected(attribute: Any, container: Any, run: Any) -> list[tuple[Any, str, set[str]]]:
    """What we rely on."""
    return [
        (attribute, "_enqueue_operation", {"operation", "wait"}),
        (container, "_pop_impl", {"parsed_path", "wait"}),
        (container, "stop", {"seconds"}),
        (run, "__init__", {"mode", "project", "custom_run_id"}),
    ]


# --- runs


def _wrapped_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        # The client forgets the project in its offline and debug modes.
        self.__dict__[_PROJECT] = kwargs.get("project") or os.environ.get("NEPTUNE_PROJECT") or ""
        if guarded(_is_without_neptune, kwargs):
            kwargs = {**kwargs, "mode": "debug"}
        original(self, *args, **kwargs)

    return __init__


def _is_without_neptune(kwargs: dict[str, Any]) -> bool:
    mode = kwargs.get("mode") or os.environ.get("NEPTUNE_MODE")
    return Settings.from_environment().without_neptune and mode != "offline"


def _wrapped_stop(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def stop(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            return original(self, *args, **kwargs)
        finally:
            guarded(_end, self, kwargs.get("seconds"))

    return stop


def _end(container: Any, seconds: float | None) -> None:
    log, mirror = container.__dict__.get(_LOG), current()
    if log is not None and mirror is not None:
        mirror.close(log, "finished", seconds)


def _log_of(container: Any) -> RunLog | None:
    """The log of a run, begun with its first operation; None for what is not mirrored."""
    log: RunLog | None = container.__dict__.get(_LOG)
    mirror = current()
    if log is not None or mirror is None:
        return log
    if getattr(container.container_type, "value", "") != "run":
        return None
    local = str(getattr(container._mode, "value", container._mode)) in ("offline", "debug")  # noqa: SLF001
    custom = getattr(container, "_custom_run_id", None) or ""
    container_id = str(container._id)  # noqa: SLF001
    if local:
        project = container.__dict__.get(_PROJECT) or stand_in_project(os.environ)
        run_id = custom or f"offline-{container_id}"
    else:
        project = f"{container._workspace}/{container._project_name}"  # noqa: SLF001
        run_id = str(container._sys_id)  # noqa: SLF001
    log = mirror.open(project, run_id, "neptune", version_of("neptune"), container=container_id, custom_run_id=custom)
    container.__dict__[_LOG] = log
    return log


# --- what they log


def _wrapped_enqueue(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _enqueue_operation(self: Any, operation: Any, *, wait: bool) -> None:
        # Before the client has it: it deletes its temporary files once they are uploaded.
        kept = guarded(_kept, self, operation)
        original(self, operation, wait=wait)
        guarded(_put, self._container, operation, kept)

    return _enqueue_operation


def _wrapped_pop(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _pop_impl(self: Any, parsed_path: list[str], *, wait: bool) -> None:
        original(self, parsed_path, wait=wait)
        guarded(_put_plain, self, {"type": "DeleteAttribute", "path": list(parsed_path)})

    return _pop_impl


def _kept(attribute: Any, operation: Any) -> FileToKeep | FilesToKeep | None:
    """The files of an upload; what lies in a temporary file is read now."""
    kind = type(operation).__name__
    if kind not in ("UploadFile", "UploadFileSet") or current() is None:
        return None
    key = f"{os.getpid()}-{next(_numbers)}"
    if kind == "UploadFileSet":
        return FilesToKeep(key, functools.partial(_members, list(operation.file_globs)))
    name = f"file.{operation.ext}" if operation.ext else "file"
    if operation.file_path:
        path = str(operation.file_path)
        return FileToKeep(key, path, Path(path).name, Path(path).stat().st_size)
    storage = attribute._container._op_processor.operation_storage  # noqa: SLF001
    content = Path(operation.get_absolute_path(storage)).read_bytes()
    return FileToKeep(key, content, name, len(content))


def _members(globs: list[str]) -> list[tuple[str, str]]:
    """The files of a file set, named as the client itself names them."""
    from neptune.internal.backends.hosted_file_operations import get_unique_upload_entries

    return [(entry.target_path, str(entry.source)) for entry in get_unique_upload_entries(globs)]


def _put(container: Any, operation: Any, kept: FileToKeep | FilesToKeep | None) -> None:
    log = _log_of(container)
    if log is None:
        return
    points = len(getattr(operation, "values", ()) or ())
    size = 200 + 64 * points + len(getattr(operation, "file_content", "") or "")
    entries: list[Entry] = []
    if kept is not None:
        entries.append((spool.FILE, kept))
        size += len(kept.source) if isinstance(kept, FileToKeep) and isinstance(kept.source, bytes) else 0
    entries.append((spool.LEGACY, functools.partial(_line, _as_now(operation), kept, time.time())))
    log.recorder.put(log, entries, size)


def _put_plain(container: Any, operation: dict[str, Any]) -> None:
    log = _log_of(container)
    if log is not None:
        payload = json.dumps({"obj": operation, "version": 0, "at": time.time()}).encode()
        log.recorder.put(log, [(spool.LEGACY, payload)], len(payload))


def _as_now(operation: Any) -> Any:
    """An operation that means the same in whatever folder it is looked at."""
    if type(operation).__name__ != "TrackFilesToArtifact":
        return operation
    return dataclasses.replace(operation, entries=[(_absolute(uri), target) for uri, target in operation.entries])


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _line(operation: Any, kept: FileToKeep | FilesToKeep | None, at: float) -> bytes:
    """An operation as the client writes it; in the recorder's thread."""
    value = operation.to_dict()
    if isinstance(kept, FileToKeep):
        value["kept"] = kept.destination
    elif kept is not None and kept.members is not None:
        value["members"] = kept.members
    return json.dumps({"obj": value, "version": 0, "at": at}).encode()
