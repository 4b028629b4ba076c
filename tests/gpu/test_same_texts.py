"""The engine for accelerators generates the same completions as the engine for the CPU.

On a machine without an accelerator, both engines run on the CPU.
"""

from __future__ import annotations

import copy

import pytest
import tiktoken
import torch

from common.generation import DecodingEngine, DecodingModel, DeviceEngine, GenerationSettings
from tests.gpu.engines import SETTINGS, on, texts
from tests.unit.common.generation.conftest import reacting_policy, tiny_model, tokenizer
from tests.unit.common.generation.cuda.batches import generate_texts

__all__ = ["tokenizer"]
"""`tokenizer` is a fixture. It is listed because linters would otherwise report its import as unused."""


@pytest.mark.parametrize("gates_trained", [False, True])
def test_float32_texts_are_those_of_the_cpu(
    device: torch.device, tokenizer: tiktoken.Encoding, gates_trained: bool
) -> None:
    model = tiny_model(gates_trained=gates_trained)
    policy = reacting_policy()
    settings = [*SETTINGS, GenerationSettings(max_tokens=30, gating_mode="learned", policy=policy)]
    on_cpu = texts(DecodingEngine(DecodingModel(model)), tokenizer, settings)
    policy_on_device = copy.deepcopy(policy).to(device)
    settings[-1] = GenerationSettings(max_tokens=30, gating_mode="learned", policy=policy_on_device)
    engine = DeviceEngine(on(device, model), slots=8)
    on_device = texts(engine, tokenizer, settings)
    assert (engine.captured > 0) == (device.type == "cuda")
    for actual, expected in zip(on_device, on_cpu, strict=True):
        assert actual.result.token_ids == expected.result.token_ids
        for a, b in zip(actual.result.trajectory, expected.result.trajectory, strict=True):
            assert a.log_prob == pytest.approx(b.log_prob, abs=1e-3)
            assert a.entropy == pytest.approx(b.entropy, abs=1e-3)


def test_texts_that_join_leave_and_move_within_the_batch_are_the_same_as_on_the_cpu(
    device: torch.device, tokenizer: tiktoken.Encoding
) -> None:
    model = tiny_model(end_of_text_bias=9.0)
    settings = SETTINGS[:4]
    on_cpu = generate_texts(DecodingEngine(DecodingModel(model)), tokenizer, 5, joins=20, kinds=settings)
    on_device = generate_texts(DeviceEngine(on(device, model)), tokenizer, 5, joins=20, kinds=settings)
    for actual, expected in zip(on_device, on_cpu, strict=True):
        assert actual.result.token_ids == expected.result.token_ids
        assert actual.result.truncated == expected.result.truncated
