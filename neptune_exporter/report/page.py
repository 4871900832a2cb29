# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page from a JSON value: its script makes the page from that value alone.

Names in the value come from strangers. They are data in every place: escaped where they stand in the file, and shown
by the script as text, never as markup. Besides, the page forbids every script but its own and every request.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from neptune_exporter import __version__
from neptune_exporter.errors import StagingError, UsageError

ROWS = 5000  # in one list of the page; what is more is counted
LIST_BYTES = 3 << 20
TEXT_CHARACTERS = 600
_HINT = "Choose another with --html."


def text(value: str | None) -> str | None:
    """A text as short as a page can stand it."""
    if value is None or len(value) <= TEXT_CHARACTERS:
        return value
    return f"{value[:TEXT_CHARACTERS]}… ({len(value):,} characters)"


def listed(rows: Iterable[tuple[Any, ...]], total: int) -> dict[str, Any]:
    """The rows that a page shows, and how many there are.

    Args:
        rows: the most important ones first.
        total: how many there are, whether they are given or not.
    """
    shown: list[tuple[Any, ...]] = []
    room = LIST_BYTES
    for row in rows:
        short = tuple(text(cell) if isinstance(cell, str) else cell for cell in row)
        room -= len(json.dumps(short))
        if len(shown) == ROWS or room < 0:
            break
        shown.append(short)
    return {"total": total, "rows": shown}


def check_target(path: Path, folders: Iterable[Path] = ()) -> None:
    """Whether a page can be written there: better known now than after hours of work.

    Args:
        path: as it was given.
        folders: of the staging area, where a page has no place.

    Raises:
        UsageError: it lies in one of the folders, or stands for stdout.
        StagingError: no file can be written there.
    """
    if str(path) == "-":
        raise UsageError("--html needs the name of a file: on stdout is the result itself.", "For example: report.html")
    try:
        target = _target(path)
    except (OSError, RuntimeError) as error:  # before Python 3.13, links that lead in circles are the latter
        raise StagingError(f"Cannot write the report {path}: {getattr(error, 'strerror', error)}.", _HINT) from error
    for folder in folders:
        if target.is_relative_to(folder.resolve()):
            raise UsageError(f"{path} lies in the staging area, in {folder}: a report has no place there.", _HINT)
    if target.is_dir():
        raise StagingError(f"{path} is a folder, not a file.", _HINT)
    if not target.parent.is_dir():
        raise StagingError(f"There is no folder {target.parent} for the report.", f"Create it. {_HINT}")
    if _is_special(target):
        if not os.access(target, os.W_OK):
            raise StagingError(f"Cannot write to {path}.", _HINT)
    elif not os.access(target.parent, os.W_OK):
        raise StagingError(f"Cannot write into the folder {target.parent}.", _HINT)


def _target(path: Path) -> Path:
    """What is written to: where a link leads, unless what is there has no place in a folder, as a pipe of a process."""
    target = path.resolve()
    if target.is_symlink():  # links that lead in circles: an error of its own before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return path if path.exists() and not target.exists() else target


def _is_special(path: Path) -> bool:
    """Whether there is something that must not be replaced, as a device or a pipe."""
    return path.exists() and not path.is_file()


def write_page(path: Path, title: str, value: dict[str, Any]) -> None:
    """Writes the page whole, or not at all; into a device or a pipe as it comes. Raises `StagingError`."""
    page = html(title, value).encode("ascii")
    try:
        target = _target(path)
        if _is_special(target):
            with target.open("wb") as stream:
                stream.write(page)
            return
        temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StagingError(f"Cannot write the report {path}: {error.strerror or error}.", _HINT) from error


def html(title: str, value: dict[str, Any]) -> str:
    """The page as ASCII text."""
    made = {"title": title, "made": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; style-src '{_source(style)}'; script-src '{_source(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _part("page.html")
    for name, content in (
        ("POLICY", policy),
        ("TITLE", _as_text(title)),
        ("STYLE", style),
        ("SCRIPT", script),
        ("DATA", escaped_json({**made, **value})),  # last: what is in it is looked at no more
    ):
        page = page.replace(f"%{name}%", content, 1)
    return page


def escaped_json(value: Any) -> str:
    """JSON that may stand within a script element, in ASCII: nothing in it ends the element or begins a comment."""
    content = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return content.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _as_text(value: str) -> str:
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _part(name: str) -> str:
    return files("neptune_exporter.report").joinpath(name).read_text(encoding="ascii").strip()


def _source(content: str) -> str:
    """How a policy names an inline style or script: by what is in it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
