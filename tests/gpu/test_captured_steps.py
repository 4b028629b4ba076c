"""The engine on a GPU: captured steps write what the plain engine writes on a CPU."""

from __future__ import annotations

import copy

import pytest
import tiktoken
import torch

from common.generation import Continuation, DecodingEngine, DecodingModel, DeviceEngine, GenerationSettings, new_engine
from common.generation.cuda.batch import StaticBatch
from common.model import TransformerLM
from tests.unit.common.generation.conftest import reacting_policy, tiny_model, tokenizer
from tests.unit.common.generation.cuda.batches import batch_of, write

__all__ = ["tokenizer"]
"""A fixture."""

SETTINGS = [
    GenerationSettings(max_tokens=30),
    GenerationSettings(max_tokens=30, top_k=None),
    GenerationSettings(max_tokens=30, top_k=None, top_p=0.7),
    GenerationSettings(max_tokens=30, gating_mode="random"),
    GenerationSettings(max_tokens=30, gating_mode="fixed", modulation=0.2),
    GenerationSettings(max_tokens=30, presence_penalty=0.7, logit_bias=((4, 2.0),)),
]


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


def on(device: torch.device, model: TransformerLM, precision: str = "float32") -> DecodingModel:
    return DecodingModel(copy.deepcopy(model).to(device), precision=precision)


def texts(
    engine: DecodingEngine | DeviceEngine, tokenizer: tiktoken.Encoding, settings: list[GenerationSettings]
) -> list[Continuation]:
    model = engine.model
    choices = [
        Continuation(
            [number + 1, 2, 3],
            its,
            vocab_size=model.config.vocab_size,
            gates_trained=model.gates_trained,
            tokenizer=tokenizer,
            seed=number,
        )
        for number, its in enumerate(settings)
    ]
    engine.join(choices)
    while engine.active:
        engine.step()
    return choices


def test_the_accelerators_engine_is_chosen(device: torch.device) -> None:
    assert isinstance(new_engine(on(device, tiny_model())), DeviceEngine)


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
    assert engine.captured > 0
    for mine, other in zip(captured, plain, strict=True):
        assert mine.result.token_ids == other.result.token_ids
        for a, b in zip(mine.result.trajectory, other.result.trajectory, strict=True):
            assert a.log_prob == pytest.approx(b.log_prob, abs=1e-3)
            assert a.entropy == pytest.approx(b.entropy, abs=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_replayed_steps_give_the_numbers_of_launched_ones(device: torch.device, precision: str) -> None:
    model = on(device, tiny_model(gates_trained=True), precision)
    batches: list[StaticBatch] = [batch_of(model, SETTINGS, graphs=graphs) for graphs in (True, False)]
    for _ in range(20):
        for batch in batches:
            batch.launch()
        mine, other = (batch.land() for batch in batches)
        assert torch.equal(mine.numbers, other.numbers)
    assert batches[0].steps.captured > 0
    assert batches[1].steps.captured == 0


def test_nothing_waits_for_the_device_between_a_launch_and_its_landing(device: torch.device) -> None:
    model = on(device, tiny_model(context_length=256))
    batch = batch_of(model, SETTINGS)
    for _ in range(2):
        batch.launch()
        batch.land()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            batch.launch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(batch.flights) == 3
    assert torch.isfinite(batch.land().numbers[: len(SETTINGS)]).all()


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


def test_memory_does_not_grow_with_the_texts_that_were_written(
    device: torch.device, tokenizer: tiktoken.Encoding
) -> None:
    engine = DeviceEngine(on(device, tiny_model()), slots=8)
    for _ in range(3):
        texts(engine, tokenizer, SETTINGS)
    held = torch.cuda.memory_allocated(device)
    for _ in range(10):
        texts(engine, tokenizer, SETTINGS)
    assert torch.cuda.memory_allocated(device) <= held
