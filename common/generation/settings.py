"""Settings of a generation, checked on construction, and the effective settings that follow from them."""

from __future__ import annotations

import math
from typing import Any

from annotated_types import Ge, Le
from pydantic import ConfigDict, ValidationError

from common.config import ModulationConfig
from common.controller import OBSERVATION_DIM, DecodingParameters, GatingPolicy, decoding_parameters
from common.controller.modulation import DEFAULT_MODULATION
from common.errors import InvalidInputError
from common.generation.result import EffectiveSettings
from tidal_client.vocabulary import GatingMode
from tidal_client.wire.sampling import (
    MAX_REPETITION_PENALTY,
    MAX_TEMPERATURE,
    MIN_REPETITION_PENALTY,
    MIN_TEMPERATURE,
    SamplingParameters,
    check_temperature,
)

MAX_TOP_LOG_PROBS = 20


class GenerationSettings(SamplingParameters):
    """The settings of one generated sequence; the defaults are those of the API.

    `modulation_config`: the modulation map; None means the policy's own map in mode `learned`, else the default map.
    `sample_actions`: whether the learned modulation is sampled; otherwise it is the policy's deterministic action.
    `episode_length`: entry 58 of the observation is the number of tokens divided by this; None means `max_tokens`.
    `ignore_end_of_text`: whether generation continues after the end-of-text token.
    `stop`: strings at which the text ends; the string that is found first is not part of the text.
    `top_log_probs`: number of most likely tokens that are returned with each token.
    `score_prompt`: whether log-probabilities of the tokens of the prompt are returned, too.
    `presence_penalty`, `frequency_penalty`, `logit_bias` (pairs of token and value): as in OpenAI's API, see
    `sampling.logit_adjustments`.
    `max_tokens`: largest number of generated tokens; with 0 the prompt is only read.
    `temperature`: with 0 the most likely token is always taken (top-k 1 at a temperature of 1).

    The constructor raises InvalidInputError for values out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    policy: GatingPolicy | None = None
    modulation_config: ModulationConfig | None = None
    sample_actions: bool = False
    episode_length: int | None = None
    ignore_end_of_text: bool = False
    top_log_probs: int = 0
    score_prompt: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidInputError(_validation_message(error)) from None
        if self.gating_mode is GatingMode.LEARNED and self.policy is None:
            raise InvalidInputError("gating mode learned needs a controller; give a policy, or choose another mode")
        if self.policy is not None and self.policy.observation_dim != OBSERVATION_DIM:
            raise InvalidInputError(
                f"the controller needs {self.policy.observation_dim} observed values, but gets {OBSERVATION_DIM}. "
                "Choose a controller that was trained with this version"
            )
        if self.gating_mode is not GatingMode.NONE:
            _check_map(self.modulation_map)
        if "" in self.stop:
            raise InvalidInputError("stop contains an empty string, which every text contains; remove it")
        if not 0 <= self.top_log_probs <= MAX_TOP_LOG_PROBS:
            raise InvalidInputError(f"top_log_probs {self.top_log_probs} is outside 0..{MAX_TOP_LOG_PROBS}")
        adjustments = [self.presence_penalty, self.frequency_penalty, *(value for _, value in self.logit_bias)]
        if not all(map(math.isfinite, adjustments)):
            raise InvalidInputError("presence_penalty, frequency_penalty and logit_bias must be finite numbers")

    @property
    def plain_parameters(self) -> DecodingParameters:
        """Temperature, top-k, top-p and repetition penalty of mode `none`, as they are applied."""
        if self.temperature == 0:
            return DecodingParameters(1.0, 1, self.top_p, self.repetition_penalty)
        return DecodingParameters(self.temperature, self.top_k, self.top_p, self.repetition_penalty)

    @property
    def modulation_map(self) -> ModulationConfig:
        """The modulation map that the modes other than `none` use."""
        if self.modulation_config is not None:
            return self.modulation_config
        if self.gating_mode is GatingMode.LEARNED and self.policy is not None:
            return self.policy.modulation_config
        return DEFAULT_MODULATION

    def effective(self, seed: int, *, gates_fed: bool, backend: str = "torch") -> EffectiveSettings:
        """Return the effective settings of a sequence with this seed that `backend` computes."""
        parameters: DecodingParameters | None = None
        if self.gating_mode is GatingMode.NONE:
            parameters = self.plain_parameters
        elif self.gating_mode is GatingMode.FIXED:
            parameters = decoding_parameters(self.modulation, self.modulation_map)
        return EffectiveSettings(
            gating_mode=self.gating_mode,
            max_tokens=self.max_tokens,
            seed=seed,
            modulation=self.modulation if self.gating_mode is GatingMode.FIXED else None,
            temperature=parameters.temperature if parameters else None,
            top_k=parameters.top_k if parameters else None,
            top_p=parameters.top_p if parameters else None,
            repetition_penalty=parameters.repetition_penalty if parameters else None,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            modulation_config=None if self.gating_mode is GatingMode.NONE else self.modulation_map,
            gates_fed=gates_fed,
            backend=backend,
        )


def _validation_message(error: ValidationError) -> str:
    """Return a message for the first error, with the name and value of the field and the allowed values."""
    first = error.errors()[0]
    name, value = str(first["loc"][0]), first["input"]
    if name == "gating_mode":
        return f"gating mode {str(value)!r} is not one of {', '.join(GatingMode)}"
    if name == "temperature" and isinstance(value, int | float):
        try:
            check_temperature(value)
        except ValueError as reason:
            return str(reason)
    field = GenerationSettings.model_fields.get(name)
    ends = {type(end): end for end in field.metadata} if field is not None else {}
    if first["type"] in ("greater_than_equal", "less_than_equal") and Ge in ends:
        if Le in ends:
            return f"{name} {value:g} is outside {ends[Ge].ge:g}..{ends[Le].le:g}"
        hint = "; leave it out for no limit" if name == "top_k" else ""
        return f"{name} {value} is below {ends[Ge].ge:g}{hint}"
    return f"{name}: {first['msg']}"


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidInputError(f"{name} {value:g} is outside {least:g}..{most:g}")


def _check_map(ranges: ModulationConfig) -> None:
    """Raise InvalidInputError if a modulation maps to a decoding parameter outside the limits for requests."""
    for value in (ranges.temperature.low, ranges.temperature.high):
        reached = value * ranges.base_temperature
        _check_range("modulation_config: temperature", reached, MIN_TEMPERATURE, MAX_TEMPERATURE)
    for value in (ranges.repetition_penalty.low, ranges.repetition_penalty.high):
        reached = value * ranges.base_repetition_penalty
        name = "modulation_config: repetition penalty"
        _check_range(name, reached, MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY)
