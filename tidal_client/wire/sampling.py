"""The sampling parameters of a generation, with their defaults and bounds.

The api, the engine, `common.generation.settings` and the command line use `SamplingParameters`. `SamplingRequest` adds
the narrower bounds of an HTTP request. For `/v1`, the api uses OpenAI's defaults instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ..vocabulary import NEUTRAL_MODULATION, Gating, GatingMode

MIN_TEMPERATURE: Final = 0.001
"""Lowest temperature other than 0. Temperature 0 does not sample but selects the most likely token."""
MAX_TEMPERATURE: Final = 100.0
MIN_REPETITION_PENALTY: Final = 0.01
MAX_REPETITION_PENALTY: Final = 100.0
"""Limits for temperature and repetition penalty. Beyond them, the logits of a typical model overflow float32."""
MAX_NEW_TOKENS: Final = 4096
"""Largest number of tokens in one completion."""
MAX_TOP_K: Final = 1024
MAX_STOP_STRINGS: Final = 4
MAX_STOP_CHARACTERS: Final = 200


def check_temperature(value: float) -> float:
    """Return `value`. Raises ValueError if it is neither 0 nor between MIN_TEMPERATURE and MAX_TEMPERATURE."""
    if value != 0 and not MIN_TEMPERATURE <= value <= MAX_TEMPERATURE:
        raise ValueError(
            f"temperature {value:g} is not possible; give 0 for the most likely token, or {MIN_TEMPERATURE:g} "
            f"to {MAX_TEMPERATURE:g}"
        )
    return value


Temperature = Annotated[float, Field(ge=0, le=MAX_TEMPERATURE), AfterValidator(check_temperature)]
RepetitionPenalty = Annotated[float, Field(ge=MIN_REPETITION_PENALTY, le=MAX_REPETITION_PENALTY)]
Modulation = Annotated[float, Field(ge=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class SamplingParameters(BaseModel):
    """The sampling parameters of one completion. The bounds allow all values that make a completion possible."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_tokens: int = Field(50, ge=0)
    temperature: Temperature = 0.8
    """0 selects the most likely token each time; any other value must be at least 0.001."""
    top_k: int | None = Field(50, ge=1)
    """Sample only from the topK most likely tokens; null means from all tokens."""
    top_p: float = Field(1.0, ge=0, le=1)
    repetition_penalty: RepetitionPenalty = 1.2
    gating_mode: Gating = GatingMode.NONE
    """With mode `none`, temperature, topK, topP and repetitionPenalty apply as given. With any other mode,
    the modulation of each token determines them."""
    modulation: Modulation = NEUTRAL_MODULATION
    """The modulation of every token if gatingMode is fixed."""
    stop: tuple[str, ...] = ()
    """Stop strings: the completion ends before the first occurrence of any of them."""

    def sampling(self) -> dict[str, Any]:
        """Return {name: value} of all sampling parameters; a `top_p` of None is replaced by the default."""
        values = {name: getattr(self, name) for name in SamplingParameters.model_fields}
        top_p = DEFAULTS.top_p if values["top_p"] is None else values["top_p"]
        return {**values, "top_p": top_p, "stop": tuple(values["stop"])}


DEFAULTS: Final = SamplingParameters()
"""The defaults of all sampling parameters."""


class SamplingRequest(SamplingParameters):
    """The sampling parameters of an HTTP request. Some bounds are narrower than those of `SamplingParameters`."""

    max_tokens: MaxTokens = DEFAULTS.max_tokens
    top_k: TopK | None = DEFAULTS.top_k
    """Sample only from the topK most likely tokens; null means from all tokens."""
    top_p: TopP | None = None  # type: ignore[assignment]  # null means the default
    stop: list[StopString] = Field(default_factory=list, max_length=MAX_STOP_STRINGS)  # type: ignore[assignment]
    """Stop strings: the completion ends before the first occurrence of any of them."""
    seed: Seed | None = None
    """Seed of the random numbers for sampling. An equal request with the same seed gives the same completion."""
