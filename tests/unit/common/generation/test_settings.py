"""Generation settings have the api's defaults, and impossible values raise InvalidInputError."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import InvalidInputError
from common.generation import GenerationSettings
from common.redis.generation_request import GenerationRequest
from services.api.schemas.generate import GenerateRequest
from tidal_client.vocabulary import GatingMode
from tidal_client.wire.sampling import DEFAULTS, SamplingParameters


def test_the_defaults_are_the_same_from_the_request_to_the_engine() -> None:
    request = GenerateRequest(checkpoint="exp/final")
    forwarded = GenerationRequest.model_validate_json(
        GenerationRequest(id="gen_1.1", checkpoint="exp/model.pth", prompt="", **request.sampling()).model_dump_json()
    )
    settings = GenerationSettings(**forwarded.sampling())
    expected = {"max_tokens": 50, "temperature": 0.8, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.2}
    expected |= {"gating_mode": GatingMode.NONE, "modulation": 0.5, "stop": ()}
    for parameters in (DEFAULTS, request, forwarded, settings):
        assert parameters.sampling() == expected
    assert set(expected) == set(SamplingParameters.model_fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": -1}, "max_tokens -1 is below 0"),
        ({"top_k": 0}, "top_k 0 is below 1; leave it out for no limit"),
        ({"top_p": 1.5}, "top_p 1.5 is outside 0..1"),
        ({"modulation": -0.5}, "modulation -0.5 is outside 0..1"),
        ({"repetition_penalty": 101.0}, "repetition_penalty 101 is outside 0.01..100"),
        ({"temperature": 200.0}, "temperature 200 is not possible; give 0 for the most likely token, or 0.001 to 100"),
        ({"temperature": 0.0001}, "temperature 0.0001 is not possible"),
        ({"gating_mode": "wild"}, "gating mode 'wild' is not one of none, fixed, random, learned"),
        ({"top_log_probs": 21}, "top_log_probs 21 is outside 0..20"),
        ({"stop": ("",)}, "stop contains an empty string"),
        ({"temprature": 1.0}, "temprature: Extra inputs are not permitted"),
    ],
)
def test_an_impossible_setting_is_refused_with_its_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        GenerationSettings(**values)
    assert caught.value.message.startswith(message)


def test_settings_allow_more_than_a_request_over_http() -> None:
    assert GenerationSettings(max_tokens=5000, top_k=5000, top_p=0, stop=("a",) * 5).max_tokens == 5000
    for values in ({"maxTokens": 5000}, {"topK": 5000}, {"topP": 0}, {"stop": ["a"] * 5}, {"maxTokens": 0}):
        with pytest.raises(ValueError, match="validation error for GenerateRequest"):
            GenerateRequest.model_validate({"checkpoint": "exp/final", **values})
