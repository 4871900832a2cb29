# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What `neptune-exporter demo` logs: a small training with the real Neptune client, offline.

Run in a process of its own, because the client leaves threads and processes behind until that ends:
`python -m neptune_exporter.demo_runs FOLDER`.
"""

from __future__ import annotations

import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PROJECT = "demo/handwriting"
STEPS = 300
_START = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)
_PLOT = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 60">
<polyline fill="none" stroke="teal" points="0,5 20,35 40,46 60,51 80,53 100,54"/></svg>"""


def log_all(folder: Path) -> None:
    """Logs four runs below `folder`, one of them a fork of another."""
    for number, rate in enumerate((0.1, 0.01, 0.001)):
        _train(folder, f"digits-{number}", rate, _START + timedelta(hours=number))
    _train(folder, "digits-1-warm", 0.003, _START + timedelta(hours=4), parent="digits-1", first=STEPS // 2)


def _train(
    folder: Path, run_id: str, rate: float, start: datetime, *, parent: str | None = None, first: int = 0
) -> None:
    from neptune_scale import Run
    from neptune_scale.types import Histogram

    chance = random.Random(run_id)  # noqa: S311 - a chart, not a secret
    forked: dict[str, Any] = {"fork_run_id": parent, "fork_step": first - 1} if parent else {}
    with Run(
        project=PROJECT,
        run_id=run_id,
        experiment_name=run_id,
        creation_time=start,
        mode="offline",
        log_directory=folder,
        enable_console_log_capture=False,
        source_tracking_config=None,
        **forked,
    ) as run:
        run.log_configs(
            {"optimizer/learning_rate": rate, "optimizer/name": "adam", "model/width": 2**53 + 1, "model/frozen": False}
        )
        run.add_tags(["demo", "digits"])
        run.add_tags(["handwriting"], group_tags=True)
        for step in range(first, STEPS):
            when = start + timedelta(seconds=2 * step)
            loss = math.exp(-12 * math.sqrt(rate) * step / STEPS) + chance.gauss(0, 0.01)
            # The largest rate diverges: a NaN is a result, too.
            metrics = {"loss": math.nan if rate >= 0.1 and step > STEPS - 20 else loss, "accuracy": 1 - loss / 2}
            run.log_metrics({f"train/{name}": value for name, value in metrics.items()}, step=step, timestamp=when)
            if step % 10 == 0:
                # Steps between two whole ones: a quarter of the way through.
                run.log_metrics({"valid/loss": loss * 1.1}, step=step + 0.25, timestamp=when + timedelta(seconds=0.5))
            if step % 50 == 0:
                epoch = step // 50
                run.log_string_series({"notes": f"epoch {epoch}: loss {loss:.3f}"}, step=epoch, timestamp=when)
                counts = [chance.randrange(100) for _ in range(20)]
                edges = [-1 + 0.1 * edge for edge in range(21)]
                run.log_histograms({"model/weights": Histogram(edges, counts=counts)}, step=epoch, timestamp=when)
        run.assign_files({"plots/curve.svg": _PLOT, "model/summary.txt": f"A perceptron; rate {rate}.\n".encode()})


if __name__ == "__main__":
    log_all(Path(sys.argv[1]))
