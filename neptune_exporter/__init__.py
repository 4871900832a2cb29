# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Leave Neptune.ai without losing a single number."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("neptune-exporter")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
