# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Sources of runs. A new one is one module and one entry point."""
