"""How much text may come out of a file: a packed one of a few hundred bytes may hold any amount.

Nobody's text shrinks to a hundredth, so a file that grows more is refused once that is 256 MiB; an upload is also held
to the limit of its server. Leaves out the memory that unpacking takes (`unpacking`, `common.decoding`).
"""

from __future__ import annotations

from common.errors import DataError

MOST_GROWTH = 100
"""Times the size of the file."""
ALWAYS_BYTES = 256 * 2**20
"""So much may come out of a file of any size."""


class TooMuchText(DataError):
    """More came out of an upload than its server takes."""


class Growth:
    """Counts what comes out of a file of `size_bytes`."""

    def __init__(self, where: str, size_bytes: int, limit_bytes: int | None = None) -> None:
        self._where, self._limit = where, limit_bytes
        self._most = max(ALWAYS_BYTES, MOST_GROWTH * size_bytes)
        self._size = size_bytes
        self._done = 0

    def add(self, count: int) -> None:
        """So many more bytes; DataError when they are too many, TooMuchText where it is the limit of the server."""
        self._done += count
        if self._limit is not None and self._done > self._limit:
            raise TooMuchText(f"{self._where}: more than {self._limit / 2**20:,.0f} MiB of text come out of it")
        if self._done > self._most:
            raise DataError(
                f"{self._where}: more than {self._most / 2**20:,.0f} MiB of text come out of its {self._size:,} bytes, "
                "which no text does; write it again, or give it unpacked as .txt or .jsonl"
            )
