"""Reads JSON Lines files: one JSON object per line, with the text in one field.

Only LF ends a line. A CR between the parts of an object or at the end of a line is white space, as in JSON; U+2028,
U+2029 and U+0085 do not end a line. Blank lines, and objects whose text is null, are skipped.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from common.datasets.reading.documents import Reader, is_blank, no_field, not_text
from common.decoding.frames import MOST_TEXT_BYTES
from common.errors import DataError

MOST_LINE_BYTES = MOST_TEXT_BYTES
MOST_VALUES = 250_000
"""Largest number of strings, opening brackets and commas in one line. It limits the memory, because an empty list takes
2 bytes in a file and 60 in memory."""
_VALUES = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{,]', re.DOTALL)


class JsonLinesReader(Reader):
    """Reads the documents of a .jsonl file."""

    def __init__(self, where: str, text_field: str) -> None:
        super().__init__(where, "jsonl")
        self._field = text_field
        self._key = json.dumps(text_field, ensure_ascii=False)
        self._rest: list[bytes] = []
        """The received parts of a line whose end has not arrived yet."""
        self._rest_bytes = 0
        self._line = 0

    def _read(self, data: bytes) -> Iterator[str]:
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest, self._rest_bytes = [], 0
        for line in lines:
            if (text := self._text_of(line)) is not None:
                yield text
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        if self._rest_bytes > MOST_LINE_BYTES:
            raise self._too_long(self._line + 1)

    def _end(self) -> Iterator[str]:
        if (text := self._text_of(b"".join(self._rest))) is not None:
            yield text

    def _text_of(self, line: bytes) -> str | None:
        """Return the text in a line, or None if the line is blank or its text is null."""
        self._line += 1
        if len(line) > MOST_LINE_BYTES:
            raise self._too_long(self._line)
        if len(line) > MOST_VALUES and _values_exceed(line, MOST_VALUES):
            raise self._line_error(f"has more than {MOST_VALUES:,} values; keep the text in a field of a flat object")
        if self._line == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            decoded = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._line_error(
                f"is not UTF-8 (byte {error.start + 1:,}: {error.reason}); save the file as UTF-8"
            ) from None
        if is_blank(decoded):
            return None
        try:
            record = json.loads(decoded)
        except RecursionError:
            raise self._line_error("is nested too deeply; keep the text in a field of a flat object") from None
        except ValueError as error:
            raise self._invalid_json(decoded, error) from None
        if isinstance(record, list):
            raise self._array_error()
        if not isinstance(record, dict):
            raise self._line_error(f"is {kind_of(record)}, expected an object with the field '{self._field}'")
        if decoded.count(self._key) > 1 and self._repeats_field(decoded):
            raise self._line_error(f"has the field '{self._field}' more than once; keep one of them")
        if self._field not in record:
            raise no_field(f"{self.where}: line {self._line} has no field", self._field, record)
        text = record[self._field]
        if text is None:
            return None
        if not isinstance(text, str):
            raise not_text(f"{self.where}: line {self._line}:", self._field, kind_of(text))
        # Only an escape can result in half a surrogate pair, because UTF-8 cannot encode it.
        if "\\u" in decoded:
            self._require_characters(text)
        return text

    def _repeats_field(self, line: str) -> bool:
        """Return whether the outermost object has the field more than once; the parser silently keeps the last one."""
        names: list[str] = []

        def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            names[:] = [name for name, _ in pairs]  # the parser calls this for the outermost object last
            return dict(pairs)

        json.loads(line, object_pairs_hook=remember)
        return names.count(self._field) > 1

    def _require_characters(self, text: str) -> None:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self._line_error(
                f"'{self._field}' contains half a surrogate pair (\\u{ord(text[error.start]):04x} at character "
                f"{error.start + 1:,}), which is not a character; write the whole pair, or \\ufffd in its place",
                colon=True,
            ) from None

    def _line_error(self, finding: str, *, colon: bool = False) -> DataError:
        return self.error(f"line {self._line}{':' if colon else ''} {finding}")

    def _too_long(self, line: int) -> DataError:
        return self.error(f"line {line} is longer than {MOST_LINE_BYTES // 2**20} MiB; split its text")

    def _array_error(self) -> DataError:
        return self._line_error(
            "is a JSON array, but a .jsonl file has one object per line; convert the file, for example with "
            "`jq -c '.[]' array.json > lines.jsonl`"
        )

    def _invalid_json(self, line: str, error: ValueError) -> DataError:
        """Return an error with the parser's message and the most likely cause."""
        if line.lstrip().startswith("["):
            return self._array_error()
        if "\0" in line:
            return self._line_error("contains a NUL byte, so the file is UTF-16 or not text; save it as UTF-8")
        if line.startswith("\ufeff"):
            return self._line_error(
                "begins with a byte order mark, which is allowed only at the beginning of a file; remove it"
            )
        if not isinstance(error, json.JSONDecodeError):
            return self._line_error(f"is not valid JSON ({error})")
        finding = f"is not valid JSON ({error.msg} at character {error.pos + 1:,})"
        if error.msg == "Extra data":
            if "\r" in line[: error.pos]:
                advice = "objects are separated by CR; convert the line ends to LF"
            else:
                advice = "the line contains a second value; write one object per line"
            return self._line_error(f"{finding}: {advice}")
        if error.pos >= len(line.rstrip()):
            return self._line_error(f"{finding}: the line ends within an object; write each object on one line")
        return self._line_error(f"{finding}; write one JSON object per line")


def _values_exceed(line: bytes, most: int) -> bool:
    """Return whether a parser would create more than `most` values from a line; text inside strings is ignored."""
    if line.count(b",") + line.count(b"[") + line.count(b"{") <= most:
        return False
    return sum(1 for _ in islice(_VALUES.finditer(line), most + 1)) > most


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value in words."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "a string" if isinstance(value, str) else "null"
