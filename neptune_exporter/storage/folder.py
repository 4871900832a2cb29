# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One project's folder in the staging area: which runs it holds, and the door for writing one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neptune_exporter import __version__
from neptune_exporter.errors import ClaimedError, DamagedDataError, StagingError
from neptune_exporter.model import Kind, RunRef
from neptune_exporter.storage import commit, disk, names
from neptune_exporter.storage.claims import Claim
from neptune_exporter.storage.manifest import AREA, FORMAT, MANIFESTS, read_json, read_manifest
from neptune_exporter.storage.parquet import entry, open_part, part_batches, write_index
from neptune_exporter.storage.run import StagedRun

KIND_FOLDERS: dict[Kind, str] = {"run": "", "model": "models", "model_version": "model_versions"}

Failed = Callable[[StagingError], None]


def raised(error: StagingError) -> None:
    """What becomes of a run or project that cannot be opened, unless somebody else takes it."""
    raise error


@dataclass(frozen=True)
class ProjectFolder:
    """The runs of one kind of one project.

    Attributes:
        project_id: the project.
        kind: run, model or model version.
        data: the folder with the parts.
        files: the project's files folder, to which `file_value.path` is relative.
    """

    project_id: str
    kind: Kind
    data: Path
    files: Path

    # --- reading

    @property
    def ours(self) -> bool:
        """Whether this tool writes here: then a run without a manifest does not exist."""
        return (self.data / MANIFESTS / AREA).exists()

    def runs(self, failed: Failed = raised) -> Iterator[StagedRun]:
        """All runs, proven ones first, then those of other tools that were here before us.

        Args:
            failed: takes what is wrong with a run that cannot be opened; the others follow. Raises it by default.
        """
        proven = set()
        for run_stem in self._manifest_stems():
            try:
                run = self._proven(run_stem)
            except StagingError as error:
                failed(error)
                proven.add(names.digest_of(run_stem))
                continue
            if run is not None:
                proven.add(names.digest_of(run_stem))
                yield run
        foreign = self._foreign_stems()
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
        indexes = {n.removesuffix(".parquet") for n in _listed(self.data / MANIFESTS) if n.endswith(".parquet")}
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

    def loose_parts(self, containing: str = "") -> dict[str, list[str]]:
        """The parts that lie here by run stem, in order, of runs whose first part is there.

        Args:
            containing: leaves out files without this text in their name.
        """
        found = self._parts_by_run(containing).items()
        return {run_stem: [name for _, name in parts] for run_stem, parts in found if parts[0][0] == 0}

    def files_of(self, run_stem: str) -> list[str]:
        """The files that lie in a run's own folder, relative to the project's files folder."""
        own = self.files / self.run_folder(run_stem)
        return sorted(path.relative_to(self.files).as_posix() for path in own.rglob("*") if path.is_file())

    def _parts_by_run(self, containing: str = "") -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for name in _listed(self.data):
            parsed = names.parse_part(name) if containing in name else None
            if parsed:
                found.setdefault(parsed[0], []).append((parsed[1], name))
        return {run_stem: sorted(parts) for run_stem, parts in sorted(found.items())}

    def _manifest_stems(self) -> list[str]:
        listed = _listed(self.data / MANIFESTS)
        stems = {name.removesuffix(".next.json") for name in listed if name.endswith(".next.json")}
        stems |= {
            name.removesuffix(".json")
            for name in listed
            if name.endswith(".json") and not name.endswith(".next.json") and name != AREA
        }
        return sorted(stems)

    def _proven(self, run_stem: str, *, claimed: bool = False) -> StagedRun | None:
        (commit.finish if claimed else commit.roll_forward)(self.data, self.files, run_stem)
        path = commit.manifest_path(self.data, run_stem)
        if not path.exists():
            return None
        manifest = read_manifest(path)
        return StagedRun(self, manifest.info.ref, manifest)

    def _unproven(self, run_stem: str, parts: list[str]) -> StagedRun:
        path = self.data / parts[0]
        for batch in part_batches(open_part(path), path):
            if batch.num_rows:
                run_id = batch.column("run_id")[0].as_py()
                return StagedRun(self, RunRef(self.project_id, run_id, self.kind), None, parts)
        # Without a row there is nothing but the file name to go by.
        return StagedRun(self, RunRef(self.project_id, run_stem[:-17], self.kind), None, parts)

    def _foreign_stems(self) -> set[str] | None:
        """The runs that were here before us; None where the folder is not ours."""
        path = self.data / MANIFESTS / AREA
        return set(read_json(path).get("foreign", ())) if path.exists() else None

    # --- writing

    def ensure_ours(self) -> None:
        """Marks the folder as ours, before the first part. What other tools have put here stays readable."""
        path = self.data / MANIFESTS / AREA
        if path.exists():
            self._check_area(read_json(path), path)
            return
        disk.make_folder(path.parent)
        disk.make_folder(self.files)
        deadline = time.monotonic() + commit.PATIENCE_SECONDS
        while not path.exists():
            try:
                with Claim(path.with_name("area.claim"), str(self.data)):
                    if not path.exists():
                        self._write_area(path)
            except ClaimedError:  # another run of this project does just this
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _write_area(self, path: Path) -> None:
        area = {
            "format": FORMAT,
            "tool": f"neptune-exporter {__version__}",
            "project_id": self.project_id,
            "kind": self.kind,
            "created": datetime.now(UTC).isoformat(),
            "foreign": sorted(self.loose_parts()),
        }
        disk.write_json(path, area)

    def _check_area(self, area: Any, path: Path) -> None:
        if not isinstance(area, dict):
            raise DamagedDataError(f"{path} is damaged.", "Restore it from a backup.")
        if area.get("format", 0) > FORMAT:
            raise StagingError(
                f"{path} was written by a newer version of neptune-exporter ({area.get('tool')}).",
                "Install that version or a later one: pip install -U neptune-exporter",
            )

    def adopt(self, run: StagedRun) -> None:
        """Writes a manifest for an unproven run, from what its parts and files hold now."""
        run_stem = names.stem(run.ref.run_id)
        self.ensure_ours()
        with Claim(commit.claim_path(self.data, run_stem), str(run.ref)):
            temporary = self.data / MANIFESTS / f"{run_stem}.g1.index.tmp"
            attributes = run.attributes()
            write_index(temporary, attributes)
            index = entry(temporary, f"{run_stem}.parquet", len(attributes))
            manifest = replace(run.as_manifest(), index=index)
            renames = [(f"{MANIFESTS}/{temporary.name}", f"{MANIFESTS}/{index.path}")]
            commit.commit(self.data, self.files, run_stem, manifest, renames, {})

    def remove(self, run: StagedRun) -> None:
        """Removes a run: the manifest first, so that nothing half-removed looks complete."""
        run_stem = names.stem(run.ref.run_id)
        with Claim(commit.claim_path(self.data, run_stem), str(run.ref)):
            disk.remove(commit.manifest_path(self.data, run_stem))
            disk.sync_folder(self.data / MANIFESTS)
            for name in run.part_names():
                disk.remove(self.data / name)
            for suffix in (".parquet", ".extra.jsonl"):
                disk.remove(self.data / MANIFESTS / f"{run_stem}{suffix}")
            for path in run.owned_file_paths():
                disk.remove(self.files / path)
            disk.remove_tree(self.files / self.run_folder(run_stem))

    def run_folder(self, run_stem: str) -> str:
        """The run's folder, relative to the project's files folder."""
        return f"{KIND_FOLDERS[self.kind]}/{run_stem}".lstrip("/")

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
