# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One project's folder in the staging area: which runs it holds, and the door for writing one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from neptune_exporter import __version__
from neptune_exporter.errors import DamagedDataError, StagingError
from neptune_exporter.model import Kind, RunRef
from neptune_exporter.storage import names
from neptune_exporter.storage.files import FileReader
from neptune_exporter.storage.manifest import AREA, FORMAT, MANIFESTS, FileEntry, Manifest
from neptune_exporter.storage.parquet import open_part, part_batches
from neptune_exporter.storage.place import Place
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.shapes import is_area

if TYPE_CHECKING:
    from neptune_exporter.storage.draft import Draft

Failed = Callable[[StagingError], None]

_TAMPERED = "The archive was changed. Restore it from a backup."


def raised(error: StagingError) -> None:
    """What becomes of a run or project that cannot be opened, unless somebody else takes it."""
    raise error


@dataclass(frozen=True)
class ProjectFolder(ABC):
    """The runs of one kind of one project, wherever they lie.

    Attributes:
        project_id: the project.
        kind: run, model or model version.
        data: the folder with the parts.
        files: the project's files folder, to which `file_value.path` is relative.
    """

    project_id: str
    kind: Kind
    data: Place
    files: Place

    # --- what depends on where it lies

    @property
    @abstractmethod
    def ours(self) -> bool:
        """Whether this tool writes here: then a run without a manifest does not exist."""

    @abstractmethod
    def _names(self, below: str = "") -> list[str]:
        """The names of what lies in the data folder, or in a folder in it, in order."""

    @abstractmethod
    def _area(self) -> Any:
        """The content of `area.json`; only where the folder is ours."""

    @abstractmethod
    def _proven(self, run_stem: str, *, claimed: bool = False) -> StagedRun | None:
        """A run with a manifest, None if it has none."""

    @abstractmethod
    def was_replaced(self, run: StagedRun, *, suspect: bool) -> bool:
        """Whether a run is not what it was when it was opened.

        Args:
            run: the run.
            suspect: whether something of it could not be read.
        """

    @abstractmethod
    def size_of(self, name: str) -> int:
        """The size of a file in the data folder, in bytes. Raises `FileNotFoundError`."""

    @abstractmethod
    def entry(self, name: str, rows: int) -> FileEntry:
        """What a manifest would say of a part that lies here."""

    @abstractmethod
    def parts(self, run: StagedRun) -> AbstractContextManager[Iterable[tuple[Place, Any]]]:
        """The parts of a run with their names, open for reading from the beginning to the end."""

    @abstractmethod
    def file_reader(self, entries: Mapping[str, FileEntry] | None, check: Callable[[], None]) -> FileReader:
        """Reads files of a run; see `FileReader`."""

    @abstractmethod
    def files_of(self, run_stem: str) -> list[str]:
        """The files that lie in a run's own folder, relative to the project's files folder."""

    @abstractmethod
    def ensure_ours(self) -> None:
        """Marks the folder as ours, before the first part. What other tools have put here stays readable."""

    @abstractmethod
    def draft(self, ref: RunRef, base: StagedRun | None) -> Draft:
        """Claims a run for a new generation; see `Draft`."""

    @abstractmethod
    def adopt(self, run: StagedRun) -> None:
        """Writes a manifest for an unproven run, from what its parts and files hold now."""

    @abstractmethod
    def remove(self, run: StagedRun) -> None:
        """Removes a run: the manifest first, so that nothing half-removed looks complete."""

    # --- reading

    def runs(self, failed: Failed = raised) -> Iterator[StagedRun]:
        """All runs, proven ones first, then those of other tools that were here before us.

        Args:
            failed: takes what is wrong with a run that cannot be opened; the others follow. Raises it by default.
        """
        proven = set()
        for run_stem, run in self._opened(self._manifest_stems()):
            if run is not None:
                proven.add(names.digest_of(run_stem))
            if isinstance(run, StagingError):
                failed(run)
            elif run is not None:
                yield run
        foreign = self._foreign_stems()
        if foreign == set():
            return
        for run_stem, parts in self.loose_parts().items():
            if names.digest_of(run_stem) not in proven and (foreign is None or run_stem in foreign):
                try:
                    yield self._unproven(run_stem, parts)
                except StagingError as error:
                    failed(error)

    def run(self, run_id: str, *, claimed: bool = False) -> StagedRun | None:
        """One run, or None if it does not exist.

        Args:
            run_id: the run.
            claimed: whether the caller holds the run's claim.
        """
        run = self._proven(names.stem(run_id), claimed=claimed)
        if run is not None:
            return run
        foreign, digest = self._foreign_stems(), names.digest(run_id)
        if foreign is not None and not any(names.digest_of(run_stem) == digest for run_stem in foreign):
            return None
        for run_stem, parts in self.loose_parts(f"-{digest}_part_").items():
            if foreign is None or run_stem in foreign:
                return self._unproven(run_stem, parts)
        return None

    def strays(self) -> list[str]:
        """Stems of runs that another tool has added to our area since: they have parts but no manifest."""
        if not self.ours:
            return []
        found = self.loose_parts()  # before the manifests: a run that is committed meanwhile is none of them
        known = set(map(names.digest_of, [*self._manifest_stems(), *(self._foreign_stems() or ())]))
        return sorted(run_stem for run_stem in found if names.digest_of(run_stem) not in known)

    def stray(self, run_stem: str) -> StagedRun:
        """One of the `strays`."""
        return self._unproven(run_stem, self.loose_parts()[run_stem])

    def lost(self) -> dict[str, str]:
        """What should be a run and is none any more, or not yet: why, by run stem."""
        found, foreign = self._parts_by_run(), self._foreign_stems() or set()
        indexes = {name.removesuffix(".parquet") for name in self._names(MANIFESTS) if _is_index(name)}
        manifests = set(map(names.digest_of, self._manifest_stems()))  # last: what is committed meanwhile is not lost
        reasons = {
            run_stem: f"It has {len(parts)} parts, but not the first one: its export was not finished, or it was lost."
            for run_stem, parts in found.items()
            if names.digest_of(run_stem) not in manifests and parts[0][0] != 0
        }
        for run_stem in sorted(foreign - found.keys()):
            if names.digest_of(run_stem) not in manifests:
                reasons[run_stem] = "It was here when this area was taken over, and all its parts are gone."
        for run_stem in sorted(indexes):
            if names.digest_of(run_stem) not in manifests:
                reasons[run_stem] = "Its manifest is gone; only its index is left."
        return reasons

    def lost_runs(self) -> list[DamagedDataError]:
        """What is said of each of the `lost`."""
        return [
            DamagedDataError(f"{self.data / run_stem}: {reason}", "Export it again, or restore it from a backup.")
            for run_stem, reason in self.lost().items()
        ]

    def loose_parts(self, containing: str = "") -> dict[str, list[str]]:
        """The parts that lie here by run stem, in order, of runs whose first part is there.

        Args:
            containing: leaves out files without this text in their name.
        """
        found = self._parts_by_run(containing).items()
        return {run_stem: [name for _, name in parts] for run_stem, parts in found if parts[0][0] == 0}

    def _parts_by_run(self, containing: str = "") -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for name in self._names():
            parsed = names.parse_part(name) if containing in name else None
            if parsed:
                found.setdefault(parsed[0], []).append((parsed[1], name))
        return {run_stem: sorted(parts) for run_stem, parts in sorted(found.items())}

    def _manifest_stems(self) -> list[str]:
        listed = self._names(MANIFESTS)
        return sorted({name.partition(".")[0] for name in listed if name.endswith(".json") and name != AREA})

    def _opened(self, run_stems: Iterable[str]) -> Iterator[tuple[str, StagedRun | StagingError | None]]:
        """Runs with a manifest, or what is wrong with them, in order."""
        for run_stem in run_stems:
            yield run_stem, self._attempt(run_stem)

    def _attempt(self, run_stem: str) -> StagedRun | StagingError | None:
        try:
            return self._proven(run_stem)
        except StagingError as error:
            return error

    def _check_ref(self, manifest: Manifest, run_stem: str, path: Place) -> None:
        """Raises `DamagedDataError` if a manifest is not that of the run whose name it has."""
        ref = manifest.info.ref
        ours = (ref.project_id, ref.kind) == (self.project_id, self.kind)
        if not ours or names.digest(ref.run_id) != names.digest_of(run_stem):
            raise DamagedDataError(f"{path} is the manifest of {ref.kind} {ref}, not of what lies here.", _TAMPERED)

    def _unproven(self, run_stem: str, parts: list[str]) -> StagedRun:
        path = self.data / parts[0]
        for batch in part_batches(open_part(path), path):
            if batch.num_rows:
                run_id = batch.column("run_id")[0].as_py()
                if names.digest(run_id) != names.digest_of(run_stem):
                    raise DamagedDataError(f"{path} holds run {run_id}, whose parts have other names.", _TAMPERED)
                return StagedRun(self, RunRef(self.project_id, run_id, self.kind), None, parts)
        # Without a row there is nothing but the file name to go by.
        return StagedRun(self, RunRef(self.project_id, run_stem[:-17], self.kind), None, parts)

    def _foreign_stems(self) -> set[str] | None:
        """The runs that were here before us; None where the folder is not ours."""
        if not self.ours:
            return None
        area = self._area()
        self.check_area(area)
        return set(area.get("foreign", ()))

    def new_area(self) -> dict[str, Any]:
        """What `area.json` is to say."""
        return {
            "format": FORMAT,
            "tool": f"neptune-exporter {__version__}",
            "project_id": self.project_id,
            "kind": self.kind,
            "created": datetime.now(UTC).isoformat(),
            "foreign": sorted(self.loose_parts()),
        }

    def check_area(self, area: Any) -> None:
        """Raises `StagingError` if an `area.json` is damaged, or from a newer version of this tool."""
        path = self.data / MANIFESTS / AREA
        if not is_area(area):
            raise DamagedDataError(f"{path} is damaged.", "Restore it from a backup.")
        if area.get("format", 0) > FORMAT:
            raise StagingError(
                f"{path} was written by a newer version of neptune-exporter ({area.get('tool')}).",
                "Install that version or a later one: pip install -U neptune-exporter",
            )

    def run_folder(self, run_stem: str) -> str:
        """The run's folder, relative to the project's files folder."""
        return f"{names.KIND_FOLDERS[self.kind]}/{run_stem}".lstrip("/")


def _is_index(name: str) -> bool:
    """Whether a name is that of an index: on an object store, where it has a number, it is there before the run is."""
    return name.endswith(".parquet") and name.count(".") == 1
