# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A project's folder in a file system."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neptune_exporter.errors import ClaimedError, DamagedDataError, StagingError
from neptune_exporter.model import RunRef
from neptune_exporter.storage import commit, disk, names
from neptune_exporter.storage.claims import Claim
from neptune_exporter.storage.draft import DiskDraft
from neptune_exporter.storage.files import FileReader
from neptune_exporter.storage.folder import ProjectFolder
from neptune_exporter.storage.manifest import AREA, MANIFESTS, OBJECTS, FileEntry, read_json, read_manifest
from neptune_exporter.storage.parquet import check_part, entry, open_part, write_index
from neptune_exporter.storage.run import StagedRun


@dataclass(frozen=True)
class DiskFolder(ProjectFolder):
    """The runs of one kind of one project in a file system; see `ProjectFolder`.

    Raises:
        DamagedDataError: one of its folders is a link: what lies behind it is not the area's.
    """

    data: Path
    files: Path

    def __post_init__(self) -> None:
        above = [] if self.kind == "run" else [self.data.parent]
        for folder in (*above, self.data, self.data / MANIFESTS, self.files):
            if folder.is_symlink():
                raise DamagedDataError(
                    f"{folder} is a link, and not a folder of this area.",
                    "Put the folder itself there; the whole area may lie behind a link.",
                )

    # --- reading

    @property
    def ours(self) -> bool:
        """See `ProjectFolder`."""
        return (self.data / MANIFESTS / AREA).exists()

    def _names(self, below: str = "") -> list[str]:
        return _listed(self.data / below)

    def _area(self) -> Any:
        return read_json(self.data / MANIFESTS / AREA)

    def _proven(self, run_stem: str, *, claimed: bool = False) -> StagedRun | None:
        (commit.finish if claimed else commit.roll_forward)(self.data, self.files, run_stem)
        path = self._manifest_path(run_stem)
        if not path.exists():
            return None
        manifest = read_manifest(path)
        self._check_ref(manifest, run_stem, path)
        return StagedRun(self, manifest.info.ref, manifest)

    def _manifest_path(self, run_stem: str) -> Path:
        """Where the manifest of a run lies: in a copy of an object store it has the number of its generation."""
        path = commit.manifest_path(self.data, run_stem)
        if path.exists():
            return path
        found = [(self.data / MANIFESTS / name, names.MANIFEST.fullmatch(name)) for name in self.numbered(run_stem)]
        there = {int(m["number"]): place for place, m in found if m and place.stat().st_size}
        return there[max(there)] if there else path

    def numbered(self, run_stem: str) -> list[str]:
        """What lies beside the manifest of a run and comes from an object store."""
        if not self.ours or self._area().get("layout") != OBJECTS:
            return []
        return [name for name in self._names(MANIFESTS) if name.startswith(f"{run_stem}.g") and name[-4:] != ".tmp"]

    def was_replaced(self, run: StagedRun, *, suspect: bool) -> bool:
        """See `ProjectFolder`.

        A commit that had begun before is still written down, or its manifest is there: looked at in this order,
        none is missed.
        """
        stem = names.stem(run.ref.run_id)
        path = self._manifest_path(stem)
        begun = commit.next_path(self.data, stem).exists()
        return begun or (read_manifest(path) if path.exists() else None) != run.manifest

    def size_of(self, name: str) -> int:
        """See `ProjectFolder`."""
        return (self.data / name).stat().st_size

    def entry(self, name: str, rows: int) -> FileEntry:
        """See `ProjectFolder`."""
        return entry(self.data / name, name, rows)

    @contextmanager
    def parts(self, run: StagedRun) -> Iterator[Iterable[tuple[Path, Any]]]:
        """See `ProjectFolder`. All are open before the first row: a new generation that comes later does no harm."""
        with ExitStack() as stack:
            for expected in run.manifest.parts if run.manifest is not None else ():
                self._check_content(run, self.data / expected.path, expected)
            parts = [(self.data / name, stack.enter_context(open_part(self.data / name))) for name in run.part_names()]
            if run.manifest is not None:
                for (path, part), expected in zip(parts, run.manifest.parts, strict=True):
                    check_part(path, expected, part.metadata.num_rows, path.stat().st_size)
            yield parts

    def _check_content(self, run: StagedRun, path: Path, expected: FileEntry) -> None:
        """Raises `DamagedDataError` if a part was changed; looks once, and before Arrow does.

        One that is missing or of another size is found later, and said to be that.
        """
        if not run.checks_content or expected.path in run.checked_parts:
            return
        with disk.explained("read", path):
            if not path.is_file() or path.stat().st_size != expected.bytes:
                return
        if entry(path, expected.path).sha256 != expected.sha256:
            raise DamagedDataError(
                f"{path} was changed: its SHA-256 is not that of the manifest.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )
        run.checked_parts.add(expected.path)

    def file_reader(self, entries: Mapping[str, FileEntry] | None, check: Callable[[], None]) -> FileReader:
        """See `ProjectFolder`."""
        return FileReader(self.files, entries, check)

    def files_of(self, run_stem: str) -> list[str]:
        """See `ProjectFolder`."""
        own = self.files / self.run_folder(run_stem)
        return sorted(path.relative_to(self.files).as_posix() for path in own.rglob("*") if path.is_file())

    # --- writing

    def ensure_ours(self) -> None:
        """Marks the folder as ours, before the first part. What other tools have put here stays readable."""
        path = self.data / MANIFESTS / AREA
        if path.exists():
            self.check_area(read_json(path))
            return
        for folder in (path.parent, self.files):
            disk.make_folder(folder)
        deadline = time.monotonic() + commit.PATIENCE_SECONDS
        while not path.exists():
            try:
                with Claim(path.with_name("area.claim"), str(self.data), assigned=False):
                    if not path.exists():
                        self._write_area(path)
            except ClaimedError:  # another run of this project does just this
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _write_area(self, path: Path) -> None:
        disk.write_json(path, self.new_area())

    def draft(self, ref: RunRef, base: StagedRun | None) -> DiskDraft:
        """See `ProjectFolder`."""
        return DiskDraft(self, ref, base)

    def adopt(self, run: StagedRun) -> None:
        """Writes a manifest for an unproven run, from what its parts and files hold now."""
        run_stem = names.stem(run.ref.run_id)
        self.ensure_ours()
        with Claim(commit.claim_path(self.data, run_stem), str(run.ref)) as claim:
            temporary = self.data / MANIFESTS / f"{run_stem}.g1.{claim.token[:8]}.index.tmp"
            attributes = run.attributes()
            write_index(temporary, attributes)
            index = entry(temporary, f"{run_stem}.parquet", len(attributes))
            manifest = replace(run.as_manifest(), index=index)
            renames = [(f"{MANIFESTS}/{temporary.name}", f"{MANIFESTS}/{index.path}")]
            with claim.kept():
                commit.commit(self.data, self.files, run_stem, manifest, renames, {})

    def remove(self, run: StagedRun) -> None:
        """Removes a run: the manifest first, so that nothing half-removed looks complete."""
        run_stem = names.stem(run.ref.run_id)
        with Claim(commit.claim_path(self.data, run_stem), str(run.ref)):
            for name in [commit.manifest_path(self.data, run_stem).name, *self.numbered(run_stem)]:
                disk.remove(self.data / MANIFESTS / name)
            disk.sync_folder(self.data / MANIFESTS)
            for name in run.part_names():
                disk.remove(self.data / name)
            for suffix in (".parquet", ".extra.jsonl"):
                disk.remove(self.data / MANIFESTS / f"{run_stem}{suffix}")
            for path in run.owned_file_paths():
                disk.remove(self.files / path)
            disk.remove_tree(self.files / self.run_folder(run_stem))

    def remove_temporary(self, run_stem: str, token: str = "") -> None:
        """Removes what interrupted exports of a run have left under temporary names.

        Args:
            run_stem: the run.
            token: only of this export, because another one is at work.
        """
        for name in _listed(self.data / MANIFESTS):
            if not (name.startswith(f"{run_stem}.") and name.endswith(".tmp") and f".{token}" in name):
                continue
            path = self.data / MANIFESTS / name
            (disk.remove_tree if name.endswith(".sort.tmp") else disk.remove)(path)
        if token:
            return
        own = self.files / self.run_folder(run_stem)
        for path in own.rglob(".*.tmp") if own.is_dir() else ():
            disk.remove(path)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - a Path for each of 100,000 parts would take a second
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StagingError(f"Cannot read {folder}: {error.strerror}.", "Check its permissions.") from error
