"""Reads TensorBoard event files, independently of the library that wrote them.

The records are those of TFRecord with their checksums; the protocol buffers are decoded by field number (event.proto
and summary.proto of TensorBoard).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli), bit by bit as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        head = content[at : at + 8]
        (length,) = struct.unpack("<Q", head)
        assert struct.unpack("<I", content[at + 8 : at + 12])[0] == masked(head)
        data = content[at + 12 : at + 12 + length]
        assert struct.unpack("<I", content[at + 12 + length : at + 16 + length])[0] == masked(data)
        yield data
        at += 16 + length


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def message(data: bytes) -> dict[int, list[Any]]:
    """Return {field number: values}; the values are integers, bytes, or floats by their wire type."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            size, form = {1: (8, "<d"), 5: (4, "<f")}[kind]
            (value,), at = struct.unpack(form, data[at : at + size]), at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return {tag: [(step, value)]} as TensorBoard shows it.

    The start of a session hides the points that were written before it and whose step is not below that of the start.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        events = [message(record) for record in records(path.read_bytes())]
        assert events[0][3] == [b"brain.Event:2"]
        for event in events[1:]:
            step = event.get(2, [0])[0]
            if 7 in event:
                assert message(event[7][0])[1] == [1], "the status is START"
                series = {tag: [point for point in points if point[0] < step] for tag, points in series.items()}
            for value in message(event[5][0])[1] if 5 in event else []:
                fields = message(value)
                series.setdefault(fields[1][0].decode(), []).append((step, fields[2][0]))
    return series
