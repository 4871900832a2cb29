# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Which attributes a run has, and the values of those that are not series."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from neptune_exporter.errors import Problem, SourceError
from neptune_exporter.exporters.exporter import Findings
from neptune_exporter.exporters.neptune3.client import LEADERBOARD, Client, RequestError, ValuesPage, value_of
from neptune_exporter.exporters.patience import ATTEMPTS
from neptune_exporter.model import RunRef, rows_batch
from neptune_exporter.selection import CLASS_OF_TYPE, Selection

OURS = {
    "float": "float",
    "int": "int",
    "string": "string",
    "bool": "bool",
    "datetime": "datetime",
    "stringSet": "string_set",
    "floatSeries": "float_series",
    "stringSeries": "string_series",
    "histogramSeries": "histogram_series",
    "fileRef": "file",
    "fileRefSeries": "file_series",
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
PARAMETERS = ("float", "int", "string", "bool", "datetime", "string_set")

PAGE_ENTRIES = 10_000
NAMES_BYTES = 200_000  # of all attribute names of one request; the server takes a little more
NAMES_COUNT = 5_000
GROUP_ATTEMPTS = 2  # a request about several attributes that fails is soon cut in two

T = TypeVar("T")
R = TypeVar("R")


class Run(NamedTuple):
    """A run as requests name it.

    Attributes:
        ref: project and id.
        sys_id: the id that the server gave.
    """

    ref: RunRef
    sys_id: str

    @property
    def identifier(self) -> str:
        """What stands for it in requests."""
        return f"{self.ref.project_id}/{self.sys_id}"


class Attribute(NamedTuple):
    """An attribute that the server lists.

    Attributes:
        path: its path.
        type: its type in our words.
    """

    path: str
    type: str


class FileRef(NamedTuple):
    """A file that is to be downloaded.

    Attributes:
        attribute: the attribute path.
        type: `file` or `file_series`.
        path: where the server's storage has it.
        bytes: its size, 0 if the server does not say.
        mime: its MIME type.
        step: in micro-units, for a file series.
        time: milliseconds since the epoch, for a file series.
    """

    attribute: str
    type: str
    path: str
    bytes: int
    mime: str
    step: int | None = None
    time: int | None = None


def list_attributes(client: Client, run: Run, selection: Selection) -> list[Attribute]:
    """The selected attributes of a run.

    Raises:
        SourceError: the server does not say.
    """
    types = [theirs for theirs, ours in OURS.items() if CLASS_OF_TYPE[ours] in selection.classes]
    body: dict[str, Any] = {
        "projectIdentifiers": [run.ref.project_id],
        "experimentIdsFilter": [run.identifier],
        "attributeNameFilter": {},
        "attributeFilter": [{"attributeType": name} for name in types],
        "nextPage": {"limit": PAGE_ENTRIES},
    }
    found: dict[Attribute, None] = {}
    while True:
        try:
            page = client.post(
                f"{LEADERBOARD}/leaderboard/attributes/definitions/query", body, _definitions, attempts=2 * ATTEMPTS
            )
        except RequestError as error:
            raise SourceError(f"The attributes of {run.ref} cannot be listed: {error.message}.") from error
        entries, token = page
        for name, kind in entries:
            if kind in OURS and selection.wants(name, OURS[kind]):
                found[Attribute(name, OURS[kind])] = None
        if not token or not entries or token == body["nextPage"].get("nextPageToken"):
            return list(found)
        body["nextPage"] = {"limit": PAGE_ENTRIES, "nextPageToken": token}


def _definitions(content: bytes) -> tuple[list[tuple[str, str]], str | None]:
    page = json.loads(content)
    return [(entry["name"], entry["type"]) for entry in page["entries"]], page["nextPage"].get("nextPageToken")


def groups(items: Iterable[T], name: Callable[[T], str], most: int) -> Iterator[list[T]]:
    """Cuts items so that no group has too many, or too long names for one request."""
    group: list[T] = []
    size = 0
    for item in items:
        length = len(name(item).encode())
        if group and (len(group) >= most or size + length > NAMES_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += length
    if group:
        yield group


def bisected(
    cut: Iterable[list[T]],
    ask: Callable[[list[T], int], tuple[R, list[T]]],
    lost: Callable[[T, RequestError], None],
    what: str,
) -> Iterator[R]:
    """Asks for groups of things; one that fails costs only itself.

    Args:
        cut: the groups.
        ask: a request about a group, with so many attempts; returns the result and what must be asked again.
        lost: told of each thing that cannot be had.
        what: the run, for messages.

    Raises:
        SourceError: the server forbids access.
    """
    todo = deque(cut)
    while todo:
        group = todo.popleft()
        try:
            result, rest = ask(group, ATTEMPTS if len(group) == 1 else GROUP_ATTEMPTS)
        except RequestError as error:
            if error.status == 403:
                raise SourceError(f"The server refuses to give {what}: {error.message}.") from error
            if len(group) == 1:
                lost(group[0], error)
            else:
                middle = len(group) // 2
                todo.extendleft((group[middle:], group[:middle]))
            continue
        yield result
        if rest:
            todo.appendleft(rest)


class SingleValues:
    """Reads what is not a series: parameters as rows, files as references.

    Args:
        client: the server.
        run: the run.
        findings: told of what cannot be had.
    """

    def __init__(self, client: Client, run: Run, findings: Findings) -> None:
        self._client = client
        self._run = run
        self._findings = findings
        self.files: list[FileRef] = []

    def batches(self, attributes: Sequence[Attribute]) -> Iterator[pa.RecordBatch]:
        """The rows of the parameters; `files` is filled on the way."""
        cut = groups(attributes, lambda attribute: attribute.path, NAMES_COUNT)
        for values in bisected(cut, self._ask, self._lost, str(self._run.ref)):
            for kind in PARAMETERS:
                of_kind = [(path, value) for path, ours, value in values if ours == kind]
                if of_kind:
                    yield self._rows(kind, of_kind)
            self.files += [
                FileRef(path, kind, value.path, value.sizeBytes, value.mimeType)
                for path, kind, value in values
                if kind == "file"
            ]

    def _ask(self, group: list[Attribute], attempts: int) -> tuple[list[tuple[str, str, Any]], list[Attribute]]:
        wanted = dict.fromkeys(group)
        found: dict[Attribute, Any] = {}
        body: dict[str, Any] = {
            "experimentIdsFilter": [self._run.identifier],
            "attributeNamesFilter": list(dict.fromkeys(attribute.path for attribute in group)),
            "nextPage": {"limit": PAGE_ENTRIES},
        }
        while True:
            page = self._client.post(
                f"{LEADERBOARD}/proto/leaderboard/attributes/query",
                body,
                ValuesPage.FromString,
                params={"projectIdentifier": self._run.ref.project_id},
                attempts=attempts,
            )
            for entry in page.entries:
                for dto in entry.attributes:
                    attribute = Attribute(dto.name, OURS.get(dto.type, ""))
                    value = value_of(dto)
                    if attribute in wanted and value is not None:
                        found[attribute] = value
            token = page.nextPage.nextPageToken
            if not token or not page.entries or token == body["nextPage"].get("nextPageToken"):
                break
            body["nextPage"] = {"limit": PAGE_ENTRIES, "nextPageToken": token}
        for attribute in wanted.keys() - found.keys():
            self._findings.problem(
                Problem("The server lists the attribute and gives no value.", attribute.path, "retry")
            )
        return [(path, kind, value) for (path, kind), value in found.items()], []

    def _lost(self, attribute: Attribute, error: RequestError) -> None:
        self._findings.problem(error.problem(attribute.path))

    def _rows(self, kind: str, values: list[tuple[str, Any]]) -> pa.RecordBatch:
        paths = pa.array([path for path, _ in values], pa.string())
        given = [value for _, value in values]
        if kind == "string_set":
            given = [sorted(set(value)) for value in given]
            return rows_batch(self._run.ref, paths, kind, string_set_value=pa.array(given, pa.list_(pa.string())))
        if kind == "datetime":
            times = pa.array(given, pa.int64()).cast(pa.timestamp("ms", "UTC"))
            return rows_batch(self._run.ref, paths, kind, datetime_value=times)
        types = {"float": pa.float64(), "int": pa.int64(), "string": pa.string(), "bool": pa.bool_()}
        return rows_batch(self._run.ref, paths, kind, **{f"{kind}_value": pa.array(given, types[kind])})
