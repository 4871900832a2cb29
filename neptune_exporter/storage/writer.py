# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Writes one run into the staging area: a sink that counts only once its manifest is there."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields, replace
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from neptune_exporter.errors import ClaimedError, DamagedDataError, InterruptedRunError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.model import SERIES_TYPES, OutsideValue, RunInfo, normalize
from neptune_exporter.storage import commit, disk, names
from neptune_exporter.storage.claims import Claim
from neptune_exporter.storage.files import FileWriter
from neptune_exporter.storage.manifest import (
    MANIFESTS,
    UNKNOWN,
    FileEntry,
    Manifest,
    SourceRecord,
    Totals,
    read_manifest,
)
from neptune_exporter.storage.merge import NEW, OLD, TAG_SETS, merged
from neptune_exporter.storage.parquet import PartWriter, entry, without_placeholders, write_index
from neptune_exporter.storage.run import StagedRun, Wanted, file_rows
from neptune_exporter.storage.sort import ExternalSort

if TYPE_CHECKING:
    from neptune_exporter.storage.folder import ProjectFolder

Policy = Literal["replace", "extend", "union"]


class RunWriter:
    """Takes the rows of one run in any order; also its files and findings.

    Args:
        folder: the project.
        info: the run's identity.
        source: what is being exported, for the manifest; its problems are those of earlier exports that this one
            does not try again.
        base: what the staging area holds of the run already.
        policy: what becomes of it. `replace`: the new export has all there is, but an attribute for which it
            reports a problem keeps its old rows too. `extend`: attributes that are not exported anew stay.
            `union`: points of both, the later write wins for single values.
        stop: asked now and then while committing; a commit that has begun is not stopped.

    Raises:
        ClaimedError: another command works on this run.
    """

    def __init__(
        self,
        folder: ProjectFolder,
        info: RunInfo,
        source: SourceRecord,
        base: StagedRun | None = None,
        policy: Policy = "replace",
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._info = info
        self._source = source
        self._base = base
        self._policy = policy
        self._stop = stop
        self._stem = names.stem(info.ref.run_id)
        self._lock = threading.Lock()
        self._problems: list[Problem] = []
        self._outside: list[OutsideValue] = []
        self._empty: set[tuple[str, str]] = set()
        self._fresh: set[tuple[str, str]] = set()
        self._contested: set[str] = set()
        self._manifest: Manifest | None = None
        self._mixed = self._done = False
        self.problems: tuple[Problem, ...] = ()
        self._cleanup = ExitStack()
        self._claim = Claim(commit.claim_path(folder.data, self._stem), str(info.ref))
        self._cleanup.enter_context(self._claim)
        self._cleanup.callback(self._remove_temporary)
        try:
            folder.ensure_ours()
            self._orphans = self._check_base()
            self._remove_temporary()
            self._generation = 1 + (base.generation if base is not None else 0)
            taken = [*(base.file_paths() if base is not None else ()), *self._orphans]
            apart = self._claim.token[:8] if self._claim.inherited else ""
            self.files = FileWriter(folder.files, folder.run_folder(self._stem), self._generation, taken, apart)
            self._sort = ExternalSort(info.ref, "attribute", self._temporary("sort"), origin=base is not None)
        except BaseException:
            self._cleanup.close()
            raise

    # --- what an exporter calls

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes rows in the fixed schema; drops those whose value is null."""
        with self._noticing():
            self._sort.add(without_placeholders(normalize(batch)), NEW)

    def problem(self, problem: Problem) -> None:
        """Something was refused or lost."""
        with self._lock:
            self._problems.append(problem)

    def outside(self, value: OutsideValue) -> None:
        """Keeps a value that the schema refuses beside the run, exactly."""
        with self._lock:
            self._outside.append(value)

    def empty(self, path: str, attribute_type: str) -> None:
        """Records an attribute without values."""
        with self._lock:
            self._empty.add((path, attribute_type))

    # --- the end

    def commit(self) -> None:
        """Makes the run count: the manifest last. Raises `ClaimedError` if another command has taken over."""
        with self._noticing():
            self._commit()

    def _commit(self) -> None:
        self._fresh = self._sort.attributes | self._empty | {(v.attribute, v.type) for v in self._outside}
        keeps = self._keeps()
        if self._base is not None and keeps is not None:
            self._add_base(self._base, keeps)
        sources = self._sources()
        self.problems = tuple(problem for source in sources for problem in source.problems)
        fingerprint = Fingerprint(self._sha256)
        used: set[str] = set()
        parts = self._write_parts(fingerprint, used)
        for path, attribute_type in sorted(self._empty - {a[:2] for a in fingerprint.attributes()}):
            fingerprint.add(Attribute(path, attribute_type))
        attributes = fingerprint.attributes()
        extra = self._write_extra(keeps)
        index = self._write_index(attributes)
        entries = {**(self._base.file_entries() if self._base else {}), **self.files.entries}
        manifest = Manifest(
            generation=self._generation,
            info=self._joined_info(),
            sources=sources,
            parts=tuple(part for _, part in parts),
            files=tuple(entries[path] for path in sorted(used)),
            index=index[1],
            extra=extra and extra[1],
            digest=run_digest(attributes, extra[1].sha256 if extra else ""),
            totals=Totals.of(attributes),
        )
        self._remove_unused(used)
        # part_0 last: to other readers of this layout it says that the run is there.
        renames = [(p.name, e.path) for p, e in reversed(parts)]
        renames = [(f"{MANIFESTS}/{temporary}", final) for temporary, final in renames]
        renames += [(f"{MANIFESTS}/{item[0].name}", f"{MANIFESTS}/{item[1].path}") for item in (extra, index) if item]
        with self._claim.kept():
            self._manifest = manifest
            leftovers = self._leftovers(manifest)
            commit.commit(self._folder.data, self._folder.files, self._stem, manifest, renames, leftovers)
        self._done = True
        self._cleanup.close()

    def abort(self) -> None:
        """Leaves the run as it was before."""
        if self._done:
            return
        self._done = True
        if not self._commit_begun():
            with suppress(Exception):
                self.files.remove_all()
        with suppress(StagingError):  # what was wrong before is more worth knowing
            self._cleanup.close()

    # --- parts of the commit

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Who has lost the run finds its temporary files gone: that is what is to be said then."""
        try:
            yield
        except (StagingError, OSError):
            self._claim.check()
            raise

    def _check_base(self) -> list[str]:
        """What was planned with is still what is there, now that nobody else can change it.

        Returns:
            The files that lie here and that nobody can account for: the run is too damaged to be opened, or who
            held it before has left them.
        """
        try:
            now = self._folder.run(self._info.ref.run_id, claimed=True)
        except DamagedDataError:
            if self._base is not None:
                raise
            return self._folder.files_of(self._stem)
        known = self._base.generation if self._base is not None else 0
        if (now.generation if now is not None else 0) != known:
            raise ClaimedError(f"Another command has just exported {self._info.ref}.", "Run the same command again.")
        if not self._claim.inherited:
            return []
        known_files = set(self._base.file_paths()) if self._base is not None else set()
        return [path for path in self._folder.files_of(self._stem) if path not in known_files]

    def _keeps(self) -> Wanted | None:
        """Which attributes of the base stay; None if it need not be read at all."""
        troubled = self._troubled
        if self._base is None or (self._policy == "replace" and not troubled):
            return None
        if self._policy == "union" or None in troubled:
            return lambda _path, _type: True
        if self._policy == "extend":
            anew = self._sort.attributes
            return lambda path, kind: (path, kind) not in anew or path in troubled
        return lambda path, _type: path in troubled

    @property
    def _troubled(self) -> set[str | None]:
        """The attributes that this export could not give, or not whole."""
        return {problem.attribute for problem in self._problems}

    def _add_base(self, base: StagedRun, keeps: Wanted) -> None:
        kept = [attribute for attribute in base.attributes() if keeps(attribute.path, attribute.type)]
        single = {path for path, kind in self._sort.attributes if kind not in SERIES_TYPES}
        self._contested = single & {a.path for a in kept if a.rows and a.type not in SERIES_TYPES} - TAG_SETS
        self._empty |= {a[:2] for a in kept if a.rows == 0}
        for batch in base.read(wanted=keeps) if any(a.rows for a in kept) else ():
            self._sort.add(batch, OLD)
            self._mixed = True

    def _rows(self) -> Iterator[pa.RecordBatch]:
        if not self._mixed:
            return self._sort.batches()
        winner = NEW if self._new_wins() else OLD
        return merged(self._sort.batches_with_origin(), self._sha256, winner=winner, contested=self._contested)

    def _new_wins(self) -> bool:
        """Whether this export knows of later writes than everything exported before, or replaces it anyway."""
        if self._base is None or self._policy != "union":
            return True
        known = [record.as_of for record in self._base.sources if record.as_of is not None]
        return self._source.as_of is not None and (not known or self._source.as_of >= max(known))

    def _joined_info(self) -> RunInfo:
        """The identity from both exports: that of the later one where it knows."""
        if self._base is None:
            return self._info
        first, second = (self._info, self._base.info) if self._new_wins() else (self._base.info, self._info)
        values = {f.name: getattr(first, f.name) for f in fields(RunInfo)}
        return RunInfo(**{k: getattr(second, k) if value is None else value for k, value in values.items()})

    def _write_parts(self, fingerprint: Fingerprint, used: set[str]) -> list[tuple[Path, FileEntry]]:
        writer = PartWriter(lambda n: self._temporary(f"part_{n}"))
        try:
            for batch in self._rows():
                self._check_stop()
                fingerprint.write(batch)
                used.update(path for _, path in file_rows(batch))
                writer.write(batch)
            written = writer.finish()
        except BaseException:
            writer.abort()
            raise
        return [
            (path, entry(path, names.part_name(self._stem, number), rows))
            for number, (path, rows) in enumerate(written)
        ]

    def _check_stop(self) -> None:
        if self._stop is not None and self._stop():
            raise InterruptedRunError

    def _remove_unused(self, used: set[str]) -> None:
        """Removes spilled rows, and files that were stored and then not named by any row.

        Before the commit: a process that dies right after it leaves nothing behind.
        """
        self._sort.close()
        for path in set(self.files.entries) - used:
            disk.remove(self._folder.files / path)

    def _write_index(self, attributes: list[Attribute]) -> tuple[Path, FileEntry]:
        path = self._temporary("index")
        write_index(path, attributes)
        return path, entry(path, f"{self._stem}.parquet", len(attributes))

    def _write_extra(self, keeps: Wanted | None) -> tuple[Path, FileEntry] | None:
        old = (self._base.extra() or b"").decode().splitlines() if self._base is not None and keeps is not None else []
        lines = [line for line in old if keeps is not None and keeps(*map(json.loads(line).get, ("attribute", "type")))]
        new = (json.dumps(asdict(value), ensure_ascii=True) for value in self._outside)
        known = set(lines)
        lines += [line for line in new if line not in known]
        if not lines:
            return None
        path = self._temporary("extra")
        disk.write(path, ["".join(f"{line}\n" for line in lines).encode()])
        return path, entry(path, f"{self._stem}.extra.jsonl", len(lines))

    def _sources(self) -> tuple[SourceRecord, ...]:
        """All sources that contributed, this one last, each with what it could not give."""
        before: tuple[SourceRecord, ...] = ()
        if self._base is not None:
            before = self._base.sources or (SourceRecord(UNKNOWN, UNKNOWN, problems=self._base.problems),)
        own = [*self._problems, *self._kept_beside()]
        fresh = {path for path, _ in self._fresh}
        stay = [problem for problem in self._source.problems if problem.attribute not in fresh]
        # An attribute that fails now keeps what it had, and so also what was wrong with that.
        old = [p for record in before if record.name == self._source.name for p in record.problems]
        troubled = self._troubled
        stay += [p for p in old if p.kind == "permanent" and (p.attribute in troubled or None in troubled)]
        own += [problem for problem in dict.fromkeys(stay) if problem not in own]
        others = () if self._policy == "replace" else (r for r in before if r.name != self._source.name)
        return (*others, replace(self._source, problems=tuple(own)))

    def _kept_beside(self) -> list[Problem]:
        counts = Counter((value.attribute, value.reason) for value in self._outside)
        return [
            Problem(f"Kept beside the run: {reason}.", attribute, "permanent", times)
            for (attribute, reason), times in counts.items()
        ]

    def _leftovers(self, manifest: Manifest) -> dict[str, list[str]]:
        """What lies here of the old generation and is not named by the new one."""
        files = {file.path for file in manifest.files}
        numbered = (names.part_name(self._stem, number) for number in count(len(manifest.parts)))
        beyond = set(takewhile(lambda name: (self._folder.data / name).exists(), numbered))
        if self._base is not None:  # whose parts another tool may have named otherwise
            beyond |= set(self._base.part_names()) - {part.path for part in manifest.parts}
        beside = [] if manifest.extra else [f"{MANIFESTS}/{self._stem}.extra.jsonl"]
        old_files = self._base.owned_file_paths() if self._base is not None else []
        return {
            "data": [*sorted(beyond), *beside],
            "files": [path for path in [*old_files, *self._orphans] if path not in files],
        }

    def _sha256(self, path: str) -> str:
        own = self.files.entries.get(path)
        if own is not None:
            return own.sha256
        assert self._base is not None, f"the exporter named a file that it did not add: {path}"
        return self._base.files.sha256(path)

    def _temporary(self, what: str) -> Path:
        own = self._claim.token[:8]  # who has lost the run without knowing must not write into these
        return self._folder.data / MANIFESTS / f"{self._stem}.g{self._generation}.{own}.{what}.tmp"

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
