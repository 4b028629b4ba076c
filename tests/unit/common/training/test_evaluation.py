"""The validation loss is the mean over the held-out tokens; bits per byte count the bytes of the predicted tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.config import EvaluationConfig, ModelConfig, TrainingConfig
from common.data import gpt2_vocabulary, load_tokenizer
from common.model import TransformerLM
from common.training.device import prepare_compute
from common.training.evaluation import Validation, validate

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
    found = validate(model, tokens, config, compute)
    assert found is not None and model.training, "the mode is put back"
    model.eval()
    rows = torch.from_numpy(tokens[: chunks * 9].astype(np.int64)).view(chunks, 9)
    expected = functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert found.loss == pytest.approx(expected.item(), abs=1e-5)


def test_validation_can_be_stopped_between_batches() -> None:
    answers = iter([True, False])
    tokens = np.zeros(100, dtype=np.uint16)
    compute = prepare_compute(TrainingConfig(device="cpu", threads=1))
    config = EvaluationConfig(batch_size=1)
    assert validate(TransformerLM(SMALL), tokens, config, compute, keep_going=lambda: next(answers)) is None


def test_perplexity_is_the_exponential_and_never_fails() -> None:
    assert Validation(math.log(20.0), 1.0).perplexity == pytest.approx(20.0)
    assert Validation(10_000.0, 1.0).perplexity is None
    assert "Perplexity/Validation" not in Validation(10_000.0, 1.0).metrics()


def uniform_model(context_length: int) -> TransformerLM:
    """Return a model that gives each of the 50,257 tokens the same probability."""
    config = ModelConfig(d_model=4, num_layers=1, num_heads=2, ffn_dim=8, context_length=context_length)
    model = TransformerLM(config)
    for parameter in (model.output_projection.weight, model.output_projection.bias):
        torch.nn.init.zeros_(parameter)
    return model


def validated(tokens: list[int], *, context_length: int, batch_size: int = 2) -> Validation:
    compute = prepare_compute(TrainingConfig(device="cpu", threads=1))
    config = EvaluationConfig(batch_size=batch_size)
    found = validate(uniform_model(context_length), np.array(tokens, np.uint16), config, compute)
    assert found is not None
    return found


def test_bits_per_byte_of_a_tiny_text_equal_the_value_computed_by_hand() -> None:
    # The predicted tokens are " ate" (4 bytes), " café" (6, because é has two), "." (1) and end of text (0).
    text = "Tom ate café."
    tokens = [*load_tokenizer().encode(text), gpt2_vocabulary().end_of_text_id]
    assert [load_tokenizer().decode([token]) for token in tokens[:-1]] == ["Tom", " ate", " café", "."]
    found = validated(tokens, context_length=16)
    assert found.loss == pytest.approx(math.log(50257), rel=1e-6)
    assert found.bits_per_byte == pytest.approx(4 * math.log2(50257) / 11, rel=1e-6)


def test_bits_per_byte_count_only_the_bytes_of_predicted_tokens() -> None:
    # Chunks of three tokens; the first token of each is only input. "😀" is two tokens of 3 bytes and 1 byte.
    emoji, dog = load_tokenizer().encode("😀"), load_tokenizer().encode(" dog")
    assert (len(emoji), len(dog)) == (2, 1)
    found = validated([*emoji, *dog, *dog, *dog, *emoji], context_length=2)
    # Predicted: end of 😀 (1 byte), dog (4); dog (4), beginning of 😀 (3). The seventh token does not fill a chunk.
    assert found.bits_per_byte == pytest.approx(4 * math.log2(50257) / 12, rel=1e-6)


def test_a_text_without_bytes_has_no_bits_per_byte() -> None:
    found = validated([gpt2_vocabulary().end_of_text_id] * 4, context_length=3)
    assert found.bits_per_byte is None and "Bits per Byte/Validation" not in found.metrics()
