"""Tiny models and a tokeniser whose tokens are bytes."""

from __future__ import annotations

from typing import Any

import pytest
import tiktoken
import torch

from common.controller import GatingPolicy
from common.model import ModelConfig, TransformerLM

END_OF_TEXT = 256
VOCABULARY = 257


@pytest.fixture(scope="session")
def tokenizer() -> tiktoken.Encoding:
    """Return a tokeniser with a token for each byte and a token for end-of-text."""
    ranks = {bytes([value]): value for value in range(256)}
    return tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": END_OF_TEXT}
    )


def tiny_model(
    *,
    context_length: int = 24,
    gates_trained: bool = False,
    end_of_text_bias: float = -20.0,
    d_model: int = 48,
    **architecture: Any,
) -> TransformerLM:
    """Return a seeded model with distinct logits and gates that react to modulation.

    End-of-text is unlikely by default. A model without biases has a head whose weight for it is 0 instead.
    """
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "d_model": d_model, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}
    config = ModelConfig.model_validate({**shape, "context_length": context_length, **architecture})
    model = TransformerLM(config)
    with torch.no_grad():
        model.output_projection.weight.mul_(30)
        if config.bias:
            model.output_projection.bias[END_OF_TEXT] = end_of_text_bias
        else:
            model.output_projection.weight[END_OF_TEXT] = 0.0
        for gate in model.gates:
            gate.net[-1].get_parameter("weight").normal_(std=0.5)
    model.gates_trained = gates_trained
    return model.eval()


def reacting_policy() -> GatingPolicy:
    """Return a seeded policy whose actions depend strongly on the observation."""
    torch.manual_seed(1)
    policy = GatingPolicy().eval()
    assert policy.actor_head is not None
    torch.nn.init.normal_(policy.get_parameter("actor_head.2.weight"), std=1.5)
    return policy
