"""Small models with distinct logits and gates that respond to modulation."""

from __future__ import annotations

from typing import Any

import torch

from common.model import ModelConfig, TransformerLM

END_OF_TEXT = 50256


def model_of(*, vocab_size: int = 50257, gates_trained: bool = True, **architecture: Any) -> TransformerLM:
    """Return a seeded model for which end-of-text is never the most likely token."""
    torch.manual_seed(5)
    shape = {"d_model": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 40, "context_length": 40, "name": "mini"}
    config = ModelConfig.model_validate({"vocab_size": vocab_size, **shape, **architecture})
    model = TransformerLM(config)
    with torch.no_grad():
        model.output_projection.weight.mul_(40 if config.bias else 20)
        if vocab_size > END_OF_TEXT:
            if config.bias:
                model.output_projection.bias[END_OF_TEXT] = -50.0
            else:
                model.output_projection.weight[END_OF_TEXT] = 0.0
        for gate in model.gates:
            gate.net[-1].get_parameter("weight").normal_(std=1.0)
    model.gates_trained = gates_trained and config.gates
    return model.eval()
