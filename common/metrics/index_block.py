"""Blocks of the metrics index: the points of one attempt as columns, and their format in the file.

A block in the file is a frame (`MAGIC`, size of the header, size of the columns, checksum of both), a JSON header, and
the columns as raw arrays; the frame shows whether the block is complete and undamaged. A column is float64. It has NaN
where a point does not have this metric, and infinity where the value was not finite (the archive then has null).
`common.metrics.index` decides which lines a block covers and when it is written.
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
"""Number of lines that are parsed in one call, which holds Python's interpreter lock for less than a millisecond."""

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


@dataclass
class Block:
    """Points in the order of the archive; all arrays have the same length."""

    attempt: int
    covers: dict[str, int]
    """{segment name: offset in bytes up to which its lines are in this block or in earlier ones}."""
    steps: Steps
    times: Floats
    """Milliseconds since 1970."""
    columns: dict[str, Floats]
    names: list[str] = field(default_factory=list)
    """Names of all columns, including those that were not read."""
    rewinds: list[tuple[int, int]] = field(default_factory=list)
    """Attempt and step of each rewind line: the attempt resumed after the step, and voids later points of earlier
    attempts."""


def parse_block(attempt: int, covers: dict[str, int], lines: Iterable[bytes]) -> Block:
    """Parse complete lines of the archive; lines that are not JSON are skipped."""
    steps: list[int] = []
    times: list[float] = []
    columns: dict[str, list[float]] = {}
    rewinds: list[tuple[int, int]] = []
    for line in _parsed(lines):
        rewind = line.get("rewind")
        if rewind is not None:
            rewinds.append((rewind["attempt"], rewind["step"]))
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
    """Return the bytes of the block in the file."""
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
    """Read the next block, with the columns `names` (None: all columns).

    Returns None at the end of the file, or if the block is incomplete or damaged.
    """
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    magic, header_size, size, checksum = _FRAME.unpack(frame)
    if magic != MAGIC or not header_size:
        return None
    header, payload = file.read(header_size), file.read(size)
    if len(payload) < size or zlib.crc32(payload, zlib.crc32(header)) != checksum:
        return None
    description = json.loads(header)
    rows = description["rows"]
    steps = np.frombuffer(payload, np.int64, rows)
    times = np.frombuffer(payload, np.float64, rows, 8 * rows)
    columns = {
        name: np.frombuffer(payload, np.float64, rows, 8 * rows * (2 + at))
        for at, name in enumerate(description["names"])
        if names is None or name in names
    }
    if len(columns) < len(description["names"]):  # without copies, these views would keep the whole payload in memory
        steps, times = steps.copy(), times.copy()
        columns = {name: column.copy() for name, column in columns.items()}
    rewinds = [(attempt, step) for attempt, step in description["rewinds"]]
    return Block(description["attempt"], description["covers"], steps, times, columns, description["names"], rewinds)


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    remaining = iter(lines)
    while batch := list(islice(remaining, _PARSE_AT_ONCE)):
        try:
            yield from json.loads(b"[" + b",".join(batch) + b"]")
        except ValueError:
            for line in batch:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue
