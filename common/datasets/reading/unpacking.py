"""Decompresses gzip in bounded memory. Gzip is recognised by its first two bytes, not by the file's name."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from common.datasets.kinds import GZIP_MAGIC
from common.errors import DataError

UNPACK_BYTES = 1024 * 1024
"""Largest number of bytes that one step of decompression yields. The limit is needed because a small file may
decompress to any amount of text."""

PART_BYTES = 16 * 1024
"""Number of bytes of input that are decompressed in one step."""


class Unpacker:
    """Decompresses a gzip file, also one with several members, block by block. Other files are passed on unchanged."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._start: bytes | None = b""
        """The bytes so far, until there are enough to recognise gzip; None afterwards."""
        self._member: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress `data`, the next bytes of the file. Raises DataError if the gzip is damaged."""
        if self._start is not None:
            self._start += data
            if len(self._start) < len(GZIP_MAGIC):
                return
            data = self._begin()
        if self._member is None:
            yield data
        else:
            # Pass the input to zlib in small parts: at the end of each member, zlib copies the rest of its input, and a
            # member may have only 20 bytes.
            for start in range(0, len(data), PART_BYTES):
                yield from self._unpack(data[start : start + PART_BYTES])

    def finish(self) -> Iterator[bytes]:
        """Yield the contents that are still buffered; raise DataError if the end of the gzip file is missing."""
        if self._start:
            yield self._begin()
        if self._member is not None and not self._member.eof:
            raise DataError(f"{self._where}: the gzip is cut off; compress the text again")

    def _begin(self) -> bytes:
        start, self._start = self._start or b"", None
        if start.startswith(GZIP_MAGIC):
            self._member = zlib.decompressobj(wbits=31)
        return start

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        assert self._member is not None
        while data:
            if self._member.eof:
                if not data.strip(b"\0"):  # only zeros follow the last member: padding
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                block = self._member.decompress(data, UNPACK_BYTES)
            except zlib.error as error:
                raise DataError(f"{self._where}: the gzip is damaged ({error}); compress the text again") from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if block:
                yield block
