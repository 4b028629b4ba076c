"""The operations that `bench.products` counts are those that torch counts in a forward and backward pass."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from bench.products import operations_per_token, product_rate, product_shapes
from common.config import ModelConfig
from common.model import TransformerLM

SHAPE = ModelConfig(vocab_size=131, d_model=16, num_layers=2, num_heads=2, ffn_dim=40, context_length=12, dropout=0.0)


def test_products_are_those_of_a_training_step() -> None:
    torch.set_num_threads(1)
    model = TransformerLM(SHAPE).eval()
    ids = torch.randint(0, SHAPE.vocab_size, (3, SHAPE.context_length))
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(cross_entropy(model(ids).flatten(0, 1), ids.flatten()))
    counts = counter.get_flop_counts()["Global"]
    counted = sum(count for operation, count in counts.items() if "mm" in str(operation))
    products = sum(2 * n * k * m for n, k, m in product_shapes(SHAPE, ids.numel()))
    # Each matrix product of the forward pass needs two in the backward pass. This includes the first one, because its
    # input is an embedding with a gradient.
    assert products == counted
    attention = 6 * SHAPE.num_layers * SHAPE.context_length * SHAPE.d_model
    assert operations_per_token(SHAPE) * ids.numel() == products + attention * ids.numel()


def test_a_rate_is_positive_and_finite() -> None:
    assert 0.0 < product_rate(torch.device("cpu"), [(8, 8, 8), (8, 4, 8), (8, 8, 8)]) < 1e16
