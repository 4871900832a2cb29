# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The folder `neptune/` of a loaded run, read back from its target and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from neptune_exporter.errors import TargetError
from neptune_exporter.loaders.attachments import FILES, FOLDER, MANIFEST, Manifest, file_entries, file_sha256


class Beside:
    """What travels beside a run.

    Args:
        run: what the run is called in messages, such as "MLflow run of team/project/RUN-1".
        fetch: gives a file of the folder on this machine by its name; None if the target does not have it.
        sha256: what the target says of the manifest, "" if it says nothing; None where targets never do.

    Attributes:
        manifest: the manifest, which names the other files.

    Raises:
        TargetError: the manifest is not there, or is not what the target says of it.
    """

    def __init__(self, run: str, fetch: Callable[[str], Path | None], sha256: str | None = None) -> None:
        self._run, self._fetch_file = run, fetch
        self._checked: dict[str, Path] = {}
        data = self._fetch(MANIFEST).read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise self._changed(MANIFEST)
        self.manifest = Manifest.from_bytes(data)

    def file(self, name: str) -> Path | None:
        """A file, checked; None if the run was loaded without one of that name.

        Raises:
            TargetError: it is not there, or is not what the manifest says.
        """
        if name not in self.manifest.files:
            return None
        if name not in self._checked:
            path = self._fetch(name)
            if file_sha256(path) != self.manifest.files[name]:
                raise self._changed(name)
            self._checked[name] = path
        return self._checked[name]

    def noticed(self, artifact: str, sha256: str) -> str:
        """The SHA-256 of an artifact as it was found; a third one if it is not the file that was loaded there.

        Two files of an attribute that were exchanged for each other would otherwise look like what was loaded.
        """
        if self._loaded.get(artifact, sha256) == sha256:
            return sha256
        return hashlib.sha256(f"{artifact}\0{sha256}".encode()).hexdigest()

    @cached_property
    def _loaded(self) -> dict[str, str]:
        files = self.file(FILES)
        return {entry["artifact"]: entry["sha256"] for entry in file_entries(files)} if files is not None else {}

    def _fetch(self, name: str) -> Path:
        path = self._fetch_file(name)
        if path is None or not path.is_file():
            raise TargetError(f"The {self._run} has no {FOLDER}/{name}.", "Load the run again, or restore it.")
        return path

    def _changed(self, name: str) -> TargetError:
        return TargetError(f"{FOLDER}/{name} of the {self._run} was changed after the run was loaded.")
