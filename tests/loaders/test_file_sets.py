# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Sets of files, unpacked: every member arrives in every target under its own path, and a missing one is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from areas import PROJECT, staging
from servers.pluto import KEY, PlutoServer
from wandb_target import no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.exporters.tracked_files import member_rows
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.mlflow import MLflowOptions
from neptune_exporter.loaders.pluto import PlutoOptions
from neptune_exporter.model import RunInfo, RunRef, rows_batch
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.storage.staging import Staging
from neptune_exporter.verify.check import Depth, Target, verify

REF = RunRef(PROJECT, "RUN-1")
SETS: dict[tuple[str, str], dict[str | None, bytes]] = {
    ("sets/tree", "file_set"): {
        "one.txt": b"1",
        "a/one.txt": b"22",
        "b/one.txt": b"333",
        "b/deeper/still/model.pt": bytes(range(256)) * 40,
        "b/empty": b"",
        "with blanks (1)/some+more=x@y,z.txt": b"snow",
    },
    ("sets/single", "file_set"): {"only/one.txt": b"alone"},
    ("sets/odd", "file_set"): {
        "a/one.txt": b"small",
        "A/one.txt": b"capital",
        "a/one.txt/below": b"a file and a folder at once",
        "ünï code/größe ☃.txt": b"snow",
        "../../up.txt": b"hostile",
        "/root.txt": b"absolute",
        "con": b"a device",
    },
    ("sets/odd/a", "file"): {None: b"a file where the set has a folder"},
    ("data/tracked", "artifact"): {None: b'{"files": []}', "train/x.bin": b"x", "test/x.bin": b"y"},
}
PLAIN = ("one.txt", "a/one.txt", "b/one.txt", "b/deeper/still/model.pt", "b/empty")


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Staging:
    """A run with sets of files."""
    area = staging(tmp_path_factory.mktemp("area"))
    writer = area.writer(RunInfo(REF, name="sets"), SourceRecord("listed", "a list"), None)
    for (path, kind), members in SETS.items():
        stored = [writer.files.add(f"{path}/{name or ''}", name or "list.json", [c]) for name, c in members.items()]
        if kind == "file":
            writer.write(rows_batch(REF, path, kind, file_value=pa.array([{"path": stored[0]}])))
        else:
            writer.write(member_rows(REF, path, kind, stored, list(members)))
    writer.commit()
    return area


@dataclass
class Held:
    """What a target holds of the run.

    Attributes:
        loader: the name of the loader.
        options: its options.
        files: the content of every file by its path, as the target's own client or server has it.
        remove: takes one away.
        exchange: puts each of two in the place of the other.
    """

    loader: str
    options: Any
    files: Callable[[], dict[str, bytes]]
    remove: Callable[[str], None]
    exchange: Callable[[str, str], None]


@pytest.fixture
def mlflow(sqlite_uri, tmp_path, monkeypatch) -> Held:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)

    def folder() -> Path:
        client = MlflowClient(sqlite_uri)
        (run,) = client.search_runs([client.get_experiment_by_name(PROJECT).experiment_id])
        return Path(run.info.artifact_uri.removeprefix("file://"))

    def files() -> dict[str, bytes]:
        client = MlflowClient(sqlite_uri)
        (run,) = client.search_runs([client.get_experiment_by_name(PROJECT).experiment_id])
        local = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
        return {p.relative_to(local).as_posix(): p.read_bytes() for p in local.rglob("*") if p.is_file()}

    def exchange(one: str, other: str) -> None:
        first, second = folder() / one, folder() / other
        contents = first.read_bytes(), second.read_bytes()
        second.write_bytes(contents[0])
        first.write_bytes(contents[1])

    options = MLflowOptions(sqlite_uri, mlflow_artifact_location=str(tmp_path / "artifacts"))
    return Held("mlflow", options, files, lambda path: (folder() / path).unlink(), exchange)


@pytest.fixture
def pluto() -> Any:
    with PlutoServer() as running:

        def run() -> Any:
            (found,) = running.complete_runs(PROJECT)
            return found

        def files() -> dict[str, bytes]:
            found = run()
            names = [f"{file['logName']}/{file['fileName']}" for file in found.files]
            assert len(names) == len(set(names)), "one file over another"
            return {name: running.content(found, name) for name in names}

        def remove(path: str) -> None:
            del running.store.objects[f"{PROJECT}/{run().id}/{path}"]

        def exchange(one: str, other: str) -> None:
            objects, keys = running.store.objects, [f"{PROJECT}/{run().id}/{path}" for path in (one, other)]
            objects[keys[0]], objects[keys[1]] = objects[keys[1]], objects[keys[0]]

        yield Held("pluto", PlutoOptions(running.url, pluto_api_key=KEY), files, remove, exchange)


@pytest.fixture
def wandb(target) -> Held:  # noqa: F811 - the fixture of that name
    artifacts = target.server.artifacts

    def files() -> dict[str, bytes]:
        (artifact,) = artifacts.committed()
        return artifacts.content(artifact)

    def remove(path: str) -> None:
        (artifact,) = artifacts.committed()
        entry = json.loads(artifacts.blobs[artifact.manifest])["contents"][path]
        artifacts.blobs.pop(artifact.files.pop(entry["digest"]))

    def exchange(one: str, other: str) -> None:
        (artifact,) = artifacts.committed()
        contents = json.loads(artifacts.blobs[artifact.manifest])["contents"]
        keys = [artifact.files[contents[path]["digest"]] for path in (one, other)]
        artifacts.blobs[keys[0]], artifacts.blobs[keys[1]] = artifacts.blobs[keys[1]], artifacts.blobs[keys[0]]

    return Held("wandb", target.options(), files, remove, exchange)


def findings(area: Staging, held: Held) -> list[tuple[str | None, str]]:
    depth = Depth(EVERYTHING, target=Target(held.loader, held.options, LoadOptions()))
    return [(f.attribute, f.kind) for one in verify(area, depth, workers=1, executor="threads") for f in one.findings]


@pytest.mark.parametrize("name", ["mlflow", "pluto", "wandb"])
def test_every_member_of_a_set_arrives_under_its_path(name, staged, request):
    held: Held = request.getfixturevalue(name)
    report = load(held.loader, held.options, LoadOptions(), staged, EVERYTHING, workers=1, executor="threads")
    assert report.exit_code == 0, report
    found = held.files()
    prefix = "" if name == "pluto" else "files/"
    for member in PLAIN:
        assert found[f"{prefix}sets/tree/{member}"] == SETS["sets/tree", "file_set"][member]
    assert found[f"{prefix}sets/single/only/one.txt"] == b"alone"
    assert found[f"{prefix}data/tracked/train/x.bin"] == b"x"
    lines = [json.loads(line) for line in found["neptune/files.jsonl"].splitlines()]
    contents = [found[line["artifact"]] for line in lines]
    assert sorted(contents) == sorted(content for members in SETS.values() for content in members.values())
    assert len({line["artifact"] for line in lines}) == len(lines), "none of them lies over another"
    assert not [path for path in found if ".." in path.split("/") or path.startswith("/")]
    assert findings(staged, held) == []
    members = [f"{prefix}sets/tree/{member}" for member in PLAIN][:2]
    held.exchange(*members)
    assert findings(staged, held) == [("sets/tree", "values")]
    held.exchange(*members)
    assert findings(staged, held) == []
    held.remove(f"{prefix}sets/tree/b/one.txt")
    assert findings(staged, held) == [("sets/tree", "values")]
