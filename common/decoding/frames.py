"""Defines the frames that the decoding child sends. Each has a kind, a number of rows and a payload.

    SCHEMA   a `ColumnSchema` as JSON; always the first frame
    TEXTS    the lengths of the rows' texts in bytes (int32, -1 for a null), then the texts without separators
    ERROR    a `DecodingFailure` as JSON; the last frame
    DONE     no payload; the last frame if the whole column was decoded

If a stream ends without ERROR or DONE, the kernel or pyarrow has ended the child. This module does not need pyarrow.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple, TypedDict

HEADER: Final = struct.Struct("<cIQ")
"""The kind, the number of rows, and the size of the payload in bytes."""
SCHEMA: Final = b"S"
TEXTS: Final = b"T"
ERROR: Final = b"E"
DONE: Final = b"D"
NULL: Final = -1

FRAME_BYTES: Final = 2 * 1024 * 1024
"""Largest number of bytes of text in one frame, unless the frame holds a single text that is longer."""
MOST_TEXT_BYTES: Final = 16 * 1024 * 1024
"""Largest number of bytes of one text. The reader holds several copies of a text, with up to four bytes per
character."""
MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Number of bytes that the child may allocate for a page (compressed and decompressed), its dictionary and a batch.
Most writers make pages of 1 MiB, DuckDB makes pages of up to 100 MB."""
MOST_NAMES: Final = 13
"""Largest number of column names in a schema: one more than an error message lists, so that the reader knows whether
there are more."""


class ColumnSchema(TypedDict):
    """Describes the requested column and lists the columns of the table."""

    found: int
    """Number of columns with the requested name."""
    is_text: bool
    kind: str
    """The type of the column in words and in Arrow's notation; empty unless `found` is 1."""
    names: list[str]
    texts: list[str]
    """The names of the columns that hold text."""


class DecodingFailure(TypedDict):
    """Why decoding failed.

    memory: too little memory. damaged: a damaged file. long: a text that is too long. system: an OSError.
    """

    kind: Literal["memory", "damaged", "long", "system"]
    reason: str
    row: int
    """The row at which decoding failed, counted from 0: that of the long text, or the first that was not received."""


class Frame(NamedTuple):
    """One received frame."""

    kind: bytes
    rows: int
    payload: bytearray
