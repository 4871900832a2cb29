# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs as they are held: by a server, or by a log on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.wandb import config, names
from neptune_exporter.loaders.wandb.log import fields, records
from neptune_exporter.loaders.wandb.server import HeldRun, Server

PAGE_ROWS = 5000
_HISTORY, _CONFIG, _ARTIFACT, _RUN = _WANTED = 2, 5, 8, 17


class RemoteRun:
    """A run on a server, with the artifact that its marker names."""

    def __init__(self, server: Server, held: HeldRun) -> None:
        self._server, self._held = server, held
        self.config = held.config

    def rows(self) -> Iterator[list[Mapping[str, Any]]]:
        """Its history, in pages."""
        return self._server.rows(self._held.name)

    def file(self, path: str, folder: Path) -> Path | None:
        """A file of its artifact."""
        entry = self._entries.get(path)
        if entry is None:
            return None
        target = folder / path.rpartition("/")[2]
        return target if self._server.download(self._artifact, path, entry, target) else None

    @cached_property
    def _artifact(self) -> str:
        name = self._held.name
        found = self._server.artifact(
            name, names.artifact_name(name.id), config.load_of(self._held.config).get("artifact", "")
        )
        if found is None:
            raise TargetError(f"The W&B run {name.id} has lost its artifact.", "Load the run again, or restore it.")
        return found

    @cached_property
    def _entries(self) -> Mapping[str, Any]:
        return self._server.manifest(self._artifact)


class LocalRun:
    """A run as its log has it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._config: dict[str, Any] = {}
        self._files: dict[str, Path] = {}
        for number, message in self._records():
            if number == _RUN:
                for part, value in fields(message):
                    if part == 4:
                        self._add_config(value)
            elif number == _CONFIG:
                self._add_config(message)
            elif number == _ARTIFACT:
                self._add_files(message)

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config."""
        return self._config

    def rows(self) -> Iterator[list[Mapping[str, Any]]]:
        """Its history, in pages."""
        page: list[Mapping[str, Any]] = []
        for number, message in self._records():
            if number == _HISTORY:
                page.append(_nested(value for part, value in fields(message) if part == 1))
                if len(page) == PAGE_ROWS:
                    yield page
                    page = []
        if page:
            yield page

    def file(self, path: str, folder: Path) -> Path | None:
        """A file of its artifact, where it lies."""
        return self._files.get(path)

    def _records(self) -> Iterator[tuple[int, Any]]:
        try:
            for record in records(self._log):
                yield next(((number, value) for number, value in fields(record) if number in _WANTED), (0, b""))
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise TargetError(f"{self._log} cannot be read: {error}.", "Load the run again.") from error

    def _add_config(self, message: bytes) -> None:
        self._config.update(_nested(value for part, value in fields(message) if part == 1))

    def _add_files(self, message: bytes) -> None:
        for part, manifest in fields(message):
            if part == 12:
                for number, entry in fields(manifest):
                    if number == 4:
                        found = dict(fields(entry))
                        self._files[found[1].decode()] = Path(found[6].decode())


def _nested(items: Iterator[bytes]) -> dict[str, Any]:
    """Items with a key, or nested keys, and a value as JSON."""
    found: dict[str, Any] = {}
    for item in items:
        keys, text = [], b"null"
        for number, value in fields(item):
            if number in (1, 2):
                keys.append(value.decode())
            elif number == 16:
                text = value
        inner = found
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = json.loads(text)
    return found
