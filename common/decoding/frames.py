"""What the decoding child sends: frames of a kind, a number of rows and a payload.

    SCHEMA   JSON, a `Schema`; always first
    TEXTS    of that many rows: their lengths in bytes (int32, -1 for a null), then the texts one after the other
    ERROR    JSON, a `Failure`; the last frame
    DONE     nothing; the last frame of a file that was read to its end

A stream that ends without ERROR or DONE comes from a child that the kernel or pyarrow has ended. Leaves out pyarrow.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple, TypedDict

HEADER: Final = struct.Struct("<cIQ")
"""Kind, rows, bytes of the payload."""
SCHEMA: Final = b"S"
TEXTS: Final = b"T"
ERROR: Final = b"E"
DONE: Final = b"D"
NULL: Final = -1

FRAME_BYTES: Final = 2 * 1024 * 1024
"""Text of one frame; more only where a single text is longer."""
MOST_TEXT_BYTES: Final = 16 * 1024 * 1024
"""Of one text. Its reader holds it several times over, at up to four bytes a character."""
MEMORY_BYTES: Final = 256 * 1024 * 1024
"""What the child may take for a page packed and unpacked, its dictionary and the rows of a batch. Writers make pages of
1 MiB, DuckDB of up to 100 MB."""
MOST_NAMES: Final = 13
"""Names of columns that are sent: one more than an error shows."""


class Schema(TypedDict):
    """What a table has to say about the column that was asked for."""

    found: int
    """Columns of this name."""
    is_text: bool
    kind: str
    """The type of the column in words and as Arrow writes it; empty where there is not exactly one column."""
    names: list[str]
    texts: list[str]
    """Those of the columns that would do."""


class Failure(TypedDict):
    """Why decoding ended: `memory`, `damaged` (pyarrow's own reason), `long` (a text), `system` (the file)."""

    kind: Literal["memory", "damaged", "long", "system"]
    reason: str
    row: int
    """Counted from 0: the row that `long` is about."""


class Frame(NamedTuple):
    """One frame as it came."""

    kind: bytes
    rows: int
    payload: bytearray
