"""The common part of all readers: skipping blank documents, splitting long ones, and error messages.

White space around a document is removed. A document is blank if it contains only white space, control and zero-width
characters (Unicode categories Z, Cc and Cf). Blank documents and nulls are skipped, and a file without any other
document is rejected.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import lru_cache

from common.datasets.kinds import HEAD_BYTES, content_problem
from common.errors import DataError

END_OF_TEXT = "<|endoftext|>"
"""Separator of the documents in a .txt file, and the only special token of the tokeniser."""
LONGEST_DOCUMENT = 1 << 22
"""Largest number of characters of a document. A longer one is split into several documents to limit the memory."""
TEXT_FIELD_ADVICE = (
    "name the field that holds the text: data.text_field in a configuration, textField (--text-field) for an upload"
)
MOST_FIELDS_NAMED = 12
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


class Reader(ABC):
    """Reads the documents of a file whose bytes arrive in blocks; the sizes of the blocks do not change the result.

    `feed` and `finish` are generators, which process the bytes only while the caller iterates over them. They raise
    DataError, which names the file (`where`), the place in it and what to do. `documents` counts the documents yielded.
    """

    def __init__(self, where: str, kind: str) -> None:
        self.where = where
        self.documents = 0
        self._kind = kind
        self._head: bytes | None = b""
        """The bytes so far, until there are enough to recognise the kind of file; None afterwards."""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the documents that end within `data`, the next bytes of the file."""
        if self._head is not None:
            self._head += data
            if len(self._head) < HEAD_BYTES:
                return
            data = self._begin()
        yield from self._counted(self._read(data))

    def finish(self) -> Iterator[str]:
        """Yield the documents that end at the end of the file; raise DataError if the file has no text."""
        if self._head is not None:
            if not self._head:
                raise self.error("the file is empty; it must contain text")
            yield from self._counted(self._read(self._begin()))
        yield from self._counted(self._end())
        require_some(self.documents, self.where)

    def error(self, finding: str) -> DataError:
        """Return an error that names this file."""
        return DataError(f"{self.where}: {finding}")

    @abstractmethod
    def _read(self, data: bytes) -> Iterator[str]:
        """Yield the texts that end within `data`, the next bytes of the file. They may be blank or too long."""

    @abstractmethod
    def _end(self) -> Iterator[str]:
        """Yield the texts that end at the end of the file."""

    def _begin(self) -> bytes:
        head, self._head = self._head or b"", None
        if (problem := content_problem(head, self._kind)) is not None:
            raise self.error(problem)
        return head

    def _counted(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            for piece in pieces(text):
                self.documents += 1
                yield piece


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character."""
    if text and unicodedata.category(text[0]) not in _INVISIBLE:
        return False  # decides most cases, and faster than the checks below
    return text.isspace() or _invisible_pattern().fullmatch(text) is not None


@lru_cache(maxsize=1)
def _invisible_pattern() -> re.Pattern[str]:
    """Return a regular expression for invisible text; a Python loop over gigabytes of blanks would be too slow."""
    letters = map(chr, range(sys.maxunicode + 1))
    return re.compile("[" + re.escape("".join(c for c in letters if unicodedata.category(c) in _INVISIBLE)) + "]*+")


def pieces(text: str) -> Iterator[str]:
    """Yield the document without surrounding white space, in several parts if it is too long; none if it is blank."""
    while len(text) > LONGEST_DOCUMENT:
        cut = break_before(text, LONGEST_DOCUMENT)
        if not is_blank(piece := text[:cut].strip()):
            yield piece
        text = text[cut:]
    if not is_blank(text := text.strip()):
        yield text


def break_before(text: str, limit: int) -> int:
    """Return the position at which to cut `text`: at the end of a line or word if possible, otherwise `limit`."""
    for separator in ("\n", " "):
        cut = text.rfind(separator, limit // 2, limit)
        if cut > 0:
            return cut
    return limit


def require_some(documents: int, where: str) -> None:
    """Raise DataError if a file has no document."""
    if documents == 0:
        raise DataError(
            f"{where}: there is no text in it; every document is null, or consists of white space and invisible "
            "characters"
        )


def no_field(place: str, field: str, existing: Iterable[str], texts: Iterable[str] = ()) -> DataError:
    """Return the error for a record or table that lacks the field with the text.

    `place` names the record or table, `existing` lists all its fields, and `texts` lists the fields that contain text.
    """
    found = f"it has {_listed(existing) or 'none'}"
    if text_fields := _listed(texts):
        found += f"; text is in {text_fields}"
    return DataError(f"{place} '{field}' ({found}); {TEXT_FIELD_ADVICE}")


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name)[1:-1] for name in names]
    return ", ".join(shown[:MOST_FIELDS_NAMED]) + (", …" if len(shown) > MOST_FIELDS_NAMED else "")


def not_text(place: str, field: str, kind: str) -> DataError:
    """Return the error for a field that does not contain text; `kind` describes its type, such as "a number"."""
    return DataError(f"{place} '{field}' is {kind}, expected text; {TEXT_FIELD_ADVICE}")
