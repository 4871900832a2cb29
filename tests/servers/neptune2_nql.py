# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The part of Neptune's query language that clients and this project send."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from .neptune2_store import Container, iso

Condition = Callable[[Container], bool]

_TOKEN = re.compile(
    r'\s*(?:(?P<bracket>[()])|`(?P<quoted>[^`]*)`|"(?P<text>(?:[^"\\]|\\.)*)"'
    r"|(?P<sign><=|>=|!=|=|<|>)|(?P<colon>:)|(?P<word>[^\s()`\":<>=!]+))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}


class SyntaxProblemError(Exception):
    """The query is not one."""


def parse(query: str) -> Condition:
    """The condition that a query states; the empty query is true of everything."""
    if not query.strip():
        return lambda _container: True
    parser = _Parser(query)
    condition = parser.either()
    if parser.next() is not None:
        raise SyntaxProblemError(query)
    return condition


class _Parser:
    def __init__(self, query: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        end = 0
        query = query.rstrip()
        while end < len(query):
            match = _TOKEN.match(query, end)
            if match is None:
                raise SyntaxProblemError(query)
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            end = match.end()
        self._at = 0

    def next(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, *kinds: str) -> str:
        token = self.next()
        if token is None or token[0] not in kinds:
            raise SyntaxProblemError(str(token))
        self._at += 1
        return token[1]

    def _is_word(self, word: str) -> bool:
        token = self.next()
        if token is not None and token[0] == "word" and token[1].upper() == word:
            self._at += 1
            return True
        return False

    def either(self) -> Condition:
        conditions = [self._both()]
        while self._is_word("OR"):
            conditions.append(self._both())
        return lambda container: any(condition(container) for condition in conditions)

    def _both(self) -> Condition:
        conditions = [self._one()]
        while self._is_word("AND"):
            conditions.append(self._one())
        return lambda container: all(condition(container) for condition in conditions)

    def _one(self) -> Condition:
        if self._is_word("NOT"):
            inner = self._one()
            return lambda container: not inner(container)
        if self.next() == ("bracket", "("):
            self._take("bracket")
            inner = self.either()
            if self._take("bracket") != ")":
                raise SyntaxProblemError("bracket")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        name = self._take("quoted", "word")
        kind = ""
        if self.next() == ("colon", ":"):
            self._take("colon")
            kind = self._take("word")
        negated = self._is_word("NOT")
        if self._is_word("CONTAINS"):
            part = _unescaped(self._take("text", "word"))
            return lambda container: _contains(container, name, part) != negated
        if self._is_word("MATCHES"):
            pattern = re.compile(self._take("text", "word"))
            return lambda container: bool(pattern.search(str(_value(container, name)))) != negated
        compare = _COMPARE[self._take("sign")]
        wanted = _unescaped(self._take("text", "word"))
        return lambda container: _holds(compare, _value(container, name), wanted, kind)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _value(container: Container, name: str) -> Any:
    attribute = container.attributes.get(name)
    if attribute is None:
        return None
    if attribute.type in ("floatSeries", "stringSeries"):
        return attribute.value[-1][2] if attribute.value else None
    return attribute.value


def _contains(container: Container, name: str, part: str) -> bool:
    value = _value(container, name)
    return value is not None and part in value


def _holds(compare: Callable[[Any, Any], bool], value: Any, wanted: str, kind: str) -> bool:
    if value is None:
        return False
    if kind == "datetime":
        time = datetime.fromisoformat(wanted)
        return compare(iso(value), iso(round(time.timestamp() * 1000)))
    if isinstance(value, bool):
        return compare(value, wanted.lower() == "true")
    if isinstance(value, (int, float)):
        return compare(float(value), float(wanted))
    return compare(value, wanted)
