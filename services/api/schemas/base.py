"""Base classes of everything on the wire: camelCase names, UTC times, requests that refuse unknown keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel


def iso_utc(moment: datetime) -> str:
    """`2026-01-31T12:00:00.123456Z`; a naive time is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


UtcTime = Annotated[datetime, PlainSerializer(iso_utc, return_type=str, when_used="json")]
"""A time that leaves as ISO 8601 in UTC."""


class Reply(BaseModel):
    """A reply body; built from rows by attribute."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        from_attributes=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Request(BaseModel):
    """A request body; an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        str_max_length=100_000,
    )
