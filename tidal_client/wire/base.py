"""Base types of all replies: camelCase names, UTC times, and enumerations to which a later version may add words.

Leaves out: requests, which only the api validates (`services.api.schemas.base`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from ..vocabulary import JobStatus, JobType, Signal, utc_text

UtcTime = Annotated[datetime, PlainSerializer(utc_text, return_type=str, when_used="json")]
"""A time that is serialised as ISO 8601 in UTC."""


R = TypeVar("R", bound="Reply")


class Reply(BaseModel):
    """A reply body. Unknown keys are ignored, so that an older client understands a newer api.

    The api builds replies from the attributes of database rows.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        from_attributes=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        extra="ignore",
        frozen=True,
    )


class OpenEnum:
    """Annotates an enumeration or Literal to which a later api may add words; an unknown word is accepted unchanged.

    The JSON schema lists the words of this version.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that accepts the known words and every other text."""
        make = _member_factory(source) if isinstance(source, type) and issubclass(source, StrEnum) else str

        def known_or_new(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
            try:
                return known(value)
            except ValidationError:
                if isinstance(value, str):
                    return make(value)
                raise

        return core_schema.no_info_wrap_validator_function(
            known_or_new, handler(source), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _member_factory(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    """Return a function that creates a member of `kind`, with `value` and `name`, for an unknown word."""

    def make(value: str) -> StrEnum:
        word = str.__new__(kind, value)
        word._name_ = word._value_ = value
        return word

    return make


KnownStatus = Annotated[JobStatus, OpenEnum()]
KnownType = Annotated[JobType, OpenEnum()]
KnownSignal = Annotated[Signal, OpenEnum()]


def extend_reply(kind: type[R], reply: Reply, **fields: Any) -> R:
    """Return `reply` as the larger type `kind`, with the `fields` that it adds. Nothing is validated a second time."""
    return cast(R, kind.model_construct(**dict(reply), **fields))
