# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of the 1.x client: in debug mode without Neptune, and in its own offline mode beside it."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from mirrored import NOWHERE, records
from servers.neptune2 import Neptune2Server

from neptune_exporter.mirror import spool

pytest.importorskip("neptune")

SCRIPT = """
import neptune
import neptune_exporter.dual_logging
from neptune.types import File

run = neptune.init_run(
    project="team/project", custom_run_id="mine", name="a name", tags=["stays", "goes"], source_files=[],
    capture_hardware_metrics=False, capture_stdout=False, capture_stderr=False, capture_traceback=False,
)
run["params"] = {"lr": 0.1, "n": 3, "text": "ü", "on": True}
for number in range(100):
    run["train/loss"].append(number / 7)
run["train/acc"].extend([1.0, 2.0, 3.0], steps=[0.5, 1.5, 2.5])
run["text"].append("one\\ntwo")
run["content"].upload(File.from_content("in memory", extension="txt"))
run["path"].upload("here.bin")
run["gone"] = 1
del run["gone"]
run["sys/tags"].remove("goes")
assert run.get_url()
run.stop()
"""


def exported(script) -> dict[tuple[str, str], list]:
    script.command("export", "--exporter", "offline", "--offline-path", "spool")
    parts = (script.folder / "exports" / "data").glob("*/*_part_*.parquet")
    found: dict[tuple[str, str], list] = {}
    for row in (row for path in parts for row in pq.read_table(path).to_pylist()):
        found.setdefault((row["attribute_path"], row["attribute_type"]), []).append(row)
    return found


@pytest.mark.parametrize("environment", [{"DISABLE_NEPTUNE_LOGGING": "true"}, {"NEPTUNE_EXPORTER_TARGET": "nowhere"}])
def test_what_was_logged_is_in_the_spool(script, environment):
    (script.folder / "here.bin").write_bytes(b"\0\1\2")
    script.run(SCRIPT, **environment)
    (script.folder / "here.bin").unlink()  # the spool has its own copy
    rows = exported(script)
    losses = [(float(row["step"]), row["float_value"]) for row in rows["train/loss", "float_series"]]
    assert sorted(losses) == [(float(number), number / 7) for number in range(100)]
    assert sorted(float(row["step"]) for row in rows["train/acc", "float_series"]) == [0.5, 1.5, 2.5]
    assert rows["params/lr", "float"][0]["float_value"] == 0.1
    assert rows["params/n", "int"][0]["int_value"] == 3
    assert rows["params/text", "string"][0]["string_value"] == "ü"
    assert rows["params/on", "bool"][0]["bool_value"] is True
    assert rows["text", "string_series"][0]["string_value"] == "one\ntwo"
    assert rows["sys/tags", "string_set"][0]["string_set_value"] == ["stays"]
    assert not [path for path, _ in rows if path == "gone"]
    (project,) = (script.folder / "exports" / "files").iterdir()
    contents = {
        path: (project / rows[path, "file"][0]["file_value"]["path"]).read_bytes() for path in ("content", "path")
    }
    assert contents == {"content": b"in memory", "path": b"\0\1\2"}
    assert {rows["train/loss", "float_series"][0][name] for name in ("project_id", "run_id")} == {
        "team/project",
        "mine",
    }


def test_neptunes_exceptions_are_its_own_and_nothing_is_mirrored(script):
    script.run(
        "import neptune, neptune_exporter.dual_logging\n"
        "run = neptune.init_run(project='a/b', custom_run_id='x', source_files=[], capture_hardware_metrics=False,\n"
        "    capture_stdout=False, capture_stderr=False)\n"
        "run['a'] = 1.5\n"
        "try: run['a'].append(1)\n"
        "except Exception as error: assert type(error).__module__.startswith(('neptune', 'builtins')), error\n"
        "else: raise SystemExit('should have raised')\n"
        "run.stop()\n",
        DISABLE_NEPTUNE_LOGGING="true",
    )
    operations = [json.loads(payload)["obj"] for payload in records(script.spool, spool.LEGACY)]
    assert [o["type"] for o in operations if o["path"] == ["a"]] == ["AssignFloat"]


FILES_AND_DELETES = """
import os
import neptune
import neptune_exporter.dual_logging
from neptune.types import FloatSeries

run = neptune.init_run(
    project="team/project", custom_run_id="mine", source_files=["train.py"], capture_hardware_metrics=False,
    capture_stdout=False, capture_stderr=False, capture_traceback=False,
)
run["configs"].upload_files(["conf/*.cfg", "top.cfg"])
run["configs"].delete_files("top.cfg")
run["data"].track_files("conf/a.cfg")
run["kept/x"], run["gone/y"], run["popped"] = 1, 2, 3
run["gone/series"].append(1.0)
del run["gone"]
run.pop("popped")
for value in (1.0, 2.0):
    run["anew"].append(value)
run["anew"] = FloatSeries([7.0])
run["sys/tags"].add(["one", "two"])
run["sys/tags"].clear()
run["sys/tags"].add("three")
os.chdir("conf")
run.stop()
open("a.cfg", "w").write("changed when the run had ended")
"""


@pytest.fixture
def config_files(script):
    (script.folder / "conf").mkdir()
    for name in ("conf/a.cfg", "conf/b.cfg", "top.cfg"):
        (script.folder / name).write_text(f"content of {name}")


@pytest.mark.parametrize("environment", [{"DISABLE_NEPTUNE_LOGGING": "true"}, {"NEPTUNE_EXPORTER_TARGET": "nowhere"}])
@pytest.mark.usefixtures("config_files")
def test_file_sets_are_kept_as_they_were_and_what_was_deleted_is_gone(script, environment):
    script.run(FILES_AND_DELETES, **environment)
    rows = exported(script)
    (project,) = (script.folder / "exports" / "files").iterdir()
    members = {
        row["string_value"]: (project / row["file_value"]["path"]).read_text() for row in rows["configs", "file_set"]
    }
    assert members == {name: f"content of {name}" for name in ("conf/a.cfg", "conf/b.cfg")}
    assert {row["string_value"] for row in rows["source_code/files", "file_set"]} == {"train.py"}
    listed = json.loads((project / rows["data", "artifact"][0]["file_value"]["path"]).read_text())
    assert [file["metadata"][0]["value"] for file in listed["files"]] == [f"file://{script.folder}/conf/a.cfg"]
    paths = {path for path, _ in rows}
    assert "kept/x" in paths
    assert not paths & {"gone/y", "gone/series", "popped"}
    assert [row["float_value"] for row in rows["anew", "float_series"]] == [7.0]
    assert rows["sys/tags", "string_set"][0]["string_set_value"] == ["three"]


@pytest.mark.usefixtures("config_files", "with_mlflow")
def test_file_sets_and_tracked_files_reach_a_live_target(script):
    """What the target has cannot be taken back; a later load brings the state of the run as it is."""
    script.run(FILES_AND_DELETES, DISABLE_NEPTUNE_LOGGING="true")
    script.replay()
    live = script.mlflow()
    for name in ("conf/a.cfg", "conf/b.cfg"):
        assert live.text(f"files/configs/{name}") == f"content of {name}"
    assert live.text("files/source_code/files/train.py") == FILES_AND_DELETES
    (tracked,) = json.loads(live.text("files/data/files_list.json"))["files"]
    assert tracked["filePath"] == f"{script.folder}/conf/a.cfg"
    assert live.only.data.params["kept/x"] == "1"
    assert {key for key in live.only.data.tags if key.endswith("three")} != set()
    script.command("export", "--exporter", "offline", "--offline-path", "spool")
    script.command("load", "--mlflow-tracking-uri", f"sqlite:///{script.database}")
    loaded = script.mlflow()
    assert "popped" not in loaded.only.data.params
    assert [value for _, value in loaded.points("anew")] == [7.0]


ON_A_SERVER = """
import neptune
import neptune_exporter.dual_logging

run = neptune.init_run(
    custom_run_id="mine", name="a name", tags=["one"], source_files=["train.py"], git_ref=False,
    capture_hardware_metrics=False, capture_stdout=False, capture_stderr=False, capture_traceback=False,
)
run["params"] = {"lr": 0.1, "n": 3}
for number in range(50):
    run["train/loss"].append(number / 7)
run["configs"].upload_files("conf/*.cfg")
run["here"].upload("top.cfg")
run.stop()
"""


@pytest.mark.usefixtures("config_files", "with_mlflow")
def test_a_run_on_a_server_is_the_same_on_both_sides(script):
    with Neptune2Server() as server:
        server.store.add_project("team/project", "DEMO")
        del script.environment["NEPTUNE_MODE"]
        script.environment |= {"NEPTUNE_API_TOKEN": server.api_token, "OAUTHLIB_INSECURE_TRANSPORT": "1"}
        script.run(ON_A_SERVER, NEPTUNE_EXPORTER_TARGET=NOWHERE)
        attributes = server.store.container("team/project/DEMO-1").attributes
    script.replay()
    target = script.mlflow()
    of_server = [(step, value) for step, _, value in attributes["train/loss"].value]
    assert of_server == target.points("train/loss") == [(number, number / 7) for number in range(50)]
    for name in ("configs", "source_code/files"):
        members = attributes[name].value
        assert members
        assert {member: target.content(f"files/{name}/{member}") for member in members} == members
    assert attributes["here"].value[0] == target.content("files/here.cfg")
    assert {name: target.only.data.params[name] for name in ("params/lr", "params/n")} == {
        name: str(attributes[name].value) for name in ("params/lr", "params/n")
    }
    assert target.only.info.run_name == attributes["sys/name"].value
    assert "DEMO-1" in target.only.data.tags.values()
