# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The folders that the `neptune` client 1.x writes: offline, async and sync."""
