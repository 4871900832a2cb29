# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the spool of dual logging: whole runs for export, and runs that are still being written for live targets."""
