# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A new generation of a run on an object store: names that nobody else has, then the manifest that names them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neptune_exporter.errors import ClaimedError, DamagedDataError, ExporterError
from neptune_exporter.model import RunRef
from neptune_exporter.storage import names
from neptune_exporter.storage.files import FileWriter
from neptune_exporter.storage.manifest import MANIFESTS, Manifest, json_bytes
from neptune_exporter.storage.objects.claim import GenerationClaim, taken_over
from neptune_exporter.storage.objects.files import ObjectFileWriter
from neptune_exporter.storage.objects.path import ObjectPath
from neptune_exporter.storage.objects.scratch import scratch_folder
from neptune_exporter.storage.objects.uploads import Uploads
from neptune_exporter.storage.run import StagedRun

if TYPE_CHECKING:
    from neptune_exporter.storage.objects.folder import ObjectFolder

logger = logging.getLogger(__name__)


class ObjectDraft:
    """A draft on an object store; see `Draft`.

    Args:
        folder: the project.
        ref: the run.
        base: what the folder holds of it, as far as is known.

    Raises:
        ClaimedError: another command works on this run, or has just exported it.
    """

    def __init__(self, folder: ObjectFolder, ref: RunRef, base: StagedRun | None) -> None:
        self._folder = folder
        self._ref = ref
        self._base = base
        self._stem = names.stem(ref.run_id)
        self._commits = False  # whether the manifest was to be put
        self._tried = False  # whether it may be there
        self._handed_over: set[str] = set()
        self._cleanup = ExitStack()
        try:
            folder.ensure_ours()
            above = base.generation if base is not None and base.manifest is not None else 0
            claim = GenerationClaim(folder, self._stem, str(ref), above)
            self._claim = self._cleanup.enter_context(claim)
            self.generation = claim.number
            self._own = f"g{claim.number}-{claim.token[:8]}"
            if self._check_base() or claim.took_over:
                self._sweep()
            scratch = self._cleanup.enter_context(scratch_folder())
            self._scratch = Path(scratch)
            self._uploads = Uploads()
            self._cleanup.callback(self._uploads.stop)
            run_folder, apart = folder.run_folder(self._stem), claim.token[:8]
            self.files: FileWriter = ObjectFileWriter(
                folder.files, self._scratch, self._uploads, run_folder, claim.number, apart
            )
        except BaseException:
            self._cleanup.close()
            raise

    def temporary(self, what: str) -> Path:
        """See `Draft`."""
        return self._scratch / f"{what}.tmp"

    def part_name(self, number: int) -> str:
        """See `Draft`."""
        return names.part_name(self._stem, number).replace(".parquet", f".{self._own}.parquet")

    def name(self, suffix: str) -> str:
        """See `Draft`."""
        return f"{self._stem}.{self._own}{suffix}"

    def hand_over(self, temporary: Path, name: str) -> None:
        """See `Draft`."""
        self._handed_over.add(name)
        self._uploads.add(temporary, self._folder.data, name)

    def check(self) -> None:
        """See `Draft`."""
        if not self._commits:
            self._claim.check()

    def commit(self, manifest: Manifest, new: Sequence[tuple[Path, str]]) -> None:
        """See `Draft`."""
        for path, name in new:
            if name not in self._handed_over:  # as parts were when they were whole
                self.hand_over(path, name)
        self._uploads.wait()
        manifest = replace(manifest, replaced=self._replaced(manifest))
        if not self._put_manifest(json_bytes(manifest.to_json())):
            raise taken_over(str(self._ref))
        self._remove_old(manifest)
        self._cleanup.close()

    def _replaced(self, manifest: Manifest) -> tuple[tuple[str, int], ...]:
        if self._base is None or self._base.manifest is not None:
            return ()
        kept = {part.path for part in manifest.parts}
        return tuple((name, self._folder.size_of(name)) for name in self._base.part_names() if name not in kept)

    def _put_manifest(self, content: bytes) -> bool:
        """Returns whether it is there; not if another command has made it impossible."""
        path = self._folder.data / MANIFESTS / f"{self._stem}.g{self.generation}.json"
        self._commits = self._tried = True
        try:
            created = path.create(content)
        except (ExporterError, OSError):
            # Nobody knows the outcome, and it may still arrive: unless its place is taken.
            if self._folder.void(self._stem, self.generation):
                self._tried = False
                raise
            created = path.read_bytes() == content
        self._tried = created
        return created

    def abort(self) -> None:
        """See `Draft`."""
        self._uploads.stop()
        try:
            if not self._tried or self._folder.void(self._stem, self.generation):
                for place, begun in self._uploads.begun.items():
                    place.remove(begun)
        except (ExporterError, OSError):
            self._claim.leave()
        with suppress(ExporterError, OSError):
            self._cleanup.close()

    def _check_base(self) -> bool:
        """What was planned with is still what is there, now that nobody else can change it.

        Returns:
            Whether the run is there, but too damaged to be opened.
        """
        known = self._base.generation if self._base is not None and self._base.manifest is not None else None
        standing = self._claim.standing
        number = max(standing.manifests, default=None)
        if number is None and known is None:
            return False
        if number is not None and known is None:
            try:
                self._folder.run(self._ref.run_id)
            except DamagedDataError:
                return True
        # One that was copied from a folder has no number in its name.
        if known is None or number not in (known, 0):
            raise ClaimedError(f"Another command has just exported {self._ref}.", "Run the same command again.")
        return False

    def _sweep(self) -> None:
        """Removes what those have left who cannot finish it any more: everything that no manifest names."""
        folder, named, files = self._folder, set[str](), set[str]()
        if self._base is not None:
            named = {*self._base.part_names(), *names_beside(self._base)}
            files = set(self._base.file_paths())
        run_files = f"{folder.run_folder(self._stem)}/"
        parts = folder.data.below(f"{self._stem}_part_")
        self._abandon(folder.data / f"{self._stem}_part_")
        self._abandon(folder.files / run_files)
        folder.data.remove([name for name in parts if name not in named and names.parse_part(name) is None])
        beside = [name for name in folder.beside(self._stem) if name not in named]
        own = f".g{self.generation}.claim"
        (folder.data / MANIFESTS).remove(
            [name for name in beside if not name.endswith(".json") and not name.endswith(own)]
        )
        folder.files.remove([name for name in folder.files.below(run_files) if name not in files])

    def _abandon(self, start: ObjectPath) -> None:
        """Ends uploads that the dead have begun; they count for nothing, and to list them takes a permission more."""
        try:
            start.store.abandon(start.key)
        except ExporterError as error:
            logger.info("%s: unfinished uploads stay: %s", self._ref, error)

    def _remove_old(self, manifest: Manifest) -> None:
        """The new generation counts; whoever comes next does what fails here."""
        folder, standing = self._folder, self._claim.standing
        new = StagedRun(folder, self._ref, manifest)
        try:
            if self._base is not None:
                folder.remove_objects(self._base, keeping=new)
            if standing.current is not None:
                (folder.data / MANIFESTS).remove([standing.current])
        except (ExporterError, OSError) as error:
            logger.info("%s: what older exports have left stays for now: %s", self._ref, error)


def names_beside(run: StagedRun) -> list[str]:
    """What lies beside the manifest of a run and belongs to it."""
    if run.manifest is None:
        return []
    return [entry.path for entry in (run.manifest.index, run.manifest.extra) if entry is not None]
