# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps the project the way it was meant: who imports whom, sizes, names, headers, and a quick --help."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "neptune_exporter"
MODULES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]
CORE = {
    "assignment",
    "cluster",
    "scheduler",
    "free_space",
    "pace",
    "casting",
    "printable",
    "errors",
    "secrets",
    "model",
    "selection",
    "fingerprint",
    "pipeline",
    "concurrency",
    "progress",
    "plugins",
}
SEAMS = {"exporters": "exporter", "storage": "staging", "loaders": "loader"}
CLIENTS = {
    *("mlflow", "mlflow_skinny", "wandb", "pluto", "neptune", "neptune_scale", "neptune_query", "neptune_api"),
    *("pyarrow", "numpy", "pandas", "httpx", "stamina", "google.protobuf", "sqlalchemy", "psycopg2", "distributed"),
}


def files_of_the_project() -> list[Path]:
    """Everything that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name] or [
        p for p in ROOT.rglob("*") if ".venv" not in str(p)
    ]
    return sorted(path for path in paths if path.is_file())


PROJECT = files_of_the_project()
TEXTS = [path for path in PROJECT if b"\0" not in path.read_bytes()[:8000] and path != Path(__file__).resolve()]


def imports(path: Path) -> set[str]:
    """The modules of this package that a module imports, anywhere in it: in functions and for types only as well."""
    found: set[str] = set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*parts, *filter(None, [node.module])))
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "neptune_exporter"}


def part_of(module: str) -> str:
    """`neptune_exporter.storage.parquet` is part of `storage`."""
    return [*module.split("."), ""][1]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_data_flows_one_way(path):
    own = part_of(module_name(path))
    others = {part_of(name) for name in imports(path)} - {own}
    if own in SEAMS:
        assert not others & set(SEAMS), "exporters, storage and loaders never import each other"
    if own in CORE:
        assert others <= CORE | {"", "__version__"}, "the core imports nothing but the core"
    if own not in {"cli", "__main__", "demo"}:
        assert "cli" not in others, "nothing but the program itself imports the command line"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_implementations_are_found_by_entry_point_only(path):
    """Outside their own folder only the protocols are known by name."""
    own = part_of(module_name(path))
    for seam in {"exporters", "loaders"} - {own}:
        prefix = f"neptune_exporter.{seam}."
        known = {name.removeprefix(prefix).split(".")[0] for name in imports(path) if name.startswith(prefix)}
        assert known <= SHARED[seam]


# The protocol of each seam, and what is made for loading whatever the target is.
SHARED = {"exporters": {"exporter"}, "loaders": {"loader", "mapping", "steps"}}


def test_imports_are_seen_wherever_they_stand(tmp_path, monkeypatch):
    """The tests above are worth what this function sees."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    module = tmp_path / "neptune_exporter" / "loaders" / "x.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "import neptune_exporter.model as m, os\n"
        "from neptune_exporter import export\n"
        "from . import loader\n"
        "from ..storage.staging import open\n"
        "if TYPE_CHECKING:\n    from neptune_exporter.exporters import exporter\n"
        "def f():\n    import neptune_exporter.cli.main\n"
    )
    assert {part_of(name) for name in imports(module)} == {
        *("", "model", "export", "loaders", "storage", "exporters", "cli")
    }


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_names_say_what_things_are(path):
    empty = {"utils", "util", "manager", "base", "helpers", "helper"}
    classes = [n.name for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ClassDef)]
    assert not [name for name in classes if words(name) & empty]
    assert not [name for name in path.relative_to(ROOT).with_suffix("").parts if words(name) & (empty | {"common"})]


@pytest.mark.parametrize("path", [p for p in PROJECT if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_licence_header(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = lines[1:] if lines and lines[0].startswith("#!") else lines
    assert lines[:2] == ["# Copyright 2026 the neptune-exporter authors", "# SPDX-License-Identifier: Apache-2.0"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_secrets_and_no_paths_of_somebodys_machine(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    assert not re.findall(r"(?<![\w/.~-])/(?:work|root|home|opt|Users)/[\w./-]+", text)
    assert not re.findall(
        r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bglpat-[\w-]{20}|\bsk-[\w-]{40,}"
        r"|\beyJhcGlfYWRkcmVzcyI6[\w=]{60,}",
        text,
    )


def test_everything_the_readme_links_to_is_there():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_entry_point_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for targets in project["entry-points"].values():
        for target in targets.values():
            path = ROOT.joinpath(*target.partition(":")[0].split("."))
            assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), target


# --- --help


def modules_imported_by(*command: str) -> set[str]:
    result = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Usage:" in result.stdout
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}


def clients_among(modules: set[str]) -> set[str]:
    return {name for name in modules if any(name == client or name.startswith(client + ".") for client in CLIENTS)}


@pytest.mark.parametrize("arguments", [[], ["export"], ["load"], ["summary"], ["verify"], ["demo"]])
def test_help_imports_no_client(arguments):
    modules = modules_imported_by("-m", "neptune_exporter", *arguments, "--help")
    assert "neptune_exporter.cli.main" in modules
    assert not clients_among(modules)


def test_the_installed_command_does_neither():
    modules = modules_imported_by(str(Path(sys.executable).parent / "neptune-exporter"), "--help")
    assert "neptune_exporter.cli.main" in modules
    assert not clients_among(modules)


def test_a_client_would_be_seen():
    assert clients_among({"os", "pyarrow.lib", "neptune_exporter.model", "google.protobuf.message", "mlflow"}) == {
        *("pyarrow.lib", "google.protobuf.message", "mlflow")
    }
