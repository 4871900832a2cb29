# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The tags of registered models and of their versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from neptune_exporter.loaders.keys import shortened
from neptune_exporter.loaders.loader import ModelToRegister, VersionToRegister
from neptune_exporter.loaders.mlflow import tags
from neptune_exporter.model import RunInfo, RunRef

STAGES = ("staging", "production", "archived")
STAGE, MODEL, MODEL_REF, PREFIX = "neptune.stage", "neptune.model_id", "neptune.model_ref", "neptune.name_prefix"
TAG_LENGTH = 5000  # what the oldest MLflow that we load into takes


def model_tags(model: ModelToRegister, prefix: str) -> dict[str, str]:
    """The tags of a registered model."""
    own = {**_tags_of(model.info, model.labels), "neptune.mlflow_run": model.loaded_as}
    return _presentable(own, model.labels, prefix)


def version_tags(version: VersionToRegister, model: RunRef, prefix: str) -> dict[str, str]:
    """The tags of a version of a registered model."""
    own = {
        **_tags_of(version.info, version.labels),
        MODEL: model.run_id,
        MODEL_REF: tags.ref_digest(model),
        STAGE: version.stage,
        "neptune.version": version.info.ref.run_id.rpartition("-")[2],
    }
    return _presentable(own, version.labels, prefix)


def _tags_of(info: RunInfo, labels: Sequence[str]) -> dict[str, str | None]:
    def time(value: datetime | None) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat()

    return {
        tags.PROJECT: info.ref.project_id,
        tags.RUN: info.ref.run_id,
        tags.KIND: info.ref.kind,
        tags.REF: tags.ref_digest(info.ref),
        "neptune.name": info.name,
        "neptune.created": time(info.created),
        "neptune.modified": time(info.modified),
        "neptune.owner": info.owner,
        tags.TAG_SETS["sys/tags"]: json.dumps(sorted(labels), ensure_ascii=False) if labels else None,
    }


def _presentable(own: dict[str, str | None], labels: Sequence[str], prefix: str) -> dict[str, str]:
    shown = {**tags.label_tags(labels), **own, PREFIX: prefix}
    return {key: shortened(tags.printable(value), TAG_LENGTH) for key, value in shown.items() if value}
