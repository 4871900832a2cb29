# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Text as a terminal can be trusted with it: names come from archives, and archives from strangers."""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters move the cursor and hide lines, marks of direction turn a line around, and halves of surrogate
# pairs cannot be encoded. Tabs and ends of lines are ours.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, encoding: str = "utf-8") -> str:
    """Text in which everything that a terminal must not get stands as its escape."""
    safe = _UNSAFE.sub(_escape, text)
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def json_text(value: Any, *, indent: int | None = None, encoding: str = "utf-8") -> str:
    """A value as JSON that can be printed and encoded whatever it holds; what is no JSON becomes text."""
    utf_8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    text = json.dumps(value, ensure_ascii=not utf_8, indent=indent, default=str)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
