"""The base of every configuration section: frozen, typed, checked on construction, an unknown key is an error.

Numbers are finite, and `true` is no number. Whole numbers may be written as `1e2`.
"""

from __future__ import annotations

import re
import sys
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from common.config.unknown_keys import refuse_crowd

LARGEST = int(sys.float_info.max)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_SWITCH = {"on": "on", "yes": "on", "true": "on", "off": "off", "no": "off", "false": "off"}


def on_or_off(value: Any) -> Any:
    """`on` and `off` for the words and booleans that mean them, in any case; anything else in lower case or as it is.

    A validator to put before `Literal["on", "off", …]`.
    """
    if isinstance(value, bool | str):
        word = str(value).strip().lower()
        return _SWITCH.get(word, word)
    return value


class Section(BaseModel):
    """One block of a YAML file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_crowd_of_unknown_keys(cls, given: Any) -> Any:
        refuse_crowd(cls, given)
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses `true` for a number, numbers beyond 64 bits, and text that no database and no file can hold."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool):
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"a number is needed, got {str(value).lower()}")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63 and (float not in kinds or abs(value) > LARGEST):
            # A column of JSON gives 1e30 back as a whole number, which a field of type float takes.
            raise ValueError("the number does not fit into 64 bits")
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and "\0" in text:
                raise ValueError("the text holds a NUL character, which cannot be saved; leave it out")
            if isinstance(text, str) and not text.isascii() and _HALF_PAIR.search(text):
                raise ValueError("the text holds half a surrogate pair, which is no character; leave it out")
        return value
