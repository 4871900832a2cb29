# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Protobuf as a Neptune 3.x server sends it: points of float series by the million, everything else by the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.leaderboard_entries_pb2 import ProtoAttributeDTO
from neptune_query.generated.neptune_api.proto.neptune_pb.api.v1.model.series_values_pb2 import ProtoPointValueDTO

PROPERTIES = {
    "int": "int_properties",
    "float": "float_properties",
    "string": "string_properties",
    "bool": "bool_properties",
    "datetime": "datetime_properties",
    "stringSet": "string_set_properties",
    "fileRef": "file_ref_properties",
    "floatSeries": "float_series_properties",
    "stringSeries": "string_series_properties",
    "fileRefSeries": "file_ref_series_properties",
    "histogramSeries": "histogram_series_properties",
}


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def float_points(times, steps, values, previews=None, ratios=None) -> tuple[bytes, np.ndarray]:
    """Repeated `ProtoFloatPointValueDTO` as field 2; zeros are left out, as proto3 does.

    Returns:
        The bytes, and where each point begins (one more than there are points).
    """
    count = len(steps)
    times = np.asarray(times, np.int64).view(np.uint64)
    step_bits = np.asarray(steps, np.float64).view(np.uint64)
    value_bits = np.asarray(values, np.float64).view(np.uint64)
    preview = np.zeros(count, np.bool_) if previews is None else np.asarray(previews, np.bool_)
    ratio_bits = (np.zeros(count, np.float32) if ratios is None else np.asarray(ratios, np.float32)).view(np.uint32)
    digits = np.ones(count, np.int64)
    for position in range(1, 10):
        digits += times >= np.uint64(1 << 7 * position)
    parts = (
        np.where(times != 0, 1 + digits, 0),
        9 * (step_bits != 0),
        9 * (value_bits != 0),
        2 * preview,
        5 * (ratio_bits != 0),
    )
    sizes = sum(parts)
    offsets = np.concatenate(([0], np.cumsum(sizes + 2)))
    out = np.zeros(int(offsets[-1]), np.uint8)
    at = offsets[:-1].copy()
    out[at], out[at + 1] = 0x12, sizes
    at += 2
    rows = np.flatnonzero(times)
    out[at[rows]] = 0x08
    for position in range(10):
        here = rows[digits[rows] > position]
        more = (digits[here] > position + 1).astype(np.uint8) << 7
        out[at[here] + 1 + position] = (times[here] >> np.uint64(7 * position)).astype(np.uint8) & 0x7F | more
    at += parts[0]
    for tag, bits, size in ((0x11, step_bits, parts[1]), (0x19, value_bits, parts[2])):
        rows = np.flatnonzero(bits)
        out[at[rows]] = tag
        for position in range(8):
            out[at[rows] + 1 + position] = (bits[rows] >> np.uint64(8 * position)).astype(np.uint8)
        at += size
    rows = np.flatnonzero(preview)
    out[at[rows]], out[at[rows] + 1] = 0x20, 1
    at += parts[3]
    rows = np.flatnonzero(ratio_bits)
    out[at[rows]] = 0x2D
    for position in range(4):
        out[at[rows] + 1 + position] = (ratio_bits[rows] >> np.uint32(8 * position)).astype(np.uint8)
    return out.tobytes(), offsets


def fill_file(message: Any, value: dict[str, Any]) -> None:
    """A file reference."""
    message.path, message.sizeBytes, message.mimeType = value["path"], value["size"], value["mime"]


def fill_histogram(message: Any, value: dict[str, Any]) -> None:
    """A histogram."""
    message.type = value["type"]
    message.edges.extend(value["edges"])
    message.values.extend(value["values"])


def attribute_dto(name: str, kind: str, value: Any) -> ProtoAttributeDTO:
    """An attribute with its value; of a series, its last point as (step, value) or None."""
    dto = ProtoAttributeDTO(name=name, type=kind)
    properties = getattr(dto, PROPERTIES[kind])
    properties.attribute_name, properties.attribute_type = name, kind
    if kind == "stringSet":
        properties.value.extend(value)
    elif kind == "fileRef":
        fill_file(properties, value)
    elif kind.endswith("Series"):
        if value is not None:
            properties.last_step = value[0]
            fill_last(properties, kind, value[1])
    else:
        properties.value = value
    return dto


def fill_last(properties: Any, kind: str, value: Any) -> None:
    """The last value of a series."""
    if kind == "fileRefSeries":
        fill_file(properties.last, value)
    elif kind == "histogramSeries":
        fill_histogram(properties.last, value)
    else:
        properties.last = value


def point_dto(kind: str, time: int, step: float, value: Any) -> ProtoPointValueDTO:
    """A point of a series that is not of floats."""
    dto = ProtoPointValueDTO(timestamp_millis=time, step=step)
    if kind == "stringSeries":
        dto.object.stringValue = value
    elif kind == "histogramSeries":
        fill_histogram(dto.object.histogram, value)
    else:
        fill_file(dto.object.fileRef, value)
    return dto
