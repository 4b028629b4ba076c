"""Columns of Arrow tables: which may hold text, and the texts in one. Parquet files and data sets of the hub use it.

Text is a string in any of Arrow's layouts (string, large_string, string_view, each also as a dictionary or run-end
encoded), and a column of nulls. Everything else is refused, never printed into the corpus; so are extension types such
as arrow.json, whose strings stand for something else. Needs nothing of pyarrow until it gets a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.datasets.reading.documents import no_field, not_text
from common.errors import DataError


def text_column(schema: Any, field: str, where: str) -> int:
    """Index of the column named `field` in an Arrow schema; DataError when there is none, two, or it holds no text."""
    import pyarrow as pa

    names = list(schema.names)
    if field not in names:
        columns = zip(names, schema.types, strict=True)
        texts = [name for name, kind in columns if _is_text(pa, kind) and not pa.types.is_null(kind)]
        raise no_field(f"{where}: no column", field, names, texts)
    if names.count(field) > 1:
        raise DataError(
            f"{where}: {names.count(field)} columns are called '{field}'; rename them, so that each name is there once"
        )
    index = names.index(field)
    kind = schema.types[index]
    if not _is_text(pa, kind):
        raise not_text(f"{where}: column", field, f"{_words(pa, kind)} ({kind})")
    return index


def texts_of(column: Any, field: str, where: str, first_row: int) -> Iterator[str]:
    """The texts of an Arrow array, nulls left out. `first_row` is the number of its first row, counted from 0."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        # Writers are not held to UTF-8; find the row.
        for row, value in enumerate(column, start=first_row + 1):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where}: row {row:,}: '{field}' is not UTF-8 ({error.reason}); write the column again"
                ) from None
        raise
    yield from (text for text in values if text is not None)


def _is_text(pa: Any, kind: Any) -> bool:
    kind = _plain(pa, kind)
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    )


def _plain(pa: Any, kind: Any) -> Any:
    """The type of the values, whatever they are wrapped in."""
    while pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    return kind


def _words(pa: Any, kind: Any) -> str:
    kind, types = _plain(pa, kind), pa.types
    if types.is_boolean(kind):
        return "true or false"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "a number"
    if types.is_struct(kind) or types.is_map(kind) or types.is_union(kind) or isinstance(kind, pa.BaseExtensionType):
        return "an object"
    if types.is_nested(kind):
        return "a list"
    if types.is_temporal(kind):
        return "a time"
    return "bytes"
