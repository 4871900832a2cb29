# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Archives and offline folders from strangers, damaged or made to do harm.

Whatever they hold: every command ends with an error of ours or a finding, never with a traceback; nothing outside
of the area is read, written or removed; and no row that its checksum does not vouch for passes as what was exported.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import areas
import numpy as np
import pyarrow as pa
import pytest
from areas import PROJECT, TIME, floats, row, stage, tags, text
from contracts.injected import injected
from exporters.collect import collect_all, offline

from neptune_exporter.cli.main import main
from neptune_exporter.errors import ExporterError, Problem
from neptune_exporter.model import OutsideValue, RunInfo, RunRef, rows_batch
from neptune_exporter.report.found import of_summary, of_verify
from neptune_exporter.report.page import html
from neptune_exporter.storage.claims import Claim, parsed
from neptune_exporter.storage.manifest import SourceRecord
from neptune_exporter.summary import summary
from neptune_exporter.verify.check import Depth, verify
from neptune_exporter.verify.finding import exit_code

CASES, SOAK_CASES = 60, 3000  # of each kind
ONE, TWO = RunRef(PROJECT, "RUN-1"), RunRef(PROJECT, "RUN-2")

# --- what is done to a file


def flipped(data: bytes, dice: random.Random) -> bytes:
    """Some bits are not what they were."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 8])):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def cut(data: bytes, dice: random.Random) -> bytes:
    """The end is missing."""
    return data[: dice.randrange(len(data))]


def holed(data: bytes, dice: random.Random) -> bytes:
    """A piece in the middle is missing, zero, or something else."""
    start = dice.randrange(len(data))
    length = dice.randrange(1, 64)
    filling = dice.choice([b"", bytes(length), dice.randbytes(length), data[:length]])
    return data[:start] + filling + data[start + length :]


def spliced(data: bytes, dice: random.Random) -> bytes:
    """Numbers of lengths and offsets are as large or as negative as can be."""
    start = dice.randrange(len(data))
    extreme = dice.choice([b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80" * 10, b"\x00" * 8])
    return data[:start] + extreme + data[start + len(extreme) :]


DAMAGES = (flipped, flipped, cut, holed, spliced)
HOSTILE = [
    *(None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 100_000, [], {}, [[]], {"a": []}),
    *(
        "..",
        "../../outside",
        "/etc/passwd",
        "a/../../b",
        "\0",
        "C:\\x",
        "\ud800",
        "\u202e",
        "NaN",
        "1e999999999",
        "con",
    ),
    *([None], ["../outside"], {"path": "../outside"}, "9" * 5000, "\\\\host\\share", "models/..", "a\nb"),
]


def nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something stands in a JSON value."""
    for key, below in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from nodes(below, (*path, key))


def confused(data: bytes, dice: random.Random) -> bytes:
    """JSON in which something is what nobody expects there, missing, or there twice."""
    value = json.loads(data)
    for _ in range(dice.choice([1, 1, 2, 4])):
        places = list(nodes(value))
        if not places:
            break
        *above, last = dice.choice(places)
        holder = functools.reduce(lambda at, key: at[key], above, value)
        if dice.random() < 0.15:
            del holder[last]
        else:
            holder[last] = dice.choice(HOSTILE)
    return json.dumps(value).encode("utf-8", "surrogatepass")


@contextmanager
def changed(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    data = path.read_bytes()
    injected("damage")
    path.write_bytes(change(data))
    try:
        yield
    finally:
        path.write_bytes(data)


@contextmanager
def told(failures: list[str], what: str) -> Iterator[None]:
    """Goes on after a failure: one run of the tests tells all of them."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        failures.append(f"{what}: {type(error).__name__} {error} at {place.filename}:{place.lineno}"[:500])


# --- what must hold


def outside_of(area: Path) -> dict[str, bytes]:
    """What lies beside an area: nothing of it may ever change."""
    around = area.parent
    return {str(p): p.read_bytes() for p in around.iterdir() if p.is_file()} | {
        str(p): b"" for p in around.rglob("*") if area not in (p, *p.parents)
    }


def clear(error: ExporterError) -> None:
    """An error is a sentence for people, in one line."""
    assert error.message
    assert "Traceback" not in error.message


def looked_at(area: Path, *, page: bool = True) -> tuple[dict[str, Any], int]:
    """Every row that can be read, by run, and the exit code of a verification; errors of ours are fine."""
    staging = areas.staging(area)
    rows: dict[str, Any] = {}
    code = 0
    try:
        found = summary(staging, footers=True)
        if page:
            html("x", of_summary(found, "x"))
        json.dumps(found.to_json(), allow_nan=False)
        depth = Depth(read_data=True)
        checked = list(verify(staging, depth, workers=1))
        code = exit_code([finding for one in checked for finding in one.findings])
        if page:
            html("x", of_verify(checked, depth, "x", code))
    except ExporterError as error:
        clear(error)
        code = 1
    for ref in (ONE, TWO):
        try:
            run = staging.run(ref)
            if run is None:
                continue
            got = [record for batch in run.read() for record in plain(batch).to_pylist()]
            named = [record["file_value"]["path"] for record in got if record["file_value"]]
            files = {path: run.files.local(path).read_bytes().hex() for path in named}
            promised = sum(attribute.rows for attribute in run.attributes())
            if len(got) == promised:  # else it is not loaded: test_what_is_read_is_what_the_index_promises
                rows[ref.run_id] = json.dumps([sorted(map(str, got)), files])
        except ExporterError as error:
            clear(error)
    return rows, code


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with times as numbers: there are more of them in a Parquet file than Python has."""
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.itercolumns()
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def made(root: Path) -> Path:
    """An area of ours with everything that one can hold."""
    area = root / "area"
    histogram = rows_batch(
        ONE,
        "h",
        "histogram_series",
        step_micros=np.array([1_000_000]),
        time_ms=np.array([areas.TIME_MS]),
        histogram_value=pa.array([{"type": "COUNTING", "edges": [0.0, 1.0], "values": [2.0]}]),
    )
    batches = [floats(ONE, "loss", [0.5, 1.5, float("nan")]), text(ONE, "name", "x"), tags(ONE, ["a", "b"]), histogram]
    writer = areas.staging(area).writer(
        RunInfo(ONE, name="a name", parent=TWO, fork_step=Decimal("2.5"), created=datetime(2024, 1, 1, tzinfo=UTC)),
        SourceRecord("listed", "a list", {"n": 1}, problems=()),
    )
    for batch in batches:
        writer.write(batch)
    path = writer.files.add("model", "model.bin", [b"12345678" * 20])
    writer.write(rows_batch(ONE, "model", "file", file_value=pa.array([{"path": path}])))
    writer.problem(Problem("gone", "x", "retry"))
    writer.outside(OutsideValue("big", "float_series", "a step of 1e12", "1.0", "1000000000000", None))
    writer.commit()
    stage(area, "RUN-2", floats(TWO, "loss", [2.0]), files={"a": b"b"})
    return area


KINDS = {
    "manifest": lambda area: areas.manifest(area, "RUN-1"),
    "area": lambda area: areas.folder(area) / "_manifest" / "area.json",
    "index": lambda area: areas.index(area, "RUN-1"),
    "part": lambda area: areas.part(area, "RUN-1"),
    "extra": lambda area: areas.manifest(area, "RUN-1").with_suffix(".extra.jsonl"),
    "file": lambda area: next((area / "files").rglob("model*.bin")),
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    root = tmp_path_factory.mktemp("ours")
    (root / "outside").write_bytes(b"nobody's business")
    area = made(root)
    return area, looked_at(area)[0]


def try_all(area: Path, path: Path, pristine: dict[str, Any], damages: Any, seeds: range, *, proven: bool) -> None:
    before = outside_of(area)
    failures: list[str] = []
    caught = 0
    for seed in seeds:
        dice = random.Random(f"{path.suffix}{seed}")
        damage = dice.choice(damages)
        with told(failures, f"{path.name}: {damage.__name__}, seed {seed}"):
            with changed(path, lambda data, damage=damage, dice=dice: damage(data, dice)):
                rows, code = looked_at(area, page=seed % 10 == 0)
                assert not list(area.rglob("*.tmp"))
            caught += code != 0 or rows != pristine
            if proven:
                for run_id, got in rows.items():
                    assert got == pristine[run_id], "wrong rows pass as right"
    assert outside_of(area) == before
    assert not failures
    assert caught > len(seeds) // 2  # else the damage would do nothing at all


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_of_our_areas(ours, kind):
    area, pristine = ours
    damages = (*DAMAGES, *([confused] * 5 if kind in ("manifest", "area") else []))
    try_all(area, KINDS[kind](area), pristine, damages, range(CASES), proven=True)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_many_more_damaged_files_of_our_areas(ours, kind):
    area, pristine = ours
    damages = (*DAMAGES, *([confused] * 5 if kind in ("manifest", "area") else []))
    try_all(area, KINDS[kind](area), pristine, damages, range(CASES, SOAK_CASES), proven=True)


ROWS = [
    row("sys/id", "string", string_value="RUN-1"),
    row("sys/forking/parent", "string", string_value="RUN-0"),
    row("sys/forking/step", "float", float_value=2.5),
    row("sys/creation_time", "datetime", datetime_value=TIME),
    row("sys/tags", "string_set", string_set_value=["a", "b"]),
    *(row("loss", "float_series", step=step, timestamp=TIME, float_value=step / 7) for step in range(50)),
    row("plot", "file", file_value={"path": "RUN-1/plot.png"}),
]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    area = tmp_path_factory.mktemp("official") / "area"
    areas.official(area, "RUN-1", ROWS)
    (area / "files" / areas.stem(PROJECT) / "RUN-1").mkdir()
    (area / "files" / areas.stem(PROJECT) / "RUN-1" / "plot.png").write_bytes(b"1234567")
    return area


def test_damaged_parts_of_official_archives(official):
    """Nothing vouches for their values; that the tool stays sane is all that there is to hold."""
    part = areas.part(official, "RUN-1")
    for seed in range(CASES):
        dice = random.Random(seed)
        with changed(part, lambda data, dice=dice: dice.choice(DAMAGES)(data, dice)):
            looked_at(official, page=seed % 10 == 0)


@pytest.mark.soak
def test_many_more_damaged_parts_of_official_archives(official):
    part = areas.part(official, "RUN-1")
    for seed in range(CASES, SOAK_CASES):
        dice = random.Random(seed)
        with changed(part, lambda data, dice=dice: dice.choice(DAMAGES)(data, dice)):
            looked_at(official, page=seed % 10 == 0)


# --- archives made to do harm


def plan_of(area: Path, **changes: Any) -> None:
    """Leaves a commit that was interrupted, as anybody can write one into an archive."""
    manifest = json.loads(areas.manifest(area, "RUN-1").read_text())
    plan = {"format": 1, "manifest": manifest, "renames": [], "removals": {}, **changes}
    areas.manifest(area, "RUN-1").with_suffix(".next.json").write_text(json.dumps(plan))


@pytest.mark.parametrize("out", ["../../../../outside", "{absolute}", "link/outside", "_manifest/../../../../outside"])
@pytest.mark.parametrize("how", ["removals data", "removals files", "rename from", "rename to"])
def test_a_commit_in_an_archive_touches_nothing_outside(tmp_path, how, out):
    area = made(tmp_path)
    victim = tmp_path / "outside"
    victim.write_bytes(b"nobody's business")
    for folder in (areas.folder(area), area / "files" / areas.stem(PROJECT)):
        (folder / "link").symlink_to(tmp_path)
    out = out.replace("{absolute}", str(victim))
    inside = areas.part(area, "RUN-1").name
    plan_of(area, **{
        "removals data": {"removals": {"data": [out]}},
        "removals files": {"removals": {"files": [out]}},
        "rename from": {"renames": [[out, inside]]},
        "rename to": {"renames": [[inside, out]]},
    }[how])  # fmt: skip
    _, code = looked_at(area)
    assert code == 4
    assert victim.read_bytes() == b"nobody's business"


@pytest.mark.parametrize("place", ["part", "index", "extra", "file"])
@pytest.mark.parametrize("out", ["../../../outside.parquet", "/etc/passwd", "..", ""])
def test_a_manifest_names_nothing_outside(tmp_path, place, out):
    area = made(tmp_path)
    shutil.copyfile(areas.part(area, "RUN-1"), tmp_path / "outside.parquet")

    def change(manifest):
        if place == "file":
            manifest["files"][0][0] = out
        else:
            (manifest["parts"][0] if place == "part" else manifest[place])["path"] = out

    areas.changed_json(areas.manifest(area, "RUN-1"), change)
    rows, code = looked_at(area)
    assert code == 4
    assert rows.keys() == {"RUN-2"}


def test_links_in_the_files_folder_lead_nowhere(tmp_path):
    """Neither a file that is read nor one that a later export downloads."""
    victim = tmp_path / "outside"
    victim.mkdir()
    (victim / "secret").write_bytes(b"12345678" * 20)
    area = made(tmp_path)
    file = KINDS["file"](area)
    own = file.parent
    file.unlink()
    file.symlink_to(victim / "secret")
    assert looked_at(area)[1] == 4
    file.unlink()
    own.rmdir()
    own.symlink_to(victim)
    with pytest.raises(ExporterError, match="leaves the folder"):
        stage(area, "RUN-1", text(ONE, "a", "b"), files={"model": b"downloaded"})
    assert sorted(path.name for path in victim.iterdir()) == ["secret"]


def test_a_commit_in_an_archive_cannot_make_its_own_way_out(tmp_path):
    """A link gets, by a rename, a name that was nothing when all names were looked at."""
    area = made(tmp_path)
    (tmp_path / "outside").mkdir()
    for name in ("stolen", "removed"):
        (tmp_path / "outside" / name).write_bytes(b"nobody's business")
    (areas.folder(area) / "link").symlink_to(tmp_path / "outside")
    plan_of(area, renames=[["link", "sub"], ["sub/stolen", "mine.parquet"]], removals={"data": ["sub/removed"]})
    assert looked_at(area)[1] == 4
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["removed", "stolen"]


@pytest.mark.parametrize("which", ["data", "manifests", "files", "part", "manifest", "index"])
def test_links_inside_of_an_area_are_refused(tmp_path, which):
    area = made(tmp_path)
    linked = {
        "data": areas.folder(area),
        "manifests": areas.folder(area) / "_manifest",
        "files": area / "files" / areas.stem(PROJECT),
        "part": areas.part(area, "RUN-1"),
        "manifest": areas.manifest(area, "RUN-1"),
        "index": areas.index(area, "RUN-1"),
    }[which]
    linked.rename(tmp_path / "outside")
    linked.symlink_to(tmp_path / "outside")
    before = outside_of(area)
    rows, code = looked_at(area)
    assert code == 4
    assert "RUN-1" not in rows
    with contextlib.suppress(ExporterError):  # a part and an index are replaced, and so is a link
        stage(area, "RUN-1", text(ONE, "a", "b"))
    assert outside_of(area) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("which", ["manifest", "plan", "area", "index", "part", "loose part"])
def test_pipes_keep_nobody_waiting(tmp_path, which):
    area = made(tmp_path)
    manifest = areas.manifest(area, "RUN-1")
    if which == "loose part":
        shutil.rmtree(areas.folder(area) / "_manifest")
    pipe = {
        "manifest": manifest,
        "plan": manifest.with_suffix(".next.json"),
        "area": manifest.with_name("area.json"),
        "index": areas.index(area, "RUN-1"),
    }.get(which, areas.part(area, "RUN-1"))
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    assert looked_at(area)[1] == 4


def test_a_folder_of_files_is_not_looked_for_behind_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "private").write_bytes(b"x")
    area = tmp_path / "area"
    areas.official(area, "RUN-1", [row("f", "file", file_value={"path": "RUN-1/folder"})])
    own = area / "files" / areas.stem(PROJECT) / "RUN-1"
    own.mkdir(parents=True)
    (own / "folder").symlink_to(tmp_path / "outside")
    run = areas.staging(area).run(ONE)
    assert "private" not in str([problem.message for problem in run.problems] + run.file_paths())
    assert len(run.problems) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_manifest_that_is_that_of_another(tmp_path, place):
    area = made(tmp_path)

    def change(manifest: dict[str, Any]) -> None:
        manifest["run"]["ref"][place] = ["acme/other", "RUN-2", "model"][place]

    areas.changed_json(areas.manifest(area, "RUN-1"), change)
    rows, code = looked_at(area)
    assert (code, rows.keys()) == (4, {"RUN-2"})


def loaded(root: Path) -> tuple[int, int]:
    """The exit code of a load into MLflow, and how many runs are there then."""
    from mlflow import MlflowClient

    database = f"sqlite:///{root}/mlflow.db"
    places = ["--data-path", str(root / "area" / "data"), "--files-path", str(root / "area" / "files")]
    code = main(["load", "--mlflow-tracking-uri", database, *places, "--no-progress", "--workers", "1"])
    client = MlflowClient(database)
    return code, len(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def test_two_names_of_one_run(tmp_path):
    """Else one of them would vanish."""
    area = tmp_path / "area"
    areas.official(area, "RUN-1", [row("n", "int", int_value=1)])
    shutil.copyfile(areas.part(area, "RUN-1"), areas.part(area, "RUN-2"))
    assert looked_at(area)[1] == 4
    assert loaded(tmp_path) == (3, 1)


def test_two_folders_of_one_project(tmp_path):
    area = tmp_path / "area"
    areas.official(area, "RUN-1", [row("n", "int", int_value=1)])
    shutil.copytree(areas.folder(area), area / "data" / f"zother-{areas.stem(PROJECT).rpartition('-')[2]}")
    assert looked_at(area)[1] == 4
    assert loaded(tmp_path) == (3, 1)


def test_what_is_lost_is_said_by_a_load_too(tmp_path):
    area = tmp_path / "area"
    areas.official(area, "RUN-1", [row("n", "int", int_value=1)])
    part = areas.part(area, "RUN-1")
    part.rename(part.with_name(part.name.replace("_part_0", "_part_1")))
    areas.official(area, "RUN-2", [row("n", "int", int_value=1)])
    assert loaded(tmp_path) == (3, 1)


def test_one_damaged_run_or_project_is_not_that_of_the_others(tmp_path, capsys):
    area = tmp_path / "area"
    for run_id in ("RUN-1", "RUN-2"):
        areas.official(area, run_id, [row("n", "int", int_value=1)])
    areas.part(area, "RUN-1").write_bytes(b"PAR1")
    areas.official(area, "RUN-1", [row("n", "int", int_value=1)], project="b/b")
    (area / "data" / "a-0123456789abcdef").mkdir()
    (area / "data" / "a-0123456789abcdef" / "RUN-1-0123456789abcdef_part_0.parquet").write_bytes(b"PAR1")
    assert looked_at(area)[1] == 4
    assert loaded(tmp_path) == (3, 2)
    places = ["--data-path", str(area / "data"), "--files-path", str(area / "files"), "--no-progress"]
    assert main(["load", "--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", *places, "-p", "no/body"]) == 1
    said = capsys.readouterr().err
    assert "does not hold no/body" in said
    assert "cannot be read" in said


def test_what_is_read_is_what_the_index_promises(tmp_path, capsys):
    """A manifest that names fewer files leaves out the rows of the others: the run is not loaded without them."""
    area = made(tmp_path)
    areas.changed_json(areas.manifest(area, "RUN-1"), lambda manifest: manifest.update(files=[]))
    places = ["--data-path", str(area / "data"), "--files-path", str(area / "files"), "--no-progress"]
    database = f"sqlite:///{tmp_path}/mlflow.db"
    target = ["--loader", "mlflow", "--mlflow-tracking-uri", database]
    assert main(["load", *target, *places, "--workers", "1"]) == 3
    assert "has 6 rows that can be read, and 7 by its index" in capsys.readouterr().out
    assert main(["verify", "--read-data", *places]) == 4
    assert main(["verify", *target, *places]) == 4
    assert "RUN-1: The run is not in mlflow" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["claim", "lock", "plan", "manifest"])
def test_links_beside_the_manifest_lead_nowhere(tmp_path, what):
    """What an export, or the end of an interrupted commit, writes over is never what a link in the archive names."""
    victim = tmp_path / "outside"
    victim.write_bytes(b"nobody's business")
    area = made(tmp_path)
    manifest = areas.manifest(area, "RUN-1")
    for link in {
        "claim": [manifest.with_suffix(".claim")],
        "lock": [manifest.with_name(f"claims-{digit}.lock") for digit in "0123456789abcdef"],
        "plan": [manifest.with_suffix(".next.json.tmp")],
        "manifest": [manifest.with_name(f"{manifest.name}.tmp")],
    }[what]:
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
    looked_at(area)
    # What is left of an export that was interrupted is removed: a link is, too.
    expected = pytest.raises(ExporterError) if what in ("claim", "lock") else contextlib.nullcontext()
    with expected as raised:
        stage(area, "RUN-1", text(ONE, "a", "b"))
    if raised is not None:
        clear(raised.value)
        assert "link" in raised.value.hint
    assert victim.read_bytes() == b"nobody's business"


CLAIM = {"host": socket.gethostname(), "pid": os.getpid(), "started": None, "token": "a" * 32, "command": ""}


def claims() -> Iterator[bytes]:
    """What may stand in a claim that no command of ours has written."""
    for key in CLAIM:
        yield from (json.dumps({**CLAIM, key: value}).encode("utf-8", "surrogatepass") for value in HOSTILE)
        yield json.dumps({name: value for name, value in CLAIM.items() if name != key}).encode()
    yield from (b"", b"\0" * 100, b"[" * 60_000, b"\xff\xfe", b"[]", b"null", b"{" + b" " * 1_000_000)
    for seed in range(CASES):
        dice = random.Random(seed)
        data = json.dumps({**CLAIM, "pid": 2**22 - 1 - seed, "started": "1"}).encode()
        yield dice.choice(DAMAGES)(data, dice)


def test_claims_that_hold_anything(tmp_path):
    """A claim is somebody's who may live, on another machine, or nobody's: an error of ours, or the run is exported."""
    path = tmp_path / "run.claim"
    taken = 0
    for content in claims():
        path.write_bytes(content)
        try:
            with Claim(path, "a run"):
                taken += 1
        except ExporterError as error:
            clear(error)
            assert parsed(content)["host"] != CLAIM["host"]
            path.unlink()
        assert not path.exists()
    assert taken > 100


def test_names_do_not_move_the_cursor(tmp_path, capsys):
    """A terminal obeys what is printed on it; a name with an escape sequence could hide a line about damage."""
    name = "\x1b[2J\x1b]0;title\x07\rfine\u202e\x9b1A損"
    ref = RunRef(PROJECT, name)
    area = tmp_path / "area"
    stage(area, name, floats(ref, name, [0.5]))
    places = ("--data-path", str(area / "data"), "--files-path", str(area / "files"))
    areas.part(area, name).unlink()
    for command in (["summary"], ["verify"], ["verify", "--json"]):
        main([*command, *places, "--no-progress"])
        said = capsys.readouterr()
        for text_of in (said.out, said.err):
            assert not set(text_of) & set("\x1b\x07\r\u202e\x9b")
        if command == ["verify"]:
            assert "\\x1b[2J\\x1b]0;title\\x07\\x0dfine\\u202e\\x9b1A損" in said.out
        if "--json" in command:
            assert json.loads(said.out)["runs"][0]["run"] == name


NAMES = [
    "../../outside",
    "/outside",
    "a/../../../outside",
    "..",
    ".",
    "con",
    "a\0b",
    "\ud800",
    "x" * 5000,
    "C:\\x",
    "~/x",
    "-rf",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_from_a_server_stay_inside(tmp_path, name):
    area = tmp_path / "area"
    printable = name.encode("utf-8", "replace").decode()
    for project, run_id, attribute in ((name, "r", "a"), ("p", name, "a"), ("p", "r", name)):
        ref = RunRef(project.encode("utf-8", "replace").decode(), run_id.encode("utf-8", "replace").decode())
        stage(
            area,
            ref.run_id,
            text(ref, printable, "x"),
            project=ref.project_id,
            files={attribute.encode("utf-8", "replace").decode(): b"x"},
        )
    everything = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(path.is_relative_to(area / "data") or path.is_relative_to(area / "files") for path in everything)
    assert sum(path.is_relative_to(area / "files") for path in everything) == 3
    staging = areas.staging(area)
    assert exit_code([f for one in verify(staging, Depth(read_data=True), workers=1) for f in one.findings]) == 0


def test_json_that_is_nested_too_deep(tmp_path):
    area = made(tmp_path)
    areas.manifest(area, "RUN-1").write_text("[" * 200_000)
    (areas.folder(area) / "_manifest" / "area.json").write_text('{"a":' * 200_000)
    assert looked_at(area)[1] != 0


# --- offline folders


def read_offline(folder: Path, scratch: Path) -> None:
    """What the exporter makes of an offline folder: rows, problems, or an error of ours."""
    try:
        collect_all(offline(folder, offline_project=PROJECT), scratch)
    except ExporterError as error:
        clear(error)


def offline_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]


def fuzz_offline(folder: Path, scratch: Path, seeds: range) -> None:
    paths = offline_files(folder)
    before = outside_of(folder)
    assert all(
        run.rows for run in collect_all(offline(folder, offline_project=PROJECT), scratch / "undamaged").values()
    )
    failures: list[str] = []
    for seed in seeds:
        dice = random.Random(seed)
        path = dice.choice(paths)
        damage = dice.choice(DAMAGES)
        with (
            told(failures, f"{path.name}: {damage.__name__}, seed {seed}"),
            changed(path, lambda data, damage=damage, dice=dice: damage(data, dice)),
        ):
            read_offline(folder, scratch / str(seed))
            assert offline_files(folder) == paths or path.stat().st_size == 0, "an offline folder is only read"
        shutil.rmtree(scratch / str(seed), ignore_errors=True)
    assert outside_of(folder) == before
    assert not failures


@pytest.fixture(scope="module")
def scale_folder(tmp_path_factory):
    from truth import HistogramValue, Logger

    root = tmp_path_factory.mktemp("scale")
    log = Logger(root / ".neptune", "fuzzed", experiment_name="e")
    log.configs({"a/b": 1, "s": "text", "set": ["x"], "t": datetime(2024, 1, 1, tzinfo=UTC), "f": 0.5, "yes": True})
    for step in ("0", "1", "2.5"):
        log.metrics({"loss": 0.25, "acc": 1.0}, step)
        log.texts({"out": "line"}, step)
        log.histograms({"h": HistogramValue("COUNTING", (0.0, 1.0), (3.0,))}, step)
    log.files({"file": b"content"})
    log.close()
    return root / ".neptune"


@pytest.fixture(scope="module")
def legacy_folder(tmp_path_factory):
    import neptune

    root = tmp_path_factory.mktemp("legacy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run = neptune.init_run(
            mode="offline", git_ref=False, source_files=[], capture_stdout=False, capture_stderr=False
        )
        run["a/b"] = 1
        run["s"] = "text"
        run["tags"].add(["x"])
        for step in range(5):
            run["loss"].append(0.5, step=step)
            run["out"].append("line")
        run["file"].upload(neptune.types.File.from_content("content"))
        run.stop()
    return root / ".neptune"


SCRIPT = """
from neptune_scale import Run
with Run(project="team/demo", run_id="r", enable_console_log_capture=False, source_tracking_config=None) as run:
    run.log_configs({"a/b": 1, "s": "text"})
    for step in range(5):
        run.log_metrics({"loss": 0.5}, step=step)
        run.log_string_series({"out": "line"}, step=step)
    run.assign_files({"file": b"content"})
"""


@pytest.fixture(scope="module")
def spool_folder(tmp_path_factory):
    """What dual logging has left, for a target that nobody knows."""
    root = tmp_path_factory.mktemp("spool")
    (root / "train.py").write_text(SCRIPT)
    settings = {"NEPTUNE_EXPORTER_TARGET": "nowhere", "NEPTUNE_EXPORTER_SPOOL": str(root / "spool")}
    command = [sys.executable, "-m", "neptune_exporter", "run", "--without-neptune", "train.py"]
    subprocess.run(command, cwd=root, env={**os.environ, **settings}, check=True, capture_output=True)
    return root / "spool"


@pytest.mark.parametrize("client", ["scale", "legacy", "spool"])
def test_damaged_offline_folders(request, tmp_path, client):
    fuzz_offline(request.getfixturevalue(f"{client}_folder"), tmp_path, range(CASES))


@pytest.mark.soak
@pytest.mark.parametrize("client", ["scale", "legacy", "spool"])
def test_many_more_damaged_offline_folders(request, tmp_path, client):
    fuzz_offline(request.getfixturevalue(f"{client}_folder"), tmp_path, range(CASES, SOAK_CASES))


@pytest.mark.parametrize(
    ("client", "was", "becomes"),
    [
        ("scale", b"operation BLOB", b"0perat\xffon BLOB"),
        ("scale", b"operation BLOB", b"0peration BLOB"),
        ("legacy", b'["loss"]', b'["l\xf9ss"]'),
        ("legacy", b"file-", b"\\u0000"),
    ],
)
def test_damage_that_only_many_attempts_have_found(request, tmp_path, client, was, becomes):
    folder = request.getfixturevalue(f"{client}_folder")
    holding = [path for path in offline_files(folder) if was in path.read_bytes()]
    assert holding
    with contextlib.ExitStack() as stack:
        for path in holding:
            stack.enter_context(changed(path, lambda data: data.replace(was, becomes)))
        read_offline(folder, tmp_path / "read")


CELLS = [
    None,
    -1,
    2**62,
    0.5,
    "",
    "text",
    b"",
    b"\xff" * 30,
    b"\x0a\xff\xff\xff\xff\x7f",
    "../../../etc/passwd",
    "/etc/passwd",
]


def test_offline_databases_whose_cells_are_anything(scale_folder, tmp_path):
    """SQLite holds any type in any column; protobuf holds anything at all."""
    (database,) = scale_folder.rglob("run_operations.sqlite3")
    pristine = database.read_bytes()
    with sqlite3.connect(database) as opened:
        tables = {
            table: [column[1] for column in opened.execute(f'PRAGMA table_info("{table}")')]
            for (table,) in opened.execute("SELECT name FROM sqlite_master WHERE type='table'")
            if not table.startswith("sqlite_")
        }
    opened.close()
    try:
        for seed in range(CASES // 2):
            dice = random.Random(seed)
            opened = sqlite3.connect(database)
            for _ in range(dice.choice([1, 3])):
                table = dice.choice(sorted(tables))
                value = dice.choice([*CELLS, dice.randbytes(20)])
                which = dice.choice(["1=1", "rowid % 3 = 0"])
                try:
                    with opened:
                        opened.execute(
                            f'UPDATE "{table}" SET "{dice.choice(tables[table])}" = ? WHERE {which}', (value,)
                        )
                except sqlite3.Error:
                    continue
            opened.close()
            read_offline(scale_folder, tmp_path / str(seed))
            copied = [p for p in (tmp_path / str(seed)).rglob("*") if p.is_file()]
            assert not [p for p in copied if b"root:" in p.read_bytes()], "a file that was never attached was taken"
            database.write_bytes(pristine)
    finally:
        database.write_bytes(pristine)
