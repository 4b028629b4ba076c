"""A packed model of any architecture gives the logits of the model, alone and in a batch, on every decoding path."""

from __future__ import annotations

from typing import Any

import pytest
import tiktoken
import torch

from common.generation import DecodingEngine, DecodingModel, DeviceEngine
from common.model import TransformerLM
from tests.unit.common.generation.conftest import tiny_model
from tests.unit.common.generation.cuda.batches import generate_texts
from tests.unit.common.model.architectures import ALONE, GATED, MODERN

torch.set_num_threads(1)
EVERY = [*ALONE, MODERN, GATED]


def model_of(options: dict[str, Any]) -> TransformerLM:
    """Return a model whose logits a soft cap changes, and whose gates, if any, react to modulation."""
    return tiny_model(context_length=40, gates_trained=options.get("gates", True), **options)


@pytest.mark.parametrize("precision", ["float32", "int8", "bfloat16"])
@pytest.mark.parametrize("options", EVERY, ids=str)
def test_packed_logits_are_those_of_the_model(options: dict[str, Any], precision: str) -> None:
    model = model_of(options)
    packed = DecodingModel(model, precision=precision)
    ids = torch.randint(257, (2, 9), generator=torch.Generator().manual_seed(1))
    m, gated = torch.tensor([0.3, 0.3]), torch.tensor([True, True])
    modulation = m[:, None] if model.config.gates else None
    together, alone = packed.new_cache(2), packed.new_cache()
    packed.prefill(ids[:, :4], [4, 4], together, 0)
    packed.prefill(ids[:1, :4], [4], alone, 0)
    cache = model.new_cache(2)
    model.prefill(ids[:, :4], cache)
    for t in range(4, 9):
        expected, state = model.decode_one_token(ids[:, t], cache, modulation)
        found, hidden = packed.decode(ids[:, t], together, packed.gate_scales(m, gated))
        single, _ = packed.decode(ids[:1, t], alone, packed.gate_scales(m[:1], gated[:1]))
        tolerance = 2e-5 if precision == "float32" else 0.5
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(hidden, state, atol=tolerance, rtol=0)
        torch.testing.assert_close(single[0], found[0], atol=0.0 if precision == "int8" else tolerance, rtol=0)
    assert packed.gates_trained == model.config.gates


@pytest.mark.parametrize("options", [MODERN, GATED], ids=str)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_results_in_a_batch_are_those_alone_to_the_last_bit(options: dict[str, Any], precision: str) -> None:
    """Prompts of different lengths are prefilled and decoded together and alone."""
    model = DecodingModel(tiny_model(context_length=300, d_model=96, **options), precision=precision)
    prompts = [[token % 256 for token in range(length)] for length in (7, 230, 1, 101)]
    lengths = [len(prompt) for prompt in prompts]
    padded = torch.tensor([[*prompt, *[0] * (230 - len(prompt))] for prompt in prompts])
    together, own = model.new_cache(4), [model.new_cache() for _ in prompts]
    logits, _ = model.prefill(padded, lengths, together, 0)
    exact = precision == "int8"
    for row, prompt in enumerate(prompts):
        [alone], _ = model.prefill(torch.tensor([prompt]), [len(prompt)], own[row], 0)
        assert torch.equal(alone, logits[row]) if exact else torch.allclose(alone, logits[row], atol=1e-4)
    for token in range(30):
        tokens = torch.arange(token, token + 4)
        logits, _ = model.decode(tokens, together, None)
        for row, cache in enumerate(own):
            [alone], _ = model.decode(tokens[row : row + 1], cache, None)
            assert torch.equal(alone, logits[row]) if exact else torch.allclose(alone, logits[row], atol=1e-4)


@pytest.mark.parametrize("options", [MODERN, GATED], ids=str)
def test_texts_of_the_engine_for_accelerators_are_those_of_the_cpu(
    tokenizer: tiktoken.Encoding, options: dict[str, Any]
) -> None:
    """The controllers among the settings steer a model without gates through the decoding parameters."""
    model = DecodingModel(model_of(options))
    plain = generate_texts(DecodingEngine(model), tokenizer, 2, joins=25)
    steps = generate_texts(DeviceEngine(model, ahead=4), tokenizer, 2, joins=25)
    for a, b in zip(steps, plain, strict=True):
        assert a.result.token_ids == b.result.token_ids
        assert a.result.effective.gates_fed == b.result.effective.gates_fed
    learned = [each for each in plain if each.settings.policy is not None]
    assert any(step.modulation for each in learned for step in each.result.trajectory)
    assert all(each.result.effective.gates_fed == model.config.gates for each in learned)
