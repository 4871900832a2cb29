# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Settings and descriptions: names in the environment, defaults, and no token where one could read it."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys

import pytest
from pydantic import ValidationError
from registry_state import PROJECT

from neptune_exporter import registry
from neptune_exporter.registry import (
    MODEL_CARD_ATTRIBUTE_PATH,
    TrackedGithubActionsSpecs,
    TrackedModelCard,
    TrackedModelSpecs,
    TrackedModelVersion,
    TrackingLibraryBackendSettings,
    TrackingLibraryLoggingSettings,
)
from neptune_exporter.registry.settings import tracking_logger

TOKEN = "a-very-secret-token"


def test_defaults():
    settings = TrackingLibraryBackendSettings()
    assert settings.use_s3_backend is True
    assert settings.s3_backend_bucket == ""
    assert settings.s3_backend_prefix == "neptune-ai-model-registry"
    logs = TrackingLibraryLoggingSettings()
    assert (logs.name, logs.level) == ("neptune_exporter.registry", logging.INFO)
    assert "%(message)s" in logs.fmt


@pytest.mark.parametrize("spelled", [str.upper, str.lower])
def test_the_environment_in_any_case(monkeypatch, spelled):
    values = {"USE_S3_BACKEND": "false", "S3_BACKEND_BUCKET": "b", "S3_BACKEND_PREFIX": "p/q"}
    for name, value in values.items():
        monkeypatch.setenv(spelled(f"ONCLUSIVEML_TRACKING_BACKEND_{name}"), value)
    settings = TrackingLibraryBackendSettings()
    assert (settings.use_s3_backend, settings.s3_backend_bucket, settings.s3_backend_prefix) == (False, "b", "p/q")
    for name, value in {"NAME": "mine", "FMT": "%(message)s!", "LEVEL": "10"}.items():
        monkeypatch.setenv(spelled(f"ONCLUSIVEML_TRACKING_LOGGER_{name}"), value)
    tracking_logger.cache_clear()
    try:
        logger = tracking_logger()
        assert (logger.name, logger.level) == ("mine", 10)
    finally:
        tracking_logger.cache_clear()


@pytest.mark.parametrize("wrong", [{"s3_backend_prefix": "/p"}, {"s3_backend_prefix": "p/"}, {"transfer_threads": 0},
    {"s3_backend_bucket": "s3://b"}, {"s3_backend_bucket": "b/p"}, {"no_such_setting": 1}])  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        TrackingLibraryBackendSettings(**wrong)


def test_specs_from_the_environment_without_the_token_anywhere(monkeypatch):
    monkeypatch.setenv("NEPTUNE_PROJECT", PROJECT)
    monkeypatch.setenv("NEPTUNE_MODEL_ID", "DEMO-MOD")
    monkeypatch.setenv("NEPTUNE_API_TOKEN", TOKEN)
    specs = TrackedModelSpecs()
    assert specs.model_dump() == {"project": PROJECT, "model": "DEMO-MOD", "with_id": None}
    shown = [repr(specs), str(specs), f"{specs.api_token}", specs.model_dump_json(), json.dumps(specs.model_dump())]
    assert not [text for text in shown if TOKEN in text]
    assert specs.api_token.get_secret_value() == TOKEN
    assert pickle.loads(pickle.dumps(specs)).project == PROJECT
    assert TrackedModelSpecs(project="a/b", with_id="X-1").model_dump(exclude_none=True) == {
        "project": "a/b",
        "model": "DEMO-MOD",
        "with_id": "X-1",
    }


def test_specs_open_a_version(server, monkeypatch):
    monkeypatch.setenv("NEPTUNE_PROJECT", PROJECT)
    monkeypatch.setenv("NEPTUNE_MODEL_ID", "DEMO-MOD")
    version = TrackedModelVersion(**TrackedModelSpecs().model_dump(exclude_none=True))
    assert version["sys/id"].fetch() == "DEMO-MOD-1"
    version.stop()


def test_a_card_with_the_ci_run_that_made_it(version, monkeypatch):
    monkeypatch.setenv("GITHUB_SHA", "abc123")
    monkeypatch.setenv("RUNNER_OS", "Linux")
    context = TrackedGithubActionsSpecs()
    unset = {n: v for n, v in context.model_dump().items() if n not in ("github_sha", "runner_os")}
    assert unset == {name: name for name in unset}
    assert len(unset) == 13

    class BertCard(TrackedModelCard):
        max_length: int = 512

    version.upload_config_to_model_version(BertCard(model_type="compiled"), MODEL_CARD_ATTRIBUTE_PATH)
    card = version.download_config_from_model_version("model/model_card")
    assert card == {
        "model_type": "compiled",
        "model_artifact_attribute_path": "model/model_artifacts",
        "model_test_files": {
            "inputs": "model/test_files/inputs",
            "inference_params": "model/test_files/inference_params",
            "predictions": "model/test_files/predictions",
        },
        "training_data_attribute_path": "data/train",
        "github_action_context": {**unset, "github_sha": "abc123", "runner_os": "Linux"},
        "max_length": 512,
    }
    with pytest.raises(ValidationError):
        TrackedModelCard(model_type="other")


def test_everything_that_is_promised_is_there():
    for name in registry.__all__:
        assert getattr(registry, name) is not None
    with pytest.raises(AttributeError):
        registry.nothing  # noqa: B018


def test_importing_the_registry_imports_no_client():
    code = "import sys, neptune_exporter.registry; print({*sys.modules} & {'neptune', 'boto3', 'pydantic'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
