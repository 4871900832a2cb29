# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Images, audio and video as W&B's media: decoded from the log and from what the server received, byte by byte."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import pytest
from contracts.rows import curve, point, single, write_run
from servers.http import Fault
from servers.wandb import WandbServer
from truth import Row
from wandb_loads import end_client, wandb_sync
from wandb_seen import seen_by_server, seen_in_log
from wandb_target import Target, no_settings_of_the_user, server, target  # noqa: F401

from neptune_exporter.load import load
from neptune_exporter.loaders.loader import LoadOptions
from neptune_exporter.loaders.wandb.names import run_id
from neptune_exporter.model import RunRef
from neptune_exporter.selection import EVERYTHING
from neptune_exporter.storage.staging import Staging
from neptune_exporter.verify.check import Depth, verify
from neptune_exporter.verify.check import Target as Compared

REF = RunRef("acme/vision", "RUN-1")
ID = run_id(REF, 1)
WAYS = ["log", "client"]


def png(width: int, height: int, grey: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([grey]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wav(samples: int) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(256)) * samples)
    return held.getvalue()


GIF = b"GIF89a\x03\x00\x02\x00\x80\x00\x00" + bytes(6) + b",\0\0\0\0\x03\0\x02\0\0\x02\x02\x84Q\0;"
JPEG = b"\xff\xd8\xff\xe0\x00\x04AB\xff\xc0\x00\x0b\x08\x00\x07\x00\x09\x01\x01\x11\x00\xff\xd9"
MP4 = b"\0\0\0\x18ftypmp42" + bytes(range(256))

IMAGES = {0: png(4, 3, 0), 5: png(5, 3, 9), 10: GIF}
SOUNDS = {"0.5": wav(1), "7": wav(2)}


def rows() -> list[Row]:
    return [
        *curve("loss", 12),
        *(point("preds/[ü] 100%", step, content, step) for step, content in IMAGES.items()),
        *(point("sound", step, content, 3) for step, content in SOUNDS.items()),
        point("mixed", 1, MP4, 1), point("mixed", 2, b"no media at all", 2), point("mixed", 2, JPEG, 3),
        single("picture", JPEG), single("model", b"weights"),
    ]  # fmt: skip


SHOWN = [
    *(("preds/[ü] 100%", float(step), step, content) for step, content in IMAGES.items()),
    *(("sound", float(step), 3, content) for step, content in SOUNDS.items()),
    ("mixed", 1.0, 1, MP4),
    ("mixed", 2.0, 3, JPEG),
]


@pytest.fixture
def staging(tmp_path) -> Staging:
    area = Staging(tmp_path / "data", tmp_path / "files")
    write_run(area, REF, rows())
    yield area
    end_client()


def loaded(target: Target, staging: Staging, **more: Any) -> None:  # noqa: F811
    options = target.options(wandb_media=True, **more)
    report = load("wandb", options, LoadOptions(), staging, EVERYTHING, workers=1)
    assert report.exit_code == 0, report.outcomes


def media_in(history: list[dict[str, Any]], files: dict[str, bytes]) -> list[tuple[str, float, int, bytes]]:
    """Key, step, milliseconds since the start, and content of everything that the history shows."""
    found = []
    for row in history:
        for key, value in row.items():
            if not isinstance(value, dict):
                continue
            content = files[value["path"]]
            assert value["sha256"] == hashlib.sha256(content).hexdigest()
            assert int(value["size"]) == len(content)
            found.append((key, float(row["neptune_step"]), round(float(row["_timestamp"]) * 1000) - START, content))
    return sorted(found, key=str)


START = round(rows()[0].time.timestamp() * 1000)


def run_files(running: WandbServer) -> dict[str, bytes]:
    run = running.run(ID)
    return {name: running.run_file(run, name) for name in run.files if name.startswith("media/")}


@pytest.mark.parametrize("way", WAYS)
def test_media_are_in_the_history_and_their_bytes_on_the_server(server, target, staging, way):  # noqa: F811
    loaded(target, staging, wandb_way=way)
    seen, files = seen_by_server(server, ID), run_files(server)
    assert media_in(seen.history, files) == sorted(SHOWN, key=str)
    picture = seen.summary["picture"]
    assert (picture["_type"], picture["width"], picture["height"]) == ("image-file", 9, 7)
    assert files[picture["path"]] == JPEG
    assert "model" not in seen.summary
    assert sorted(seen.artifact[path] for path in seen.artifact if path.startswith("files/")) == sorted(
        row.value for row in rows() if isinstance(row.value, bytes)
    )
    kinds = {key: v["_type"] for row in seen.history for key, v in row.items() if isinstance(v, dict)}
    assert kinds == {"preds/[ü] 100%": "image-file", "sound": "audio-file", "mixed": "image-file"}
    sizes = {(v["format"], v["width"], v["height"]) for row in seen.history for v in row.values() if is_image(v)}
    assert sizes == {("png", "4", "3"), ("png", "5", "3"), ("gif", "3", "2"), ("jpg", "9", "7")}


def is_image(value: Any) -> bool:
    return isinstance(value, dict) and value["_type"] == "image-file"


@pytest.mark.parametrize("way", WAYS)
def test_media_in_offline_logs_and_after_wandb_sync(server, target, staging, way, tmp_path):  # noqa: F811
    loaded(target, staging, wandb_way=way, wandb_mode="offline")
    (log,) = (target.folder / "wandb").glob("offline-run-*/*.wandb")
    beside = {
        str(path.relative_to(log.parent / "files")): path.read_bytes()
        for path in (log.parent / "files" / "media").rglob("*.*")
    }
    assert media_in(seen_in_log(log).history, beside) == sorted(SHOWN, key=str)
    wandb_sync(server, tmp_path, log.parent)
    assert run_files(server) == beside
    assert media_in(seen_by_server(server, ID).history, run_files(server)) == sorted(SHOWN, key=str)


def test_both_ways_show_the_same(server, target, staging):  # noqa: F811
    found = {}
    for way in WAYS:
        loaded(target, staging, wandb_way=way, wandb_project=way)
        run = next(run for run in server.runs.all() if run.project == way)
        lines = [{k: v for k, v in row.items() if k != "_runtime"} for row in run.rows]
        summary = {k: v for k, v in run.last_values.items() if k not in ("_runtime", "_wandb")}
        content = {n: server.run_file(run, n) for n in run.files if n.startswith("media/")}
        found[way] = lines, summary, content
        end_client()
    assert found["log"] == found["client"]


def test_verify_proves_media_and_finds_what_is_missing(server, target, staging):  # noqa: F811
    loaded(target, staging)
    depth = Depth(EVERYTHING, target=Compared("wandb", target.options(), LoadOptions()))

    def findings() -> list[str]:
        return [
            f"{f.attribute}: {f.message}"
            for one in verify(staging, depth, workers=1, executor="threads")
            for f in one.findings
        ]

    assert findings() == []
    run = server.run(ID)
    row = next(n for n, line in enumerate(run.history) if "sound" in json.loads(line))
    kept = run.history[row]
    run.history[row] = json.dumps({k: v for k, v in json.loads(kept).items() if k != "sound"})
    assert [text.split(":")[0] for text in findings()] == ["sound"]
    run.history[row] = kept.replace('"media/audio/', '"media/other/')
    assert "sound" in {text.split(":")[0] for text in findings()}
    run.history[row] = kept
    assert findings() == []


def test_a_media_file_that_did_not_arrive_fails_the_run_and_the_next_load_completes_it(
    server,  # noqa: F811
    target,  # noqa: F811
    staging,
    monkeypatch,
):
    monkeypatch.setattr("neptune_exporter.loaders.wandb.online._WAITS", (0.0,))
    server.http.faults = [Fault("PUT /upload/run/0$", times=None, status=400)]
    report = load("wandb", target.options(wandb_media=True), LoadOptions(), staging, EVERYTHING, workers=1)
    assert report.count("failed") == 1
    assert "lacks 1 of 8 media files" in report.outcomes[0].reason
    assert server.run(ID).values["neptune"]["load"]["state"] == "started"
    server.http.faults = []
    end_client()
    loaded(target, staging)
    assert media_in(seen_by_server(server, ID).history, run_files(server)) == sorted(SHOWN, key=str)


def test_without_the_option_nothing_is_shown(server, target, staging):  # noqa: F811
    assert load("wandb", target.options(), LoadOptions(), staging, EVERYTHING, workers=1).exit_code == 0
    assert run_files(server) == {}
    assert len(server.run(ID).history) == 12
    assert Path(staging.data_path).exists()
