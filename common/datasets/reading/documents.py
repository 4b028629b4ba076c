"""What every format shares: when a document is blank, how a long one is cut, and how findings are worded.

A document has no white space around it and at least one visible character. White space, control and zero-width
characters alone (Unicode categories Z, Cc and Cf) are blank: such a document is left out, and a file of nothing else is
refused. A null is a document without text, left out like a blank one.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import lru_cache

from common.datasets.kinds import HEAD_BYTES, refusal_of_content
from common.errors import DataError

END_OF_TEXT = "<|endoftext|>"
"""Between the documents of a .txt file, and the one special token of the tokeniser."""
LONGEST_DOCUMENT = 1 << 22
"""Characters; a longer document goes on as a new one, so that memory stays bounded."""
TEXT_FIELD_ADVICE = (
    "name the field that holds the text as data.text_field in a configuration, as textField (--text-field) of an upload"
)
MOST_FIELDS_NAMED = 12
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


class Reader(ABC):
    """Documents of a file whose bytes come in blocks of any size; the blocks make no difference.

    Both methods are lazy: nothing is read until the documents are taken. DataError, which names `where`, the place in
    it and what to do. `documents` counts those that were taken.
    """

    def __init__(self, where: str, kind: str) -> None:
        self.where = where
        self.documents = 0
        self._kind = kind
        self._head: bytes | None = b""
        """The first bytes until there are enough to tell the kind of file; None afterwards."""

    def feed(self, data: bytes) -> Iterator[str]:
        """The documents that the next bytes complete."""
        if self._head is not None:
            self._head += data
            if len(self._head) < HEAD_BYTES:
                return
            data = self._begin()
        yield from self._counted(self._read(data))

    def finish(self) -> Iterator[str]:
        """The documents that the end of the file completes; DataError when there was no text at all."""
        if self._head is not None:
            if not self._head:
                raise self.wrong("the file is empty; there must be text in it")
            yield from self._counted(self._read(self._begin()))
        yield from self._counted(self._end())
        require_some(self.documents, self.where)

    def wrong(self, finding: str) -> DataError:
        """The error about this file."""
        return DataError(f"{self.where}: {finding}")

    @abstractmethod
    def _read(self, data: bytes) -> Iterator[str]:
        """Texts that may be blank or too long; the first call has the beginning of the file."""

    @abstractmethod
    def _end(self) -> Iterator[str]:
        """What is left at the end."""

    def _begin(self) -> bytes:
        head, self._head = self._head or b"", None
        if (refusal := refusal_of_content(head, self._kind)) is not None:
            raise self.wrong(refusal)
        return head

    def _counted(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            for piece in pieces(text):
                self.documents += 1
                yield piece


def is_blank(text: str) -> bool:
    """Whether there is nothing to see."""
    if text and unicodedata.category(text[0]) not in _INVISIBLE:
        return False  # the usual case
    return text.isspace() or _invisible().fullmatch(text) is not None


@lru_cache(maxsize=1)
def _invisible() -> re.Pattern[str]:
    """Return a pattern of invisible text: a small file may contain gigabytes of blanks, too many for a Python loop."""
    letters = map(chr, range(sys.maxunicode + 1))
    return re.compile("[" + re.escape("".join(c for c in letters if unicodedata.category(c) in _INVISIBLE)) + "]*+")


def pieces(text: str) -> Iterator[str]:
    """The document without surrounding white space, cut where it is too long; nothing for a blank one."""
    while len(text) > LONGEST_DOCUMENT:
        cut = break_before(text, LONGEST_DOCUMENT)
        if not is_blank(piece := text[:cut].strip()):
            yield piece
        text = text[cut:]
    if not is_blank(text := text.strip()):
        yield text


def break_before(text: str, limit: int) -> int:
    """Where to cut `text` so that the first part has at most `limit` characters: at a line or a word if possible."""
    for separator in ("\n", " "):
        cut = text.rfind(separator, limit // 2, limit)
        if cut > 0:
            return cut
    return limit


def require_some(documents: int, where: str) -> None:
    """DataError when there is none."""
    if documents == 0:
        raise DataError(
            f"{where}: there is no text in it; every document is blank, that is null, or white space and invisible "
            "characters only"
        )


def no_field(place: str, field: str, there: Iterable[str], texts: Iterable[str] = ()) -> DataError:
    """A record or table without the field that should hold the text.

    `place` says which, `there` are the names that it has, `texts` those of them that would do.
    """
    found = f"it has {_listed(there) or 'none'}"
    if would_do := _listed(texts):
        found += f"; text is in {would_do}"
    return DataError(f"{place} '{field}' ({found}); {TEXT_FIELD_ADVICE}")


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name)[1:-1] for name in names]
    return ", ".join(shown[:MOST_FIELDS_NAMED]) + (", …" if len(shown) > MOST_FIELDS_NAMED else "")


def not_text(place: str, field: str, kind: str) -> DataError:
    """A field that holds something else; `kind` in words, such as "a number"."""
    return DataError(f"{place} '{field}' is {kind}, expected text; {TEXT_FIELD_ADVICE}")
