# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs something right after a module was imported, now or later, beside whatever other import hooks there are."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

logger = logging.getLogger("neptune_exporter.mirror")

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Calls `action` with the module: at once if it is imported, else when it is."""
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    finder = next((f for f in sys.meta_path if isinstance(f, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.actions[name] = action


class _Finder(MetaPathFinder):
    """Asks the other finders, and adds the action to what they find."""

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        action = self.actions.get(fullname)
        if action is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if finder is self or find is None else find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ActingLoader(spec.loader, action)
                return spec
        return None


class _ActingLoader(Loader):
    """A loader that is the original in everything, and acts when the module has been executed."""

    def __init__(self, original: Loader, action: Action) -> None:
        self._original, self._action = original, action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._original.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._original
        module.__loader__ = self._original
        self._original.exec_module(module)
        try:
            self._action(module)
        except Exception:
            logger.warning("Dual logging is off for %s; it works as ever.", module.__name__, exc_info=True)

    def __getattr__(self, name: str) -> object:
        return getattr(self._original, name)
