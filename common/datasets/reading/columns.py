"""Checks that a column of a table holds text, and reads the texts of an Arrow column in memory.

The module is used for Hugging Face datasets. A column of another type is rejected, never converted to text. Types are
classified in `common.decoding.arrow_types`. Parquet files are decoded in a child process (`parquet`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from common.datasets.reading.documents import no_field, not_text
from common.decoding.frames import ColumnSchema
from common.errors import DataError

SLICE_BYTES = 8 * 1024 * 1024
"""Largest number of bytes of a column that are converted to Python strings in one step."""


def text_column(schema: Any, field: str, where: str) -> None:
    """Raise DataError unless an Arrow schema has exactly one column `field` and this column holds text."""
    from common.decoding.arrow_types import describe_column

    _require_text(describe_column(schema, field), field, where)


def require_text(schema: bytes | bytearray, field: str, where: str) -> None:
    """Raise DataError like `text_column`, for a schema that the decoding child process sent."""
    _require_text(json.loads(schema), field, where)


def _require_text(schema: ColumnSchema, field: str, where: str) -> None:
    found = schema["found"]
    if found == 0:
        raise no_field(f"{where}: no column", field, schema["names"], schema["texts"])
    if found > 1:
        raise DataError(f"{where}: {found} columns are called '{field}'; rename them so that each name is unique")
    if not schema["is_text"]:
        raise not_text(f"{where}: column", field, schema["kind"])


def texts_of(column: Any, field: str, where: str, first_row: int) -> Iterator[str]:
    """Yield the texts of an Arrow array except nulls. `first_row` is the number of its first row, counted from 0."""
    for part in _slices(column):
        yield from _texts(part, field, where, first_row)
        first_row += len(part)


def _values(column: Any) -> list[str | None]:
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    # Convert each dictionary entry only once, however often it is repeated.
    entries = column.dictionary.to_pylist()
    return [None if index is None else entries[index] for index in column.indices.to_pylist()]


def _slices(column: Any) -> Iterator[Any]:
    """Yield the column in parts of at most SLICE_BYTES; a row or a dictionary array is not split further."""
    for chunk in getattr(column, "chunks", ()):
        yield from _slices(chunk)
    if hasattr(column, "chunks"):
        return
    if len(column) < 2 or hasattr(column, "dictionary") or column.nbytes <= SLICE_BYTES:
        yield column
        return
    half = len(column) // 2
    yield from _slices(column.slice(0, half))
    yield from _slices(column.slice(half))


def _texts(column: Any, field: str, where: str, first_row: int) -> Iterator[str]:
    try:
        values = _values(column)
    except UnicodeDecodeError:
        # Writers may store invalid UTF-8. Find the row for the error message.
        for row, value in enumerate(column, start=first_row + 1):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where}: row {row:,}: '{field}' is not UTF-8 ({error.reason}); "
                    "encode the column as UTF-8 and write the file again"
                ) from None
        raise
    yield from (text for text in values if text is not None)
