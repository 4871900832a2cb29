# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What describes a model version beside its files: which one it is, its card, and the CI run that made it."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MODEL_CARD_ATTRIBUTE_PATH = "model/model_card"


class TrackedModelSpecs(BaseSettings):
    """What `TrackedModelVersion` takes, from the environment. The token appears in no text, dump or log.

    Attributes:
        project: `workspace/project`, from NEPTUNE_PROJECT.
        model: the model's id, from NEPTUNE_MODEL_ID.
        with_id: the version's id if it exists already, from NEPTUNE_MODEL_VERSION_ID.
        api_token: from NEPTUNE_API_TOKEN; the client reads that itself, too.
    """

    model_config = SettingsConfigDict(populate_by_name=True)

    project: str = Field(validation_alias=AliasChoices("project", "neptune_project", "onclusiveml_neptune_project"))
    model: str | None = Field(
        default=None, validation_alias=AliasChoices("model", "neptune_model_id", "onclusiveml_neptune_model_id")
    )
    with_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("with_id", "neptune_model_version_id", "onclusiveml_neptune_with_id"),
    )
    api_token: SecretStr | None = Field(
        default=None,
        exclude=True,
        repr=False,
        validation_alias=AliasChoices("api_token", "neptune_api_token", "onclusiveml_neptune_api_token"),
    )


class TrackedGithubActionsSpecs(BaseSettings):
    """The run of GitHub Actions that made a model version; each field that is not set holds its own name."""

    github_repository: str = "github_repository"
    github_actor: str = "github_actor"
    github_env: str = "github_env"
    github_workflow: str = "github_workflow"
    github_job: str = "github_job"
    github_ref: str = "github_ref"
    github_base_ref: str = "github_base_ref"
    github_head_ref: str = "github_head_ref"
    github_sha: str = "github_sha"
    github_event_name: str = "github_event_name"
    github_run_id: str = "github_run_id"
    github_run_number: str = "github_run_number"
    runner_arch: str = "runner_arch"
    runner_name: str = "runner_name"
    runner_os: str = "runner_os"


class TrackedModelTestFiles(BaseSettings):
    """The attribute paths of the files that a model is tested with."""

    inputs: str = "model/test_files/inputs"
    inference_params: str = "model/test_files/inference_params"
    predictions: str = "model/test_files/predictions"


class TrackedModelCard(BaseSettings):
    """A model version's card; it belongs under `MODEL_CARD_ATTRIBUTE_PATH`. Subclasses add fields of their own.

    Attributes:
        model_type: what kind of model it is.
        model_artifact_attribute_path: the attribute path of the model's files.
        model_test_files: the attribute paths of its test files.
        training_data_attribute_path: the attribute path of what it was trained on.
        github_action_context: the CI run that made it.
    """

    model_config = SettingsConfigDict(protected_namespaces=())

    model_type: Literal["base", "trained", "compiled"] = "trained"
    model_artifact_attribute_path: str = "model/model_artifacts"
    model_test_files: TrackedModelTestFiles = Field(default_factory=TrackedModelTestFiles)
    training_data_attribute_path: str = "data/train"
    github_action_context: TrackedGithubActionsSpecs = Field(default_factory=TrackedGithubActionsSpecs)
