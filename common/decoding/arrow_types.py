"""Decides which Arrow types are text, and describes the other types in words. Needs pyarrow.

Text is a string in any of Arrow's layouts (string, large_string, string_view, each also dictionary- or run-end-encoded)
or a column of nulls. Extension types such as arrow.json are not text, because their strings have another meaning.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from common.decoding.frames import MOST_NAMES, ColumnSchema


def describe_column(schema: Any, field: str) -> ColumnSchema:
    """Return the description of the column `field` of an Arrow schema, and the names of all columns."""
    names, types = list(schema.names), list(schema.types)
    found = names.count(field)
    kind = types[names.index(field)] if found == 1 else None
    text_columns = [
        name for name, type_ in zip(names, types, strict=True) if is_text(type_) and not pa.types.is_null(type_)
    ]
    return ColumnSchema(
        found=found,
        is_text=kind is not None and is_text(kind),
        kind="" if kind is None else f"{_words(kind)} ({str(kind)[:200]})",
        names=names[:MOST_NAMES],
        texts=text_columns[:MOST_NAMES],
    )


def is_text(kind: Any) -> bool:
    """Return whether a column of this type holds only texts and nulls."""
    kind = plain(kind)
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    )


def plain(kind: Any) -> Any:
    """Return the type of the values without dictionary and run-end encoding."""
    while pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    return kind


def _words(kind: Any) -> str:
    kind, types = plain(kind), pa.types
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
