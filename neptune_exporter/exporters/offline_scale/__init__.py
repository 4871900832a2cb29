# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the operation logs of neptune-scale: SQLite databases full of protobuf messages."""
