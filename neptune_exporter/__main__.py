# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m neptune_exporter`."""

from neptune_exporter.cli.main import run

if __name__ == "__main__":
    run()
