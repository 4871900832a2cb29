# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `verify`: proves that nothing was lost, or names everything that was.

A run is checked against its own manifest, then, if asked, against the source that it came from and against the
target that it was loaded into.
"""
