# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A new generation of a run, from the moment it is claimed until it counts or is given up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neptune_exporter.errors import ClaimedError, DamagedDataError, StagingError
from neptune_exporter.model import RunRef
from neptune_exporter.storage import commit, names
from neptune_exporter.storage.claims import Claim
from neptune_exporter.storage.files import FileWriter
from neptune_exporter.storage.manifest import MANIFESTS, Manifest, read_manifest
from neptune_exporter.storage.run import StagedRun

if TYPE_CHECKING:
    from neptune_exporter.storage.disk_folder import DiskFolder


class Draft(Protocol):
    """A new generation of a run. Whoever has one holds the run's claim.

    Attributes:
        generation: its number.
        files: takes the run's files.
    """

    generation: int
    files: FileWriter

    def temporary(self, what: str) -> Path:
        """A path on this machine for something of this export."""

    def part_name(self, number: int) -> str:
        """What a part will be called, in the project's data folder."""

    def name(self, suffix: str) -> str:
        """What something beside the manifest will be called."""

    def hand_over(self, temporary: Path, name: str) -> None:
        """A part is whole. It may be gone from this machine afterwards."""

    def check(self) -> None:
        """Raises `ClaimedError` if another command has taken over."""

    def commit(self, manifest: Manifest, new: Sequence[tuple[Path, str]]) -> None:
        """Makes it count.

        Args:
            manifest: says everything.
            new: temporary path, and name relative to the project's data folder, of the parts and of what is beside
                the manifest, in the order in which they are to appear.

        Raises:
            ClaimedError: another command has taken over.
        """

    def abort(self) -> None:
        """Leaves the run as it was before, unless the new generation is certain."""


class DiskDraft:
    """A draft in a folder of a file system; see `Draft`.

    Args:
        folder: the project.
        ref: the run.
        base: what the folder holds of it, as far as is known.

    Raises:
        ClaimedError: another command works on this run, or has just exported it.
    """

    def __init__(self, folder: DiskFolder, ref: RunRef, base: StagedRun | None) -> None:
        self._folder = folder
        self._ref = ref
        self._base = base
        self._stem = names.stem(ref.run_id)
        self._manifest: Manifest | None = None
        self._cleanup = ExitStack()
        self._claim = Claim(commit.claim_path(folder.data, self._stem), str(ref))
        self._cleanup.enter_context(self._claim)
        self._cleanup.callback(self._remove_temporary)
        try:
            folder.ensure_ours()
            self._orphans = self._check_base()
            self._remove_temporary()
            self.generation = 1 + (base.generation if base is not None else 0)
            taken = [*(base.file_paths() if base is not None else ()), *self._orphans]
            apart = self._claim.token[:8] if self._claim.inherited else ""
            self.files = FileWriter(folder.files, folder.run_folder(self._stem), self.generation, taken, apart)
        except BaseException:
            self._cleanup.close()
            raise

    def temporary(self, what: str) -> Path:
        """See `Draft`."""
        own = self._claim.token[:8]  # who has lost the run without knowing must not write into these
        return self._folder.data / MANIFESTS / f"{self._stem}.g{self.generation}.{own}.{what}.tmp"

    def part_name(self, number: int) -> str:
        """See `Draft`."""
        return names.part_name(self._stem, number)

    def name(self, suffix: str) -> str:
        """See `Draft`."""
        return f"{self._stem}{suffix}"

    def hand_over(self, temporary: Path, name: str) -> None:
        """See `Draft`: it stays where it is until the commit."""

    def check(self) -> None:
        """See `Draft`."""
        self._claim.check()

    def commit(self, manifest: Manifest, new: Sequence[tuple[Path, str]]) -> None:
        """See `Draft`."""
        folder = self._folder
        renames = [(f"{MANIFESTS}/{path.name}", name) for path, name in new]
        with self._claim.kept():
            self._manifest = manifest
            commit.commit(folder.data, folder.files, self._stem, manifest, renames, self._leftovers(manifest))
        self._cleanup.close()

    def abort(self) -> None:
        """See `Draft`."""
        if not self._commit_begun():
            with suppress(Exception):
                self.files.remove_all()
        with suppress(StagingError):  # what was wrong before is more worth knowing
            self._cleanup.close()

    def _check_base(self) -> list[str]:
        """What was planned with is still what is there, now that nobody else can change it.

        Returns:
            The files that lie here and that nobody can account for: the run is too damaged to be opened, or who
            held it before has left them.
        """
        try:
            now = self._folder.run(self._ref.run_id, claimed=True)
        except DamagedDataError:
            if self._base is not None:
                raise
            return self._folder.files_of(self._stem)
        known = self._base.generation if self._base is not None else 0
        if (now.generation if now is not None else 0) != known:
            raise ClaimedError(f"Another command has just exported {self._ref}.", "Run the same command again.")
        if not self._claim.inherited:
            return []
        known_files = set(self._base.file_paths()) if self._base is not None else set()
        return [path for path in self._folder.files_of(self._stem) if path not in known_files]

    def _leftovers(self, manifest: Manifest) -> dict[str, list[str]]:
        """What lies here of the old generation and is not named by the new one."""
        files = {file.path for file in manifest.files}
        numbered = (names.part_name(self._stem, number) for number in count(len(manifest.parts)))
        beyond = set(takewhile(lambda name: (self._folder.data / name).exists(), numbered))
        beside = [] if manifest.extra else [f"{MANIFESTS}/{self._stem}.extra.jsonl"]
        if self._base is not None:  # whose parts another tool may have named otherwise
            beyond |= set(self._base.part_names()) - {part.path for part in manifest.parts}
            beside += [f"{MANIFESTS}/{name}" for name in self._folder.numbered(self._stem)]
        old_files = self._base.owned_file_paths() if self._base is not None else []
        return {
            "data": [*sorted(beyond), *beside],
            "files": [path for path in [*old_files, *self._orphans] if path not in files],
        }

    def _remove_temporary(self) -> None:
        """Removes what this run's commands left under temporary names, now or before a crash."""
        if not self._commit_begun():
            self._folder.remove_temporary(self._stem, self._claim.token[:8] if self._claim.lost else "")

    def _commit_begun(self) -> bool:
        """Whether the new generation is certain: whoever comes next will finish it and needs what it names."""
        if commit.next_path(self._folder.data, self._stem).exists():
            return True
        path = commit.manifest_path(self._folder.data, self._stem)
        return self._manifest is not None and path.exists() and read_manifest(path) == self._manifest
