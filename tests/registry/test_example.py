# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The worked example does what it says, with Neptune and after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from registry_state import PROJECT, tree

from neptune_exporter.cli.main import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "model_registry.py"


def test_the_example(server, s3, s3_settings, s3_server, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("model_registry_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEPTUNE_PROJECT", PROJECT)
    monkeypatch.setenv("NEPTUNE_MODEL_ID", "DEMO-MOD")
    monkeypatch.setenv("S3_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert example.upload() == "DEMO-MOD-1"
    assert main(["export-models", "--no-progress"]) == 0
    assert main(["load-models", "--no-progress"]) == 0
    for backend in ("mlflow", "staging"):
        card = example.fetch(backend, "DEMO-MOD-1", tmp_path / backend)
        assert card.model_type == "trained"
        assert tree(tmp_path / backend) == {"weights/layer0.bin": bytes(range(256))}
    with pytest.raises(FileExistsError):
        example.fetch("mlflow", "DEMO-MOD-1", tmp_path / "mlflow")
