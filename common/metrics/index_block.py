"""Points of one attempt as columns, and their form in the index file: a header in JSON, then the columns as they are.

`MAGIC, size of header, size of columns, checksum of both` come first, so a block that is torn or damaged is recognised.
A column is float64: NaN where a point has no such value, infinity where the value was not finite (values in the archive
are finite or null). Leaves out: which lines a block covers and when one is written (`common.metrics.index`).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MAGIC = b"TMI1"
_FRAME = struct.Struct("<4sIQI")
_PARSE_AT_ONCE = 256
"""Lines handed to the JSON parser together; it holds the interpreter's lock meanwhile (under a millisecond)."""

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


@dataclass
class Block:
    """Rows in the order of the archive; all arrays have one length."""

    attempt: int
    covers: dict[str, int]
    """Segment name to the byte up to which its lines are here or in earlier blocks."""
    steps: Steps
    times: Floats
    """Milliseconds since 1970."""
    columns: dict[str, Floats]
    names: list[str] = field(default_factory=list)
    """Of all columns, also of those that were not read."""
    rewinds: list[tuple[int, int]] = field(default_factory=list)
    """(attempt, step) of its rewind lines."""


def parse_block(attempt: int, covers: dict[str, int], lines: Iterable[bytes]) -> Block:
    """Columns of complete lines of the archive; a line that is no JSON is left out."""
    steps: list[int] = []
    times: list[float] = []
    columns: dict[str, list[float]] = {}
    rewinds: list[tuple[int, int]] = []
    for line in _parsed(lines):
        mark = line.get("rewind")
        if mark is not None:
            rewinds.append((mark["attempt"], mark["step"]))
            continue
        row = len(steps)
        steps.append(line["step"])
        times.append(1000 * datetime.fromisoformat(line["time"]).timestamp())
        for name, value in line["values"].items():
            column = columns.setdefault(name, [])
            if len(column) < row:
                column.extend([np.nan] * (row - len(column)))
            column.append(np.inf if value is None else value)
    for column in columns.values():
        column.extend([np.nan] * (len(steps) - len(column)))
    arrays = {name: np.asarray(columns[name], dtype=np.float64) for name in sorted(columns)}
    return Block(
        attempt,
        covers,
        np.asarray(steps, dtype=np.int64),
        np.asarray(times, dtype=np.float64),
        arrays,
        list(arrays),
        rewinds,
    )


def write_block(block: Block) -> bytes:
    """The block as it stands in the file."""
    header = json.dumps(
        {
            "attempt": block.attempt,
            "covers": block.covers,
            "rows": len(block.steps),
            "names": block.names,
            "rewinds": block.rewinds,
        }
    ).encode()
    payload = b"".join(array.tobytes() for array in (block.steps, block.times, *block.columns.values()))
    return _FRAME.pack(MAGIC, len(header), len(payload), zlib.crc32(payload, zlib.crc32(header))) + header + payload


def read_block(file: BinaryIO, names: Collection[str] | None) -> Block | None:
    """The next block with the columns in `names` (None: all); None at the end, or where the file is damaged."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    magic, header_size, size, checksum = _FRAME.unpack(frame)
    if magic != MAGIC or not header_size:
        return None
    header, payload = file.read(header_size), file.read(size)
    if len(payload) < size or zlib.crc32(payload, zlib.crc32(header)) != checksum:
        return None
    about = json.loads(header)
    rows = about["rows"]
    steps = np.frombuffer(payload, np.int64, rows)
    times = np.frombuffer(payload, np.float64, rows, 8 * rows)
    columns = {
        name: np.frombuffer(payload, np.float64, rows, 8 * rows * (2 + at))
        for at, name in enumerate(about["names"])
        if names is None or name in names
    }
    if len(columns) < len(about["names"]):  # views would keep all of the block in memory
        steps, times = steps.copy(), times.copy()
        columns = {name: column.copy() for name, column in columns.items()}
    rewinds = [(attempt, step) for attempt, step in about["rewinds"]]
    return Block(about["attempt"], about["covers"], steps, times, columns, about["names"], rewinds)


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    waiting = iter(lines)
    while batch := list(islice(waiting, _PARSE_AT_ONCE)):
        try:
            yield from json.loads(b"[" + b",".join(batch) + b"]")
        except ValueError:
            for line in batch:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue
