# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001 - not a package: a folder that is put first on the path
"""Found first by Python processes that a script under `neptune-exporter run` starts: switches dual logging on there.

The `sitecustomize` that would have been found without this one is run first.
"""

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_here = str(Path(__file__).parent)
_spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if path != _here])
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(module_from_spec(_spec))

try:
    from neptune_exporter.mirror.script import alias_compatibility

    alias_compatibility()
    importlib.import_module("neptune_exporter.dual_logging")
except ImportError:  # a Python of another environment
    pass
