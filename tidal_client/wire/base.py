"""Base types of all replies: camelCase names, UTC times, and enumerations to which a later version may add values.

The base type of requests is in `services.api.schemas.base`, because only the api validates them.
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
"""A time, serialised as ISO 8601 in UTC."""


R = TypeVar("R", bound="Reply")


class Reply(BaseModel):
    """A reply body. Unknown keys are ignored, because an older client must understand a newer api.

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
    """Annotates an enumeration or Literal to which a later api may add values; an unknown value is accepted unchanged.

    The JSON schema lists only the values of this version.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that accepts the known values and every other string."""
        make = _member_factory(source) if isinstance(source, type) and issubclass(source, StrEnum) else str

        def accept_unknown(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
            try:
                return validate(value)
            except ValidationError:
                if isinstance(value, str):
                    return make(value)
                raise

        return core_schema.no_info_wrap_validator_function(
            accept_unknown, handler(source), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _member_factory(enum_type: type[StrEnum]) -> Callable[[str], StrEnum]:
    """Return a function that takes an unknown value and creates a member of `enum_type` with this value and name."""

    def make(value: str) -> StrEnum:
        member = str.__new__(enum_type, value)
        member._name_ = member._value_ = value
        return member

    return make


KnownStatus = Annotated[JobStatus, OpenEnum()]
KnownType = Annotated[JobType, OpenEnum()]
KnownSignal = Annotated[Signal, OpenEnum()]


def extend_reply(reply_type: type[R], reply: Reply, **fields: Any) -> R:
    """Convert `reply` to the subclass `reply_type` of its type by adding `fields`. The result is not validated."""
    return cast(R, reply_type.model_construct(**dict(reply), **fields))
