# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Targets. A new one is one module or folder and one entry point."""
