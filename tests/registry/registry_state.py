# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the servers of these tests hold, looked at without any client of ours."""

from __future__ import annotations

PROJECT = "team/demo"
BUCKET = "models"


def keys(s3, prefix: str = "") -> set[str]:
    """The keys in the bucket."""
    return {item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())}


def attributes(server, version: str = "DEMO-MOD-1") -> dict:
    """What the server holds of a version, but for `sys`."""
    held = server.store.container(f"{PROJECT}/{version}").attributes
    return {path: attribute for path, attribute in held.items() if not path.startswith("sys/")}


def tree(folder) -> dict[str, bytes]:
    """Every file in a folder by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_tree(folder, files: dict[str, bytes]):
    """Writes files by their relative paths."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
