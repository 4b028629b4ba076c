"""The base class of all configuration sections, which are immutable and validated on construction.

An unknown key is an error. Numbers must be finite. `true` is not accepted as a number; `1e2` is accepted as an integer.
"""

from __future__ import annotations

import re
import sys
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from common.config.unknown_keys import reject_many_unknown_keys

LARGEST_FLOAT = int(sys.float_info.max)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SWITCH = {"on": "on", "yes": "on", "true": "on", "off": "off", "no": "off", "false": "off"}


def on_or_off(value: Any) -> Any:
    """Return `on` or `off` for a boolean and for words such as `yes`; convert other text to lower case.

    Values of other types are returned unchanged. Fields of type `Literal["on", "off", …]` convert their value with this
    function before pydantic validates it.
    """
    if isinstance(value, bool | str):
        word = str(value).strip().lower()
        return _SWITCH.get(word, word)
    return value


class Section(BaseModel):
    """One section of a configuration file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _reject_many_unknown_keys(cls, given: Any) -> Any:
        reject_many_unknown_keys(cls, given)
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_stored(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans as numbers, integers beyond 64 bits, and text that databases and files cannot store."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool):
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"expected a number, got {str(value).lower()}")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            # A float field accepts larger integers, because PostgreSQL's JSON columns return the float 1e30 as an
            # integer.
            is_valid_float = float in kinds and abs(value) <= LARGEST_FLOAT
            if not is_valid_float:
                raise ValueError("the number does not fit into 64 bits; use a smaller one")
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and "\0" in text:
                raise ValueError("the text contains a NUL character, which cannot be saved; remove it")
            if isinstance(text, str) and not text.isascii() and _LONE_SURROGATE.search(text):
                raise ValueError("the text contains half a surrogate pair, which is not a character; remove it")
        return value
