# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The swagger documents of a Neptune 2.x server, as far as the client 1.14 and this project need them."""

from __future__ import annotations

import re
from typing import Any

L = "/api/leaderboard/v1"
A = f"{L}/attributes"
B = "/api/backend/v1"
R = "/api/artifacts/v1"

_ATTRIBUTE = "experimentId attribute"
_PAGE = f"{_ATTRIBUTE} limit:integer offset:integer"
_UPLOAD = "experimentIdentifier attribute ext subPath uploadId uploadPartIdx:integer totalLength:integer"
_CHANGE = "projectIdentifier hash size:integer parentIdentifier"

# operation: (method, path, parameters, what it answers)
_BACKEND = {
    "getClientConfig": ("get", f"{B}/clients/config", "X-Neptune-Api-Token@header alpha", "ClientConfig"),
    "exchangeApiToken": ("get", f"{B}/authorization/oauth-token", "X-Neptune-Api-Token@header", "Tokens"),
    "getProject": ("get", f"{B}/projects/get", "projectIdentifier", "Project"),
    "listProjects": (
        "get",
        f"{B}/projects",
        "userRelation sortBy[] sortDirection[] limit:integer offset:integer searchTerm organizationIdentifier",
        "Projects",
    ),
    "listOrganizations": ("get", f"{B}/myOrganizations", "", "[Organization]"),
}
_LEADERBOARD = {
    "createExperiment": (
        "post",
        f"{L}/experiments",
        "experimentCreationParams@body>CreationParams X-Neptune-CliVersion@header",
        "Experiment",
    ),
    "trashExperiments": (
        "put",
        f"{L}/experiments/trash",
        "projectIdentifier experimentIdentifiers@body batchSize:integer",
        "Trashed",
    ),
    "getExperiment": ("get", f"{L}/experiments", "experimentId", "Experiment"),
    "createEmptyCheckpoint": ("post", f"{L}/notebooks/{{notebookId}}/emptyCheckpoint", "checkpoint@body", "Checkpoint"),
    "executeOperations": ("post", f"{A}/operations", "experimentId operations@body", "[OperationError]"),
    "ping": ("post", f"{A}/ping", "experimentId", ""),
    "getExperimentAttributes": ("get", A, "experimentId", "Attributes"),
    "searchLeaderboardAttributes": (
        "post",
        f"{L}/leaderboard/attributes/search",
        "projectIdentifier search type[] params@body",
        "Columns",
    ),
    "searchLeaderboardEntries": (
        "post",
        f"{L}/leaderboard/entries/search",
        "projectIdentifier type[] params@body",
        "object",
    ),
    "getFloatAttribute": ("get", f"{A}/floats", _ATTRIBUTE, "FloatProperties"),
    "getIntAttribute": ("get", f"{A}/integers", _ATTRIBUTE, "IntProperties"),
    "getBoolAttribute": ("get", f"{A}/booleans", _ATTRIBUTE, "BoolProperties"),
    "getStringAttribute": ("get", f"{A}/strings", _ATTRIBUTE, "StringProperties"),
    "getDatetimeAttribute": ("get", f"{A}/datetimes", _ATTRIBUTE, "DatetimeProperties"),
    "getFileAttribute": ("get", f"{A}/files", _ATTRIBUTE, "FileProperties"),
    "getArtifactAttribute": ("get", f"{A}/artifacts", _ATTRIBUTE, "ArtifactProperties"),
    "getStringSetAttribute": ("get", f"{A}/stringSets", _ATTRIBUTE, "StringSetProperties"),
    "getFloatSeriesAttribute": ("get", f"{A}/floatSeries", _ATTRIBUTE, "FloatSeriesProperties"),
    "getStringSeriesAttribute": ("get", f"{A}/stringSeries", _ATTRIBUTE, "StringSeriesProperties"),
    "getFloatSeriesValues": ("get", f"{A}/series/float", _PAGE, "FloatValues"),
    "getStringSeriesValues": ("get", f"{A}/series/string", _PAGE, "StringValues"),
    "getImageSeriesValues": ("get", f"{A}/series/image", _PAGE, "ImageValues"),
    "getImageSeriesValue": ("get", f"{A}/series/image/single", f"{_ATTRIBUTE} index:integer", "file"),
    "downloadAttribute": ("get", f"{A}/download", f"{_ATTRIBUTE} path", "file"),
    "lsFileSetAttribute": ("get", f"{A}/ls", f"{_ATTRIBUTE} path", "[FileEntry]"),
    "prepareForDownloadFileSetAttributeZip": ("post", f"{A}/downloadFileSetZipRequest", _ATTRIBUTE, "DownloadRequest"),
    "getDownloadPrepareRequest": ("get", f"{L}/download/downloadRequest", "id", "DownloadRequest"),
    "uploadFileSetAttributeTar": ("post", f"{A}/uploadFileSetTar", f"{_ATTRIBUTE} reset", "Upload"),
    **{
        f"{operation}{what}": ("post", f"{A}/storage/{kind}/upload{below}", _UPLOAD, "Upload")
        for kind, operation in (("file", "fileAtom"), ("fileset", "fileSetFile"))
        for what, below in (
            ("Upload", ""),
            ("MultipartUploadStart", "/start"),
            ("MultipartUploadPart", "/part"),
            ("MultipartUploadFinish", "/finish"),
        )
    },
}
_CSV = {"getFloatSeriesValuesCSV": ("get", f"{A}/floatSeries/csv", _ATTRIBUTE, "file")}
_ARTIFACTS = {
    "listArtifactFiles": ("get", f"{R}/artifact/files", "projectIdentifier hash", "ArtifactFiles"),
    "createNewArtifact": ("put", f"{R}/artifact", _CHANGE, "Artifact"),
    "createArtifactVersion": ("post", f"{R}/artifact", f"{_CHANGE} artifactFilesDTO@body", "Artifact"),
    "uploadArtifactFilesMetadata": ("put", f"{R}/artifact/files", f"{_CHANGE} artifactFilesDTO@body", "Artifact"),
}

_OF = "attributeName attributeType"
_DEFINITIONS = {
    "ClientConfig": "apiUrl applicationUrl sysNameSetByBackend:boolean pyLibVersions>Versions artifacts>ArtifactConfig "
    "multiPartUpload>Multipart",
    "Versions": "minRecommendedVersion minCompatibleVersion maxCompatibleVersion",
    "ArtifactConfig": "enabled:boolean apiVersion:integer",
    "Multipart": "enabled:boolean minChunkSize:integer maxChunkSize:integer maxChunkCount:integer "
    "maxSinglePartSize:integer",
    "Tokens": "accessToken refreshToken username",
    "Project": "id name organizationName organizationId projectKey version:integer",
    "Projects": "entries[]>Project matchingItemCount:integer totalItemCount:integer",
    "Organization": "id name",
    "Experiment": "id type shortId organizationName organizationId projectName projectId parentId trashed:boolean",
    "CreationParams": "projectIdentifier parentId type cliVersion customId gitInfo>GitRefProperties key notebookId "
    "checkpointId",
    "Checkpoint": "id",
    "Trashed": "errors[]>OperationError updatedExperimentIdentifiers[]",
    "OperationError": "errorType errorDescription",
    "Columns": "entries[]>Column",
    "Column": "name type",
    "Attributes": "id trashed:boolean attributes[]>Attribute",
    "FloatProperties": f"{_OF} value:double",
    "IntProperties": f"{_OF} value:integer",
    "BoolProperties": f"{_OF} value:boolean",
    "StringProperties": f"{_OF} value",
    "DatetimeProperties": f"{_OF} value:date-time",
    "ExperimentStateProperties": f"{_OF} value",
    "StringSetProperties": f"{_OF} values[]",
    "FloatSeriesProperties": f"{_OF} last:double lastStep:double min:double max:double average:double variance:double "
    "config>SeriesConfig",
    "SeriesConfig": "min:double max:double unit",
    "StringSeriesProperties": f"{_OF} last lastStep:double",
    "ImageSeriesProperties": f"{_OF} channelId lastStep:double",
    "FileProperties": f"{_OF} name ext size:integer",
    "FileSetProperties": f"{_OF} size:integer",
    "ArtifactProperties": f"{_OF} hash",
    "GitRefProperties": f"{_OF} commit>Commit repositoryDirty:boolean currentBranch remotes[]",
    "Commit": "commitId message authorName authorEmail commitDate:date-time",
    "NotebookRefProperties": f"{_OF} notebookId notebookName notebookDeleted:boolean checkpointId checkpointName "
    "checkpointCreated:date-time checkpointDeleted:boolean",
    "FloatValues": "totalItemCount:integer values[]>FloatPoint",
    "FloatPoint": "timestampMillis:integer step:double value:double",
    "StringValues": "totalItemCount:integer values[]>StringPoint",
    "StringPoint": "timestampMillis:integer step:double value",
    "ImageValues": "totalItemCount:integer",
    "FileEntry": "name size:integer mtime:date-time fileType",
    "DownloadRequest": "id downloadUrl",
    "Upload": "errors[]>OperationError uploadId",
    "ArtifactFiles": "files[]>ArtifactFile",
    "ArtifactFile": "filePath fileHash type size:integer metadata[]>KeyValue",
    "KeyValue": "key value",
    "Artifact": "artifactHash receivedMetadata:boolean size:integer projectId",
}
TYPES = [
    *("float", "int", "bool", "string", "datetime", "experimentState", "stringSet"),
    *("floatSeries", "stringSeries", "imageSeries", "file", "fileSet", "gitRef", "notebookRef", "artifact"),
]
_DEFINITIONS["Attribute"] = "name type " + " ".join(f"{t}Properties>{t[0].upper()}{t[1:]}Properties" for t in TYPES)

_FORMATS = {
    "integer": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "date-time": {"type": "string", "format": "date-time"},
    "boolean": {"type": "boolean"},
    "": {"type": "string"},
}


def documents(*, csv: bool = True, value_length: bool = False) -> dict[str, Any]:
    """The three documents by service.

    Args:
        csv: whether series can be had as CSV.
        value_length: whether the values of string series are cut unless `maxSingleValueLength` says otherwise.
    """
    leaderboard = {**_LEADERBOARD, **(_CSV if csv else {})}
    if value_length:
        method, path, parameters, answer = leaderboard["getStringSeriesValues"]
        leaderboard["getStringSeriesValues"] = (method, path, f"{parameters} maxSingleValueLength:integer", answer)
    services = {"backend": _BACKEND, "leaderboard": leaderboard, "artifacts": _ARTIFACTS}
    return {name: _document(operations) for name, operations in services.items()}


def _document(operations: dict[str, tuple[str, str, str, str]]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation, (method, path, parameters, answer) in operations.items():
        schema = _answer(answer)
        paths.setdefault(path, {})[method] = {
            "operationId": operation,
            "parameters": [_parameter(p) for p in parameters.split()]
            + [{"name": n, "in": "path", "type": "string", "required": True} for n in re.findall(r"{(\w+)}", path)],
            "responses": {"200": {"description": "", **({"schema": schema} if schema else {})}},
        }
    definitions = {name: _definition(fields) for name, fields in _DEFINITIONS.items()}
    return {"swagger": "2.0", "info": {"title": "", "version": "1"}, "paths": paths, "definitions": definitions}


def _parameter(text: str) -> dict[str, Any]:
    name, _, place = text.partition("@")
    if place.startswith("body"):
        target = place.partition(">")[2]
        return {"name": name, "in": "body", "schema": {"$ref": f"#/definitions/{target}"} if target else {}}
    if name.endswith("[]"):
        items = {"type": "array", "items": {"type": "string"}, "collectionFormat": "multi"}
        return {"name": name[:-2], "in": "query", **items}
    name, _, kind = name.partition(":")
    return {"name": name, "in": place or "query", **_FORMATS[kind]}


def _answer(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    if text in ("file", "object"):
        return {"type": text}
    if text.startswith("["):
        return {"type": "array", "items": _answer(text[1:-1])}
    return {"$ref": f"#/definitions/{text}"}


def _definition(fields: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict(_property(field) for field in fields.split())}


def _property(text: str) -> tuple[str, dict[str, Any]]:
    name, _, target = text.partition(">")
    name, _, kind = name.partition(":")
    schema: dict[str, Any] = {"$ref": f"#/definitions/{target}"} if target else dict(_FORMATS[kind])
    if name.endswith("[]"):
        return name[:-2], {"type": "array", "items": schema}
    return name, schema if target else {**schema, "x-nullable": True}
