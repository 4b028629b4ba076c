"""The declarative base of all tables: column types for annotations, and names for all constraints."""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ARRAY, BigInteger, DateTime, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base class of all tables. Times are `timestamptz`, strings `text`, structures `jsonb`."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        str: Text(),
        int: BigInteger(),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
    }


def one_of(column: str, values: Iterable[str]) -> str:
    """Return the SQL for a CHECK that `column` is one of `values`.

    The members of a set are listed in the order in which their enumeration defines them.
    """
    listed = [word for word in type(next(iter(values))) if word in values] if isinstance(values, Set) else values
    return f"{column} IN ({', '.join(repr(str(value)) for value in listed)})"
