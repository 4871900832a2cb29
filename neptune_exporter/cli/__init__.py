# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: one module per group of commands, errors and exit codes in `main`."""
