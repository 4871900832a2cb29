# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases as a target: projects, runs, history, config and one artifact per run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from neptune_exporter.plugins import Plugin, option


@dataclass(frozen=True)
class WandbOptions:
    """Where W&B is, and how runs get there."""

    wandb_entity: str = option(
        "", "User or team that owns the projects; the default is the account's own.", env="WANDB_ENTITY", metavar="NAME"
    )
    wandb_project: str = option(
        "",
        "One project for everything; the default is a project per Neptune project.",
        env="WANDB_PROJECT",
        metavar="NAME",
    )
    wandb_project_by: str = option(
        "project",
        "One W&B project per Neptune project, or per experiment in it.",
        choices=("project", "experiment"),
    )
    wandb_api_key: str = option(
        "",
        "API key, better in WANDB_API_KEY; the default is what wandb login has stored.",
        env="WANDB_API_KEY",
        metavar="KEY",
        secret=True,
    )
    wandb_base_url: str = option("https://api.wandb.ai", "Address of the server.", env="WANDB_BASE_URL", metavar="URL")
    wandb_mode: str = option(
        "online",
        "Send runs now, or leave logs in a folder that wandb sync can send later.",
        choices=("online", "offline"),
        env="WANDB_MODE",
    )
    wandb_dir: str = option(".", "Where offline logs go: the folder wandb in this one.", env="WANDB_DIR", metavar="DIR")
    wandb_way: str = option(
        "auto",
        "How runs are written: log writes W&B's own logs (fast; for the versions of wandb that were tested), client "
        "calls run.log for every row, auto chooses.",
        choices=("auto", "log", "client"),
    )
    wandb_media: bool = option(
        False,
        "Show images, audio and video as W&B's media, too; without it they are files of the artifact only.",
        env="NEPTUNE_EXPORTER_WANDB_MEDIA",
    )
    wandb_fork: bool = option(
        False,
        "Make forks of Neptune forks of W&B (fork_from), where the parent is in the same project; the server must "
        "know forks.",
        env="NEPTUNE_EXPORTER_WANDB_FORK",
    )
    copy_artifacts: bool = option(
        False,
        "Of models: copy what Neptune only tracked in S3 into the versions, as far as the export has it; without it "
        "they hold references.",
    )

    def anchored(self) -> WandbOptions:
        """The same, independent of the current folder."""
        return replace(self, wandb_dir=str(Path(self.wandb_dir).absolute()))


plugin = Plugin(
    name="wandb",
    title="Weights & Biases, in the cloud, on a server of your own, or offline",
    options=WandbOptions,
    factory="neptune_exporter.loaders.wandb.registry:make_loader",
    extra="wandb",
    package="wandb",
)
