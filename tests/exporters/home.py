# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of both servers' exporters share: where exports go, and retries that do not wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from neptune_exporter.exporters.patience import Patience
from neptune_exporter.model import Kind, RunRef
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import Staging

PROJECT = "team/demo"


@contextmanager
def without_waiting() -> Iterator[None]:
    """Retries at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Patience, "_sleep", lambda self, seconds: self._check())
        yield


@dataclass
class StagingHome:
    """Where exports go."""

    root: Path

    @property
    def staging(self) -> Staging:
        return Staging(self.root / "data", self.root / "files")

    @property
    def places(self) -> list[str]:
        return ["--data-path", str(self.root / "data"), "--files-path", str(self.root / "files")]

    def staged(self, run_id: str, kind: Kind = "run", project: str = PROJECT) -> StagedRun:
        run = self.staging.run(RunRef(project, run_id, kind))
        assert run is not None, run_id
        return run
