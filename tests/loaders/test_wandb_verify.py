# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`verify --loader wandb`: from the server and from local logs; what was changed there by hand is named."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import areas
import pytest
from areas import PROJECT, stage, text
from servers.wandb import API_KEY, ENTITY, WandbServer, serving
from truth import PROJECT as TRUTH
from wandb_area import HARD, rich_area
from wandb_target import no_settings_of_the_user  # noqa: F401

from neptune_exporter.cli.main import main
from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb import WandbOptions
from neptune_exporter.loaders.wandb.log import LogFile, records
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunRef
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.verify.check import Depth, Target, verify

REF = RunRef(TRUTH, HARD)
ID = run_id(REF, 1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The rich area, on a server and in offline logs."""
    root = tmp_path_factory.mktemp("area")
    with pytest.MonkeyPatch.context() as monkeypatch, serving() as server:
        staging, _ = rich_area(root, monkeypatch)
        for mode in ("online", "offline"):
            report = load("wandb", options(server, root, mode), LoadOptions(), staging, EVERYTHING, workers=1)
            assert report.exit_code == 0
        yield root, server, staging


def options(server: WandbServer, root: Path, mode: str = "online") -> WandbOptions:
    return WandbOptions(
        wandb_entity=ENTITY,
        wandb_api_key=API_KEY,
        wandb_base_url=server.url,
        wandb_mode=mode,
        wandb_dir=str(root / "logs"),
    )


def findings(staging: Any, given: WandbOptions) -> list[Any]:
    depth = Depth(EVERYTHING, target=Target("wandb", given, LoadOptions()))
    return [f for one in verify(staging, depth, workers=1, executor="threads") for f in one.findings]


def told(found: list[Any]) -> list[tuple[str, str | None, str]]:
    return sorted(((f.run, f.attribute, f.kind) for f in found), key=str)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_what_was_loaded_is_what_w_and_b_holds(loaded, mode):
    root, server, staging = loaded
    assert findings(staging, options(server, root, mode)) == []


@contextmanager
def changed(server: WandbServer, change: Any) -> Any:
    """The history of the hard run with a change to its rows."""
    run = server.run(ID)
    before = list(run.history)
    rows = run.rows
    change(rows)
    run.history = [json.dumps(row) for row in rows]
    yield
    run.history = before


def row_with(rows: list[dict[str, Any]], key: str, number: int = 0) -> dict[str, Any]:
    return [row for row in rows if key in row][number]


CHANGES = {
    "a value": (lambda rows: row_with(rows, "acc", 7).update(acc=0.5), "acc", "values"),
    "a time": (lambda rows: row_with(rows, "other cadence").update(_timestamp=1.5), "other cadence", "values"),
    "a point gone": (lambda rows: row_with(rows, "slow", 3).pop("slow"), "slow", "count"),
    "an odd value": (lambda rows: row_with(rows, "odd values", 1).update({"odd values": 1.5}), "odd values", "values"),
    "a NaN gone": (lambda rows: row_with(rows, "odd values", 0).pop("odd values"), "odd values", "count"),
    "a repeated point": (lambda rows: row_with(rows, "again", 2).pop("again"), "again", "count"),
    "a histogram gone": (lambda rows: row_with(rows, "hist", 5).pop("hist"), "hist", "count"),
    "one more": (lambda rows: rows.append({**rows[-1], "_step": 2**50, "acc": 1.0}), "acc", "count"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_changed_history_is_named(loaded, name):
    root, server, staging = loaded
    change, attribute, kind = CHANGES[name]
    with changed(server, change):
        found = told(findings(staging, options(server, root)))
    assert (HARD, attribute, kind) in found
    if name != "one more":  # which repeats whatever else is in that row
        assert len(found) == 1


def test_a_removed_row_is_named_with_all_its_points(loaded):
    root, server, staging = loaded
    gone: dict[str, Any] = {}

    def remove(rows: list[dict[str, Any]]) -> None:
        gone.update(rows.pop(40))

    with changed(server, remove):
        found = findings(staging, options(server, root))
    keys = {attribute["key"]: attribute["path"] for attribute in manifest_of(server)["attributes"]}
    metrics = {keys[key] for key in gone if key not in ("_step", "_timestamp", "_runtime", "neptune_step")}
    assert {f.attribute for f in found} == metrics
    assert all(f.kind == "count" for f in found)


def manifest_of(server: WandbServer) -> Any:
    (artifact,) = server.artifacts.committed(ID)
    return json.loads(server.artifacts.content(artifact)["neptune/manifest.json"])


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("a.b", 7, "values"),
        ("big", "9007199254740994", "values"),
        ("long", "short", "values"),
        ("sys/tags", ["ok"], "values"),
        ("mine", "added", "surplus"),
        ("a.b", None, "missing"),
    ],
)
def test_a_changed_config_is_named(loaded, key, value, kind):
    root, server, staging = loaded
    run = server.run(ID)
    before = dict(run.config)
    if value is None:
        del run.config[key]
    else:
        run.config[key] = {"value": value}
    found = told(findings(staging, options(server, root)))
    run.config = before
    assert found == [(HARD, key, kind)]


def test_a_changed_type_in_the_config_is_named(loaded):
    root, server, staging = loaded
    run = server.run(ID)
    before = dict(run.config)
    run.config["a.b"] = {"value": "text"}
    assert {f.attribute for f in findings(staging, options(server, root))} == {"a.b"}
    run.config = before


@pytest.mark.parametrize(
    ("path", "attribute"), [("files/dir.bin", "dir"), ("series/console.txt", "console"), ("files/many.bin", "many")]
)
def test_a_changed_file_is_named(loaded, path, attribute):
    root, server, staging = loaded
    (artifact,) = server.artifacts.committed(ID)
    token = artifact.files[server.artifacts.entries(artifact)[path]["digest"]]
    before = server.artifacts.blobs[token]
    server.artifacts.blobs[token] = before + b"!"
    found = findings(staging, options(server, root))
    server.artifacts.blobs[token] = before
    assert [f.attribute for f in found] == [attribute]


def test_a_run_that_is_gone_or_unfinished(loaded):
    root, server, staging = loaded
    run = server.run(ID)
    load_marker = run.config["neptune"]["value"]["load"]
    run.config["neptune"]["value"]["load"] = {**load_marker, "state": "started"}
    assert told(findings(staging, options(server, root))) == [(HARD, None, "unfinished")]
    kept = run.config.pop("neptune")
    assert told(findings(staging, options(server, root))) == [(HARD, None, "absent")]
    run.config["neptune"] = {**kept, "value": {**kept["value"], "load": load_marker}}


def test_a_changed_local_log_is_found(loaded, tmp_path):
    root, server, staging = loaded
    (folder,) = (root / "logs" / "wandb").glob(f"offline-run-*-{ID}")
    kept = shutil.copytree(folder, tmp_path / "kept")
    log = folder / f"run-{ID}.wandb"
    all_records = list(records(log))
    log.unlink()
    copy = LogFile(log)
    histories = [record for record in all_records if record[0] == 0x12]
    for record in all_records:
        if record is not histories[40]:
            copy.write(record)
    copy.close()
    assert {f.kind for f in findings(staging, options(server, root, "offline"))} == {"count"}
    data = bytearray(log.read_bytes())
    data[5000] ^= 1
    log.write_bytes(data)
    (found,) = findings(staging, options(server, root, "offline"))
    assert found.kind == "unreadable"
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


def test_the_command_line(server_and_root, capsys):
    server, root = server_and_root
    stage(root, "RUN-1", text(RunRef(PROJECT, "RUN-1"), "params/name", "adam"))
    places = ["--data-path", str(root / "data"), "--files-path", str(root / "files")]
    where = ["--loader", "wandb", "--wandb-base-url", server.url, "--wandb-api-key", API_KEY, "--wandb-entity", ENTITY]
    assert main(["load", *where, *places]) == 0
    assert main(["verify", *where, *places]) == 0
    server.run().config["params/name"] = {"value": "adamw"}
    capsys.readouterr()
    assert main(["verify", *where, *places]) == 4
    assert "'adam' in the staging area, 'adamw' in wandb" in capsys.readouterr().out
    assert areas.staging(root).run(RunRef(PROJECT, "RUN-1")) is not None
    assert API_KEY not in capsys.readouterr().out


@pytest.fixture
def server_and_root(tmp_path):
    with serving() as server:
        yield server, tmp_path
