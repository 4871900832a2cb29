# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps what is secret out of everything that is shown, logged or written.

Errors and problems, from which all reports are made, mask their own text; the log and tracebacks are masked as they
are written. What is known to be secret is what the environment and secret options hold; besides, whatever looks like
a credential in an address or a header.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from neptune_exporter.printable import printable

MASK = "***"
SHORTEST = 6  # a shorter value masks half of every text and protects nothing
LONG = 12  # a shorter one is masked where it stands alone: a password may be part of an ordinary word

_OURS = re.compile(r"(?:NEPTUNE|MLFLOW|WANDB|PLUTO|MLOP|AWS|S3|GOOGLE|GCS|AZURE|TRACKED_MODEL|PG)\w*", re.IGNORECASE)
_SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_?KEY|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s@'\"]*@")
_SIGNATURE = re.compile(
    r"(?P<name>[?&;](?:x-(?:amz|goog)-(?:signature|credential|security-token)|sig|signature|token|access_token"
    r"|api_?key|key|password|secret)=)[^&\s'\")>]+",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b(?P<name>(?i:bearer|basic))\s+(?=\S*[0-9A-Z=])[A-Za-z0-9._~+/=-]{8,}")

_known: set[str] = set()


def keep_secret(value: str) -> None:
    """From now on this value is masked."""
    value = value.strip()
    if len(value) >= SHORTEST:
        _known.add(value)
        _known.update(key for key in [_inner_key(value)] if len(key) >= SHORTEST)


def _inner_key(token: str) -> str:
    """The key in an API token of Neptune, "" in anything else."""
    try:
        return str(json.loads(base64.b64decode(token, validate=True))["api_key"])
    except (ValueError, KeyError, TypeError):
        return ""


def keep_environment_secret(environment: Mapping[str, str] | None = None) -> None:
    """Masks what the environment holds of secrets: tokens, keys and passwords of the trackers and stores."""
    for name, value in (os.environ if environment is None else environment).items():
        if _OURS.fullmatch(name) and _SECRET.search(name) and not os.path.exists(value):  # noqa: PTH110 - any text
            keep_secret(value)


def masked(text: str) -> str:
    """The text without anything secret."""
    for value in _known:
        if value in text:
            text = text.replace(value, MASK) if len(value) >= LONG else _without_word(value, text)
    if "://" in text:
        text = without_credentials(text)
    if "=" in text:
        text = _SIGNATURE.sub(rf"\g<name>{MASK}", text)
    return _HEADER.sub(rf"\g<name> {MASK}", text)


def _without_word(value: str, text: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", MASK, text)


def without_credentials(text: str) -> str:
    """The text with every address in it as it is without a user name and a password."""
    return _CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)


class MaskedFormatter(logging.Formatter):
    """Writes log records, with their tracebacks, without anything secret."""

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record."""
        return printable(masked(super().format(record)))


def mask_tracebacks() -> None:
    """What ends this process is shown without anything secret."""
    keep_environment_secret()

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show
    if logging.lastResort is not None:  # what worker processes log
        logging.lastResort.setFormatter(MaskedFormatter())


keep_environment_secret()
