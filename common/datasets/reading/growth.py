"""Limits the amount of text that a compressed file may contain, because a few hundred bytes can hold any amount.

Real text does not compress to a hundredth of its size. A file is refused if its text is larger than 256 MiB and larger
than a hundred times the file; uploads are also subject to the server's limit. The memory that decompression takes is
limited in `unpacking` and `common.decoding`.
"""

from __future__ import annotations

from common.errors import DataError

MOST_GROWTH = 100
"""Largest number of bytes of text per byte of the file."""
ALWAYS_BYTES = 256 * 2**20
"""Number of bytes of text that every file may contain, however small the file is."""


class TooMuchText(DataError):
    """An upload contains more text than the server accepts."""


class Growth:
    """Counts the bytes of text in a file of `size_bytes`."""

    def __init__(self, where: str, size_bytes: int, limit_bytes: int | None = None) -> None:
        self._where, self._limit = where, limit_bytes
        self._most = max(ALWAYS_BYTES, MOST_GROWTH * size_bytes)
        self._size = size_bytes
        self._done = 0

    def add(self, count: int) -> None:
        """Count further bytes of text.

        Raises TooMuchText if the text exceeds `limit_bytes`, DataError if it is too large in relation to the file.
        """
        self._done += count
        if self._limit is not None and self._done > self._limit:
            raise TooMuchText(f"{self._where}: the file contains more than {self._limit / 2**20:,.0f} MiB of text")
        if self._done > self._most:
            raise DataError(
                f"{self._where}: {self._size:,} bytes unpack to more than {self._most / 2**20:,.0f} MiB of text, but "
                "real text is not so repetitive; if the text is correct, provide it uncompressed as .txt or .jsonl"
            )
