# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Dual logging: what a training script logs with a Neptune client also goes into a spool, and from there elsewhere."""
