"""Decides which documents of a corpus without a validation part are held out for validation."""

from __future__ import annotations

import hashlib


def is_held_out(text: str, fraction: float) -> bool:
    """Return whether the hash of the document's text is among the lowest `fraction` of all hashes."""
    value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return value / 2**64 < fraction
