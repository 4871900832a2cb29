# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The offline exporter as the command line sees it: its options, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from neptune_exporter.plugins import Plugin, option

DEFAULT_PATHS = (".neptune", ".neptune_exporter")  # what the clients write, and the spool of dual logging


@dataclass(frozen=True)
class OfflineOptions:
    """Where offline data lies on this machine.

    Attributes:
        offline_path: folders (or single databases) to look in, `.neptune` if none is given.
        path_map: `OLD=NEW` pairs for attached files that have moved since they were logged.
        include_metric_previews: also export points that were still previews when logging ended.
        offline_project: the project of data of the 1.x client, which does not say its own.
        run_id_map: `UUID=ID` pairs that name runs of the 1.x client, whose data only knows the first.
        s3_endpoint_url: where the S3 storage of tracked artifacts is, if not at Amazon.
    """

    offline_path: tuple[str, ...] = option(
        (), "Folder with offline Neptune data; repeatable. [default: .neptune]", metavar="DIR", flag="--offline-path"
    )
    path_map: tuple[str, ...] = option(
        (),
        "Look for attached files that were logged from OLD in NEW; repeatable.",
        metavar="OLD=NEW",
        flag="--path-map",
    )
    include_metric_previews: bool = option(
        False,
        "Also export points that were still previews when logging ended.",
        flag="--include-metric-previews",
    )
    offline_project: str = option(
        "",
        "Project of data of the 1.x client, which does not say its own; -p given once does as well.",
        metavar="ORG/PROJECT",
        flag="--offline-project",
    )
    run_id_map: tuple[str, ...] = option(
        (), "Name a run of the 1.x client, whose data knows only a UUID; repeatable.", metavar="UUID=ID"
    )
    s3_endpoint_url: str = option(
        "", "Where the S3 storage of tracked artifacts is, if not at Amazon.", env="S3_ENDPOINT_URL", metavar="URL"
    )

    def anchored(self) -> OfflineOptions:
        """The same, independent of the current folder."""
        paths = self.offline_path or tuple(path for path in DEFAULT_PATHS if Path(path).is_dir())
        pairs = (pair.partition("=") for pair in self.path_map)
        moved = tuple(f"{old}={Path(new).absolute()}" if new else old for old, _, new in pairs)
        return replace(self, offline_path=tuple(str(Path(path).absolute()) for path in paths), path_map=moved)


plugin = Plugin(
    name="offline",
    title="Offline or never-synced data of the Neptune clients (.neptune folders)",
    options=OfflineOptions,
    factory="neptune_exporter.exporters.offline_stores:OfflineExporter",
    kinds=("run", "model", "model_version"),
)
