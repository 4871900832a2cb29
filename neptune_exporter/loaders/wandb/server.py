# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The few questions and answers of ours that go to a W&B server directly: what it holds, and the marks on runs.

The runs themselves are sent by W&B's own client. The queries are those that it makes, too.
"""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import stamina

from neptune_exporter.certificates import is_untrusted, refuse_untrusted
from neptune_exporter.errors import ExporterError, TargetAccessError, TargetError

PAGE_RUNS = 100
PAGE_ROWS = 5000
ATTEMPTS = 6
WAITS = {"wait_initial": 0.2, "wait_jitter": 1.0}  # seconds between attempts
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_LONGEST_WAIT = 30.0

_NODE = "id name state tags config summaryMetrics historyLineCount"
_VIEWER = "query Viewer { viewer { id entity } }"
_PROJECTS = """query GetProjects($entity: String, $cursor: String, $perPage: Int) {
  models(entityName: $entity, after: $cursor, first: $perPage) {
    edges { node { name } } pageInfo { endCursor hasNextPage } } }"""
_RUNS = f"""query Runs($entity: String!, $project: String!, $cursor: String, $perPage: Int!) {{
  project(name: $project, entityName: $entity) {{ runs(after: $cursor, first: $perPage, order: "+created_at") {{
    edges {{ node {{ {_NODE} }} }} pageInfo {{ endCursor hasNextPage }} }} }} }}"""
_RUN = f"""query Run($entity: String!, $project: String!, $name: String!) {{
  project(name: $project, entityName: $entity) {{ run(name: $name) {{ {_NODE} }} }} }}"""
_UPSERT = """mutation UpsertBucket($entity: String, $project: String, $name: String, $config: JSONString,
    $summaryMetrics: JSONString, $tags: [String!], $displayName: String, $groupName: String, $jobType: String,
    $notes: String) {
  upsertBucket(input: {entityName: $entity, modelName: $project, name: $name, config: $config,
      summaryMetrics: $summaryMetrics, tags: $tags, displayName: $displayName, groupName: $groupName,
      jobType: $jobType, notes: $notes}) {
    bucket { id name historyLineCount } inserted } }"""
_HISTORY = """query HistoryPage($entity: String!, $project: String!, $run: String!, $minStep: Int64!,
    $maxStep: Int64!, $pageSize: Int!) {
  project(name: $project, entityName: $entity) { run(name: $run) {
    history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize) } } }"""
_ARTIFACTS = """query RunOutputArtifacts($entity: String!, $project: String!, $run: String!, $cursor: String,
    $perPage: Int) {
  project(entityName: $entity, name: $project) { run(name: $run) {
    outputArtifacts(after: $cursor, first: $perPage) {
      edges { node { id digest state artifactSequence { name } } } pageInfo { endCursor hasNextPage } } } } }"""
_RUN_FILES = """query RunFiles($entity: String!, $project: String!, $name: String!, $fileNames: [String] = [],
    $fileLimit: Int = 50) {
  project(name: $project, entityName: $entity) { run(name: $name) {
    files(names: $fileNames, first: $fileLimit) { edges { node { name sizeBytes } } } } } }"""
_CREATE_FILES = """mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) {
  createRunFiles(input: {entityName: $entity, projectName: $project, runName: $run, files: $files}) {
    runID uploadHeaders files { name uploadUrl } } }"""
_MANIFEST = """query ArtifactManifest($artifact_id: ID!) {
  artifact(id: $artifact_id) { currentManifest { file { directUrl } } } }"""
_FILES = """query ArtifactFileURLsByManifestEntries($id: ID!, $entries: [ArtifactManifestEntryInput!],
    $storageLayout: String!, $manifestVersion: String!) {
  artifact(id: $id) { filesByManifestEntries(storageLayout: $storageLayout, manifestVersion: $manifestVersion,
      entries: $entries) { edges { node { name directUrl } } } } }"""


class DeletedRunError(TargetError):
    """A run of this id was deleted; W&B does not take the id again."""


@dataclass(frozen=True, slots=True)
class RunName:
    """Where a run is: entity, project and id."""

    entity: str
    project: str
    id: str


@dataclass(frozen=True, slots=True)
class HeldRun:
    """What a server says of a run.

    Attributes:
        name: where it is.
        config: its config without the `value` wrappers.
        raw_config: as the server has it.
        tags: its tags.
        rows: how many rows its history has.
        summary: its summary, as JSON.
        state: what W&B takes it for, such as running or finished.
    """

    name: RunName
    config: Mapping[str, Any]
    raw_config: Mapping[str, Any]
    tags: tuple[str, ...]
    rows: int
    summary: str
    state: str


class Server:
    """A W&B server.

    Args:
        url: its address.
        api_key: the account's key.

    Every method raises `TargetError` if the server does not answer or refuses what it is asked, and
    `TargetAccessError` if it refuses the key.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self._http = httpx.Client(auth=("api", api_key), timeout=_TIMEOUT)
        self._plain = httpx.Client(timeout=_TIMEOUT, follow_redirects=True)

    def close(self) -> None:
        """Lets go of connections."""
        self._http.close()
        self._plain.close()

    def default_entity(self) -> str:
        """The account's own entity."""
        viewer = self.ask(_VIEWER, {}).get("viewer")
        if not viewer or not viewer.get("entity"):
            raise self._refusal()
        return str(viewer["entity"])

    def projects(self, entity: str) -> list[str]:
        """The names of an entity's projects."""
        found = self.pages(_PROJECTS, {"entity": entity, "perPage": PAGE_RUNS}, lambda data: data.get("models"))
        return [node["name"] for node in found]

    def runs(self, entity: str, project: str) -> Iterator[HeldRun]:
        """All runs of a project; none if there is no such project."""

        def page(data: Any) -> Any:
            return data["project"] and data["project"]["runs"]

        for node in self.pages(_RUNS, {"entity": entity, "project": project, "perPage": PAGE_RUNS}, page):
            yield _held(entity, project, node)

    def run(self, name: RunName) -> HeldRun | None:
        """One run, or None."""
        data = self.ask(_RUN, {"entity": name.entity, "project": name.project, "name": name.id})
        node = data["project"] and data["project"]["run"]
        return _held(name.entity, name.project, node) if node else None

    def upsert(self, name: RunName, **values: Any) -> None:
        """Makes a run, or changes some of what is known of it.

        Raises:
            DeletedRunError: a run of this id was deleted.
        """
        config = values.pop("config", None)
        if config is not None:
            values["config"] = json.dumps(config, allow_nan=False)
        self.ask(_UPSERT, {"entity": name.entity, "project": name.project, "name": name.id, **values})

    def rows(self, name: RunName, low: int = 0) -> Iterator[list[Mapping[str, Any]]]:
        """The history from a `_step` on, in pages, in order of `_step`."""
        where = {"entity": name.entity, "project": name.project, "run": name.id, "pageSize": PAGE_ROWS}
        while True:
            data = self.ask(_HISTORY, {**where, "minStep": low, "maxStep": 2**62})
            run = data["project"] and data["project"]["run"]
            page = [json.loads(row) if isinstance(row, str) else row for row in (run or {}).get("history") or ()]
            page = [row for row in page if row.get("_step", -1) >= low]
            if not page:
                return
            yield page
            low = max(row["_step"] for row in page) + 1

    def artifact(self, name: RunName, collection: str, digest: str) -> str | None:
        """The id of the whole artifact of a run with that digest, or None."""

        def page(data: Any) -> Any:
            run = data["project"] and data["project"]["run"]
            return run and run["outputArtifacts"]

        where = {"entity": name.entity, "project": name.project, "run": name.id, "perPage": PAGE_RUNS}
        for node in self.pages(_ARTIFACTS, where, page):
            named = (node.get("artifactSequence") or {}).get("name")
            if (named, node["digest"], node["state"]) == (collection, digest, "COMMITTED"):
                return str(node["id"])
        return None

    def file_sizes(self, name: RunName, paths: Sequence[str]) -> dict[str, int]:
        """The sizes of those files of a run that are there, by path."""
        found: dict[str, int] = {}
        where = {"entity": name.entity, "project": name.project, "name": name.id, "fileLimit": PAGE_RUNS}
        for start in range(0, len(paths), PAGE_RUNS):
            data = self.ask(_RUN_FILES, {**where, "fileNames": list(paths[start : start + PAGE_RUNS])})
            run = data["project"] and data["project"]["run"]
            nodes = (edge["node"] for edge in run["files"]["edges"]) if run else ()
            found.update((node["name"], int(node["sizeBytes"])) for node in nodes)
        return found

    def upload(self, name: RunName, files: Mapping[str, Path]) -> None:
        """Puts files among those of a run, by path; those that are there are replaced."""
        for start in range(0, len(files), PAGE_RUNS):
            some = list(files)[start : start + PAGE_RUNS]
            where = {"entity": name.entity, "project": name.project, "run": name.id, "files": some}
            made = self.ask(_CREATE_FILES, where)["createRunFiles"]
            headers = dict(line.split(":", 1) for line in made.get("uploadHeaders") or ())
            for file in made["files"]:
                self._put(urljoin(self.url + "/", file["uploadUrl"]), files[file["name"]], headers)
            self.stream(name, {"uploaded": some})

    def stream(self, name: RunName, body: Mapping[str, Any]) -> None:
        """Posts to the stream of a run: lines of its files at their offsets, or that it has ended."""
        place = "/".join(quote(part, safe="") for part in (name.entity, name.project, name.id))
        reply = self._patiently(lambda: self._http.post(f"{self.url}/files/{place}/file_stream", json=body))
        if not reply.is_success:
            raise TargetError(f"W&B at {self.url} refuses rows ({reply.status_code}): {reply.text[:300]}")

    def manifest(self, artifact_id: str) -> Mapping[str, Any]:
        """The entries of an artifact by path: digest, size and where they are."""
        data = self.ask(_MANIFEST, {"artifact_id": artifact_id})
        url = data["artifact"]["currentManifest"]["file"]["directUrl"]
        contents: Mapping[str, Any] = self._get(url, lambda reply: json.loads(reply.read()))["contents"]
        return contents

    def download(self, artifact_id: str, path: str, entry: Mapping[str, Any], target: Path) -> bool:
        """Fetches one file of an artifact; says whether W&B has it."""
        asked = {"name": path, "digest": entry["digest"]}
        if entry.get("birthArtifactID"):
            asked["birthArtifactID"] = entry["birthArtifactID"]
        data = self.ask(_FILES, {"id": artifact_id, "entries": [asked], "storageLayout": "V2", "manifestVersion": "1"})
        edges = data["artifact"]["filesByManifestEntries"]["edges"]
        if not edges:
            return False

        def save(reply: httpx.Response) -> None:
            with target.open("wb") as file:
                for chunk in reply.iter_bytes(1 << 20):
                    file.write(chunk)

        self._get(edges[0]["node"]["directUrl"], save)
        return True

    # --- the wire

    def pages(self, query: str, variables: Mapping[str, Any], connection: Any) -> Iterator[Any]:
        """The nodes of all pages; `connection` finds them in the data of an answer."""
        cursor = None
        while True:
            found = connection(self.ask(query, {**variables, "cursor": cursor}))
            if not found:
                return
            yield from (edge["node"] for edge in found["edges"])
            cursor = found["pageInfo"]["endCursor"]
            if not found["pageInfo"]["hasNextPage"]:
                return

    def ask(self, query: str, variables: Mapping[str, Any]) -> Any:
        """The data of an answer."""

        def post() -> httpx.Response:
            return self._http.post(f"{self.url}/graphql", json={"query": query, "variables": variables})

        reply = self._patiently(post)
        try:
            answer = reply.json()
        except ValueError:
            answer = {}
        errors = answer.get("errors") or []
        if reply.is_success and not errors and answer.get("data") is not None:
            return answer["data"]
        text = "; ".join(str(error.get("message", error)) for error in errors) or reply.text[:300]
        if reply.status_code == 409 or "previously created and deleted" in text:
            raise DeletedRunError(f"W&B at {self.url}: {text}")
        raise TargetError(f"W&B at {self.url} refuses a request ({reply.status_code}): {text}")

    def _get(self, url: str, take: Any) -> Any:
        mine = urlsplit(url).netloc == urlsplit(self.url).netloc  # signed addresses elsewhere get no key of ours

        def get() -> Any:
            with (self._http if mine else self._plain).stream("GET", url) as reply:
                if not reply.is_success:
                    reply.read()
                    return reply
                return take(reply)

        found = self._patiently(get)
        if isinstance(found, httpx.Response):
            raise TargetError(f"W&B at {self.url} does not give a file ({found.status_code}).")
        return found

    def _put(self, url: str, local: Path, headers: Mapping[str, str]) -> None:
        client = self._http if urlsplit(url).netloc == urlsplit(self.url).netloc else self._plain

        def put() -> httpx.Response:
            with local.open("rb") as file:
                size = {"Content-Length": str(local.stat().st_size)}
                return client.put(url, content=file, headers={**headers, **size})

        reply = self._patiently(put)
        if not reply.is_success:
            raise TargetError(f"W&B at {self.url} does not take a file ({reply.status_code}).")

    def _patiently(self, call: Any) -> Any:
        try:
            for attempt in stamina.retry_context(on=_patience, attempts=ATTEMPTS, timeout=300, **WAITS):
                with attempt:
                    reply = call()
                    if isinstance(reply, httpx.Response):
                        if reply.status_code in (401, 403):
                            raise self._refusal()
                        if reply.status_code == 429 or reply.status_code >= 500:
                            reply.raise_for_status()
                    return reply
        except httpx.HTTPStatusError as error:
            text = error.response.text[:300]
            raise TargetError(f"W&B at {self.url} answers {error.response.status_code}: {text}") from error
        except httpx.HTTPError as error:
            refuse_untrusted(error, self.url, TargetAccessError)
            raise TargetError(
                f"No W&B server answers at {self.url}.", f"Is the address right? It said: {error!r}"
            ) from error
        raise AssertionError("unreachable")

    def _refusal(self) -> ExporterError:
        return TargetAccessError(
            f"W&B at {self.url} refuses our API key.", "Run wandb login, or set WANDB_API_KEY; check --wandb-entity."
        )


def _patience(error: Exception) -> bool | float:
    """Whether to try again, and after how many seconds if the server says so."""
    if is_untrusted(error):
        return False
    if isinstance(error, httpx.HTTPStatusError):
        asked = error.response.headers.get("Retry-After", "")
        return min(float(asked), _LONGEST_WAIT) if asked.isdecimal() else True
    return isinstance(error, httpx.TransportError)


def _held(entity: str, project: str, node: Mapping[str, Any]) -> HeldRun:
    raw = json.loads(node.get("config") or "{}")
    config = {key: entry["value"] for key, entry in raw.items() if isinstance(entry, dict) and "value" in entry}
    name = RunName(entity, project, node["name"])
    tags, rows = tuple(node.get("tags") or ()), int(node.get("historyLineCount") or 0)
    return HeldRun(name, config, raw, tags, rows, node.get("summaryMetrics") or "{}", node.get("state") or "")


def stored_key(url: str) -> str:
    """The API key that `wandb login` has stored for a server, or ""."""
    host = urlsplit(url).hostname or ""
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            found = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if found and found[2]:
            return found[2]
    return ""
