"""The accelerator's engine writes the texts of the CPU's engine; without an accelerator its steps run on the CPU."""

from __future__ import annotations

import copy

import pytest
import tiktoken
import torch

from common.generation import DecodingEngine, DecodingModel, DeviceEngine, GenerationSettings
from tests.gpu.engines import SETTINGS, on, texts
from tests.unit.common.generation.conftest import reacting_policy, tiny_model, tokenizer
from tests.unit.common.generation.cuda.batches import write

__all__ = ["tokenizer"]
"""A fixture."""


@pytest.mark.parametrize("gates_trained", [False, True])
def test_float32_texts_are_those_of_the_cpu(
    device: torch.device, tokenizer: tiktoken.Encoding, gates_trained: bool
) -> None:
    made = tiny_model(gates_trained=gates_trained)
    policy = reacting_policy()
    settings = [*SETTINGS, GenerationSettings(max_tokens=30, gating_mode="learned", policy=policy)]
    plain = texts(DecodingEngine(DecodingModel(made)), tokenizer, settings)
    there = copy.deepcopy(policy).to(device)
    settings[-1] = GenerationSettings(max_tokens=30, gating_mode="learned", policy=there)
    engine = DeviceEngine(on(device, made), slots=8)
    captured = texts(engine, tokenizer, settings)
    assert (engine.captured > 0) == (device.type == "cuda")
    for mine, other in zip(captured, plain, strict=True):
        assert mine.result.token_ids == other.result.token_ids
        for a, b in zip(mine.result.trajectory, other.result.trajectory, strict=True):
            assert a.log_prob == pytest.approx(b.log_prob, abs=1e-3)
            assert a.entropy == pytest.approx(b.entropy, abs=1e-3)


def test_rows_that_come_go_and_move_are_the_same_as_on_the_cpu(
    device: torch.device, tokenizer: tiktoken.Encoding
) -> None:
    made = tiny_model(end_of_text_bias=9.0)
    settings = SETTINGS[:4]
    plain = write(DecodingEngine(DecodingModel(made)), tokenizer, 5, joins=20, kinds=settings)
    there = write(DeviceEngine(on(device, made)), tokenizer, 5, joins=20, kinds=settings)
    for mine, other in zip(there, plain, strict=True):
        assert mine.result.token_ids == other.result.token_ids
        assert mine.result.truncated == other.result.truncated
