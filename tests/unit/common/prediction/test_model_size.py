"""Parameters and FLOPs of a model, compared with numbers counted by hand and with real models."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import ModelConfig
from common.model import TransformerLM
from common.prediction.model_size import flops_per_token, matmul_parameters, parameters
from tests.unit.common.model.architectures import ALONE, GATED, MODERN


def test_the_default_model_has_30_623_057_parameters() -> None:
    assert parameters(ModelConfig()) == 30_623_057


@pytest.mark.parametrize(
    "shape",
    [
        {"d_model": 8, "num_heads": 2, "num_layers": 1, "ffn_dim": 12, "vocab_size": 11, "gate_hidden_dim": 3},
        {"d_model": 24, "num_heads": 4, "num_layers": 3, "ffn_dim": 7, "vocab_size": 101},
        *({"d_model": 8, "num_heads": 2, "ffn_dim": 12, "vocab_size": 11, **each} for each in (*ALONE, MODERN, GATED)),
    ],
    ids=str,
)
def test_the_count_is_that_of_a_real_model(shape: dict[str, Any]) -> None:
    config = ModelConfig.model_validate(shape)
    assert parameters(config) == TransformerLM(config).num_parameters


def test_six_flops_per_matrix_weight_and_half_of_the_square_of_attention() -> None:
    model = ModelConfig(d_model=8, num_heads=2, num_layers=3, ffn_dim=10, vocab_size=100, context_length=16)
    # Per layer 4 * 64 + 2 * 80 = 416 weights, three layers and a head of 800: 2,048.
    assert matmul_parameters(model) == 2048
    # Attention: 12 * 3 layers * 8 channels * 16 positions / 2 = 2,304.
    assert flops_per_token(model) == 6 * 2048 + 2304
    assert flops_per_token(model, 4) == 6 * 2048 + 576
