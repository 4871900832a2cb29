# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A registry of 3 models with 5 versions each, as the real client logs it, and what was logged."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
from registry_state import BUCKET, PROJECT
from servers.neptune2 import Neptune2Server

from neptune_exporter.cli.main import main

STAGES = ("production", "staging", "none", "archived", "staging")


@dataclass
class LoggedVersion:
    """What was logged."""

    id: str
    stage: str
    description: str
    labels: set[str]
    config: dict
    files: dict[str, bytes]  # by attribute path
    accuracy: list[float]


@dataclass
class Area:
    """An exported registry."""

    root: Path
    versions: dict[str, list[LoggedVersion]] = field(default_factory=dict)

    @property
    def places(self) -> list[str]:
        return ["--data-path", str(self.root / "data"), "--files-path", str(self.root / "files"), "--no-progress"]

    def load(self, uri: str, *arguments: str) -> int:
        return main(["load-models", "--mlflow-tracking-uri", uri, *arguments, *self.places])

    def verify(self, uri: str, *arguments: str) -> int:
        command = ["verify", "--models", "--read-data", "--loader", "mlflow", "--mlflow-tracking-uri", uri]
        return main([*command, *arguments, *self.places])


def log_models(area: Area, version_type: type) -> None:
    import neptune

    for key in ("ONE", "TWO", "THREE"):
        with neptune.init_model(project=PROJECT, key=key, name=f"model {key}") as model:
            model["sys/description"] = f"about {key}"
            model["params/size"] = len(key)
            model["sys/tags"].add(["nlp"])
    for number, stage in enumerate(STAGES, 1):  # one version of each in turn
        for key in ("ONE", "TWO", "THREE"):
            version = version_type(model=f"DEMO-{key}", project=PROJECT, name=f"{key} v{number}")
            logged = LoggedVersion(
                f"DEMO-{key}-{number}", stage, f"zażółć {number}\nsecond line", {f"tag{number}", "all"},
                {"number": number, "key": key}, {}, [0.1 * number, 0.2, float(number)],
            )  # fmt: skip
            version["sys/description"] = logged.description
            version["sys/tags"].add(sorted(logged.labels))
            version["metrics/accuracy"].extend(logged.accuracy, timestamps=[1_700_000_000 + n for n in range(3)])
            version.upload_config_to_model_version(logged.config, "model/config", use_s3=number % 2 == 0)
            content = {"weights.bin": os.urandom(1000), "nested/ключ.txt": b"nested", "empty": b""}
            folder = area.root / "up" / logged.id
            for name, data in content.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            version.upload_directory_to_model_version(folder, "model/artifacts", use_s3=number % 2 == 1)
            logged.files = {f"model/artifacts/{name}": data for name, data in content.items()}
            version.change_stage(stage)
            version.stop()
            area.versions.setdefault(f"DEMO-{key}", []).append(logged)
    shutil.rmtree(area.root / "up")


def export_registry(root: Path, s3_server: str) -> Area:
    """3 models of 5 versions: with stages, files and directories in Neptune and in S3, series and descriptions."""
    from neptune_exporter.registry import TrackedModelVersion

    area = Area(root)
    with pytest.MonkeyPatch.context() as patch, Neptune2Server() as server, server.environment():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "tester")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("S3_ENDPOINT_URL", s3_server)
        patch.setenv("ONCLUSIVEML_TRACKING_BACKEND_S3_BACKEND_BUCKET", BUCKET)
        patch.chdir(area.root)
        boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=BUCKET)
        server.store.add_project(PROJECT, "DEMO")
        log_models(area, TrackedModelVersion)
        places = ["--data-path", str(area.root / "data"), "--files-path", str(area.root / "files")]
        assert main(["export-models", "-p", PROJECT, *places, "--no-progress"]) == 0
    return area


def is_list(data: bytes) -> bool:
    """The list that the export keeps of an artifact."""
    return data.startswith(b'{\n "hash"')
