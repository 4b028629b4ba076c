"""How a text is continued: every sampling parameter with its default and its bounds, written once.

The api, the engine, the settings of a generation and the command line build on `SamplingParameters`. `SamplingRequest`
adds the narrower bounds of a request over HTTP. Leaves out: OpenAI's own defaults under `/v1`, which the api has.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ..vocabulary import NEUTRAL_MODULATION, Gating, GatingMode

LEAST_TEMPERATURE: Final = 0.001
"""Of tokens that are drawn; temperature 0 asks for the likeliest token instead."""
MOST_TEMPERATURE: Final = 100.0
LEAST_REPETITION_PENALTY: Final = 0.01
MOST_REPETITION_PENALTY: Final = 100.0
"""Beyond these ends of temperature and penalty float32 overflows on logits that a healthy model gives."""
MOST_TOKENS: Final = 4096
"""Tokens that one request writes for one text."""
MOST_TOP_K: Final = 1024
MOST_STOP_STRINGS: Final = 4
MOST_STOP_CHARACTERS: Final = 200


def check_temperature(value: float) -> float:
    """`value` where it is 0 (always the likeliest token) or within the ends above. ValueError."""
    if value != 0 and not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise ValueError(
            f"temperature {value:g} is not possible; give 0 for the likeliest token, or {LEAST_TEMPERATURE:g} to "
            f"{MOST_TEMPERATURE:g}"
        )
    return value


Temperature = Annotated[float, Field(ge=0, le=MOST_TEMPERATURE), AfterValidator(check_temperature)]
RepetitionPenalty = Annotated[float, Field(ge=LEAST_REPETITION_PENALTY, le=MOST_REPETITION_PENALTY)]
Modulation = Annotated[float, Field(ge=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
TopK = Annotated[int, Field(ge=1, le=MOST_TOP_K)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=MOST_STOP_CHARACTERS)]


class SamplingParameters(BaseModel):
    """The parameters of one text, within what can be computed."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_tokens: int = Field(50, ge=0)
    temperature: Temperature = 0.8
    """0: the likeliest token each time; otherwise 0.001 or more."""
    top_k: int | None = Field(50, ge=1)
    """null: the full distribution."""
    top_p: float = Field(1.0, ge=0, le=1)
    repetition_penalty: RepetitionPenalty = 1.2
    gating_mode: Gating = GatingMode.NONE
    """none: temperature, topK, topP, repetitionPenalty as given; otherwise they follow the modulation."""
    modulation: Modulation = NEUTRAL_MODULATION
    """For gatingMode fixed."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""

    def sampling(self) -> dict[str, Any]:
        """The sampling parameters by name, to hand on; null stands for the default where a parameter has no null."""
        values = {name: getattr(self, name) for name in SamplingParameters.model_fields}
        top_p = DEFAULTS.top_p if values["top_p"] is None else values["top_p"]
        return {**values, "top_p": top_p, "stop": tuple(values["stop"])}


DEFAULTS: Final = SamplingParameters()
"""Every default."""


class SamplingRequest(SamplingParameters):
    """The parameters in a request over HTTP, within what one request may ask for."""

    max_tokens: MaxTokens = DEFAULTS.max_tokens
    top_k: TopK | None = DEFAULTS.top_k
    """null: the full distribution."""
    top_p: TopP | None = None  # type: ignore[assignment]  # null and the default are one
    stop: list[StopString] = Field(default_factory=list, max_length=MOST_STOP_STRINGS)  # type: ignore[assignment]
    """The text ends before the first of these."""
    seed: Seed | None = None
    """The same seed gives the same text."""
