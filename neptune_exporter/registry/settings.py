# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What is configured of the registry: by the environment, in code, or both; names in the environment in any case."""

from __future__ import annotations

import logging
from functools import cache

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from neptune_exporter.secrets import MaskedFormatter

ENVIRONMENT = "ONCLUSIVEML_TRACKING_BACKEND_"
DETAILED = "%(asctime)s - [%(levelname)s] - %(name)s - (%(filename)s).%(funcName)s(%(lineno)d) - %(message)s"


class TrackingLibraryLoggingSettings(BaseSettings):
    """How the registry logs.

    Attributes:
        name: the name of the logger.
        fmt: the format of its messages.
        level: 10 for debug, 20 for info, and so on.
    """

    model_config = SettingsConfigDict(env_prefix="ONCLUSIVEML_TRACKING_LOGGER_")

    name: str = "neptune_exporter.registry"
    fmt: str = DETAILED
    level: int = logging.INFO


class TrackingLibraryBackendSettings(BaseSettings):
    """Where files are stored, and how they travel.

    Attributes:
        use_s3_backend: whether files go to S3, unless a call says otherwise; else they go to Neptune.
        s3_backend_bucket: the bucket.
        s3_backend_prefix: what all keys begin with, without slashes at its ends; may be empty.
        s3_endpoint_url: where S3 is, if not at Amazon; the client's own S3_ENDPOINT_URL counts as well.
        s3_part_megabytes: larger files travel in parts of this size.
        transfer_threads: how many files travel at once.
        progress_bar: whether a bar is shown; None for: if somebody can see it.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT, validate_assignment=True)

    use_s3_backend: bool = True
    s3_backend_bucket: str = ""
    s3_backend_prefix: str = "neptune-ai-model-registry"
    s3_endpoint_url: str = ""
    s3_part_megabytes: int = Field(default=16, ge=5, le=5000)
    transfer_threads: int = Field(default=8, ge=1, le=64)
    progress_bar: bool | None = None

    @field_validator("s3_backend_prefix")
    @classmethod
    def _without_slashes(cls, value: str) -> str:
        if value != value.strip("/"):
            raise ValueError("the prefix must not begin or end with a slash")
        return value

    @field_validator("s3_backend_bucket")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if "/" in value or ":" in value:
            raise ValueError("the name of the bucket alone is wanted, without s3:// and without a path")
        return value


@cache
def tracking_logger() -> logging.Logger:
    """The registry's logger. It gets a handler of its own only where the program has set up no logging."""
    settings = TrackingLibraryLoggingSettings()
    logger = logging.getLogger(settings.name)
    logger.setLevel(settings.level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(MaskedFormatter(settings.fmt))
        logger.addHandler(handler)
    return logger
