# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Options as dataclasses: what `plugins.option` declares becomes click options, and comes back as one value."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

import click

from neptune_exporter import plugins
from neptune_exporter.certificates import trust
from neptune_exporter.concurrency import default_workers
from neptune_exporter.errors import StagingError
from neptune_exporter.free_space import parse_size, reserved
from neptune_exporter.plugins import Plugin, option
from neptune_exporter.progress import Bars, NoProgress, Progress
from neptune_exporter.secrets import MaskedFormatter
from neptune_exporter.selection import CLASSES, Selection

Command = Callable[..., Any]


@dataclass(frozen=True)
class CommonOptions:
    """What every command understands."""

    workers: int = option(0, "How many runs at once.  [default: one per core, at most 8]", metavar="N")
    executor: str = option("", "Where work runs: threads, processes or dask:ADDRESS.", metavar="NAME")
    json: bool = option(False, "Print the result as JSON on stdout.")
    no_progress: bool = option(False, "Show no progress bars.")
    min_free_space: str = option(
        "1GB", "Stop before a disk that is written to has less free space than this; 0 for no limit.", metavar="SIZE"
    )
    dry_run: bool = option(False, "Only say what would be done.")
    verbose: bool = option(False, "Log what happens on stderr, and show tracebacks.", flag="-v/--verbose")
    log_file: str = option("", "Write the log to this file.", metavar="FILE")
    ca_bundle: str = option(
        "", "Trust the certificates in this PEM file, not the system's.  [env: SSL_CERT_FILE]", metavar="FILE"
    )

    def __post_init__(self) -> None:
        trust(self.ca_bundle)

    @property
    def worker_count(self) -> int:
        """How many runs at once."""
        return self.workers or default_workers()

    @property
    def min_free_bytes(self) -> int:
        """How much is to stay free on every disk. Raises `UsageError` if that is no size."""
        return parse_size(self.min_free_space)

    def progress(self) -> Progress:
        """Bars on stderr where someone can see them."""
        import sys

        return NoProgress() if self.no_progress or self.verbose or not sys.stderr.isatty() else Bars()


@dataclass(frozen=True)
class PlaceOptions:
    """Where the staging area is."""

    data_path: str = option(
        "./exports/data", "Folder of the Parquet parts, or s3://BUCKET/PREFIX.", metavar="DIR", flag="-d/--data-path"
    )
    files_path: str = option(
        "./exports/files", "Folder of the files, or s3://BUCKET/PREFIX.", metavar="DIR", flag="-f/--files-path"
    )
    store_endpoint: str = option(
        "",
        "Server of an s3:// staging area, if it is not the one that the AWS configuration names.",
        metavar="URL",
        env="NEPTUNE_EXPORTER_STORE_ENDPOINT",
    )

    @property
    def shown(self) -> str:
        """The options for the next command, as short as will do."""
        files = f" --files-path {self.files_path}" if "://" in self.files_path else ""
        return f"--data-path {self.data_path}{files}"

    @property
    def staging(self) -> Any:
        """The staging area there."""
        from neptune_exporter.storage.objects.path import forget_lists
        from neptune_exporter.storage.place import parse_place
        from neptune_exporter.storage.staging import Staging

        forget_lists()
        places = (parse_place(path, self.store_endpoint) for path in (self.data_path, self.files_path))
        return Staging(*places)


@dataclass(frozen=True)
class ModelPlaceOptions(PlaceOptions):
    """Where the staging area of a model registry is."""

    data_path: str = option(
        "./exports/model_data",
        "Folder of the Parquet parts, or s3://BUCKET/PREFIX.",
        metavar="DIR",
        flag="-d/--data-path/--model-data-path",
    )
    files_path: str = option(
        "./exports/model_files",
        "Folder of the files, or s3://BUCKET/PREFIX.",
        metavar="DIR",
        flag="-f/--files-path/--model-files-path",
    )


def with_options(kind: type, name: str) -> Callable[[Command], Command]:
    """A decorator that adds the options of a dataclass and passes an instance of it as `name`."""

    def decorate(command: Command) -> Command:
        own = fields(kind)

        @functools.wraps(command)
        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs[name] = kind(**{f.name: kwargs.pop(f.name) for f in own})
            return command(*args, **kwargs)

        decorated: Command = call
        for item in reversed(own):
            decorated = _click_option(item)(decorated)
        return decorated

    return decorate


def with_plugins(group: str, choice: str, name: str, kind: str = "") -> Callable[[Command], Command]:
    """A decorator that adds the options of all plugins of a group and passes those of the chosen one as `name`.

    Args:
        group: the entry-point group.
        choice: the parameter that says which plugin is used; None for none, which gives None as options.
        name: the parameter that takes its options.
        kind: only plugins that handle this kind of thing, "" for all.
    """

    def decorate(command: Command) -> Command:
        found = [plugins.find(group, plugin) for plugin in plugins.available(group)]
        found = [plugin for plugin in found if not kind or kind in plugin.kinds]
        owners: dict[str, list[Plugin]] = {}
        declared: dict[str, Field[Any]] = {}
        for plugin in found:
            for item in fields(plugin.options):
                owners.setdefault(item.name, []).append(plugin)
                declared.setdefault(item.name, item)

        @functools.wraps(command)
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen = plugins.find(group, kwargs[choice]) if kwargs[choice] is not None else None
            given = {key: kwargs.pop(key) for key in declared}
            _refuse_foreign(chosen, owners, choice)
            own = {item.name for item in fields(chosen.options)} if chosen else set()
            kwargs[name] = chosen and chosen.options(**{key: value for key, value in given.items() if key in own})
            plugins.keep_secrets_of(kwargs[name])
            return command(*args, **kwargs)

        decorated: Command = call
        for key, item in reversed(declared.items()):
            names = "/".join(plugin.name for plugin in owners[key])
            decorated = _click_option(item, prefix=f"[{names}] ")(decorated)
        return decorated

    return decorate


def _refuse_foreign(chosen: Plugin | None, owners: dict[str, list[Plugin]], choice: str) -> None:
    context = click.get_current_context()
    for key, plugins_with_it in owners.items():
        given = context.get_parameter_source(key) == click.core.ParameterSource.COMMANDLINE
        if given and chosen not in plugins_with_it:
            names = " or ".join(plugin.name for plugin in plugins_with_it)
            flag = f"--{key.replace('_', '-')}"
            if chosen is None:
                raise click.UsageError(f"{flag} needs --{choice} {names}.")
            raise click.UsageError(f"{flag} belongs to --{choice} {names}, not to {chosen.name}.")


def _click_option(item: Field[Any], prefix: str = "") -> Callable[[Command], Command]:
    """The click option that a dataclass field declares."""
    assert item.default is not MISSING
    default, metadata = item.default, item.metadata
    flags = re.split(
        "/(?!--no-)", metadata["flag"] or f"--{item.name.replace('_', '-')}"
    )  # click's own --x/--no-x stays
    how: dict[str, Any] = {"help": prefix + metadata["help"], "envvar": metadata["env"] or None}
    if isinstance(default, bool):
        how.update(is_flag=True, default=default)
    elif isinstance(default, tuple):
        how.update(multiple=True, metavar=metadata["metavar"])
    else:
        shown = default not in (None, "", 0) and not metadata["secret"]
        how.update(default=default, show_default=shown, metavar=metadata["metavar"], type=type(default or ""))
        if default == 0:
            how["type"] = type(default)
    if metadata["choices"]:
        how["type"] = click.Choice(metadata["choices"])
    return click.option(*flags, item.name, **how)


def run_selection(command: Command) -> Command:
    """A decorator: the options that select projects, runs and attributes, as `selected` (a dict for `Selection`)."""

    @functools.wraps(command)
    def call(
        *args: Any,
        projects: tuple[str, ...],
        attributes: tuple[str, ...],
        classes: tuple[str, ...],
        exclude: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        wanted = frozenset(classes or CLASSES) - frozenset(exclude)
        if not wanted:
            raise click.UsageError("Nothing is left to do: every class of attributes is excluded.")
        kwargs["selected"] = {"projects": listed(projects), "attributes": attributes, "classes": wanted}
        return command(*args, **kwargs)

    classes = click.Choice(CLASSES)
    for add in reversed(
        [
            click.option(
                "-p",
                "--project",
                "--project-ids",
                "projects",
                multiple=True,
                metavar="ORG/PROJECT",
                help="Project; repeatable.  [env: NEPTUNE_PROJECT for export]",
            ),
            click.option(
                "-a",
                "--attribute",
                "--attributes",
                "attributes",
                multiple=True,
                metavar="NAME|REGEX",
                help="Attributes: given once a regular expression, several times exact names.",
            ),
            click.option(
                "-c",
                "--class",
                "--classes",
                "classes",
                multiple=True,
                type=classes,
                help="Only this class; repeatable.",
            ),
            click.option("--exclude", multiple=True, type=classes, help="Not this class; repeatable."),
        ]
    ):
        call = add(call)
    return call


def listed(values: tuple[str, ...]) -> tuple[str, ...]:
    """Values given one by one or separated by commas, each once."""
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def make_selection(selected: dict[str, Any], **more: Any) -> Selection:
    """The selection that the options describe."""
    return Selection(**{**selected, **more})


@contextmanager
def logging_to(common: CommonOptions) -> Iterator[None]:
    """Our own log, and nobody else's, on stderr with `-v` and into the log file where there is one.

    As long as it is written, disks keep the free space that the user wants.
    """
    logger = logging.getLogger("neptune_exporter")
    handlers: list[logging.Handler] = []
    if common.verbose:
        handlers.append(logging.StreamHandler())
    if common.log_file:
        try:
            handlers.append(logging.FileHandler(common.log_file, encoding="utf-8"))
        except OSError as error:
            raise StagingError(
                f"Cannot write the log file {common.log_file}: {error.strerror}.", "Choose another with --log-file."
            ) from None
    for handler in handlers:
        handler.setFormatter(MaskedFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.propagate = False
    if handlers:
        logger.setLevel(logging.INFO)
    else:
        logger.addHandler(logging.NullHandler())
    try:
        with reserved(common.min_free_bytes):
            yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
