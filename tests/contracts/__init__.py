# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Contract suites, one per protocol, and the implementations in memory that they are proven on."""
