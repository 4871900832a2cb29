# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps what is secret out of everything that is shown, logged or written."""

from __future__ import annotations

import re

# The part of an address before the host: user and password, or a key.
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s@'\"]*@")


def without_credentials(text: str) -> str:
    """The text with every address in it as it is without a user name and a password."""
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)
