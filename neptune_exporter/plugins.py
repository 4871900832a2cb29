# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Exporters and loaders by entry point.

Built-ins and strangers use the same door: an entry point in the group `neptune_exporter.exporters` or
`neptune_exporter.loaders` that names a `Plugin`. A plugin is cheap to import: it holds the options and
says where the implementation lies, which is imported only when it is used.

The options are a frozen dataclass of str, int, float, bool, Path or tuple-of-str fields. Each field made with
`option()` becomes a command-line option named `--<field-name>`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from neptune_exporter.errors import MissingExtraError, UsageError
from neptune_exporter.secrets import keep_secret, masked

EXPORTERS = "neptune_exporter.exporters"
LOADERS = "neptune_exporter.loaders"


@dataclass(frozen=True)
class Plugin:
    """One exporter or loader.

    Attributes:
        name: what `--exporter` or `--loader` takes.
        title: one line for `--help`.
        options: a frozen dataclass, every field with a default.
        factory: `module:name` of a callable that takes the options; a loader also takes `LoadOptions`.
        extra: the optional dependency that brings its client, or "" where none is needed.
        package: the top-level module of that client, or "".
        kinds: the kinds of things it handles.
    """

    name: str
    title: str
    options: type
    factory: str
    extra: str = ""
    package: str = ""
    kinds: tuple[str, ...] = ("run",)

    def make(self, *options: Any) -> Any:
        """The exporter or loader itself. Raises `MissingExtraError` if its client is not installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise MissingExtraError(self.extra, self.package)
        for value in options:
            keep_secrets_of(value)
        module, _, name = self.factory.partition(":")
        return getattr(importlib.import_module(module), name)(*options)


def option(
    default: Any,
    help: str,  # noqa: A002 - click's own word
    *,
    env: str | tuple[str, ...] = (),
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    flag: str | None = None,
) -> Any:
    """A dataclass field that becomes a command-line option.

    Args:
        default: the default; an empty tuple makes the option repeatable.
        help: the help text.
        env: environment variables that give it, first one first.
        metavar: the placeholder in the help text.
        choices: the only values allowed.
        secret: never shown, logged or stored.
        flag: the spelling of the option where it is not `--<field-name>`.
    """
    metadata = {"help": help, "env": env, "metavar": metavar, "choices": choices, "secret": secret, "flag": flag}
    return field(default=default, metadata=metadata, repr=not secret)


@cache
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def available(group: str) -> list[str]:
    """The names of all installed plugins of a group, sorted."""
    return sorted(_entry_points(group))


@cache
def find(group: str, name: str) -> Plugin:
    """The plugin of that name. Raises `UsageError` if there is none or it cannot be imported."""
    point = _entry_points(group).get(name)
    if point is None:
        kind = "exporter" if group == EXPORTERS else "loader"
        raise UsageError(f"There is no {kind} named {name!r}.", f"Use one of: {', '.join(available(group))}.")
    try:
        plugin = point.load()
    except ImportError as error:
        raise UsageError(
            f"{name!r} cannot be loaded from {point.value}: {error}.", "Update or uninstall the package that brings it."
        ) from error
    if not isinstance(plugin, Plugin):
        raise UsageError(f"The entry point {point.value} is not a neptune_exporter plugin.")
    return plugin


def keep_secrets_of(options: Any) -> None:
    """Masks the values of secret options in all that is shown from now on."""
    for f in fields(options) if is_dataclass(options) else ():
        if f.metadata.get("secret"):
            keep_secret(str(getattr(options, f.name)))


def anchored(options: Any) -> Any:
    """The options with paths that do not depend on the current folder, for workers that have another one.

    An options dataclass with such paths has a method `anchored` that gives them.
    """
    anchor = getattr(options, "anchored", None)
    return options if anchor is None else anchor()


def public_options(options: Any) -> dict[str, Any]:
    """The options as text for manifests and logs, secrets left out."""
    return {
        f.name: masked(str(getattr(options, f.name)))
        for f in fields(options)
        if not f.metadata.get("secret") and getattr(options, f.name) != f.default
    }
