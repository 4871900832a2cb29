# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Every kind of data, logged to Neptune and mirrored: all but the import of dual logging is plain neptune-scale.

NEPTUNE_EXPORTER_TARGET=mlflow DISABLE_NEPTUNE_LOGGING=true python examples/neptune_migration_example.py
"""

import math
import random
import struct
import zlib

from neptune_scale import Run
from neptune_scale.types import File, Histogram

import neptune_exporter.dual_logging  # noqa: F401 - that switches it on


def picture(size: int = 16) -> bytes:
    """A small PNG, made by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(size)) for y in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main() -> None:
    """Trains nothing, logs everything."""
    chance = random.Random(7)
    with Run(experiment_name="migration-example") as run:
        run.log_configs({"optimizer": {"lr": 0.001, "name": "adam"}, "layers": 3}, flatten=True)
        run.add_tags(["example"])
        run.add_tags(["migration"], group_tags=True)
        for step in range(50):
            loss = math.exp(-step / 10) + chance.gauss(0, 0.01)
            run.log_metrics({"train/loss": loss, "train/accuracy": 1 - loss / 2}, step=step)
            if step % 10 == 0:
                run.log_string_series({"notes": f"step {step}: loss {loss:.3f}"}, step=step)
                counts = [chance.randrange(100) for _ in range(20)]
                edges = [edge / 10 for edge in range(21)]
                run.log_histograms({"weights": Histogram(bin_edges=edges, counts=counts)}, step=step)
                run.log_files({"samples": File(picture(), mime_type="image/png")}, step=step)
        run.assign_files({"picture": File(picture(32), mime_type="image/png"), "readme": b"made by an example\n"})
        run.remove_tags(["example"])


if __name__ == "__main__":
    main()
