# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Writes one run into the staging area: a sink that counts only once its manifest is there."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from neptune_exporter.errors import InterruptedRunError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.model import SERIES_TYPES, OutsideValue, RunInfo, normalize
from neptune_exporter.storage import disk
from neptune_exporter.storage.manifest import (
    MANIFESTS,
    UNKNOWN,
    FileEntry,
    Manifest,
    SourceRecord,
    Totals,
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
        self._info = info
        self._source = source
        self._base = base
        self._policy = policy
        self._stop = stop
        self._lock = threading.Lock()
        self._problems: list[Problem] = []
        self._outside: list[OutsideValue] = []
        self._empty: set[tuple[str, str]] = set()
        self._fresh: set[tuple[str, str]] = set()
        self._contested: set[str] = set()
        self._mixed = self._done = False
        self._parts: list[tuple[Path, FileEntry]] = []
        self.problems: tuple[Problem, ...] = ()
        self._draft = folder.draft(info.ref, base)
        self.files = self._draft.files
        self._sort = ExternalSort(info.ref, "attribute", self._draft.temporary("sort"), origin=base is not None)

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
        self._write_parts(fingerprint, used)
        for path, attribute_type in sorted(self._empty - {a[:2] for a in fingerprint.attributes()}):
            fingerprint.add(Attribute(path, attribute_type))
        attributes = fingerprint.attributes()
        extra = self._write_extra(keeps)
        index = self._write_index(attributes)
        entries = {**(self._base.file_entries() if self._base else {}), **self.files.entries}
        manifest = Manifest(
            generation=self._draft.generation,
            info=self._joined_info(),
            sources=sources,
            parts=tuple(part for _, part in self._parts),
            files=tuple(entries[path] for path in sorted(used)),
            index=index[1],
            extra=extra and extra[1],
            digest=run_digest(attributes, extra[1].sha256 if extra else ""),
            totals=Totals.of(attributes),
        )
        self._remove_unused(used)
        # part_0 last: to other readers of this layout it says that the run is there.
        new = [(path, part.path) for path, part in reversed(self._parts)]
        new += [(path, f"{MANIFESTS}/{entry.path}") for path, entry in (item for item in (extra, index) if item)]
        self._draft.commit(manifest, new)
        self._done = True

    def abort(self) -> None:
        """Leaves the run as it was before."""
        if not self._done:
            self._done = True
            self._draft.abort()

    # --- parts of the commit

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Who has lost the run finds its temporary files gone: that is what is to be said then."""
        try:
            yield
        except (StagingError, OSError):
            self._draft.check()
            raise

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

    def _write_parts(self, fingerprint: Fingerprint, used: set[str]) -> None:
        writer = PartWriter(lambda n: self._draft.temporary(f"part_{n}"), self._keep_part)
        try:
            for batch in self._rows():
                self._check_stop()
                fingerprint.write(batch)
                used.update(path for _, path in file_rows(batch))
                writer.write(batch)
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    def _keep_part(self, path: Path, rows: int) -> None:
        """A part is whole."""
        part = entry(path, self._draft.part_name(len(self._parts)), rows)
        self._parts.append((path, part))
        self._draft.hand_over(path, part.path)

    def _check_stop(self) -> None:
        if self._stop is not None and self._stop():
            raise InterruptedRunError

    def _remove_unused(self, used: set[str]) -> None:
        """Removes spilled rows, and files that were stored and then not named by any row.

        Before the commit: a process that dies right after it leaves nothing behind.
        """
        self._sort.close()
        self.files.remove(set(self.files.entries) - used)

    def _write_index(self, attributes: list[Attribute]) -> tuple[Path, FileEntry]:
        path = self._draft.temporary("index")
        write_index(path, attributes)
        return path, entry(path, self._draft.name(".parquet"), len(attributes))

    def _write_extra(self, keeps: Wanted | None) -> tuple[Path, FileEntry] | None:
        old = (self._base.extra() or b"").decode().splitlines() if self._base is not None and keeps is not None else []
        lines = [line for line in old if keeps is not None and keeps(*map(json.loads(line).get, ("attribute", "type")))]
        new = (json.dumps(asdict(value), ensure_ascii=True) for value in self._outside)
        known = set(lines)
        lines += [line for line in new if line not in known]
        if not lines:
            return None
        path = self._draft.temporary("extra")
        disk.write(path, ["".join(f"{line}\n" for line in lines).encode()])
        return path, entry(path, self._draft.name(".extra.jsonl"), len(lines))

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

    def _sha256(self, path: str) -> str:
        own = self.files.entries.get(path)
        if own is not None:
            return own.sha256
        assert self._base is not None, f"the exporter named a file that it did not add: {path}"
        return self._base.files.sha256(path)
