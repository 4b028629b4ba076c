"""The base of every configuration section: frozen, typed, checked on construction, an unknown key is an error.

Numbers are finite, and `true` is no number. Whole numbers may be written as `1e2`.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

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

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            annotation = cls.model_fields[info.field_name or ""].annotation
            kinds = {annotation, *get_args(annotation)}
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"a number is needed, got {str(value).lower()}")
        return value
