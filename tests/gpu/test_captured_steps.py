"""The engine on a GPU: steps captured as CUDA graphs give the same numbers as other steps.

Launching steps does not wait for the device, and memory does not grow.
"""

from __future__ import annotations

import pytest
import tiktoken
import torch

from common.generation import DeviceEngine, new_engine
from common.generation.cuda.batch import StaticBatch
from tests.gpu.engines import SETTINGS, on, texts
from tests.unit.common.generation.conftest import tiny_model, tokenizer
from tests.unit.common.generation.cuda.batches import batch_of

__all__ = ["tokenizer"]
"""`tokenizer` is a fixture. It is listed because linters would otherwise report its import as unused."""


def test_the_accelerators_engine_is_chosen(device: torch.device) -> None:
    assert isinstance(new_engine(on(device, tiny_model())), DeviceEngine)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_replayed_steps_give_the_numbers_of_launched_ones(device: torch.device, precision: str) -> None:
    model = on(device, tiny_model(gates_trained=True), precision)
    batches: list[StaticBatch] = [batch_of(model, SETTINGS, graphs=graphs) for graphs in (True, False)]
    for _ in range(20):
        for batch in batches:
            batch.launch()
        captured, launched = (batch.collect_oldest() for batch in batches)
        assert torch.equal(captured.numbers, launched.numbers)
    assert batches[0].steps.captured > 0
    assert batches[1].steps.captured == 0


def test_a_launch_does_not_wait_for_the_device(device: torch.device) -> None:
    model = on(device, tiny_model(context_length=256))
    batch = batch_of(model, SETTINGS)
    for _ in range(2):
        batch.launch()
        batch.collect_oldest()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            batch.launch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(batch.in_flight) == 3
    assert torch.isfinite(batch.collect_oldest().numbers[: len(SETTINGS)]).all()


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
