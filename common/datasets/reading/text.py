"""Reads plain text files: UTF-8 with `<|endoftext|>` between documents.

A byte order mark at the beginning is removed; CRLF and a single CR become LF, as in Python's text files. A NUL byte is
an error, because it means that the file is UTF-16 or not text.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from common.datasets.reading import documents
from common.datasets.reading.documents import END_OF_TEXT, Reader, break_before


class TextReader(Reader):
    """Reads the documents of a .txt file."""

    def __init__(self, where: str) -> None:
        super().__init__(where, "txt")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._line_ends = io.IncrementalNewlineDecoder(None, translate=True)
        self._done = 0
        """Number of bytes decoded so far."""
        self._parts: list[str] = []
        """The received parts of a document whose end has not arrived yet."""
        self._length = 0
        """Number of characters in `_parts`."""
        self._tail = ""
        """The last characters of the document so far, which may be the beginning of a separator."""

    def _read(self, data: bytes) -> Iterator[str]:
        if self._done == 0:
            self._done = len(data)
            data = data.removeprefix(codecs.BOM_UTF8)
            self._done -= len(data)
        yield from self._split(self._decode(data, final=False))

    def _end(self) -> Iterator[str]:
        yield from self._split(self._decode(b"", final=True))
        yield "".join([*self._parts, self._tail])

    def _decode(self, data: bytes, *, final: bool) -> str:
        nul = data.find(b"\0")
        if nul >= 0:
            data = data[: nul + 1]  # an error in the bytes before the NUL is reported first
        begin = self._done - len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise self.error(
                f"not UTF-8 text: byte {begin + error.start + 1:,} ({error.reason}); save it as UTF-8"
            ) from None
        self._done += len(data)
        if nul >= 0:
            raise self.error(f"byte {self._done:,} is NUL, so the file is UTF-16 or not text; save it as UTF-8")
        return str(self._line_ends.decode(text, final))

    def _split(self, text: str) -> Iterator[str]:
        *ended, rest = (self._tail + text).split(END_OF_TEXT)
        for document in ended:
            document = "".join([*self._parts, document])
            self._parts, self._length = [], 0
            yield document
        keep = len(END_OF_TEXT) - 1
        self._parts.append(rest[:-keep])
        self._length += len(self._parts[-1])
        self._tail = rest[-keep:]
        if self._length > documents.LONGEST_DOCUMENT:
            yield from self._cut_long_document()

    def _cut_long_document(self) -> Iterator[str]:
        """Yield the beginning of a document that is already too long, cut at the place where `pieces` would cut it."""
        text = "".join(self._parts)
        while len(text) > documents.LONGEST_DOCUMENT:
            cut = break_before(text, documents.LONGEST_DOCUMENT)
            yield text[:cut]
            text = text[cut:]
        self._parts, self._length = [text], len(text)
