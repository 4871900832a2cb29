# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Attribute paths and local paths, one for the other; and local files that are whole or not there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from neptune_exporter.errors import UsageError

EXCLUDED = ("__", ".")
MARK = "__uploading__"  # beside the files of a directory while it is being uploaded


class LocalFileMissingError(FileNotFoundError, FileExistsError):
    """What is to be uploaded is not there. Code written for older libraries expects a `FileExistsError`."""


def clean_attribute(path: str) -> str:
    """The path as Neptune spells it: without empty parts. Raises `UsageError` if nothing is left."""
    cleaned = "/".join(filter(None, path.split("/")))
    if not cleaned:
        raise UsageError("An attribute path is needed, such as model/model_artifacts.")
    return cleaned


def is_below(path: str, folder: str) -> bool:
    """Whether an attribute lies in a folder of attributes; a sibling that merely begins alike does not."""
    return path.startswith(f"{folder}/")


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def files_in(folder: Path, exclude: Sequence[str]) -> list[tuple[Path, str]]:
    """The files in a folder and its subfolders with their paths relative to it, sorted; links are followed once.

    Args:
        folder: the folder.
        exclude: files and folders whose name begins with one of these are left out.

    Raises:
        LocalFileMissingError: there is no such folder.
        FileNotFoundError: nothing in it is left to upload.
        UsageError: a name cannot be part of an attribute path.
    """
    if not folder.is_dir():
        raise LocalFileMissingError(f"{folder} is not a directory.")
    left_out = tuple(exclude)
    found = [(Path(path), Path(path).relative_to(folder).as_posix()) for path in _walk(str(folder), left_out)]
    if not found:
        raise FileNotFoundError(f"{folder} holds no file to upload (left out: names that begin with {left_out}).")
    for _, relative in found:
        if not is_text(relative):
            raise UsageError(f"{relative!r} in {folder} is not UTF-8, so it cannot be an attribute path.", "Rename it.")
        if PurePosixPath(relative).name == MARK:
            raise UsageError(f"{relative} in {folder} has a name that this library keeps for itself.", "Rename it.")
    return sorted(found, key=lambda pair: pair[1])


def _walk(folder: str, left_out: tuple[str, ...]) -> Iterator[str]:
    def wanted(name: str) -> bool:
        return not left_out or not name.startswith(left_out)

    seen = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if wanted(name))
        for name in list(folders):
            real = os.path.realpath(os.path.join(here, name))  # noqa: PTH118 - as os.walk gives them
            if real in seen:
                folders.remove(name)
            seen.add(real)
        yield from (os.path.join(here, name) for name in sorted(files) if wanted(name))  # noqa: PTH118


def inside(folder: Path, relative: str) -> Path:
    """The place of a relative path in a folder. Raises `UsageError` if it would be anywhere else."""
    parts = relative.split("/")
    bad = {"", ".", ".."}
    if any(part in bad or "\0" in part or "\\" in part for part in parts) or Path(relative).is_absolute():
        raise UsageError(f"The attribute path {relative!r} is no path that can be written below {folder}.")
    return folder.joinpath(*parts)


# --- whole or not there


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to; what is there when the block ends becomes `target` at once, otherwise it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(target)
    part.touch(exist_ok=False)
    try:
        yield part
        _flush(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends all of its files are moved to `target`, otherwise they are removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(target)
    part.mkdir()
    try:
        yield part
        files = [path for path in part.rglob("*") if path.is_file()]
        for path in files:
            _flush(path)
        if not target.exists():
            part.replace(target)
            return
        for path in files:
            final = target / path.relative_to(part)
            final.parent.mkdir(parents=True, exist_ok=True)
            path.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
