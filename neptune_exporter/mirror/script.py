# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a script as Python itself would, with dual logging switched on; what `neptune-exporter run` does."""

from __future__ import annotations

import importlib.util
import io
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

from neptune_exporter.errors import UsageError

STARTUP = Path(__file__).with_name("startup")
COMPATIBLE = ("mlop", "pluto")


def alias_compatibility() -> None:
    """`import mlop.compat.neptune` and `import pluto.compat.neptune` mean ours where those packages are absent."""
    for package in COMPATIBLE:
        if package in sys.modules or importlib.util.find_spec(package) is not None:
            continue
        parent: ModuleType | None = None
        for name in (package, f"{package}.compat", f"{package}.compat.neptune"):
            module = ModuleType(name, "Stands in for the package of that name: dual logging by neptune_exporter.")
            module.__path__ = []
            sys.modules[name] = module
            if parent is not None:
                setattr(parent, name.rpartition(".")[2], module)
            parent = module


def switch_on_children() -> None:
    """Python processes that the script starts are switched on as well, by a `sitecustomize` before all others."""
    paths = [str(STARTUP), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def run_script(script: str, arguments: list[str]) -> None:
    """Runs a file, as `python script arguments` does; it stays `__main__` until the process ends.

    Raises:
        UsageError: there is no such file.
    """
    path = Path(script)
    if not path.exists():
        raise UsageError(f"There is no script {script}.", "Name a Python file, or a module with -m.")
    sys.argv[:] = [script, *arguments]
    if path.is_dir() or path.suffix in (".zip", ".pyz"):
        runpy.run_path(script, run_name="__main__")
        return
    sys.path[0] = str(path.absolute().parent)
    with io.open_code(str(path.absolute())) as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    main = ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)  # noqa: S102 - that is the job


def run_module(module: str, arguments: list[str]) -> None:
    """Runs a module, as `python -m module arguments` does."""
    sys.argv[:] = [module, *arguments]
    sys.path[0] = str(Path.cwd())
    runpy.run_module(module, run_name="__main__", alter_sys=True)
