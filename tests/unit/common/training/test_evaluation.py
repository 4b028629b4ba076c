"""The validation loss is the mean over the held-out tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.config import EvaluationConfig, ModelConfig, TrainingConfig
from common.model import TransformerLM
from common.training.device import prepare_compute
from common.training.evaluation import perplexity, validation_loss

SMALL = ModelConfig(vocab_size=300, d_model=16, num_layers=1, num_heads=2, ffn_dim=32, context_length=8)


@pytest.mark.parametrize(("batch_size", "max_batches", "chunks"), [(2, None, 5), (3, 1, 3), (64, None, 5)])
def test_the_validation_loss_is_the_mean_over_all_full_chunks(
    batch_size: int, max_batches: int | None, chunks: int
) -> None:
    torch.manual_seed(0)
    model = TransformerLM(SMALL)
    tokens = np.random.default_rng(0).integers(0, 300, 5 * 9 + 4).astype(np.uint16)
    config = EvaluationConfig(batch_size=batch_size, max_batches=max_batches)
    compute = prepare_compute(TrainingConfig(device="cpu", threads=1))
    found = validation_loss(model, tokens, config, compute)
    assert model.training, "the mode is put back"
    model.eval()
    rows = torch.from_numpy(tokens[: chunks * 9].astype(np.int64)).view(chunks, 9)
    expected = functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert found == pytest.approx(expected.item(), abs=1e-5)


def test_validation_can_be_stopped_between_batches() -> None:
    answers = iter([True, False])
    tokens = np.zeros(100, dtype=np.uint16)
    compute = prepare_compute(TrainingConfig(device="cpu", threads=1))
    config = EvaluationConfig(batch_size=1)
    assert validation_loss(TransformerLM(SMALL), tokens, config, compute, keep_going=lambda: next(answers)) is None


def test_perplexity_is_the_exponential_and_never_fails() -> None:
    assert perplexity(math.log(20.0)) == pytest.approx(20.0)
    assert perplexity(10_000.0) is None
