"""Is an upload a corpus? Checked and counted while it streams by, in constant memory.

A check is fed bytes and says at the end how many documents there were; DataError names the line or byte that is wrong.
The rules are those of the reader, `common.data.source`. Parquet keeps its table of contents at the end, so it is
looked at when it is whole, and only where pyarrow is installed.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Protocol

from common.errors import DataError

END_OF_TEXT = "<|endoftext|>"
MOST_LINE_BYTES = 64 * 1024 * 1024
BOM = codecs.BOM_UTF8


class Check(Protocol):
    """Looks at what goes by."""

    def feed(self, data: bytes) -> None:
        """The next bytes; DataError."""
        ...

    def finish(self) -> int | None:
        """Documents with text in them, None where nobody knows yet; DataError."""
        ...


class TextCheck:
    """UTF-8 with `<|endoftext|>` between documents."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._done = 0
        self._tail = ""
        """The last characters, which may begin a separator."""
        self._open = False
        """The document that goes on has text."""
        self._documents = 0

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        pending = len(self._decoder.getstate()[0])
        self._decode(data, self._done - pending, final=False)
        self._done += len(data)

    def finish(self) -> int:
        """Documents."""
        self._decode(b"", self._done - len(self._decoder.getstate()[0]), final=True)
        if self._open or self._tail.strip("\ufeff \t\r\n"):
            self._documents += 1
        return _some(self._documents)

    def _decode(self, data: bytes, offset: int, *, final: bool) -> None:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 text: byte {offset + error.start + 1:,} ({error.reason}); convert the file first"
            ) from None
        *ended, rest = (self._tail + text).split(END_OF_TEXT)
        for document in ended:
            self._documents += self._open or bool(document.strip("\ufeff \t\r\n"))
            self._open = False
        keep = len(END_OF_TEXT) - 1
        self._open = self._open or bool(rest[:-keep].strip("\ufeff \t\r\n"))
        self._tail = rest[-keep:]


class JsonLinesCheck:
    """One JSON object per line, with text in `text_field`."""

    def __init__(self, text_field: str) -> None:
        self._field = text_field
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._line = 0
        self._documents = 0

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest, self._rest_bytes = [], 0
            for line in lines:
                self._check(line)
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        if self._rest_bytes > MOST_LINE_BYTES:
            raise DataError(f"line {self._line + 1} is longer than {MOST_LINE_BYTES // 2**20} MiB; split it")

    def finish(self) -> int:
        """Documents."""
        self._check(b"".join(self._rest))
        return _some(self._documents)

    def _check(self, line: bytes) -> None:
        self._line += 1
        if self._line == 1:
            line = line.removeprefix(BOM)
        if not line.strip():
            return
        try:
            text = json.loads(line.decode("utf-8"))[self._field]
        except UnicodeDecodeError as error:
            raise DataError(f"line {self._line} is not UTF-8 ({error.reason}); convert the file first") from None
        except ValueError as error:
            raise DataError(f"line {self._line} is no JSON ({error})") from None
        except RecursionError:
            raise DataError(f"line {self._line} is nested too deeply") from None
        except (KeyError, TypeError, IndexError):
            raise DataError(
                f"line {self._line} has no field '{self._field}'; name the field that holds the text as textField"
            ) from None
        if not isinstance(text, str):
            raise DataError(f"line {self._line}: '{self._field}' is {type(text).__name__}, expected text")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise DataError(f"line {self._line}: '{self._field}' holds half a surrogate pair, which is no character")
        self._documents += bool(text.strip())


class ParquetCheck:
    """Bytes go by unread; the finished file is looked at."""

    def __init__(self, path: Path, text_field: str) -> None:
        self._path, self._field = path, text_field

    def feed(self, data: bytes) -> None:
        """Nothing to see yet."""

    def finish(self) -> int | None:
        """Documents; None without pyarrow, then the job that tokenises finds what is wrong."""
        with self._path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise DataError("not a parquet file: it does not begin with PAR1")
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            return None
        documents = 0
        try:
            with pq.ParquetFile(self._path) as file:
                schema = file.schema_arrow
                if self._field not in schema.names:
                    raise DataError(
                        f"no column '{self._field}' (it has {', '.join(schema.names)}); "
                        "name the column that holds the text as textField"
                    )
                kind = schema.field(self._field).type
                plain = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
                    raise DataError(f"column '{self._field}' is {kind}, expected text")
                for batch in file.iter_batches(batch_size=1024, columns=[self._field]):
                    documents += sum(bool(text and text.strip()) for text in batch.column(0).to_pylist())
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise DataError(f"not a readable parquet file ({str(error)[:200]})") from None
        return _some(documents)


def check_for(kind: str, text_field: str, path: Path) -> Check:
    """The check of a format; `path` is where the bytes come to lie."""
    if kind == "txt":
        return TextCheck()
    return JsonLinesCheck(text_field) if kind == "jsonl" else ParquetCheck(path, text_field)


def _some(documents: int) -> int:
    if documents == 0:
        raise DataError("there is no text in it")
    return documents
