# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A model version's life: its files in Neptune's registry and S3, and the same code when Neptune is gone.

With a Neptune 2.x server (NEPTUNE_API_TOKEN, NEPTUNE_PROJECT, NEPTUNE_MODEL_ID) and a bucket
(ONCLUSIVEML_TRACKING_BACKEND_S3_BACKEND_BUCKET):

    python examples/model_registry.py upload

Then `neptune-exporter export-models` and `neptune-exporter load-models`, and from then on:

    python examples/model_registry.py fetch mlflow DEMO-MOD-1
"""

import sys
import tempfile
from pathlib import Path

from neptune_exporter.registry import (
    MODEL_CARD_ATTRIBUTE_PATH,
    TrackedModelCard,
    TrackedModelSpecs,
    TrackedModelVersion,
    open_model_version,
)


def upload() -> str:
    """Stores a model, its test files and its card as a new model version; returns the version's id."""
    card = TrackedModelCard(model_type="trained")
    version = TrackedModelVersion(**TrackedModelSpecs().model_dump(exclude_none=True))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model" / "weights" / "layer0.bin"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(bytes(range(256)))
        version.upload_directory_to_model_version(Path(folder) / "model", card.model_artifact_attribute_path)
    # Small things may as well lie with Neptune itself.
    version.upload_config_to_model_version({"text": "hello"}, card.model_test_files.inputs, use_s3=False)
    version.upload_config_to_model_version(card, MODEL_CARD_ATTRIBUTE_PATH, use_s3=False)
    identifier = str(version["sys/id"].fetch())
    version.change_stage("staging")
    version.stop()
    return identifier


def fetch(backend: str, identifier: str, into: Path) -> TrackedModelCard:
    """Fetches what `upload` has stored from where it lies now; returns its card."""
    project = TrackedModelSpecs().project
    version = open_model_version(with_id=identifier, project=project, backend=backend, mode="read-only")
    card = TrackedModelCard(**version.download_config_from_model_version(MODEL_CARD_ATTRIBUTE_PATH))
    version.download_directory_from_model_version(into, card.model_artifact_attribute_path)
    return card


if __name__ == "__main__":
    if sys.argv[1:2] == ["upload"]:
        print(upload())
    elif sys.argv[1:2] == ["fetch"]:
        print(fetch(sys.argv[2], sys.argv[3], Path("fetched")))
    else:
        sys.exit(__doc__)
