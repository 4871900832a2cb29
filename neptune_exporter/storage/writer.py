# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Writes one run into the staging area: a sink that counts only once its manifest is there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from neptune_exporter.errors import ClaimedError, InterruptedRunError, Problem, StagingError
from neptune_exporter.fingerprint import Attribute, Fingerprint, run_digest
from neptune_exporter.model import OutsideValue, RunInfo
from neptune_exporter.storage import commit, disk, names
from neptune_exporter.storage.claims import Claim
from neptune_exporter.storage.files import FileWriter
from neptune_exporter.storage.manifest import MANIFESTS, FileEntry, Manifest, SourceRecord, Totals
from neptune_exporter.storage.merge import NEW, OLD, merged
from neptune_exporter.storage.parquet import PartWriter, entry, without_placeholders, write_index
from neptune_exporter.storage.run import StagedRun, file_rows, rows_of
from neptune_exporter.storage.sort import ExternalSort

if TYPE_CHECKING:
    from neptune_exporter.storage.folder import ProjectFolder

Policy = Literal["replace", "extend", "union"]


class RunWriter:
    """Takes the rows of one run in any order; also its files and findings.

    Args:
        folder: the project.
        info: the run's identity.
        source: what is being exported, for the manifest.
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
        self._done = False
        self._cleanup = ExitStack()
        self._cleanup.enter_context(Claim(commit.claim_path(folder.data, self._stem), str(info.ref)))
        self._cleanup.callback(self._remove_temporary)
        try:
            folder.ensure_ours()
            self._check_base()
            self._remove_temporary()
            self._generation = 1 + (base.generation if base is not None else 0)
            taken = base.file_paths() if base is not None else ()
            self.files = FileWriter(folder.files, folder.run_folder(self._stem), self._generation, taken)
            self._sort = ExternalSort(
                info.ref, "attribute", folder.data / MANIFESTS / f"{self._stem}.sort.tmp", origin=base is not None
            )
            self._cleanup.callback(self._sort.close)
        except BaseException:
            self._cleanup.close()
            raise

    # --- what an exporter calls

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes rows in the fixed schema; drops those whose value is null."""
        self._sort.add(without_placeholders(batch), NEW)

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
        """Makes the run count: the manifest last."""
        problems = self.problems
        if self._base is not None:
            self._add_base(self._base)
        fingerprint = Fingerprint(self._sha256)
        used: set[str] = set()
        parts = self._write_parts(fingerprint, used)
        for path, attribute_type in sorted(self._empty - {a[:2] for a in fingerprint.attributes()}):
            fingerprint.add(Attribute(path, attribute_type))
        attributes = fingerprint.attributes()
        extra = self._write_extra()
        index = self._write_index(attributes)
        entries = {**(self._base.file_entries() if self._base else {}), **self.files.entries}
        manifest = Manifest(
            generation=self._generation,
            info=self._info if self._base is None else _joined_info(self._base.info, self._info),
            sources=self._sources(),
            parts=tuple(part for _, part in parts),
            files=tuple(entries[path] for path in sorted(used) if path in entries),
            index=index[1],
            extra=extra and extra[1],
            problems=problems,
            digest=run_digest(attributes, extra[1].sha256 if extra else ""),
            totals=Totals.of(attributes),
        )
        # part_0 last: to other readers of this layout it says that the run is there.
        renames = [(p.name, e.path) for p, e in reversed(parts)]
        renames = [(f"{MANIFESTS}/{temporary}", final) for temporary, final in renames]
        renames += [(f"{MANIFESTS}/{item[0].name}", f"{MANIFESTS}/{item[1].path}") for item in (extra, index) if item]
        commit.commit(self._folder.data, self._folder.files, self._stem, manifest, renames, self._leftovers(manifest))
        self._done = True
        self._remove_unused(used)
        self._cleanup.close()

    def abort(self) -> None:
        """Leaves the run as it was before."""
        if self._done:
            return
        self._done = True
        if not self._commit_begun():
            with suppress(Exception):
                self.files.remove_all()
        self._cleanup.close()

    # --- parts of the commit

    def _check_base(self) -> None:
        """What was planned with is still what is there, now that nobody else can change it."""
        now = self._folder.run(self._info.ref.run_id)
        known = self._base.generation if self._base is not None else 0
        if (now.generation if now is not None else 0) != known:
            raise ClaimedError(f"Another command has just exported {self._info.ref}.", "Run the same command again.")

    def _add_base(self, base: StagedRun) -> None:
        keep = self._keeps()
        for batch in base.read():
            self._sort.add(rows_of(batch, keep), OLD)
        self._empty |= {a[:2] for a in base.attributes() if a.rows == 0}

    def _keeps(self) -> Callable[[str, str], bool]:
        """Which attributes of the base stay."""
        troubled = {problem.attribute for problem in self._problems}
        fresh = self._sort.attributes | self._empty
        if self._policy == "union" or None in troubled:
            return lambda _path, _type: True
        if self._policy == "extend":
            return lambda path, kind: (path, kind) not in fresh or path in troubled
        return lambda path, _type: path in troubled

    def _rows(self) -> Iterator[pa.RecordBatch]:
        if self._base is None:
            return self._sort.batches()
        new_wins = self._policy != "union" or _is_later(self._source, self._base)
        return merged(self._sort.batches_with_origin(), self._sha256, winner=NEW if new_wins else OLD)

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
        """Removes files that were stored and then not named by any row."""
        with suppress(StagingError):
            for path in set(self.files.entries) - used:
                disk.remove(self._folder.files / path)

    def _write_index(self, attributes: list[Attribute]) -> tuple[Path, FileEntry]:
        path = self._temporary("index")
        write_index(path, attributes)
        return path, entry(path, f"{self._stem}.parquet", len(attributes))

    def _write_extra(self) -> tuple[Path, FileEntry] | None:
        lines = [json.dumps(asdict(value), ensure_ascii=True) for value in self._outside]
        if self._base is not None and self._policy != "replace":
            old = (self._base.extra() or b"").decode().splitlines()
            lines = list(dict.fromkeys([*old, *lines]))
        if not lines:
            return None
        path = self._temporary("extra")
        disk.write(path, ["".join(f"{line}\n" for line in lines).encode()])
        return path, entry(path, f"{self._stem}.extra.jsonl", len(lines))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be carried over, in this export or, where it stays so, in an earlier one."""
        problems = list(self._problems)
        for attribute, count in _counted(value.attribute for value in self._outside).items():
            reason = next(value.reason for value in self._outside if value.attribute == attribute)
            problems.append(Problem(f"Kept beside the run: {reason}.", attribute, "permanent", count))
        if self._base is not None and self._policy != "replace":
            settled = {path for path, _ in self._sort.attributes | self._empty} if self._policy == "extend" else set()
            known = {(p.attribute, p.message) for p in problems}
            tried = {p.attribute for p in problems}
            problems += [
                p
                for p in self._base.problems
                if (p.attribute, p.message) not in known and p.attribute not in settled and p.attribute not in tried
            ]
        return tuple(problems)

    def _sources(self) -> tuple[SourceRecord, ...]:
        if self._base is None:
            return (self._source,)
        same = (self._source.exporter, self._source.source)
        return (*(s for s in self._base.sources if (s.exporter, s.source) != same), self._source)

    def _leftovers(self, manifest: Manifest) -> dict[str, list[str]]:
        """What the old generation had and the new one does not name."""
        if self._base is None:
            return {}
        parts, files = {p.path for p in manifest.parts}, {f.path for f in manifest.files}
        old_extra = [f"{MANIFESTS}/{self._stem}.extra.jsonl"] if manifest.extra is None else []
        return {
            "data": [name for name in self._base.part_names() if name not in parts] + old_extra,
            "files": [path for path in self._base.owned_file_paths() if path not in files],
        }

    def _sha256(self, path: str) -> str:
        own = self.files.entries.get(path)
        if own is not None:
            return own.sha256
        assert self._base is not None, f"the exporter named a file that it did not add: {path}"
        return self._base.files.sha256(path)

    def _temporary(self, what: str) -> Path:
        return self._folder.data / MANIFESTS / f"{self._stem}.g{self._generation}.{what}.tmp"

    def _remove_temporary(self) -> None:
        """Removes what this run's commands left under temporary names, now or before a crash."""
        if not self._commit_begun():
            self._folder.remove_temporary(self._stem)

    def _commit_begun(self) -> bool:
        """Whether the new generation is certain: whoever comes next will finish it and needs what it names."""
        return commit.next_path(self._folder.data, self._stem).exists()


def _counted(items: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts


def _is_later(source: SourceRecord, base: StagedRun) -> bool:
    """Whether the new source knows of later writes than everything exported before."""
    known = [record.as_of for record in base.sources if record.as_of is not None]
    return source.as_of is not None and (not known or source.as_of >= max(known))


def _joined_info(old: RunInfo, new: RunInfo) -> RunInfo:
    """The identity from both: the new one where it knows."""
    values = {
        f.name: new_value if (new_value := getattr(new, f.name)) is not None else getattr(old, f.name)
        for f in fields(RunInfo)
    }
    return RunInfo(**values)
