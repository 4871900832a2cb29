# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A registry logged with the real client, exported, loaded into W&B and read back with W&B's own client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from logged_registry import Area, LoggedVersion, is_list
from registry_state import PROJECT, tree
from servers.http import Fault
from servers.wandb import API_KEY, ENTITY, WandbServer, serving

from neptune_exporter.cli.main import main
from neptune_exporter.loaders.wandb import sending

ONE = [f"-rDEMO-ONE{number}" for number in ("", "-1", "-2", "-3", "-4", "-5")]  # one of the three models
PLACE = f"{ENTITY}/{PROJECT.replace('/', '-')}-models"


@dataclass
class Registry:
    """A W&B server, and the commands that load into it."""

    server: WandbServer
    area: Area

    @property
    def to(self) -> list[str]:
        where = ["--loader", "wandb", "--wandb-entity", ENTITY, "--wandb-base-url", self.server.url]
        return [*where, "--wandb-api-key", API_KEY, *self.area.places]

    def load(self, *arguments: str) -> int:
        return main(["load-models", "--workers", "1", *self.to, *arguments])

    def verify(self, *arguments: str) -> int:
        return main(["verify", "--models", *self.to, *arguments])

    def snapshot(self) -> list[Any]:
        """Everything in the collections."""
        found = [
            (a.collection, a.version, a.digest, a.description, a.metadata, sorted(a.aliases), a.run)
            for a in self.server.artifacts.committed()
        ]
        return [found, dict(self.server.collections.descriptions)]

    def logged(self, name: str) -> list[str]:
        """The Neptune ids of the versions of a collection, by number."""
        entity, _, project = PLACE.partition("/")
        held = self.server.collections.held(entity, project, name)
        versions = sorted(held, key=lambda artifact: artifact.version)
        return [json.loads(artifact.metadata)["neptune"]["run_id"] for artifact in versions]


@pytest.fixture
def registry(area, tmp_path, monkeypatch, exported_s3):
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "ARTIFACT_DIR", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb" / name))
    (tmp_path / "wandb" / "DIR").mkdir(parents=True)
    environment = {"NETRC": str(tmp_path / "netrc"), "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    environment |= {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester"}
    environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_S3_ENDPOINT_URL": exported_s3}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with serving() as server:
        yield Registry(server, area)
        assert server.unknown == []
    from wandb.sdk import wandb_setup

    wandb_setup.teardown()


def api(registry: Registry, monkeypatch: Any) -> Any:
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", registry.server.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    return wandb.Api(overrides={"base_url": registry.server.url}, api_key=API_KEY)


def check(registry: Registry, monkeypatch: Any, *models: str) -> None:
    """Everything that was logged, by W&B's own client; the files of all versions of one model, of two of the others."""
    client = api(registry, monkeypatch)
    for name, versions in registry.area.versions.items():
        if models and name not in models:
            continue
        collection = client.artifact_collection("model", f"{PLACE}/{name}")
        assert collection.description == f"about {name[5:]}"
        found = sorted(client.artifacts("model", f"{PLACE}/{name}"), key=lambda a: int(a.version[1:]))
        assert [artifact.metadata["neptune"]["run_id"] for artifact in found] == [logged.id for logged in versions]
        newest = {logged.stage: logged.id for logged in versions if logged.stage != "none"}
        for logged, artifact in zip(versions, found, strict=True):
            check_version(artifact, logged, newest)
        for stage, run_id in newest.items():
            assert client.artifact(f"{PLACE}/{name}:{stage}").metadata["neptune"]["run_id"] == run_id
        for logged in versions if name == "DEMO-TWO" else versions[-2:]:  # one with references, one without
            check_files(client.artifact(f"{PLACE}/{name}:{logged.id}"), logged)


def check_version(artifact: Any, logged: LoggedVersion, newest: dict[str, str]) -> None:
    stages = {stage for stage, run_id in newest.items() if run_id == logged.id}
    assert set(artifact.aliases) - {"latest"} == {logged.id, *stages}
    assert (artifact.type, artifact.description) == ("model", logged.description)
    assert artifact.metadata["stage"] == logged.stage
    ours = artifact.metadata["neptune"]
    assert set(ours["tags"]) == logged.labels
    assert (ours["owner"], ours["project_id"], ours["version"]) == ("somebody", PROJECT, logged.id.rpartition("-")[2])
    assert artifact.metadata["attributes"]["sys/stage"] == logged.stage


def check_files(artifact: Any, logged: LoggedVersion) -> None:
    folder = Path(artifact.download(root=str(Path.cwd() / "down" / logged.id), skip_cache=True))
    held = {path: data for path, data in tree(folder).items() if path != "neptune/version.json" and not is_list(data)}
    expected = [*logged.files.values(), json.dumps(logged.config, indent=4).encode()]
    assert sorted(held.values()) == sorted(expected)
    assert all(path.startswith(("model/artifacts", "model/config")) for path in held)
    shutil.rmtree(folder)


def references(registry: Registry) -> set[str]:
    artifacts = registry.server.artifacts
    return {
        entry["ref"]
        for artifact in artifacts.committed()
        if artifact.type == "model"
        for entry in artifacts.entries(artifact).values()
        if entry.get("ref")
    }


def test_a_registry_is_loaded_and_read_back_equal(registry, capsys, monkeypatch):
    assert registry.load() == 0
    assert "18 done" in capsys.readouterr().out
    check(registry, monkeypatch)
    refs = references(registry)
    assert refs
    assert all(ref.startswith("s3://") for ref in refs)
    assert registry.verify() == 0
    before = registry.snapshot()
    assert registry.load() == 0
    assert "18 skipped" in capsys.readouterr().out
    assert registry.snapshot() == before
    models = [artifact for artifact in registry.server.artifacts.committed() if artifact.type == "model"]
    for artifact in models:
        run = registry.server.run(artifact.run)
        assert run.values["neptune"]["run_id"] == json.loads(artifact.metadata)["neptune"]["run_id"]
        assert run.values["neptune"]["load"]["state"] == "complete"
        assert [row["metrics/accuracy"] for row in run.rows][1:2] == [0.2]
        assert (run.state, run.complete) == ("finished", True)
    assert len(models) == 15


def test_copies_instead_of_references(registry, monkeypatch):
    assert registry.load("--copy-artifacts", *ONE) == 0
    check(registry, monkeypatch, "DEMO-ONE")
    assert references(registry) == set()
    assert registry.verify(*ONE) == 0


def test_references_become_copies_when_asked_for(registry, monkeypatch):
    assert registry.load("-r", "DEMO-ONE-1", "-r", "DEMO-ONE") == 0
    assert references(registry)
    assert registry.load("-r", "DEMO-ONE-1", "-r", "DEMO-ONE", "--copy-artifacts") == 0
    entity, _, project = PLACE.partition("/")
    (only,) = registry.server.collections.held(entity, project, "DEMO-ONE")
    assert not any(entry.get("ref") for entry in registry.server.artifacts.entries(only).values())
    check_files(api(registry, monkeypatch).artifact(f"{PLACE}/DEMO-ONE:latest"), registry.area.versions["DEMO-ONE"][0])
    assert registry.verify("-r", "DEMO-ONE-1", "-r", "DEMO-ONE") == 0


def test_a_selection_first_and_the_rest_later_keeps_the_order(registry, monkeypatch):
    """What was registered out of order is registered anew, once."""
    assert registry.load("-r", "DEMO-ONE", "-r", "DEMO-ONE-2", "-r", "DEMO-ONE-4") == 0
    assert registry.logged("DEMO-ONE") == ["DEMO-ONE-2", "DEMO-ONE-4"]
    assert registry.load(*ONE) == 0
    check(registry, monkeypatch, "DEMO-ONE")
    before = registry.snapshot()
    assert registry.load(*ONE) == 0
    assert registry.snapshot() == before


def test_what_was_changed_by_hand_is_found_and_mended(registry, monkeypatch, capsys):
    assert registry.load(*ONE) == 0
    entity, _, project = PLACE.partition("/")
    one = registry.server.collections.held(entity, project, "DEMO-ONE")
    one[1].state, one[1].aliases = "DELETED", set()
    one[2].metadata = one[2].metadata.replace('"none"', '"production"')
    one[3].description = "something else"
    registry.server.collections.descriptions[entity, project, "DEMO-ONE"] = "another"
    capsys.readouterr()
    assert registry.verify(*ONE) == 4
    said = capsys.readouterr().out
    assert "DEMO-ONE-2: The version is not in the collection" in said
    assert "DEMO-ONE-3: The metadata" in said
    assert "DEMO-ONE-4: The description of v3 is another." in said
    assert "DEMO-ONE: The description of the collection is 'another'." in said
    assert registry.load(*ONE) == 0
    check(registry, monkeypatch, "DEMO-ONE")
    assert registry.verify(*ONE) == 0


def test_an_alias_that_somebody_has_moved_stays_where_it_is(registry):
    assert registry.load(*ONE) == 0
    entity, _, project = PLACE.partition("/")
    first = registry.server.collections.held(entity, project, "DEMO-ONE")[0]
    registry.server.artifacts.point("archived", first)
    assert registry.load(*ONE) == 0
    assert "archived" in first.aliases
    assert registry.verify(*ONE) == 0


KILLED = """
import os, signal, sys
from neptune_exporter.loaders.wandb import collections, registry
from neptune_exporter.cli.main import main
from neptune_exporter.loaders.wandb import sending
left = int(sys.argv[1])
def counted(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
registry.WandbModelLoader._log = counted(registry.WandbModelLoader._log)
for name in ("describe", "update", "delete", "add_alias"):
    setattr(collections.Collections, name, counted(getattr(collections.Collections, name)))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("calls", [0, 6])
def test_killed_while_registering_and_run_again(registry, monkeypatch, calls):
    command = [sys.executable, "-c", KILLED, str(calls), "load-models", "--workers", "1", *registry.to, *ONE]
    killed = subprocess.run(command, check=False, capture_output=True, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert registry.verify(*ONE) == 4
    assert registry.load(*ONE) == 0
    check(registry, monkeypatch, "DEMO-ONE")
    assert registry.verify(*ONE) == 0


def test_a_server_that_fails_now_and_then_is_survived(registry, monkeypatch):
    waits = {name: 0.05 for name in sending._RETRIES if "_wait_" in name}
    monkeypatch.setattr(sending, "_RETRIES", {**sending._RETRIES, **waits})
    registry.server.http.faults = [
        Fault(where, after=after, times=1, status=status)
        for where, last in (("POST /graphql", 60), ("PUT /upload", 20))
        for after, status in ((3, 500), (last, 429))
    ]
    assert registry.load(*ONE) == 0
    assert all(fault.times == 0 for fault in registry.server.http.faults)
    check(registry, monkeypatch, "DEMO-ONE")


def test_a_version_that_did_not_arrive_is_named_and_the_next_load_completes_the_model(registry, monkeypatch, capsys):
    commit = registry.server.artifacts.op_CommitArtifact

    def refuse_the_third(v: dict[str, Any]) -> Any:
        artifact = registry.server.artifacts.get(v["artifactID"])
        if artifact.type == "model" and artifact.version == 2:
            raise LookupError("refused")
        return commit(v)

    registry.server.artifacts.op_CommitArtifact = refuse_the_third
    assert registry.load(*ONE) == 3
    assert "has not taken DEMO-ONE-3" in capsys.readouterr().out.replace(f"{PROJECT}/", "")
    assert registry.logged("DEMO-ONE") == ["DEMO-ONE-1", "DEMO-ONE-2"]
    registry.server.artifacts.op_CommitArtifact = commit
    assert registry.load(*ONE) == 0
    check(registry, monkeypatch, "DEMO-ONE")


def test_a_collection_of_somebody_else_is_left_alone(registry, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", registry.server.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    wandb.teardown()  # what another test has left speaks to a server that is gone
    with wandb.init(entity=ENTITY, project=PLACE.partition("/")[2], settings=wandb.Settings(console="off")) as run:
        mine = wandb.Artifact("DEMO-ONE", "model")
        mine.metadata["mine"] = True
        run.log_artifact(mine)
    assert registry.load("-r", "DEMO-ONE", "-r", "DEMO-ONE-1") == 0
    entity, _, project = PLACE.partition("/")
    (held,) = registry.server.collections.held(entity, project, "DEMO-ONE")
    assert json.loads(held.metadata) == {"mine": True}
    assert registry.load("-r", "DEMO-ONE", "-r", "DEMO-ONE-1") == 0
    assert len([a for a in registry.server.artifacts.committed() if a.type == "model"]) == 2


def test_a_prefix_makes_another_registry_beside_the_first(registry):
    chosen = ["-r", "DEMO-ONE", "-r", "DEMO-ONE-1"]
    assert registry.load(*chosen) == 0
    assert registry.load(*chosen, "--name-prefix", "old/") == 0
    found = {(a.project, a.collection) for a in registry.server.artifacts.committed() if a.type == "model"}
    project = PLACE.partition("/")[2]
    assert found == {(project, "DEMO-ONE"), (f"old-{project}", "old-DEMO-ONE")}
    assert registry.verify(*chosen, "--name-prefix", "old/") == 0


def test_offline_logs_hold_runs_but_no_registry(registry, capsys, tmp_path):
    offline = ["--wandb-mode", "offline", "--wandb-dir", str(tmp_path / "logs")]
    assert registry.load(*offline, *ONE) == 0
    said = capsys.readouterr()
    assert "6 done" in said.out
    assert "has no model registry" in said.out + said.err
    assert registry.verify(*offline, *ONE) == 0
