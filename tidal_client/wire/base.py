"""The base of everything that the api sends: camelCase names, UTC times, words that a later version may add to.

Leaves out: requests, whose rules are the api's alone (`services.api.schemas.base`).
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
"""A time that leaves as ISO 8601 in UTC."""


R = TypeVar("R", bound="Reply")


class Reply(BaseModel):
    """A reply body. Unknown keys are ignored, so that an older client understands a newer api.

    The api builds replies from rows by attribute.
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


class Open:
    """Marks an enumeration or Literal to which a later api may add words: an unknown one is read as it is.

    The JSON schema lists the words that are known today.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the words, which lets through every other text."""
        make = _new_word(source) if isinstance(source, type) and issubclass(source, StrEnum) else str

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


def _new_word(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    """Makes members of `kind` that it does not list, so that whoever asks for `value` or `name` finds them."""

    def make(value: str) -> StrEnum:
        word = str.__new__(kind, value)
        word._name_ = word._value_ = value
        return word

    return make


KnownStatus = Annotated[JobStatus, Open()]
KnownType = Annotated[JobType, Open()]
KnownSignal = Annotated[Signal, Open()]


def extended(kind: type[R], reply: Reply, **fields: Any) -> R:
    """Return `reply` as the larger type `kind`, with the `fields` that it adds. Nothing is validated a second time."""
    return cast(R, kind.model_construct(**dict(reply), **fields))
