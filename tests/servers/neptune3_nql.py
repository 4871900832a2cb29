# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The part of Neptune's query language that neptune-query emits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

Lookup = Callable[[str, str | None, str | None], Any]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<paren>[()])
      | (?P<name>`[^`]*`(?::\w+)?)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<operator>==|!=|>=|<=|>|<|NOT\s+MATCHES|NOT\s+CONTAINS|MATCHES|CONTAINS|EXISTS|AND|OR|NOT)
      | (?P<aggregate>last|min|max|average|variance)(?=\s*\()
      | (?P<bare>[\w.+-]+)
    )""",
    re.VERBOSE | re.DOTALL,
)


class QueryError(ValueError):
    """The query is not understood."""


def compile_query(text: str) -> Callable[[Lookup], bool]:
    """A test for runs; it is given a function (name, type, aggregate) → value or None."""
    tokens = list(_tokens(text))
    test, rest = _either(tokens)
    if rest:
        raise QueryError(f"unexpected {rest[0][1]!r} in {text!r}")
    return test


def _tokens(text: str):
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise QueryError(f"not understood: {text[position:]!r}")
        position = match.end()
        kind = match.lastgroup
        yield kind, re.sub(r"\s+", " ", match[kind]) if kind == "operator" else match[kind]


def _either(tokens):
    left, tokens = _both(tokens)
    while tokens and tokens[0] == ("operator", "OR"):
        right, tokens = _both(tokens[1:])
        left = _or(left, right)
    return left, tokens


def _both(tokens):
    left, tokens = _single(tokens)
    while tokens and tokens[0] == ("operator", "AND"):
        right, tokens = _single(tokens[1:])
        left = _and(left, right)
    return left, tokens


def _or(a, b):
    return lambda run: a(run) or b(run)


def _and(a, b):
    return lambda run: a(run) and b(run)


def _single(tokens):
    if not tokens:
        raise QueryError("the query ends too early")
    if tokens[0] == ("operator", "NOT"):
        inner, rest = _single(tokens[1:])
        return (lambda run: not inner(run)), rest
    if tokens[0] == ("paren", "("):
        inner, rest = _either(tokens[1:])
        if not rest or rest[0] != ("paren", ")"):
            raise QueryError("a parenthesis is not closed")
        return inner, rest[1:]
    return _predicate(tokens)


def _predicate(tokens):
    aggregate = None
    if tokens[0][0] == "aggregate":
        aggregate = tokens[0][1]
        tokens = [tokens[2], *tokens[4:]]
    kind, token = tokens[0]
    if kind != "name" or len(tokens) < 2:
        raise QueryError(f"an attribute is expected, not {token!r}")
    name, _, attribute_type = token[1:].rpartition("`")
    attribute_type = attribute_type[1:] or None
    operator = tokens[1][1]
    if operator == "EXISTS":
        return (lambda run: run(name, attribute_type, aggregate) is not None), tokens[2:]
    if len(tokens) < 3 or tokens[2][0] not in ("text", "bare"):
        raise QueryError("a value is expected")
    quoted, wanted = tokens[2][0] == "text", tokens[2][1]
    if quoted:
        wanted = re.sub(r"\\(.)", r"\1", wanted[1:-1])
    return (lambda run: _holds(run(name, attribute_type, aggregate), operator, wanted)), tokens[3:]


def _holds(value: Any, operator: str, wanted: str) -> bool:
    if operator.startswith("NOT "):
        return not _holds(value, operator[4:], wanted)
    if value is None:
        return False
    if operator == "MATCHES":
        return re.search(wanted, str(value)) is not None
    if operator == "CONTAINS":
        return wanted in value
    try:
        other = _like(value, wanted)
    except ValueError:
        return False
    return {
        "==": value == other,
        "!=": value != other,
        ">": value > other,
        ">=": value >= other,
        "<": value < other,
        "<=": value <= other,
    }[operator]


def _like(value: Any, text: str) -> Any:
    if isinstance(value, bool):
        return text.lower() == "true"
    if isinstance(value, int | float):
        try:
            return float(text)
        except ValueError:
            return datetime.fromisoformat(text).timestamp() * 1000
    return text
