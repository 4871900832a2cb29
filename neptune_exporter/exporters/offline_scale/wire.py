# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The protobuf messages of an operation log (`neptune.ingest.v1`), built here.

They live in a pool of their own: the default pool clashes with the real client's, and the client need not be
installed. Only names and numbers matter; fields that an export has no use for are left out.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["CreateRun", "DecodeError", "UpdateRunSnapshot", "micros_of_step", "millis_of_timestamp", "step_decimal"]

_PACKAGE = "neptune.ingest.v1"
_Field = descriptor_pb2.FieldDescriptorProto

# message: {field: (number, type)}; a leading * repeats, map<X> maps strings to X, (a) makes it one of the oneof a.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Step": {"whole": (1, "uint64"), "micro": (2, "uint64")},
    "ForkPoint": {"parent_project": (1, "string"), "parent_run_id": (2, "string"), "step": (4, "Step")},
    "CreateRun": {
        "fork_point": (2, "ForkPoint"),
        "creation_time": (3, "Timestamp"),
        "family": (4, "string"),
        "experiment_id": (5, "string"),
    },
    "StringSet": {"values": (1, "*string")},
    "FileRef": {"path": (1, "string"), "size_bytes": (2, "int64"), "mime_type": (3, "string")},
    "Counts": {"values": (1, "*uint64")},
    "Densities": {"values": (1, "*double")},
    "Histogram": {"bin_edges": (1, "*double"), "counts": (4, "(values)Counts"), "densities": (5, "(values)Densities")},
    "Value": {
        "float64": (1, "(value)double"),
        "int64": (3, "(value)int64"),
        "bool": (5, "(value)bool"),
        "string": (6, "(value)string"),
        "timestamp": (8, "(value)Timestamp"),
        "string_set": (12, "(value)StringSet"),
        "file_ref": (13, "(value)FileRef"),
        "histogram": (14, "(value)Histogram"),
    },
    "ModifyStringSet": {"values": (1, "map<int32>")},
    "ModifySet": {"string": (1, "(type)ModifyStringSet")},
    "Preview": {"is_preview": (1, "bool"), "completion_ratio": (2, "float")},
    "UpdateRunSnapshot": {
        "step": (1, "Step"),
        "timestamp": (2, "Timestamp"),
        "assign": (4, "map<Value>"),
        "modify_sets": (5, "map<ModifySet>"),
        "append": (8, "map<Value>"),
        "preview": (10, "Preview"),
    },
}
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
}


def _set_type(field: Any, name: str) -> None:
    if name in _SCALARS:
        field.type = _SCALARS[name]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{name}"


def _add_field(message: Any, name: str, number: int, spec: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if spec.startswith("map<"):
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, spec[4:-1])
        field.label = _Field.LABEL_REPEATED
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{message.name}.{entry.name}"
        return
    if spec.startswith("*"):
        field.label, spec = _Field.LABEL_REPEATED, spec[1:]
    if spec.startswith("("):
        group, _, spec = spec[1:].partition(")")
        if not message.oneof_decl:
            message.oneof_decl.add(name=group)
        field.oneof_index = 0
    _set_type(field, spec)


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="operation_log.proto", package=_PACKAGE, syntax="proto3")
    for message_name, message_fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, spec) in message_fields.items():
            _add_field(message, name, number, spec)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _message(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_pool = _build_pool()
CreateRun = _message(_pool, "CreateRun")
UpdateRunSnapshot = _message(_pool, "UpdateRunSnapshot")


def micros_of_step(step: Any) -> int:
    """A `Step` message as an exact, unbounded number of micro-units."""
    return int(step.whole) * 1_000_000 + int(step.micro)


def step_decimal(micros: int | None) -> Decimal | None:
    """A step in micro-units as an exact decimal, None for None."""
    return None if micros is None else Decimal(micros).scaleb(-6)


def millis_of_timestamp(timestamp: Any) -> int:
    """A `Timestamp` message in milliseconds since the epoch.

    The client passes times through a float, so nanoseconds carry noise below a microsecond: they are rounded to
    microseconds first, and those to milliseconds, halves up both times.
    """
    micros = int(timestamp.seconds) * 1_000_000 + (int(timestamp.nanos) + 500) // 1000
    return (micros + 500) // 1000
