"""Ids of stream entries as pairs of numbers, which compare as Redis compares them."""

from __future__ import annotations

StreamId = tuple[int, int]
ORIGIN: StreamId = (0, 0)
"""Before every entry."""


def parse_id(text: str) -> StreamId:
    """`1700000000000-3` as numbers; the part after the dash may be missing. ValueError when it is no stream id."""
    first, _, second = text.strip().partition("-")
    parts = first, second or "0"
    if not all(part.isascii() and part.isdecimal() and len(part) <= 20 and int(part) < 2**64 for part in parts):
        raise ValueError(f"'{text[:50]}' is no stream id; expected digits-digits, as in an event's id line")
    return int(parts[0]), int(parts[1])


def format_id(stream_id: StreamId) -> str:
    """The text form Redis uses."""
    return f"{stream_id[0]}-{stream_id[1]}"
