"""A request for several choices: its prompt is processed only once, and its number of tokens is limited."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from common.config.decoding_limits import MAX_PROMPT_TOKENS
from common.errors import InvalidInputError
from common.generation import DecodingModel
from common.model import ModelConfig, TransformerLM
from common.redis.generation_request import GenerationRequest
from services.generator.running_request import RunningRequest

MODEL = DecodingModel(TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=8)))
torch.set_num_threads(1)


def running(**fields: Any) -> RunningRequest:
    return RunningRequest(GenerationRequest(id="r", checkpoint="c", **fields), MODEL, None, total_seconds=60.0)


def test_the_prompt_of_several_choices_is_encoded_and_scored_once() -> None:
    choices = running(prompt="Once upon a time", n=3, echo=True, log_probs=True, seed=4).choices
    assert choices[0].result.prompt_token_ids == [7454, 2402, 257, 640]
    assert len({id(choice.result.prompt_token_ids) for choice in choices}) == 1
    assert [choice.settings.score_prompt for choice in choices] == [True, False, False]
    assert [choice.seed for choice in choices] == [4, 5, 6]


def test_the_prompt_tokens_of_all_choices_are_limited() -> None:
    assert len(running(prompt=[5] * (MAX_PROMPT_TOKENS // 64), n=64).choices) == 64
    with pytest.raises(
        InvalidInputError, match=r"1,025 tokens, which is 65,600 for 64 choices; .* 65,536: shorten the prompt or"
    ):
        running(prompt=[5] * (MAX_PROMPT_TOKENS // 64 + 1), n=64)
    with pytest.raises(InvalidInputError, match="65,537 tokens; "):
        running(prompt=[5] * (MAX_PROMPT_TOKENS + 1))
