# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Every change that the staging area makes on disk, so that tests can break each of them.

Nothing else in `storage` writes, renames or removes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from neptune_exporter.errors import DamagedDataError, StagingError

_HINTS = {
    errno.ENOSPC: "The disk is full. Free some space and run the same command again: finished runs are kept.",
    errno.EDQUOT: "The disk quota is used up. Free some space and run the same command again: finished runs are kept.",
    errno.EACCES: "Check the permissions of the folder, or choose another with --data-path and --files-path.",
    errno.EPERM: "Check the permissions of the folder, or choose another with --data-path and --files-path.",
    errno.EROFS: "The file system is read-only. Choose another folder with --data-path and --files-path.",
    errno.ELOOP: "A link lies where a file is to be written. Remove it, if you do not know who put it there.",
    errno.ENAMETOOLONG: "The file system does not take names this long. Choose a shorter folder with --data-path.",
}


@contextlib.contextmanager
def explained(doing: str, path: object) -> Iterator[None]:
    """Turns an `OSError` into a `StagingError` that says what to do."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise StagingError(f"Cannot {doing} {path}: {error.strerror or error}.", hint) from error


def opened(path: Path, mode: Literal["wb", "ab"]) -> BinaryIO:
    """Opens a file to write it, never one that a link leads to: the staging area may come from a stranger."""
    file: BinaryIO = io.open(path, mode, opener=_opened)  # noqa: SIM115, UP020  tests replace it, to break it
    return file


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)


def check_regular(path: Path) -> None:
    """Raises `DamagedDataError` if this is a link, a folder, a pipe or a device; what is not there is missed later.

    A pipe would keep us waiting for ever, a device has no end, and a link may lead anywhere.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise DamagedDataError(
            f"{path} is not a regular file.", "Put the file itself there; the whole area may lie behind a link."
        )


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with explained("create the folder", path):
        path.mkdir(exist_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def create(path: Path) -> Iterator[BinaryIO]:
    """A new file for the length of a with block: durable at its end, gone if the block fails.

    What the block raises is raised as it is: an `OSError` in there may be a network's and not the disk's.
    """
    with explained("write", path):
        file = opened(path, "wb")
    try:
        yield file
        with explained("write", path):
            file.flush()
            os.fsync(file.fileno())
            file.close()
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def write(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a whole file, durably; leaves nothing behind if it fails. What `chunks` raises is raised as it is."""
    with create(path) as file:
        for chunk in chunks:
            with explained("write", path):
                file.write(chunk)


def replace(source: Path, target: Path) -> None:
    """Renames, over an existing file if there is one."""
    with explained("rename to", target):
        source.replace(target)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file so that a reader sees the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary, [json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")])
    try:
        replace(temporary, path)
    except StagingError:
        with contextlib.suppress(StagingError):
            remove(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes renames in a folder durable, where the system can."""
    if os.name == "nt":
        return
    with explained("sync the folder", path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with where_possible():
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def where_possible() -> Iterator[None]:
    """For what some file systems do not offer: locks, and the syncing of folders."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise


def remove(path: Path) -> None:
    """Removes a file if it is there."""
    with explained("remove", path):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a folder with all that is in it, if it is there."""
    with explained("remove", path), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def remove_empty_folder(path: Path) -> None:
    """Removes a folder if it is there and empty."""
    with contextlib.suppress(OSError):
        path.rmdir()
