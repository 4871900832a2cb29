# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What `summary` and `verify` have found as a page to look at: one file that asks no network for anything."""
