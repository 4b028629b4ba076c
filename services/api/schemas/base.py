"""Base classes of request bodies: camelCase names; unknown keys and invalid Unicode are rejected.

The types of replies are in `tidal_client.wire`. Query parameters, paths and headers are not checked for invalid
Unicode, because the server decodes them with replacement characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from common.config.unknown_keys import reject_many_unknown_keys


class StrictRequest(BaseModel):
    """A request body. Unknown keys, and invalid Unicode anywhere in the body, are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _text_is_unicode(cls, given: Any) -> Any:
        reject_many_unknown_keys(cls, given)
        # JSON can escape half a surrogate pair (`\ud800`), which cannot be encoded, stored or tokenised.
        found = [
            InitErrorDetails(type=PydanticCustomError("half_surrogate", _HALF_SURROGATE), loc=place, input=None)
            for place in islice(_places_of_half_surrogates(given), 20)
        ]
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return given


class Request(StrictRequest):
    """A request body with camelCase names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, str_max_length=100_000)


_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF_SURROGATE = "contains half of a surrogate pair, which is not a character; send both halves, or neither"
_NOT_SCALAR = (str, dict, list)
Place = tuple[str | int, ...]


def _places_of_half_surrogates(given: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places in a parsed JSON value at which a string or a key contains half of a surrogate pair."""
    if isinstance(given, str):
        if not given.isascii() and _SURROGATE.search(given):
            yield place
    elif isinstance(given, dict):
        for key, value in given.items():
            # Escape half of a surrogate pair in a key, because the error that names the key must be valid Unicode.
            written = str(key).encode("utf-8", "backslashreplace").decode()
            if written != key and isinstance(key, str):
                yield (*place, written)
            yield from _places_of_half_surrogates(value, (*place, written))
    elif isinstance(given, list):
        for number, item in enumerate(given):
            if isinstance(item, _NOT_SCALAR):
                yield from _places_of_half_surrogates(item, (*place, number))
