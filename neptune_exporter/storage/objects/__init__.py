# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The staging area on an object store: no renames, no locks, and a request for everything."""
