# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Names that a target accepts, from names that Neptune accepted: injective, and stable from run to run.

A legal name stays as it is. A name that has to change keeps its readable part and gets `--` and eight hex digits
of its own hash, so what it becomes does not depend on which other names there are, nor on their order. A legal
name that happens to look like a changed one is changed too; that is what makes the mapping injective. Only
names that differ in nothing but case, accents or trailing blanks (which some databases and file systems take for
the same), or that are the same path with two types, are told apart within the set they come in. The original
name of every key is in the run's manifest.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from neptune_exporter.errors import TargetError

_CHANGED = re.compile(r"--([0-9a-f]{8}|[0-9a-f]{32})$", re.IGNORECASE)
_DOTS = re.compile(r"\.{1,2}")
_NO_FOLDER = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[. ]|\.artifact\.uploading\..*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeyRule:
    """What a target allows in a key.

    Attributes:
        illegal: a regular expression that matches one character that is not allowed.
        length: the longest key, in characters.
        segment_bytes: the longest part between slashes in UTF-8, for keys that become paths on a disk; such
            parts must not be a device name or end in a dot or blank either. 0 for keys that do not.
        dots_first: whether a key may begin with two dots.
    """

    illegal: str
    length: int = 250
    segment_bytes: int = 0
    dots_first: bool = True


# A relative path that Linux, macOS and Windows, URLs and object stores all keep as it is.
ARTIFACT_RULE = KeyRule(illegal=r"[^/\w.\- +=@,()\[\]]", length=800, segment_bytes=200)


def target_key(name: str, rule: KeyRule) -> str:
    """The key of one name, whatever other names there are."""
    readable = _readable(name, rule)
    if readable == name and not _CHANGED.search(name):
        return name
    return suffixed(readable, name, rule)


def target_keys(names: Iterable[tuple[str, str]], rule: KeyRule) -> Mapping[tuple[str, str], str]:
    """The keys of a set of attributes, given by path and type; no two are alike, not even to a careless database.

    Raises:
        TargetError: two names cannot be told apart (their hashes agree as well).
    """
    wanted: dict[tuple[str, str], str] = {}
    paths: set[str] = set()
    for path, attribute_type in sorted(set(names)):
        plain = path not in paths
        paths.add(path)
        key = target_key(path, rule)
        wanted[path, attribute_type] = key if plain else _told_apart(path, attribute_type, rule)
    for names_alike in _alike(wanted):
        for path, attribute_type in names_alike[1:]:
            wanted[path, attribute_type] = _told_apart(path, attribute_type, rule)
    for names_alike in _alike(wanted):
        for path, attribute_type in names_alike:
            wanted[path, attribute_type] = _told_apart(path, attribute_type, rule, digits=32)
    if any(_alike(wanted)):
        raise TargetError(f"Names cannot be told apart: {_alike(wanted)[0]}.")
    return wanted


def suffixed(readable: str, identity: str, rule: KeyRule, digits: int = 8) -> str:
    """A readable name made unique by a hash of what it stands for, within the rule's length."""
    mark = "--" + hashlib.blake2b(identity.encode(), digest_size=digits // 2).hexdigest()
    return readable[: rule.length - len(mark)] + mark


def shortened(text: str, length: int) -> str:
    """The text, cut and made unique by its hash if it is longer than `length` characters."""
    return text if len(text) <= length else suffixed(text, text, KeyRule(illegal="", length=length))


def folded(key: str) -> str:
    """What careless databases and file systems take for the same: no case, no accents, no trailing blanks."""
    decomposed = unicodedata.normalize("NFKD", key.casefold())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return unicodedata.normalize("NFKD", bare.casefold()).rstrip(" ")


class ArtifactPaths:
    """Gives every file of a run a path of its own: never one twice, never a file where a folder is needed."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, path: str, identity: str) -> str:
        """The path, or the nearest one that is free.

        Args:
            path: made of `target_key` with `ARTIFACT_RULE`.
            identity: what the file is, for telling it apart where the path is taken.
        """
        *folders, name = path.split("/")
        above: list[str] = []
        for folder in folders:
            above.append(folder)
            while folded("/".join(above)) in self._files:
                above[-1] = suffixed(above[-1], "/".join(above), ARTIFACT_RULE)
        stem, dot, extension = name.rpartition(".")
        number = 0
        while self._is_taken("/".join([*above, name])):
            number += 1
            name = suffixed(stem or extension, f"{identity}\0{number}", ARTIFACT_RULE) + (
                dot + extension if stem else ""
            )
        found = "/".join([*above, name])
        self._files.add(folded(found))
        self._folders.update(folded("/".join(above[: n + 1])) for n in range(len(above)))
        return found

    def _is_taken(self, path: str) -> bool:
        return folded(path) in self._files or folded(path) in self._folders


def _readable(name: str, rule: KeyRule) -> str:
    """The name with what is not allowed replaced by underscores; too long ones cut."""
    text = re.sub(rule.illegal, "_", name) if rule.illegal else name
    parts = [_segment(part, rule) for part in text.split("/")]
    if not rule.dots_first and parts[0].startswith(".."):
        parts[0] = "__" + parts[0][2:]
    return "/".join(parts)[: rule.length]


def _segment(part: str, rule: KeyRule) -> str:
    if not part or _DOTS.fullmatch(part):
        return "_" * max(1, len(part))
    if not rule.segment_bytes:
        return part
    if _NO_FOLDER.fullmatch(part):
        part = f"_{part}_"
    return part.encode()[: rule.segment_bytes].decode(errors="ignore")


def _told_apart(path: str, attribute_type: str, rule: KeyRule, digits: int = 8) -> str:
    return suffixed(_readable(path, rule), f"{path}\0{attribute_type}", rule, digits)


def _alike(keys: Mapping[tuple[str, str], str]) -> list[list[tuple[str, str]]]:
    """The names whose keys look the same when folded, in order, by twos and more."""
    groups = defaultdict(list)
    for name, key in keys.items():
        groups[folded(key)].append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]
