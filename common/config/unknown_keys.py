"""Rejects mappings with very many unknown keys before pydantic validates them.

The error lists the first MOST_FINDINGS keys and the number of the others, because pydantic takes seconds to create an
error for each of 60,000 keys. The message for an unknown key is in `common.config.loader` and `services.api.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from common.errors import MOST_FINDINGS


def reject_many_unknown_keys(model: type[BaseModel], given: Any) -> None:
    """Raise ValidationError if `given` is a mapping with more than MOST_FINDINGS unknown keys."""
    if not isinstance(given, Mapping) or len(given) <= MOST_FINDINGS:
        return
    known = _names(model)
    unknown = [key for key in given if key not in known]
    if len(unknown) <= MOST_FINDINGS:
        return
    found = [InitErrorDetails(type="extra_forbidden", loc=(str(key),), input=None) for key in unknown[:MOST_FINDINGS]]
    count = len(unknown) - MOST_FINDINGS
    others = PydanticCustomError("left_out", "{count} more findings", {"count": count})
    found.append(InitErrorDetails(type=others, loc=(), input=None))
    raise ValidationError.from_exception_data(model.__name__, found)


def first_of(errors: Sequence[Any]) -> tuple[list[Any], int]:
    """Return the first MOST_FINDINGS pydantic errors, and how many more there are."""
    listed = [item for item in errors if item["type"] != "left_out"]
    counted = sum(item["ctx"]["count"] for item in errors if item["type"] == "left_out")
    return listed[:MOST_FINDINGS], counted + max(0, len(listed) - MOST_FINDINGS)


@lru_cache(maxsize=256)
def _names(model: type[BaseModel]) -> frozenset[str]:
    names = set(model.model_fields)
    for field in model.model_fields.values():
        given = field.validation_alias
        aliases = given.choices if isinstance(given, AliasChoices) else [given, field.alias]
        names |= {alias for alias in aliases if isinstance(alias, str)}
    return frozenset(names)
