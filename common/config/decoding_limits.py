"""What may be asked of the generation of texts: ends of temperature and repetition penalty, size of a request.

Beyond these ends of temperature and penalty float32 overflows on logits that a healthy model gives; they hold wherever
the two are given: a request, a configuration, a call. Leaves out: the schemas that apply them, and what temperature 0
comes to (`common.generation.settings`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

LEAST_TEMPERATURE = 0.001
"""Of tokens that are drawn; temperature 0 asks for the likeliest token instead."""
MOST_TEMPERATURE = 100.0
LEAST_REPETITION_PENALTY = 0.01
MOST_REPETITION_PENALTY = 100.0
MAX_PROMPT_TOKENS = 65_536
"""Tokens of a prompt times its texts in one request to a generator, which holds each of these tokens."""


def check_temperature(value: float) -> float:
    """`value` where it is 0 (always the likeliest token) or within the ends above. ValueError."""
    if value != 0 and not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise ValueError(
            f"temperature {value:g} is not possible; give 0 for the likeliest token, or {LEAST_TEMPERATURE:g} to "
            f"{MOST_TEMPERATURE:g}"
        )
    return value


Temperature = Annotated[float, Field(ge=0, le=MOST_TEMPERATURE), AfterValidator(check_temperature)]
"""A temperature in a request or a configuration."""
