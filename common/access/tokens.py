"""The text of named tokens: `tdl_` and 40 lower-case base32 characters, such as `tdl_q7x…`.

The characters encode 168 random bits and a CRC-32 of them. The checksum separates a token with a typing error from an
unknown one without a look-up, and lets secret scanners recognise a token with hardly any false alarm. The database
stores only the SHA-256 of a token. A slow hash, as for passwords, is not needed: 168 random bits cannot be guessed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import zlib

TOKEN_PREFIX = "tdl_"
RANDOM_BYTES = 21
_CHARACTERS = re.compile(r"[a-z2-7]{40}")


def make_token() -> str:
    """Return a new random token."""
    random = secrets.token_bytes(RANDOM_BYTES)
    return TOKEN_PREFIX + base64.b32encode(random + _checksum(random)).decode().lower()


def is_well_formed(token: str) -> bool:
    """Return whether `token` has the form of a named token and a correct checksum."""
    characters = token.removeprefix(TOKEN_PREFIX)
    if characters == token or not _CHARACTERS.fullmatch(characters):
        return False
    try:
        decoded = base64.b32decode(characters.upper())
    except binascii.Error:
        return False
    return decoded[RANDOM_BYTES:] == _checksum(decoded[:RANDOM_BYTES])


def token_hash(token: str) -> str:
    """Return the hexadecimal SHA-256 of a token, as stored in the database."""
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(random: bytes) -> bytes:
    return zlib.crc32(TOKEN_PREFIX.encode() + random).to_bytes(4, "big")
