# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The methods of a model version that move files: the same whatever lies behind them."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from neptune_exporter.errors import SourceError, UsageError
from neptune_exporter.registry.local_files import (
    EXCLUDED,
    MARK,
    LocalFileMissingError,
    clean_attribute,
    files_in,
    inside,
    is_below,
    whole_file,
    whole_folder,
)
from neptune_exporter.registry.parallel import OnBytes, progress_for, transfer_all
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings

StrPath = str | os.PathLike[str]


class MissingAttributeError(SourceError):
    """The model version has no file under this attribute path."""


class UnfinishedUploadError(SourceError):
    """The directory was only half uploaded."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that a model version holds.

    Attributes:
        attribute: its attribute path; of a member of a set of files, the set's path and the member's.
        size: in bytes, None where that is not known before.
        fetch: writes it to a path, whole and checked, or raises.
        is_mark: whether it only says that the directory it lies in is still being uploaded.
    """

    attribute: str
    size: int | None
    fetch: Callable[[Path, OnBytes], None]
    is_mark: bool = False


class Receiver(Protocol):
    """Takes files for a model version."""

    def check(self, attributes: Sequence[str]) -> None:
        """Raises if these cannot be stored; nothing has been sent yet."""

    def put(self, path: Path, attribute: str, extension: str, on_bytes: OnBytes) -> None:
        """Stores a file. It counts when this returns, not before."""

    def mark(self, attribute: str) -> None:
        """Notes that the directory under this path is being uploaded."""

    def unmark(self, attribute: str) -> None:
        """The directory is complete."""


class Downloads(ABC):
    """Fetches files of a model version. Nothing appears under its name before it is whole."""

    @property
    @abstractmethod
    def backend_settings(self) -> TrackingLibraryBackendSettings:
        """How files travel."""

    @abstractmethod
    def _stored(self, attribute: str) -> list[Stored]:
        """All files and marks; those that are neither at nor below `attribute` need only have their names."""

    def download_file_from_model_version(
        self, neptune_attribute_path: str, local_file_path: StrPath, *, overwrite: bool = False
    ) -> None:
        """Fetches one file.

        Args:
            neptune_attribute_path: where it was uploaded to.
            local_file_path: where to put it; missing folders are made.
            overwrite: whether a file that is there already is replaced.

        Raises:
            FileExistsError: there is a file already.
            MissingAttributeError: the model version has no such file.
            SourceError: it cannot be had, or is not what was stored.
        """
        target = Path(local_file_path)
        if target.is_dir() or (target.exists() and not overwrite):
            raise FileExistsError(f"{target} exists already; overwrite=True replaces a file.")
        file = self._one(clean_attribute(neptune_attribute_path))
        with whole_file(target) as part:
            self._transfer([partial(file.fetch, part)], "download", [file.size])

    def download_directory_from_model_version(
        self, local_directory_path: StrPath, neptune_attribute_path: str, *, overwrite: bool = False
    ) -> None:
        """Fetches all files below an attribute path. They appear when the last of them is there.

        Args:
            local_directory_path: where to put them.
            neptune_attribute_path: where the directory was uploaded to.
            overwrite: whether files that are there already are replaced.

        Raises:
            FileExistsError: one of the files is there already; nothing was fetched.
            MissingAttributeError: there are no files below the path.
            UnfinishedUploadError: the directory was only half uploaded.
            SourceError: a file cannot be had, or is not what was stored.
        """
        folder, attribute = Path(local_directory_path), clean_attribute(neptune_attribute_path)
        files = self._below(attribute)
        names = [file.attribute.removeprefix(f"{attribute}/") for file in files]
        targets = [inside(folder, name) for name in names]
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is not a directory.")
        there = [target for target in targets if target.exists()]
        if there and not overwrite:
            raise FileExistsError(
                f"{there[0]} exists already, with {len(there) - 1} more; overwrite=True replaces them."
            )
        with whole_folder(folder) as part:
            for name in names:
                inside(part, name).parent.mkdir(parents=True, exist_ok=True)
            fetches = [partial(file.fetch, inside(part, name)) for file, name in zip(files, names, strict=True)]
            self._transfer(fetches, "download", [file.size for file in files])

    def download_config_from_model_version(self, neptune_attribute_path: str) -> dict[str, Any]:
        """Fetches a config.

        Raises:
            MissingAttributeError: the model version has no such file.
            SourceError: it cannot be had, or is no JSON object.
        """
        file = self._one(clean_attribute(neptune_attribute_path))
        with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as folder:
            path = Path(folder) / "config.json"
            self._transfer([partial(file.fetch, path)], "download", [file.size])
            try:
                value = json.loads(path.read_bytes())
            except ValueError as error:
                raise SourceError(f"{file.attribute} is not JSON: {error}.") from None
        if not isinstance(value, dict):
            raise SourceError(f"{file.attribute} is JSON, but no object.")
        return value

    def _transfer(self, transfers: Sequence[Any], name: str, sizes: Sequence[int | None]) -> None:
        settings = self.backend_settings
        progress = progress_for(settings.progress_bar)
        transfer_all(transfers, name=name, sizes=sizes, threads=settings.transfer_threads, progress=progress)

    def _one(self, attribute: str) -> Stored:
        stored = [file for file in self._stored(attribute) if not file.is_mark]
        found = [file for file in stored if file.attribute == attribute]
        if found:
            return found[0]
        below = sum(is_below(file.attribute, attribute) for file in stored)
        if below:
            raise MissingAttributeError(
                f"{attribute} is a directory of {below} files.", "Use download_directory_from_model_version."
            )
        raise _missing(attribute, stored)

    def _below(self, attribute: str) -> list[Stored]:
        everything = self._stored(attribute)
        files = [file for file in everything if not file.is_mark]
        found = [file for file in files if is_below(file.attribute, attribute)]
        for mark in (file.attribute for file in everything if file.is_mark):
            marked = mark.removesuffix(f"/{MARK}")
            if marked == attribute or is_below(marked, attribute) or is_below(attribute, marked):
                raise UnfinishedUploadError(
                    f"The upload of the directory {marked} was interrupted, or is not finished yet.",
                    "Upload it again: then it is complete.",
                )
        if found:
            return found
        if any(file.attribute == attribute for file in files):
            raise MissingAttributeError(f"{attribute} is a file.", "Use download_file_from_model_version.")
        raise _missing(attribute, files)


def _missing(attribute: str, stored: Sequence[Stored]) -> MissingAttributeError:
    parents = (parent for file in stored for parent in _with_parents(file.attribute))
    near = difflib.get_close_matches(attribute, set(parents), n=3)
    hint = f"Near it: {', '.join(near)}." if near else f"It holds {len(stored)} files."
    return MissingAttributeError(f"The model version has no file {attribute}.", hint)


def _with_parents(attribute: str) -> Iterator[str]:
    parts = attribute.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


class Uploads(Downloads):
    """Stores files of a model version, too."""

    @abstractmethod
    def _receiver(self, use_s3: bool | None) -> Receiver:
        """Who takes the files. Raises where that cannot be, or is not configured."""

    def upload_file_to_model_version(
        self,
        neptune_attribute_path: str,
        local_file_path: StrPath = "",
        file_object: Any = None,
        use_s3: bool | None = None,
    ) -> None:
        """Stores one file; it is there when this returns.

        Args:
            neptune_attribute_path: where to.
            local_file_path: the file, or:
            file_object: a `neptune.types.File`.
            use_s3: whether it goes to S3; None for as configured.

        Raises:
            ValueError: neither or both are given.
            LocalFileMissingError: there is no such file.
            ExporterError: it cannot be stored.
        """
        if bool(local_file_path) == (file_object is not None):
            raise ValueError("Give either local_file_path or file_object.")
        attribute = clean_attribute(neptune_attribute_path)
        if local_file_path:
            path = Path(local_file_path)
            if not path.is_file():
                raise LocalFileMissingError(f"{path} is not a file.")
            self._put_all(self._receiver(use_s3), [(path, attribute)])
            return
        with _on_disk(file_object) as (path, extension):
            self._put_all(self._receiver(use_s3), [(path, attribute)], extension)

    def upload_directory_to_model_version(
        self,
        local_directory_path: StrPath,
        neptune_attribute_path: str,
        exclude: Sequence[str] = EXCLUDED,
        use_s3: bool | None = None,
    ) -> None:
        """Stores all files of a directory and its subdirectories, each under its own attribute path.

        Args:
            local_directory_path: the directory.
            neptune_attribute_path: the file `a/b.txt` goes to `<this>/a/b.txt`.
            exclude: files and directories whose name begins with one of these are left out.
            use_s3: whether they go to S3; None for as configured.

        Raises:
            LocalFileMissingError: there is no such directory.
            FileNotFoundError: nothing in it is left to upload.
            ExporterError: a file cannot be stored; until it is uploaded again, nobody can download the directory.
        """
        if isinstance(exclude, str):
            raise TypeError("exclude is a list of prefixes, not one string.")
        attribute = clean_attribute(neptune_attribute_path)
        files = files_in(Path(local_directory_path), exclude)
        receiver = self._receiver(use_s3)
        places = [(path, f"{attribute}/{relative}") for path, relative in files]
        receiver.check([place for _, place in places])
        receiver.mark(attribute)
        self._put_all(receiver, places)
        receiver.unmark(attribute)

    def upload_config_to_model_version(
        self, config: Mapping[str, Any], neptune_attribute_path: str, use_s3: bool | None = None
    ) -> None:
        """Stores a dict, or a pydantic model such as a `TrackedModelCard`, as JSON.

        Raises:
            TypeError: something in it has no JSON.
            ExporterError: it cannot be stored.
        """
        dump = getattr(config, "model_dump", None)
        value = dump(mode="json") if callable(dump) else config
        content = json.dumps(value, indent=4).encode()
        with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as folder:
            path = Path(folder) / "config.json"
            path.write_bytes(content)
            self._put_all(self._receiver(use_s3), [(path, clean_attribute(neptune_attribute_path))], "json")

    def _put_all(self, receiver: Receiver, files: Sequence[tuple[Path, str]], extension: str | None = None) -> None:
        receiver.check([attribute for _, attribute in files])
        puts = [
            partial(receiver.put, path, attribute, path.suffix[1:] if extension is None else extension)
            for path, attribute in files
        ]
        self._transfer(puts, "upload", [path.stat().st_size for path, _ in files])


@contextmanager
def _on_disk(file: Any) -> Iterator[tuple[Path, str]]:
    """The content of a Neptune file value as a local file, and its extension."""
    kind = getattr(getattr(file, "file_type", None), "value", None)
    if kind is None:
        raise UsageError("file_object is not a neptune.types.File.", "Use File.from_content, File.from_stream, …")
    if kind == "LOCAL_FILE":
        path = Path(file.path)
        if not path.is_file():
            raise LocalFileMissingError(f"{path} is not a file.")
        yield path, file.extension
        return
    with tempfile.TemporaryDirectory(prefix="neptune-exporter-") as folder:
        path = Path(folder) / "content"
        file._save(str(path))  # noqa: SLF001 - the value's only way to give up its content
        yield path, file.extension
