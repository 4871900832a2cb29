# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Moves the content of attached files into the run's files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from neptune_exporter.errors import Problem
from neptune_exporter.exporters.exporter import Files, Findings
from neptune_exporter.exporters.offline_scale.attachments import Located
from neptune_exporter.exporters.offline_scale.wire import step_decimal

_CHUNK_BYTES = 2**20


class Transfer:
    """Copies located files, and reports those that are missing or have changed.

    Args:
        files: takes the run's files.
        findings: takes the problems.
    """

    def __init__(self, files: Files, findings: Findings) -> None:
        self._files = files
        self._findings = findings

    def add(self, attribute: str, located: Located, step: int | None) -> str | None:
        """Stores one file.

        Args:
            attribute: the attribute path.
            located: where it should be.
            step: the step in micro-units, None for a single file.

        Returns:
            What belongs into `file_value.path`, or None if there is no content; that has been reported then.
        """
        file = self._open(attribute, located)
        if file is None:
            return None
        content = _Content(file)
        try:
            with file:
                stored = self._files.add(attribute, located.name, content, step=step_decimal(step))
        except _ReadError as error:
            self._findings.problem(Problem(f"{file.name} cannot be read: {error}.", attribute, "retry"))
            return None
        if located.size is not None and content.size != located.size:
            message = (
                f"{file.name} has changed since it was logged: it had {located.size:,} bytes and has {content.size:,}."
            )
            self._findings.problem(Problem(message, attribute))
        return stored

    def _open(self, attribute: str, located: Located) -> BinaryIO | None:
        reasons = []
        for path in located.candidates:
            try:
                return _open_regular(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                reasons.append(f"{path} cannot be read: {error.strerror or error}.")
        if reasons:
            self._findings.problem(Problem(" ".join(reasons), attribute, "retry"))
        elif located.was_uploaded:
            message = f"The content of {located.name} is not here: the log says that Neptune has it."
            self._findings.problem(Problem(message, attribute))
        else:
            message = f"{located.candidates[-1]} is missing. If it has moved, say so with --path-map OLD=NEW."
            self._findings.problem(Problem(message, attribute, "retry"))
        return None


class _ReadError(Exception):
    """Reading the source failed, as opposed to writing the copy."""


class _Content:
    """The content of a file in chunks, counted."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._file.read(_CHUNK_BYTES)
            except OSError as error:
                raise _ReadError(error.strerror or str(error)) from error
            if not chunk:
                return
            self.size += len(chunk)
            yield chunk


def _open_regular(path: Path) -> BinaryIO:
    """Opens a file to read. A folder, pipe or device is refused before it is opened: it could block for ever."""
    try:
        mode = path.stat().st_mode
    except ValueError:
        raise OSError(None, "no file can have this name", str(path)) from None
    if not stat.S_ISREG(mode):
        raise OSError(None, "it is not a regular file", str(path))
    return path.open("rb")
