# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A project's folder on an object store: the highest manifest of a run decides, and nothing ever changes its name.

`_manifest/<run>.g7.json` is put only if it is not there yet, when everything that it names is. An empty one says that
there is no generation 7 and will never be. `<run>.json` comes from a folder that was copied here, and is older than
all others. What lies here and is named by no manifest does not exist.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from neptune_exporter.errors import DamagedDataError, ExporterError, StagingError
from neptune_exporter.model import RunRef
from neptune_exporter.storage import disk, names
from neptune_exporter.storage.folder import ProjectFolder
from neptune_exporter.storage.manifest import (
    AREA,
    MANIFESTS,
    OBJECTS,
    FileEntry,
    Manifest,
    json_bytes,
    manifest_from,
    parse_json,
    read_json,
)
from neptune_exporter.storage.objects.claim import GenerationClaim
from neptune_exporter.storage.objects.draft import ObjectDraft
from neptune_exporter.storage.objects.files import ObjectFileReader, fetch
from neptune_exporter.storage.objects.path import Listing, ObjectPath
from neptune_exporter.storage.parquet import check_part, damaged, entry, open_part, write_index
from neptune_exporter.storage.run import StagedRun

logger = logging.getLogger(__name__)

READERS = 16  # manifests that are read at once
_PATIENCE = 10  # how often a run may be exported anew while its manifest is looked for
_CLAIM = re.compile(r"[^.]+\.g(?P<number>\d{1,9})\.claim", re.DOTALL)


@dataclass(frozen=True)
class Standing:
    """Which manifests a run has.

    Attributes:
        manifests: their names by generation, 0 for one that was copied from a folder; no void ones.
        last: the highest generation, void ones included; 0 without any.
        claims: the names of claims on generations that are decided.
        unfinished: whether the run was copied from a folder in the middle of a commit.
    """

    manifests: Mapping[int, str]
    last: int
    claims: tuple[str, ...]
    unfinished: bool

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> Standing:
        """From what lies beside the manifest, by name."""
        found = {int(m["number"] or 0): m.string for m in map(names.MANIFEST.fullmatch, sizes) if m}
        manifests = {number: name for number, name in sorted(found.items()) if sizes[name]}
        last = max(found, default=0)
        claims = tuple(m.string for m in map(_CLAIM.fullmatch, sorted(sizes)) if m and int(m["number"]) <= last)
        return cls(manifests, last, claims, any(name.endswith(".next.json") for name in sizes))

    @property
    def current(self) -> str | None:
        """The name of the manifest that counts, None if the run does not exist."""
        return self.manifests[max(self.manifests)] if self.manifests else None


@dataclass(frozen=True)
class ObjectFolder(ProjectFolder):
    """The runs of one kind of one project on an object store; see `ProjectFolder`."""

    data: ObjectPath
    files: ObjectPath

    # --- what lies here

    @property
    def _below(self) -> str:
        """Where the runs lie in the project's folder, with a slash at its end unless it is that itself."""
        below = names.KIND_FOLDERS[self.kind]
        return f"{below}/" if below else ""

    def _listing(self) -> Listing:
        key = self.data.key.removesuffix(self._below.rstrip("/")).rstrip("/")
        return replace(self.data, key=key).listing()

    @property
    def ours(self) -> bool:
        """See `ProjectFolder`."""
        return self._listing().size_of(f"{self._below}{MANIFESTS}/{AREA}") is not None

    def _names(self, below: str = "") -> list[str]:
        return sorted(self._listing().names(f"{self._below}{below}".rstrip("/")))

    def part_names(self) -> list[str]:
        """The names of all parts that were not put here by this tool."""
        return [name for name in self._names() if names.parse_part(name)]

    def area(self) -> Any:
        """The content of `area.json`."""
        known = self._listing().areas
        if self._below not in known:
            known[self._below] = read_json(self.data / MANIFESTS / AREA)
        return known[self._below]

    _area = area

    def standing(self, run_stem: str, *, anew: bool = False) -> Standing:
        """Which manifests a run has, as was listed or, if asked so, as it is now."""
        folder, listing = f"{self._below}{MANIFESTS}", self._listing()
        if anew:
            listing.renew(folder, run_stem, (self.data / MANIFESTS).below(f"{run_stem}."))
        return Standing.of(listing.about(folder, run_stem))

    def beside(self, run_stem: str) -> list[str]:
        """The names of all that lies beside the manifest of a run, as was listed."""
        return sorted(self._listing().about(f"{self._below}{MANIFESTS}", run_stem))

    def void(self, run_stem: str, number: int) -> bool:
        """Makes a generation impossible that is not there yet. Returns whether it is."""
        return (self.data / MANIFESTS / f"{run_stem}.g{number}.json").create(b"")

    # --- reading

    def _proven(self, run_stem: str, *, claimed: bool = False) -> StagedRun | None:
        standing = self.standing(run_stem)
        for _ in range(_PATIENCE):
            if standing.unfinished:
                raise StagingError(
                    f"{self.data / MANIFESTS / run_stem}.next.json: this run was copied here while it was committed.",
                    "Run neptune-exporter summary where it comes from, remove this object, and copy the run again.",
                )
            if standing.current is None:
                return None
            try:
                run = self._read_run(standing.current)
            except FileNotFoundError:  # replaced since it was listed
                standing = self.standing(run_stem, anew=True)
                continue
            replaced = self._still_there(run)
            if len(standing.manifests) > 1 or standing.claims or replaced:
                self._tidy(standing, run, replaced)
            return run
        raise StagingError(f"{self.data / run_stem} is exported again and again.", "Wait until that is over.")

    def _read_run(self, name: str) -> StagedRun:
        path = self.data / MANIFESTS / name
        manifest = manifest_from(parse_json(path.read_bytes(), path), path)
        number = names.MANIFEST.fullmatch(name)
        if number and number["number"] and int(number["number"]) != manifest.generation:
            raise DamagedDataError(f"{path} is of generation {manifest.generation}.", "Restore it from a backup.")
        self._check_ref(manifest, name.partition(".")[0], path)
        return StagedRun(self, manifest.info.ref, manifest)

    def _still_there(self, run: StagedRun) -> list[str]:
        """The parts of another tool that the run has taken over, and that are still as they were then."""
        known = run.manifest.replaced if run.manifest is not None else ()
        listing = self._listing() if known else None
        return [name for name, size in known if listing and listing.size_of(f"{self._below}{name}") == size]

    def _tidy(self, standing: Standing, run: StagedRun, replaced: list[str]) -> None:
        """Does what a command could not that died after its commit. It does not matter if this fails."""
        try:
            self.data.remove(replaced)
            self._remove_superseded(standing, run)
        except (ExporterError, OSError) as error:
            logger.info("%s: what older exports have left stays: %s", run.ref, error)

    def _remove_superseded(self, standing: Standing, run: StagedRun) -> None:
        """Removes older generations: first what their manifests name and the run does not, then the manifests."""
        old = [name for name in standing.manifests.values() if name != standing.current]
        for name in old:
            try:
                before = self._read_run(name)
            except (FileNotFoundError, DamagedDataError):
                continue  # another command is at it, or nobody knows what it has named
            self.remove_objects(before, keeping=run)
        (self.data / MANIFESTS).remove([*old, *standing.claims])

    def remove_objects(self, run: StagedRun, keeping: StagedRun | None = None) -> None:
        """Removes what a run names and another one does not."""
        kept_data, kept_files = (names_of(keeping), set(keeping.file_paths())) if keeping else (set(), set())
        self.data.remove(sorted(names_of(run) - kept_data))
        self.files.remove([path for path in run.owned_file_paths() if path not in kept_files])

    def _opened(self, run_stems: Iterable[str]) -> Iterator[tuple[str, StagedRun | StagingError | None]]:
        stems = list(run_stems)
        with ThreadPoolExecutor(READERS, thread_name_prefix="manifests") as pool:
            pending: deque[tuple[str, Future[StagedRun | StagingError | None]]] = deque()
            try:
                for run_stem in stems:
                    pending.append((run_stem, pool.submit(self._attempt, run_stem)))
                    if len(pending) >= 4 * READERS:
                        first, found = pending.popleft()
                        yield first, found.result()
                while pending:
                    first, found = pending.popleft()
                    yield first, found.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _unproven(self, run_stem: str, parts: list[str]) -> StagedRun:
        # Without a row there is nothing but the file name to go by.
        run_id = first_value(self.data / parts[0], "run_id") or run_stem[:-17]
        return StagedRun(self, RunRef(self.project_id, run_id, self.kind), None, parts)

    def was_replaced(self, run: StagedRun, *, suspect: bool) -> bool:
        """See `ProjectFolder`: what a manifest names is never written again, so that only what is gone is suspect."""
        if not suspect:
            return False
        current = self.standing(names.stem(run.ref.run_id), anew=True).current
        if run.manifest is None or current is None:
            return (current is None) != (run.manifest is None)
        try:
            return self._read_run(current).manifest != run.manifest
        except (FileNotFoundError, DamagedDataError):
            return True

    def size_of(self, name: str) -> int:
        """See `ProjectFolder`."""
        return (self.data / name).size()

    def entry(self, name: str, rows: int) -> FileEntry:
        """See `ProjectFolder`."""
        size, digest = 0, hashlib.sha256()
        with disk.explained("read", self.data / name):
            for chunk in (self.data / name).stream():
                size += len(chunk)
                digest.update(chunk)
        return FileEntry(name, size, digest.hexdigest(), rows)

    @contextmanager
    def parts(self, run: StagedRun) -> Iterator[Iterable[tuple[ObjectPath, Any]]]:
        """See `ProjectFolder`. One after the other is fetched whole, checked, and gone before the next."""
        with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as scratch:
            yield self._fetched_parts(run, Path(scratch, "part.parquet"))

    def _fetched_parts(self, run: StagedRun, local: Path) -> Iterator[tuple[ObjectPath, Any]]:
        expected = run.manifest.parts if run.manifest is not None else None
        for number, name in enumerate(run.part_names()):
            path = self.data / name
            try:
                with disk.create(local) as file:
                    size, sha256 = fetch(path, file)
                if expected is not None:  # before Arrow looks at it
                    self._check_content(path, expected[number], size, sha256)
                with _opened(local, path) as part:
                    if expected is not None:
                        check_part(path, expected[number], part.metadata.num_rows, size)
                    yield path, part
            except FileNotFoundError as error:
                run.check_unchanged(suspect=True)
                raise damaged(path, error) from error

    @staticmethod
    def _check_content(path: ObjectPath, expected: FileEntry, size: int, sha256: str) -> None:
        if size != expected.bytes:
            raise DamagedDataError(
                f"{path} has {size} bytes instead of {expected.bytes}.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )
        if sha256 != expected.sha256:
            raise DamagedDataError(
                f"{path} was changed: its SHA-256 is not that of the manifest.",
                "Restore it from a backup, or export the run again with --overwrite.",
            )

    def file_reader(self, entries: Mapping[str, FileEntry] | None, check: Callable[[], None]) -> ObjectFileReader:
        """See `ProjectFolder`."""
        return ObjectFileReader(self.files, entries, check)

    def files_of(self, run_stem: str) -> list[str]:
        """See `ProjectFolder`."""
        return sorted(self.files.below(f"{self.run_folder(run_stem)}/"))

    # --- writing

    def ensure_ours(self) -> None:
        """See `ProjectFolder`."""
        if self.ours:
            self.check_area(self.area())
            if self.area().get("layout") != OBJECTS:  # copied here from a folder
                path = self.data / MANIFESTS / AREA
                path.put(json_bytes({**self.area(), "layout": OBJECTS}))
                self._listing().areas.pop(self._below, None)
            return
        path, content = self.data / MANIFESTS / AREA, json_bytes({**self.new_area(), "layout": OBJECTS})
        path.create(content)  # of several who do, one succeeds, and all of them mean the same
        if path.create(b"{}"):
            (self.data / MANIFESTS).remove([AREA])
            raise StagingError(
                f"{path} was replaced by a put that must not replace anything (If-None-Match).",
                "This store cannot keep two exports apart. Use one that knows conditional puts, or a newer version.",
            )
        listing = self._listing()
        listing.changed(f"{self._below}{MANIFESTS}/{AREA}", len(content))
        listing.areas.pop(self._below, None)

    def draft(self, ref: RunRef, base: StagedRun | None) -> ObjectDraft:
        """See `ProjectFolder`."""
        return ObjectDraft(self, ref, base)

    def adopt(self, run: StagedRun) -> None:
        """See `ProjectFolder`."""
        draft = self.draft(run.ref, run)
        try:
            attributes = run.attributes()
            path = draft.temporary("index")
            write_index(path, attributes)
            index = entry(path, draft.name(".parquet"), len(attributes))
            manifest = replace(run.as_manifest(draft.generation), index=index)
            draft.commit(manifest, [(path, f"{MANIFESTS}/{index.path}")])
        except BaseException:
            draft.abort()
            raise

    def remove(self, run: StagedRun) -> None:
        """See `ProjectFolder`."""
        run_stem = names.stem(run.ref.run_id)
        with GenerationClaim(self, run_stem, str(run.ref), run.generation) as claim:
            # Oldest first: the highest one counts until it is gone.
            for name in claim.standing.manifests.values():
                (self.data / MANIFESTS).remove([name])
            self.remove_objects(run)


def _opened(local: Path, path: ObjectPath) -> Any:
    """Opens a part that was fetched. What is wrong with it is said of the object."""
    try:
        return open_part(local)
    except DamagedDataError as error:
        raise DamagedDataError(error.message.replace(str(local), str(path)), error.hint) from error


def names_of(run: StagedRun) -> set[str]:
    """What a run names in the project's data folder: its parts, and what lies beside its manifest."""
    manifest: Manifest | None = run.manifest
    beside = (manifest.index, manifest.extra) if manifest is not None else ()
    return {*run.part_names(), *(f"{MANIFESTS}/{entry.path}" for entry in beside if entry is not None)}


def first_value(path: ObjectPath, column: str) -> str | None:
    """The first value of a text column of a part, read alone; None without rows. Raises `DamagedDataError`."""
    try:
        with open_part(path) as part:
            for batch in part.iter_batches(1, columns=[column]):
                value: str = batch.column(column)[0].as_py()
                return value
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    return None
