# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a model version in Neptune, by the real client's own connection."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import stamina
from neptune.attributes import Artifact as ArtifactAttribute
from neptune.attributes import File as FileAttribute
from neptune.internal.artifacts.file_hasher import FileHasher
from neptune.internal.artifacts.types import ArtifactFileData
from neptune.internal.backends.api_model import AttributeType, OptionalFeatures
from neptune.internal.backends.hosted_artifact_operations import create_new_artifact, upload_artifact_files_metadata
from neptune.internal.backends.hosted_client import DEFAULT_REQUEST_KWARGS
from neptune.internal.operation import AssignArtifact, AssignString, DeleteAttribute, UploadFile
from neptune.internal.utils.paths import parse_path
from neptune.types import File
from neptune.types.mode import Mode

from neptune_exporter.errors import ExporterError, SourceError, UsageError
from neptune_exporter.registry.local_files import MARK, is_below
from neptune_exporter.registry.parallel import OnBytes
from neptune_exporter.registry.s3 import S3Object, S3Storage, check_key, split_location
from neptune_exporter.registry.settings import TrackingLibraryBackendSettings
from neptune_exporter.registry.transfer import Stored

CHUNK_BYTES = 1 << 20
TIMES = (10, 60)  # seconds to connect, and between two pieces
ATTEMPTS = 5
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"  # how the client writes the time of an object


class TryAgainError(ExporterError):
    """The transfer broke off: another attempt may succeed."""


class NeptuneFiles:
    """What a container of the real client holds, and how to change it. Calls may come from several threads.

    Args:
        container: a started `neptune.ModelVersion`.
        settings: how files travel.
    """

    def __init__(self, container: Any, settings: TrackingLibraryBackendSettings) -> None:
        self._container = container
        self._backend = container._backend  # noqa: SLF001 - the client offers no door of its own
        self._id, self._type = container._id, container.container_type  # noqa: SLF001
        self._settings = settings
        self._s3_storage: S3Storage | None = None
        self._lock = threading.Lock()

    @property
    def s3(self) -> S3Storage:
        """The connection to S3."""
        with self._lock:
            if self._s3_storage is None:
                self._s3_storage = S3Storage(self._settings)
            return self._s3_storage

    @property
    def mode(self) -> Any:
        """The client's mode."""
        return self._container._mode  # noqa: SLF001

    # --- reading

    def stored(self, attribute: str) -> list[Stored]:
        """All files, of whichever storage, and the marks of directories that are being uploaded.

        Of artifacts that are neither at nor below `attribute` only their own path is given.
        """
        found: list[Stored] = []
        artifacts: list[tuple[str, str]] = []
        for path, kind, properties in self.attributes():
            if kind is AttributeType.FILE:
                size = getattr(properties, "size", None)
                found.append(Stored(path, size, partial(self._fetch, path, size)))
            elif kind is AttributeType.ARTIFACT and (path == attribute or is_below(path, attribute)):
                artifacts.append((path, getattr(properties, "hash", None) or ""))
            elif kind is AttributeType.ARTIFACT:
                found.append(Stored(path, None, partial(self._fetch, path, None)))
            elif kind is AttributeType.STRING and path.endswith(f"/{MARK}"):
                found.append(Stored(path, 0, partial(self._fetch, path, 0), is_mark=True))
        with ThreadPoolExecutor(self._settings.transfer_threads) as pool:
            for files in pool.map(lambda artifact: self._tracked(*artifact), artifacts):
                found += files
        return found

    def attributes(self) -> list[tuple[str, Any, Any]]:
        """Path, type and properties of every attribute, after all that was queued."""
        self._container.wait()
        if self.mode is Mode.DEBUG:
            found = self._backend.get_attributes(self._id, self._type)
            return [("/".join(parse_path(attribute.path)), attribute.type, None) for attribute in found]
        api = self._backend.leaderboard_client.api
        reply = api.getExperimentAttributes(experimentId=self._id, **DEFAULT_REQUEST_KWARGS).response().result
        known = {kind.value: kind for kind in AttributeType}
        return [
            (attribute.name, known[attribute.type], getattr(attribute, f"{attribute.type}Properties", None))
            for attribute in reply.attributes
            if attribute.type in known
        ]

    def _tracked(self, path: str, identifier: str) -> list[Stored]:
        """The files of an artifact: one under the attribute's own path, several below it."""
        project = self._container._project_id  # noqa: SLF001
        files = self._backend.list_artifact_files(project, identifier) if identifier else []
        if len(files) == 1:
            return [Stored(path, files[0].size, partial(self._fetch_tracked, files[0]))]
        return [Stored(f"{path}/{file.file_path}", file.size, partial(self._fetch_tracked, file)) for file in files]

    def _fetch_tracked(self, file: ArtifactFileData, target: Path, on_bytes: OnBytes) -> None:
        location = file.metadata.get("location") or file.metadata.get("file_path") or ""
        if file.type == "S3":
            bucket, key = split_location(location)
            self.s3.download(bucket, key, target, on_bytes, etag=file.file_hash, size=file.size)
            return
        path = Path(location.removeprefix("file://"))
        path = path if path.exists() else Path(unquote(str(path)))
        if not path.is_file():
            raise SourceError(f"{path} is not on this machine; Neptune holds only its place and hash.")
        digest = hashlib.sha1(usedforsecurity=False)
        with path.open("rb") as source, target.open("wb") as sink:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                sink.write(chunk)
                on_bytes(len(chunk))
        if file.file_hash and digest.hexdigest() != file.file_hash:
            raise SourceError(f"{path} has changed since it was tracked.")

    def _fetch(self, path: str, size: int | None, target: Path, on_bytes: OnBytes) -> None:
        """A file of Neptune's own storage: with time limits and a check of its size, which the client has not."""
        if self.mode is Mode.DEBUG:
            self._backend.download_file(self._id, self._type, parse_path(path), str(target))
            return
        for attempt in stamina.retry_context(on=TryAgainError, attempts=ATTEMPTS, timeout=600):
            with attempt:
                self._fetch_once(path, size, target, on_bytes)

    def _fetch_once(self, path: str, size: int | None, target: Path, on_bytes: OnBytes) -> None:
        import requests

        client = self._backend.leaderboard_client
        http = client.swagger_spec.http_client
        url = client.swagger_spec.api_url.rstrip("/") + client.api.downloadAttribute.operation.path_name
        query = {"experimentId": self._id, "attribute": path}
        headers = {"Accept-Encoding": "identity"}
        request = http.authenticator.apply(requests.Request("GET", url, params=query, headers=headers))
        given = 0
        try:
            prepared = http.session.prepare_request(request)
            with (
                http.session.send(prepared, stream=True, timeout=TIMES, verify=http.session.verify) as reply,
                target.open("wb") as sink,
            ):
                if reply.status_code in (408, 429) or reply.status_code >= 500:
                    raise TryAgainError(f"{path} cannot be downloaded: the server answered {reply.status_code}.")
                if reply.status_code >= 300:
                    raise SourceError(f"{path} cannot be downloaded: the server answered {reply.status_code}.")
                for chunk in reply.iter_content(CHUNK_BYTES):
                    sink.write(chunk)
                    given += len(chunk)
                    on_bytes(len(chunk))
        except requests.RequestException as error:
            raise TryAgainError(f"The download of {path} broke off: {error}.", "Try again.") from error
        if size is not None and given != size:
            raise TryAgainError(f"{path} came with {given} bytes instead of {size}.", "Try again.")

    # --- writing

    def execute(self, operation: Any) -> None:
        """Has the server carry out an operation now, after all that was queued before.

        The client's queue would only log what goes wrong.

        Raises:
            SourceError: the server refuses it, or the file could not be sent.
        """
        storage = self._container._op_processor.operation_storage  # noqa: SLF001
        _, errors = self._backend.execute_operations(self._id, self._type, [operation], storage)
        if errors:
            words = "; ".join(" ".join(str(error).split()) for error in errors)
            raise SourceError(f"Neptune did not take {'/'.join(operation.path)}: {words}")

    def check_writable(self) -> None:
        """Raises `UsageError` unless this container was opened for writing."""
        if self.mode is Mode.READ_ONLY:
            raise UsageError("The model version was opened with mode='read-only'.", "Open it without mode to upload.")

    def remember(self, attribute: str, kind: type) -> None:
        """Makes an attribute known to the client's own methods."""
        with self._container.lock():
            self._container.set_attribute(attribute, kind(self._container, parse_path(attribute)))

    def mark(self, attribute: str) -> None:
        """See `Receiver`."""
        self._container.wait()
        self.execute(AssignString(parse_path(f"{attribute}/{MARK}"), "This directory is being uploaded."))

    def unmark(self, attribute: str) -> None:
        """See `Receiver`."""
        self.execute(DeleteAttribute(parse_path(f"{attribute}/{MARK}")))

    def check_types(self, attributes: Sequence[str], wanted: Any, name: str) -> None:
        """Raises `UsageError` if an attribute is something else already, or a namespace of others."""
        there = {path: kind for path, kind, _ in self.attributes()}
        for attribute in attributes:
            kind = there.get(attribute, wanted)
            if kind is not wanted:
                raise UsageError(
                    f"{attribute} is a {kind.value} already and cannot become a {name}.",
                    f'Remove it first: del model_version["{attribute}"]; or use another attribute path.',
                )
            clash = next((path for path in there if is_below(path, attribute) or is_below(attribute, path)), None)
            if clash is not None:
                raise UsageError(f"{attribute} and {clash} cannot both be: one lies in the other.", "Use another path.")


class NeptuneReceiver:
    """Stores files with Neptune itself.

    Args:
        files: the model version.
    """

    def __init__(self, files: NeptuneFiles) -> None:
        files.check_writable()
        self._files = files
        self.mark, self.unmark = files.mark, files.unmark

    def check(self, attributes: Sequence[str]) -> None:
        """See `Receiver`."""
        self._files.check_types(attributes, AttributeType.FILE, "file in Neptune's own storage")

    def put(self, path: Path, attribute: str, extension: str, on_bytes: OnBytes) -> None:
        """See `Receiver`. The client reads the file piece by piece."""
        on_bytes(0)
        parsed = parse_path(attribute)
        if self._files.mode is Mode.DEBUG:  # which keeps in memory what it is given, and paths as they are
            self._files._container[attribute].upload(  # noqa: SLF001
                File.from_content(path.read_bytes(), extension=extension), wait=True
            )
            return
        self._files.execute(UploadFile(path=parsed, ext=extension, file_path=str(path.resolve())))
        self._files.remember(attribute, FileAttribute)
        on_bytes(path.stat().st_size)


class S3Receiver:
    """Stores files in S3, and in Neptune as an artifact of exactly one object.

    Args:
        files: the model version.
        bucket: where to.
        prefix: what the keys begin with, slash included.
    """

    def __init__(self, files: NeptuneFiles, bucket: str, prefix: str) -> None:
        files.check_writable()
        if files.mode is Mode.DEBUG:
            raise UsageError("In mode='debug' the Neptune client keeps no artifacts.", "Upload with use_s3=False.")
        files._backend.verify_feature_available(OptionalFeatures.ARTIFACTS)  # noqa: SLF001
        self._files, self._bucket, self._prefix = files, bucket, prefix
        self._s3 = files.s3
        self.mark, self.unmark = files.mark, files.unmark

    def check(self, attributes: Sequence[str]) -> None:
        """See `Receiver`."""
        for attribute in attributes:
            check_key(self._prefix + attribute)
        self._files.check_types(attributes, AttributeType.ARTIFACT, "file in S3")

    def put(self, path: Path, attribute: str, extension: str, on_bytes: OnBytes) -> None:
        """See `Receiver`. The object's key is made of the attribute path, so no two attributes share one."""
        stored = self._s3.upload(path, self._bucket, self._prefix + attribute, on_bytes)
        name = attribute.rpartition("/")[2]
        if extension and not name.endswith(f".{extension}"):
            name = f"{name}.{extension}"
        self._track(attribute, _tracked(stored, name))
        self._files.remember(attribute, ArtifactAttribute)

    def _track(self, attribute: str, file: ArtifactFileData) -> None:
        """What the client's track_files does, but for this one object and not for all whose key begins like its own."""
        backend = self._files._backend  # noqa: SLF001
        bare = backend._client_config.has_feature(OptionalFeatures.ARTIFACTS_HASH_EXCLUDE_METADATA)  # noqa: SLF001
        hasher = FileHasher.get_artifact_hash_without_metadata if bare else FileHasher.get_artifact_hash
        known: dict[str, Any] = {
            "swagger_client": backend.artifacts_client,
            "project_id": self._files._container._project_id,  # noqa: SLF001
            "artifact_hash": hasher([file]),
            "default_request_params": DEFAULT_REQUEST_KWARGS,
        }
        made = create_new_artifact(parent_identifier=self._files._id, size=file.size, **known)  # noqa: SLF001
        if not made.received_metadata:
            upload_artifact_files_metadata(files=[file], **known)
        self._files.execute(AssignArtifact(parse_path(attribute), known["artifact_hash"]))


def _tracked(stored: S3Object, name: str) -> ArtifactFileData:
    metadata = {"location": stored.location, "last_modified": stored.modified.strftime(TIME_FORMAT)}
    return ArtifactFileData(name, stored.etag, "S3", metadata, stored.size)
