# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Run in an environment of its own: logs a run with Pluto's real client, and reads another one with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def log(url: str, key: str, folder: str) -> None:
    import pluto

    settings = {
        **{f"url_{name}": url for name in ("app", "api", "ingest", "py")},
        "_auth": key,
        "compat": {"createdAt": 1_700_000_000_000, "updatedAt": 1_700_000_019_000, "systemMetadata": {}},
        "disable_console": True,
        "disable_system_metrics": True,
        "sync_process_flush_interval": 0.01,
    }
    op = pluto.init(
        project="team/theirs", name="a run", config={"lr": 0.1, "n": 3}, tags=["t"], run_id="theirs", settings=settings,
        dir=folder,
    )  # fmt: skip
    for step in range(20):
        op.log({"loss": step / 7, "m/acc": step + 0.5}, step=step, timestamp=1_700_000_000 + step)
    op.log({"h": pluto.Histogram([[1, 2], [0.0, 1.0, 2.0]], bins=None)}, step=1, timestamp=1_700_000_001)
    op.log({"state": "warm"}, step=2, timestamp=1_700_000_002)
    op._log_console([("hello", "INFO", 1_700_000_003.0, 1)])
    path = Path(folder) / "f.json"
    path.write_text("content")
    op.log({"file": pluto.Artifact(str(path))}, step=3, timestamp=1_700_000_004)
    op.update_config({"later": True})
    op.add_tags("u")
    op.finish(code=0)


def read(url: str, key: str, project: str) -> dict:
    from pluto.query import Client

    with Client(api_token=key, host=url) as client:
        (listed,) = client.list_runs(project)
        run = client.get_run(project, listed["id"])
        metrics = client.get_metrics(project, run["id"], ["loss"])
        rows = metrics if isinstance(metrics, list) else metrics.to_dict("records")
        return {
            "status": run["status"],
            "config": run["config"],
            "tags": run["tags"],
            "loss": [[int(row["step"]), row["value"], row["time"]] for row in rows],
            "logs": [line["message"] for line in client.get_logs(project, run["id"])],
            "file": client.download_file(project, run["id"], "file", sys.argv[3]).read_text(),
        }


if __name__ == "__main__":
    log(*sys.argv[1:4])
    print("READ " + json.dumps(read(sys.argv[1], sys.argv[2], sys.argv[4])))
