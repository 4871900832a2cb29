# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A staging area for each test."""

from __future__ import annotations

import pytest

from neptune_exporter.storage import parquet, sort
from neptune_exporter.storage.staging import Staging


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "data", tmp_path / "files")


@pytest.fixture
def small_pieces(monkeypatch):
    """Parts, chunks and blocks so small that a run of some hundred rows has several of each."""
    monkeypatch.setattr(parquet, "PART_BYTES", 2500)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 60)
    monkeypatch.setattr(sort, "CHUNK_ROWS", 70)
    monkeypatch.setattr(sort, "BLOCK_ROWS", 20)
